"""Import this first in a process that is started many times: fairlayer.trail then loads without torch."""

from __future__ import annotations

import sys
import types
from pathlib import Path

if "fairlayer" not in sys.modules:
    package = types.ModuleType("fairlayer")
    package.__path__ = [str(Path(__file__).resolve().parents[2] / "fairlayer")]
    sys.modules["fairlayer"] = package
