"""Install the wheel of dist/ away from the checkout, and run there tests and examples that the sdist brings.

    python -m tools.outside [--reuse] [TEST ...]

With --reuse the new environment also sees the libraries of this interpreter, so that nothing is downloaded. Without it
the versions are those of constraints.txt, and `pip check` is run. Tests that are named take the place of the chosen
ones, and no example is run then. The whole suite runs in an unpacked sdist, by `make test` there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.compatibility import LEFT_OUT, NEEDED

ROOT = Path(__file__).resolve().parent.parent
TESTS = (
    *("tests/constraints", "tests/edge", "tests/geometry", "tests/core/test_errors.py", "tests/core/test_model.py"),
    *(f"--ignore={path}" for path in LEFT_OUT),
    *("-m", "not gpu and not slow and not rival"),
)
# These need torch and NumPy alone.
EXAMPLES = (
    "inside_a_module",
    "many_classes",
    "regression",
    "subclass",
    "without_layer",
    "decide_lending",
    "stream_durable",
)
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
        pip = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, str(wheel), *NEEDED], check=True)
        subprocess.run([str(python), "-m", "pip", "check"], check=True)
    return python


def unpack_without_package(sdist: Path, folder: Path) -> Path:
    """Unpack the sdist, its package left out, so that only the installed one can be imported."""
    with tarfile.open(sdist) as archive:
        members = [member for member in archive.getmembers() if member.name.split("/")[1:2] != ["fairlayer"]]
        archive.extractall(folder, members=members, filter="data")
    return only(folder, "fairlayer-*")


def outside_environment(**added: str) -> dict[str, str]:
    """Return the variables of this process without the paths that could lead back to the checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | added


def run_tests(python: Path, source: Path, tests: Sequence[str]) -> None:
    """Run tests of the sdist, with few generated examples.

    Raises:
        CalledProcessError: one failed.
    """
    fast = outside_environment(FAIRLAYER_HYPOTHESIS="fast")
    pytest = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    subprocess.run([*pytest, *tests], check=True, cwd=source, env=fast)


def run_examples(python: Path, source: Path, names: Sequence[str]) -> None:
    """Run examples of the sdist, each in a process of its own.

    Raises:
        CalledProcessError: one failed.
    """
    fast = outside_environment(FAIRLAYER_EXAMPLE_FAST="1")
    for name in names:
        command = [str(python), f"examples/{name}.py"]
        subprocess.run(command, check=True, cwd=source, env=fast, stdout=subprocess.DEVNULL)
        print(f"examples/{name}.py ran.")


def run_outside(dist: Path, tests: Sequence[str], *, reuse: bool, examples: Sequence[str] = ()) -> None:
    """Run tests and examples of the sdist against the installed wheel.

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
        run_tests(python, source, tests)
        run_examples(python, source, examples)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reuse", action="store_true")
    arguments, tests = parser.parse_known_args()  # what it does not know goes to pytest
    examples = () if tests else EXAMPLES
    run_outside(ROOT / "dist", tests or TESTS, reuse=arguments.reuse, examples=examples)
