"""Install the wheel of dist/ away from the checkout, and run there tests that the sdist brings.

    python -m tools.outside [--reuse] [TEST ...]

With --reuse the new environment also sees the libraries of this interpreter, so that nothing is downloaded.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.compatibility import NEEDED

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("tests/constraints", "tests/geometry", "tests/core/test_errors.py", "tests/state/test_tensor_state.py")
WHERE = "import fairlayer; print(fairlayer.__file__)"


def only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        sys.exit(f"{folder} must hold one {pattern} and holds {len(found)}; `make dist` builds it.")
    return found[0]


def environment_with(wheel: Path, folder: Path, *, reuse: bool) -> Path:
    """Return the Python of a new environment that holds the wheel."""
    subprocess.run([sys.executable, "-m", "venv", *(["--without-pip"] if reuse else []), str(folder)], check=True)
    python = folder / "bin" / "python"
    if reuse:
        [site] = (folder / "lib").glob("python3*/site-packages")
        (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
        subprocess.run([*pip, "--force-reinstall", "--quiet", str(wheel)], check=True)
    else:
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, str(wheel), *NEEDED], check=True)
        subprocess.run([str(python), "-m", "pip", "check"], check=True)
    return python


def unpack_without_package(sdist: Path, folder: Path) -> Path:
    """Unpack the sdist, its package left out, so that only the installed one can be imported."""
    with tarfile.open(sdist) as archive:
        members = [member for member in archive.getmembers() if member.name.split("/")[1:2] != ["fairlayer"]]
        archive.extractall(folder, members=members, filter="data")
    return only(folder, "fairlayer-*")


def run_outside(dist: Path, tests: Sequence[str], *, reuse: bool) -> None:
    """Run tests of the sdist against the installed wheel.

    Raises:
        CalledProcessError: the installation or a test failed.
        SystemExit: the package that is imported is not the installed one.
    """
    with tempfile.TemporaryDirectory() as name:
        python = environment_with(only(dist, "*.whl"), Path(name, "environment"), reuse=reuse)
        source = unpack_without_package(only(dist, "*.tar.gz"), Path(name, "source"))
        found = subprocess.run([str(python), "-I", "-c", WHERE], check=True, capture_output=True, text=True, cwd=source)
        if not Path(found.stdout.strip()).resolve().is_relative_to(Path(name).resolve()):
            sys.exit(f"The package that is imported lies in {found.stdout.strip()}, not in the new environment.")
        command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        subprocess.run(command, check=True, cwd=source)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", default=TESTS)
    parser.add_argument("--reuse", action="store_true")
    arguments = parser.parse_args()
    run_outside(ROOT / "dist", arguments.tests, reuse=arguments.reuse)
