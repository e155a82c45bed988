"""With the extra missing, broken, old, new, or without a place to write, the same predictions come out.

Each case is a process of its own. What is broken is put in its way by a module that Python runs at its start.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("numba", reason="compiled sweeps need numba, the extra 'fused'")

ROOT = Path(__file__).parents[2]
TOLD = "numba is installed, but its compiled code could not be loaded"

MISSING = """
import sys
sys.modules["numba"] = None
"""
RAISES_AT_IMPORT = """
import sys
from importlib.machinery import ModuleSpec
class Broken:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name == "numba" else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        raise RuntimeError("broken at import")
sys.meta_path.insert(0, Broken())
"""
RAISES_AT_COMPILE = """
import numba.core.dispatcher as dispatcher
from numba.core.errors import LoweringError
def compile(self, signature):
    raise LoweringError("broken at compile")
dispatcher.Dispatcher.compile = compile
"""
CANNOT_COMPILE_CELLS = """
import numba.core.dispatcher as dispatcher
was = dispatcher.Dispatcher.compile
def compile(self, signature):
    if self.py_func.__module__ == "fairlayer.fused.cells":
        raise RuntimeError("broken at cells")
    return was(self, signature)
dispatcher.Dispatcher.compile = compile
"""
OLD = """
import sys, types
numba = types.ModuleType("numba")
numba.__version__, numba.__path__, numba.__spec__ = "0.40.0", [], types.SimpleNamespace(name="numba")
numba.types, numba.njit = types.SimpleNamespace(), lambda function=None, **options: function
sys.modules["numba"] = numba
"""
NEW = """
import numba
was = numba.njit
def njit(*arguments, **options):
    if "error_model" in options:
        raise TypeError("an option that is no more")
    return was(*arguments, **options)
numba.njit = njit
"""
CACHE_IS_BROKEN = """
import numba.core.caching as caching
def load(self):
    raise EOFError("Ran out of input")
caching.IndexDataCacheFile._load_index = load
"""
DISK_IS_FULL = """
import numba.core.caching as caching
def save(self, *entry):
    raise OSError(28, "No space left on device")
caching.IndexDataCacheFile.save, caching.IndexDataCacheFile.load = save, lambda self, key: None
"""
NOWHERE_TO_WRITE = """
import numba.core.caching as caching
def ensure_cache_path(self):
    raise PermissionError("read-only")
