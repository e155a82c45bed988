"""The command line as `python -m fairlayer`, for where the script `fairlayer` is not on the path."""

from __future__ import annotations

import sys

from fairlayer.cli import main

if __name__ == "__main__":
    sys.exit(main())
