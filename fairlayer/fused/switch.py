"""Whether compiled sweeps are used: when they are loaded, and what happens where they cannot be."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from typing import Any, NamedTuple

from fairlayer.errors import FairlayerWarning, ParameterError

__all__ = ["SWITCH", "Sweeps", "kernels", "loaded"]

SWITCH = "FAIRLAYER_FUSED"
"""The environment variable: 0 never loads compiled sweeps, 1 loads them at once; without it, work decides."""

_CALLS = 32  # calls, or rows, after which half a second for loading is worth it
_ROWS = 200_000


class Sweeps(NamedTuple):
    """The compiled sweeps, as modules."""

    two_groups: Any
    cells: Any


class _State:
    """What this process knows of its compiled sweeps."""

    def __init__(self) -> None:
        self.sweeps: Sweeps | None = None
        self.settled = False  # loaded, or known to be out of reach
        self.calls = 0
        self.rows = 0


_state = _State()


def loaded() -> Sweeps | None:
    """Return the compiled sweeps where they are loaded already."""
    return _state.sweeps


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
    if _state.settled:
        return _state.sweeps
    _state.calls += 1
    _state.rows += rows
    asked = _asked()
    if asked == "0" or (asked is None and _state.calls < _CALLS and _state.rows < _ROWS):
        return None
    _state.settled = True
    _state.sweeps = _load()
    return _state.sweeps


def _asked() -> str | None:
    asked = os.environ.get(SWITCH) or None
    if asked not in {None, "0", "1"}:
        raise ParameterError(
            f"{SWITCH} must be 0 (plain sweeps), 1 (compiled sweeps at once) or unset, but is {asked!r}."
        )
    return asked


def _load() -> Sweeps | None:
    """Import the compiled sweeps; a numba that is there and does not work is told of, and is done without."""
    if importlib.util.find_spec("numba") is None:
        return None
    try:
        sweeps = Sweeps(*(importlib.import_module(f"fairlayer.fused.{name}") for name in Sweeps._fields))
        sweeps.two_groups.check()
        return sweeps
    except Exception as error:
        warnings.warn(
            f"numba is installed, but its compiled code could not be loaded ({type(error).__name__}: {error}). The "
            f"plain sweeps serve instead: same results, slower. Set {SWITCH}=0 to be told no more.",
            FairlayerWarning,
            stacklevel=3,
        )
        return None
