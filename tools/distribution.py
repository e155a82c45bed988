"""Build the sdist, and the wheel from that sdist, twice; keep them in dist/ if both builds gave the same bytes.

python -m tools.distribution [FOLDER]
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def build(source: Path, out: Path) -> dict[str, str]:
    """Build both files into a folder and return their hashes by name; `build` makes the wheel from the sdist."""
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(source)]
    if os.environ.get("FAIRLAYER_BUILD_OFFLINE"):
        command.insert(3, "--no-isolation")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}


def build_twice(source: Path, kept: Path) -> dict[str, str]:
    """Build twice and keep the files.

    Raises:
        SystemExit: the two builds differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "first"), Path(folder, "second")
        hashes = build(source, first)
        again = build(source, second)
        differing = sorted(name for name in hashes.keys() | again.keys() if hashes.get(name) != again.get(name))
        if differing:
            sys.exit(f"Two builds of the same sources differ in {', '.join(differing)}; nothing was kept.")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(first, kept)
    return hashes


if __name__ == "__main__":
    made = build_twice(ROOT, Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist")
    print("".join(f"{digest}  {name}\n" for name, digest in made.items()), end="")
