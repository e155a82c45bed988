"""Set-up shared by all tests."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import hypothesis
import pytest

# One thread in each process, also in those that tests start: the workers share the cores, and OpenMP's threads spin
# while they wait for one another, which makes trees and small matrices several times dearer. This has to be said before
# the libraries are loaded, whose pools of threads it sizes.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import torch  # noqa: E402

# Where no bytecode is written, each process that a test starts compiles the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

ROOT = Path(__file__).resolve().parent.parent

# A busy machine makes a single example slow without making it wrong.
hypothesis.settings.register_profile(
    "fairlayer",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
COMMON = hypothesis.settings.get_profile("fairlayer")
hypothesis.settings.register_profile("full", parent=COMMON)
hypothesis.settings.register_profile("search", parent=COMMON, derandomize=False)
hypothesis.settings.register_profile("fast", parent=COMMON)
PROFILE = os.environ.get("FAIRLAYER_HYPOTHESIS", "fairlayer")
hypothesis.settings.load_profile(PROFILE)


def examples_of(stated: int) -> int:
    """Return how many examples a generated test runs that states a number: a third, and all in `make test-slow`."""
    return {"fast": min(stated, 2), "fairlayer": min(stated, max(20, stated // 3))}.get(PROFILE, stated)


def is_generated(item: pytest.Item) -> bool:
    """Whether the numbers of a test that is not slow are hypothesis's own."""
    test = getattr(item, "obj", None)
    return getattr(test, "_hypothesis_internal_use_settings", None) is not None and not item.get_closest_marker("slow")


def take_fewer_examples(items: list[pytest.Item]) -> None:
    """Lessen what each generated test states itself, once for all its parameters; what is slow keeps its number."""
    functions = [getattr(item.obj, "__func__", item.obj) for item in items if is_generated(item)]
    for test in dict.fromkeys(functions):
        own = test._hypothesis_internal_use_settings  # goes before the profile
        few = hypothesis.settings(parent=own, max_examples=examples_of(own.max_examples))
        test._hypothesis_internal_use_settings = few


if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    take_fewer_examples(items)
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_collection_finish() -> None:
    """Tell the garbage collector that what is loaded by now stays: libraries and thousands of tests."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _same_start() -> None:
    """Start every test from the same random numbers, whichever worker runs it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Return the folder of real data sets: FAIRLAYER_DATA, else the sibling ../shared/data, else skip."""
    named = os.environ.get("FAIRLAYER_DATA")
    if named:
        folder = Path(named)
        if not folder.is_dir():
            pytest.fail(f"FAIRLAYER_DATA names {named!r}, which is not a folder")
        return folder
    beside = ROOT.parent / "shared" / "data"
    if beside.is_dir():
        return beside
    pytest.skip("needs real data: set FAIRLAYER_DATA to a folder with adult.csv.gz and the like")


def pytest_runtest_teardown() -> None:
    """Turn the log handler of absl, which Keras imports, away from the stream that pytest captures.

    Whoever configures logging anew, as a server does, closes that handler, and it closes a stream which it took under
    capture; each later test would fail.
    """
    absl = sys.modules.get("absl.logging")
    if absl is not None:
        absl.get_absl_handler().python_handler.stream = sys.__stderr__
