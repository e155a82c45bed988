"""How sweeps are compiled: once per machine, kept on disk where that can be written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.extending import intrinsic

__all__ = ["compiled", "entry", "float32_at", "float64_at", "int64_at"]

# Sums may be reordered, so that they vectorise. NaN and infinities keep their meaning: they are how a sweep finds that
# a batch is not for it.
_FAST = {"reassoc", "nsz", "contract", "arcp"}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function of the module level; kept on disk, or in memory where no directory can be written."""
    options: dict[str, Any] = {"nogil": True, "boundscheck": False, "error_model": "numpy", "fastmath": _FAST}
    try:
        found = numba.njit(function, cache=True, **options)
    except RuntimeError:  # no locator for the cache: a read-only installation without a home
        return numba.njit(function, cache=False, **options)
    # numba asks whether the file of the function has changed; what it calls stands in other files of this folder.
    kept: Any = getattr(getattr(found, "_cache", None), "_cache_file", None)
    if hasattr(kept, "_source_stamp"):
        kept._source_stamp = (kept._source_stamp, _digest())
    return found


@lru_cache(maxsize=1)
def _digest() -> str:
    """Return a digest of all sources of this folder, without which code of an older one could be loaded."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


def entry(function: Any) -> Callable[..., Any]:
    """Return what a compiled function first ran for: arguments of those kinds only, at which nobody looks any more."""
    found: Callable[..., Any] = function.get_overload(function.signatures[0])
    return found


@intrinsic
def float32_at(typing_context: Any, address: Any) -> Any:
    """Return the address of float32 numbers as a pointer."""
    return types.CPointer(types.float32)(address), _as_pointer


@intrinsic
def float64_at(typing_context: Any, address: Any) -> Any:
    """Return the address of float64 numbers as a pointer."""
    return types.CPointer(types.float64)(address), _as_pointer


@intrinsic
def int64_at(typing_context: Any, address: Any) -> Any:
    """Return the address of int64 numbers as a pointer."""
    return types.CPointer(types.int64)(address), _as_pointer


def _as_pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))
