"""The version of the package, read here and nowhere else, so that a source tree that is not installed has one."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