caching._CacheLocator.ensure_cache_path = ensure_cache_path
"""


class Ran(NamedTuple):
    """What a process said, and the values that it computed."""

    loaded: bool
    seconds: float
    told: list[str]
    values: list[np.ndarray]


Runner = Callable[..., Ran]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    def ran(before: str = "", **environment: str) -> Ran:
        place = tmp_path_factory.mktemp("run")
        (place / "sitecustomize.py").write_text(before)
        path = os.pathsep.join([str(place), str(ROOT), os.environ.get("PYTHONPATH", "")])
        settings = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
        program = [sys.executable, "-m", "tests.projection.law_values", str(place / "values.npz")]
        done = subprocess.run(program, env=settings, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        with np.load(place / "values.npz") as kept:
            values = [kept[name] for name in kept.files]
        told = [each for each in said["told"] if "numba" in each]
        return Ran(said["loaded"], said["seconds"], told, values)

    return ran


@pytest.fixture(scope="module")
def plain(run: Runner) -> Ran:
    found = run(FAIRLAYER_FUSED="0")
    assert not found.loaded
    assert found.told == []
    assert len(found.values) > 100
    return found


def assert_same(found: Ran, plain: Ran) -> None:
    """Values lie within (0, 1), or are of order 1; a gradient of hundreds rounds in its own size."""
    furthest = [
        float(np.abs(a - b).max() / max(1.0, np.abs(b).max())) for a, b in zip(found.values, plain.values, strict=True)
    ]
    assert max(furthest) <= 1e-12


def test_compiled_sweeps_give_the_same(run: Runner, plain: Ran) -> None:
    run(FAIRLAYER_FUSED="1")  # which fills the cache
    warm = min((run(FAIRLAYER_FUSED="1") for _ in range(2)), key=lambda each: each.seconds)
    assert warm.loaded
    assert warm.told == []
    assert any(not np.array_equal(a, b) for a, b in zip(warm.values, plain.values, strict=True)), "nothing was compiled"
    assert_same(warm, plain)
    assert warm.seconds <= 1.0  # of processor time, numba's own start included


BROKEN = {
    "raises at import": RAISES_AT_IMPORT,
    "raises at compile": RAISES_AT_COMPILE,
    "cannot compile cells": CANNOT_COMPILE_CELLS,
    "old": OLD,
    "new": NEW,
    "cache is broken": CACHE_IS_BROKEN,
    "disk is full": DISK_IS_FULL,
}


@pytest.mark.parametrize("before", BROKEN.values(), ids=BROKEN)
def test_a_numba_that_is_broken_is_told_of_once_and_done_without(before: str, run: Runner, plain: Ran) -> None:
    found = run(before, FAIRLAYER_FUSED="1")
    assert not found.loaded
    assert len(found.told) == 1
    assert found.told[0].startswith(TOLD)
    assert_same(found, plain)


def test_a_numba_that_is_missing_is_no_matter(run: Runner, plain: Ran) -> None:
    found = run(MISSING, FAIRLAYER_FUSED="1")
    assert not found.loaded
    assert found.told == []
    assert_same(found, plain)


@pytest.mark.slow
@pytest.mark.parametrize("before", ["", NOWHERE_TO_WRITE], ids=["another folder", "nowhere"])
def test_without_a_cache_all_is_compiled_in_memory(before: str, run: Runner, plain: Ran, tmp_path: Path) -> None:
    found = run(before, FAIRLAYER_FUSED="1", **({} if before else {"NUMBA_CACHE_DIR": str(tmp_path / "empty")}))
    assert found.loaded
    assert found.told == []
    assert_same(found, plain)


def test_a_folder_that_cannot_be_is_passed_over(run: Runner, plain: Ran) -> None:
    found = run(FAIRLAYER_FUSED="1", NUMBA_CACHE_DIR="/dev/null/cache")
    assert found.loaded
    assert_same(found, plain)


def test_importing_loads_neither_numba_nor_dynamo() -> None:
    script = "import sys, fairlayer; print(sorted({n.split('.')[0] for n in sys.modules} & {'numba', 'llvmlite'}), "
    script += "'torch._dynamo' in sys.modules)"
    settings = {**os.environ, "FAIRLAYER_FUSED": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=settings, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] False"


def test_code_that_calls_a_changed_file_is_compiled_anew(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "fairlayer", tmp_path / "fairlayer", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "fairlayer" / "fused"
    outer = "from fairlayer.fused.inner import inner\n\n\n@compiled\ndef outer(x):\n    return 10 * inner(x)\n"
    (folder / "outer.py").write_text("from fairlayer.fused.compiling import compiled\n" + outer)
    settings = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for added in (1, 1, 2):
        inner = f"@compiled\ndef inner(x):\n    return x + {added}\n"
        (folder / "inner.py").write_text("from fairlayer.fused.compiling import compiled\n\n\n" + inner)
        program = "from fairlayer.fused.outer import outer; print(outer(1), sum(outer.stats.cache_hits.values()))"
        done = subprocess.run(
            [sys.executable, "-c", program], env=settings, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.stdout.split()[:1] == [str(10 + 10 * added)], done.stderr


def test_a_torch_without_its_private_names_serves(run: Runner, plain: Ran) -> None:
    without = """
import torch
del torch._C._autograd._top_saved_tensors_default_hooks
before = torch.autograd.function.FunctionMeta.__init__
def without(cls, *arguments):
    before(cls, *arguments)
    if cls.__name__ == "_LeanProjection":
        cls._backward_cls = None
torch.autograd.function.FunctionMeta.__init__ = without
"""
    assert_same(run(without, FAIRLAYER_FUSED="1"), plain)
