"""Run the core's own tests on several versions of Python, torch and NumPy, and write what passed into the docs.

    python -m tools.compatibility 3.11=2.6.0 3.12 3.13    # Python, or Python=torch; else the newest torch
    python -m tools.compatibility --write                 # only write the page again

Each combination gets a virtual environment of its own with torch, NumPy, and the libraries that the tests compare
with and read from, and nothing else. A Python is taken from the path (`python3.12`) or from pyenv. The results are
kept in tools/compatibility.json; a combination that is run again replaces its older result.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "tools" / "compatibility.json"
PAGE = ROOT / "docs" / "compatibility.md"
TESTS = (
    "tests/constraints",
    "tests/core/test_errors.py",
    "tests/core/test_model.py",
    "tests/edge",
    "tests/geometry",
    "tests/projection",
    "tests/solve",
    "tests/state",
    "tests/distillation",
    "tests/streaming/test_state.py",
)
# These go through the entrances of optional libraries, which the environments do not have.
LEFT_OUT = (
    "tests/edge/test_arguments.py",
    "tests/edge/test_columns.py",
    "tests/edge/test_columns_files.py",
    "tests/edge/test_columns_trained.py",
    "tests/edge/test_keywords.py",
    "tests/edge/test_loaders.py",
    "tests/state/test_metrics.py",
)
# Libraries that the tests compare with or read from.
NEEDED = (
    *("numpy", "clarabel", "cvxpy", "pandas", "polars", "pyarrow", "scikit-learn"),
    *("hypothesis", "numba", "pytest", "pytest-xdist"),
)
VERSIONS = (
    "import json, platform, numpy, torch; "
    "print(json.dumps([platform.python_version(), torch.__version__, numpy.__version__]))"
)
BEFORE_TABLE = "<!-- The table is written by tools/compatibility.py; edit it there. -->\n"


@dataclass(frozen=True)
class Run:
    """What one combination of versions gave."""

    python: str
    torch: str
    numpy: str
    system: str
    date: str
    passed: int
    failed: tuple[str, ...]
    skipped: int

    @property
    def key(self) -> tuple[str, str]:
        """The combination, by which a newer run replaces an older one."""
        return minor(self.python), minor(self.torch)


def minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def find_python(version: str) -> str:
    named = shutil.which(f"python{version}")
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if pyenv:
        return str(pyenv[-1])
    if named is None:
        sys.exit(f"There is no python{version} on the path, nor under ~/.pyenv/versions.")
    return named


def run_combination(python: str, torch: str | None, environment: Path, workers: int) -> Run:
    subprocess.run([find_python(python), "-m", "venv", str(environment)], check=True)
    inside = str(environment / "bin" / "python")
    wanted = f"torch=={torch}" if torch else "torch"
    subprocess.run([inside, "-m", "pip", "install", "--quiet", wanted, *NEEDED], check=True)
    subprocess.run([inside, "-m", "pip", "install", "--quiet", "--no-deps", str(ROOT)], check=True)
    return run_tests(inside, workers)


def run_tests(python: str, workers: int) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.xml"
        command = [python, "-m", "pytest", *TESTS, "-q", "-n", str(workers), f"--junitxml={result}"]
        command += [f"--ignore={path}" for path in LEFT_OUT]
        command += ["-p", "no:cacheprovider", "-m", "not gpu and not slow and not rival"]
        environment = {**os.environ, "FAIRLAYER_HYPOTHESIS": "fast", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=ROOT, env=environment, check=False)
        cases = list(ElementTree.parse(result).getroot().iter("testcase"))
    found = subprocess.run([python, "-c", VERSIONS], check=True, capture_output=True, text=True)
    versions = json.loads(found.stdout)
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    return Run(
        *versions,
        system=f"{platform.system()} {platform.machine()}",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        passed=len(cases) - len(failed) - len(skipped),
        failed=tuple(f"{case.get('classname', '')}::{case.get('name', '')}" for case in failed),
        skipped=len(skipped),
    )


def read_kept() -> dict[tuple[str, str], Run]:
    rows = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else []
    runs = [Run(**{**row, "failed": tuple(row["failed"])}) for row in rows]
    return {run.key: run for run in runs}


def in_order(runs: dict[tuple[str, str], Run]) -> list[Run]:
    return sorted(runs.values(), key=lambda run: [[int(part) for part in version.split(".")] for version in run.key])


def keep(run: Run) -> None:
    runs = {**read_kept(), run.key: run}
    rows = [asdict(one) for one in in_order(runs)]
    KEPT.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def table(runs: dict[tuple[str, str], Run]) -> str:
    lines = [
        "| Python | torch | NumPy | passed | failed | skipped | system | date |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in in_order(runs):
        counts = f"{run.passed} | {len(run.failed)} | {run.skipped}"
        lines.append(f"| {run.python} | {run.torch} | {run.numpy} | {counts} | {run.system} | {run.date} |")
    return "\n".join(lines) + "\n"


def page(text: str, runs: dict[tuple[str, str], Run]) -> str:
    """Return the page with the table after its mark replaced."""
    before, mark, after = text.partition(BEFORE_TABLE)
    if not mark:
        sys.exit(f"{PAGE} has no line {BEFORE_TABLE.strip()!r}, after which the table belongs.")
    rest = after.lstrip("\n").partition("\n\n")[2]
    return before + mark + "\n" + table(runs) + "\n" + rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("combinations", nargs="*", help="PYTHON or PYTHON=TORCH, for example 3.11=2.6.0")
    parser.add_argument(
        "--with", dest="interpreter", help="run by this interpreter, whose libraries are in place already"
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="processes that share the tests; 0 for none of their own"
    )
    parser.add_argument("--write", action="store_true", help="only write the page from the kept results")
    arguments = parser.parse_args()
    if arguments.interpreter:
        keep(run_tests(arguments.interpreter, arguments.workers))
    for combination in arguments.combinations:
        python, _, torch = combination.partition("=")
        with tempfile.TemporaryDirectory() as folder:
            keep(run_combination(python, torch or None, Path(folder) / "environment", arguments.workers))
    runs = read_kept()
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), runs), encoding="utf-8")
    print(table(runs))
    if any(run.failed for run in runs.values()):
        sys.exit("Some combinations failed; their tests are named in tools/compatibility.json.")


if __name__ == "__main__":
    main()
