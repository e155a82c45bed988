"""Whether compiled sweeps are used: when they are loaded, and what happens where they cannot be."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from typing import Any, NamedTuple

from fairlayer.errors import FairlayerWarning, ParameterError

__all__ = ["SWITCH", "StreamSweeps", "Sweeps", "kernels", "loaded", "stream_kernels", "stream_loaded", "stream_refused"]

SWITCH = "FAIRLAYER_FUSED"
"""The environment variable: 0 never loads compiled sweeps, 1 loads them at once; without it, work decides."""

_CALLS = 32  # calls, or rows, after which half a second for loading is worth it
_ROWS = 200_000


class Sweeps(NamedTuple):
    """The compiled sweeps over batches, as modules."""

    two_groups: Any
    cells: Any


class StreamSweeps(NamedTuple):
    """The compiled steps of streams, as modules."""

    stream_steps: Any
    stream_call: Any
    stream_points: Any
    stream_solve: Any
    stream_counts: Any


class _Library:
    """What this process knows of modules that are loaded together, once there was work for them."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.modules: Any = None
        self.settled = False  # loaded, or known to be out of reach
        self.calls = 0
        self.rows = 0

    def get(self, rows: int) -> Any:
        """Return the modules, loading them where there was enough work; None where the plain way serves."""
        if self.settled:
            return self.modules
        self.calls += 1
        self.rows += rows
        asked = _asked()
        if asked == "0" or (asked is None and self.calls < _CALLS and self.rows < _ROWS):
            return None
        self.settled = True
        self.modules = _load(self.kind)
        return self.modules


_batches, _streams = _Library(Sweeps), _Library(StreamSweeps)


def loaded() -> Sweeps | None:
    """Return the compiled sweeps over batches where they are loaded already."""
    found: Sweeps | None = _batches.modules
    return found


def kernels(rows: int) -> Sweeps | None:
    """Return the compiled sweeps, loading them once there was enough work; None where the plain way serves.

    Args:
        rows: how many rows the caller is about to sweep.

    Example:
        >>> import os; os.environ["FAIRLAYER_FUSED"] = "0"
        >>> kernels(1_000_000) is None or loaded() is not None
        True
        >>> _ = os.environ.pop("FAIRLAYER_FUSED")
    """
    found: Sweeps | None = _batches.get(rows)
    return found


def stream_kernels(rows: int) -> StreamSweeps | None:
    """Return the compiled steps of streams, as `kernels` does; a service asks for them with many rows, at its start."""
    found: StreamSweeps | None = _streams.get(rows)
    return found


def stream_loaded() -> StreamSweeps | None:
    """Return the compiled steps of streams where they are loaded already."""
    found: StreamSweeps | None = _streams.modules
    return found


def stream_refused() -> bool:
    """Return whether compiled steps of streams are not loaded, and the environment forbids to load them."""
    return _streams.modules is None and _asked() == "0"


def _asked() -> str | None:
    asked = os.environ.get(SWITCH) or None
    if asked not in {None, "0", "1"}:
        raise ParameterError(
            f"{SWITCH} must be 0 (plain sweeps), 1 (compiled sweeps at once) or unset, but is {asked!r}."
        )
    return asked


def _load(kind: Any) -> Any:
    """Import compiled modules; a numba that is there and does not work is told of, and is done without."""
    if importlib.util.find_spec("numba") is None:
        return None
    try:
        modules = kind(*(importlib.import_module(f"fairlayer.fused.{name}") for name in kind._fields))
        for module in modules:
            if hasattr(module, "check"):
                module.check()
        return modules
    except Exception as error:
        warnings.warn(
            f"numba is installed, but its compiled code could not be loaded ({type(error).__name__}: {error}). The "
            f"plain sweeps serve instead: same results, slower. Set {SWITCH}=0 to be told no more.",
            FairlayerWarning,
            stacklevel=3,
        )
        return None
