"""What is asked of a stream: checked once, trusted afterwards."""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass, replace
from typing import Any

from fairlayer._numbers import is_number
from fairlayer.constraints import Constraint
from fairlayer.edge import Stated, as_constraints
from fairlayer.errors import BackendError, ConstraintDefinitionError, ParameterError
from fairlayer.geometry import EUCLIDEAN, Geometry, geometry_of
from fairlayer.streaming.calls.entrance import read_bounds, streamable
from fairlayer.streaming.policies.base import Policy, as_policy

__all__ = ["Setting", "Window", "as_memory", "as_window"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Window:
    """How much of a stream a window covers.

    Args:
        length: the length, in samples, or in seconds of the caller's clock.
        clock: whether it is in seconds.
    """

    length: float
    clock: bool = False

    def __str__(self) -> str:
        return f"{self.length:g} {'seconds' if self.clock else 'samples'}"


@dataclass(frozen=True)
class Setting:
    """What is asked of a stream.

    Args:
        constraints: what must hold.
        bounds: the bounds of every prediction, numbers or None.
        policy: how.
        memory: samples that count as recent; None for all.
        geometry: which predictions count as near.
        from_logits: whether scores are log-odds, of which the raw prediction is the sigmoid.
        window: the window over which gaps are reported; None for no window.
        hold: "window" to hold the gap of the window too; None to report it only.
        transition: samples over which a changed limit is reached; None for as many as count as recent.
    """

    constraints: tuple[Constraint, ...]
    bounds: tuple[float | None, float | None]
    policy: Policy
    memory: float | None = None
    geometry: Geometry = EUCLIDEAN
    from_logits: bool = False
    window: Window | None = None
    hold: str | None = None
    transition: float | None = None

    def __post_init__(self) -> None:
        policy, geometries = self.policy, self.policy.geometries
        if self.geometry.on_simplex or (geometries is not None and self.geometry.name not in geometries):
            known = "geometries on a box" if geometries is None else f"the geometry {', '.join(map(repr, geometries))}"
            raise BackendError(
                f"the policy {policy.name!r} holds a stream in {known} only, but geometry={self.geometry.name!r} was "
                "asked. Use policy='present', or project whole batches without inference=True."
            )
        if self.hold not in (None, "window"):
            raise ParameterError(f'hold must be "window" or None, but is {self.hold!r}.')
        if self.hold == "window" and self.window is None:
            raise ParameterError('hold="window" was asked without a window. Give window=10_000, or window="30d".')
        if self.hold == "window" and not policy.holds_windows:
            raise ParameterError(
                f'hold="window" was asked, but the policy {policy.name!r} holds the gap of everything since the reset. '
                "Use policy='present', or leave hold out: windows are reported all the same."
            )
        if self.transition is not None and not (is_number(self.transition) and self.transition >= 0):
            raise ParameterError(f"transition must be a number of samples >= 0, but is {self.transition!r}.")
        if self.transition is not None:
            object.__setattr__(self, "transition", float(self.transition))
        if self.memory is None and policy.default_memory is not None:
            object.__setattr__(self, "memory", policy.default_memory)

    @classmethod
    def asked(
        cls,
        constraints: Stated,
        *,
        bounds: tuple[float | None, float | None] | None,
        policy: str | Policy,
        memory: Any,
        geometry: str | Geometry,
        from_logits: bool,
        window: Any,
        hold: str | None,
        transition: float | None,
    ) -> Setting:
        """Return what callers of `InferenceState` ask for, checked."""
        held, rule = streamable(as_constraints(constraints)), geometry_of(geometry)
        box = read_bounds(bounds, rule)
        if from_logits and not rule.takes_logits:
            raise ParameterError(
                f"geometry={rule.name!r} moves the scores themselves, so from_logits=True has no meaning there. Use "
                "geometry='entropic' (or 'likelihood'), or pass probabilities."
            )
        memory, window = as_memory(memory), as_window(window)
        return cls(held, box, as_policy(policy), memory, rule, from_logits, window, hold, transition)

    @property
    def features(self) -> tuple[str, ...]:
        """Sensitive features that the constraints read."""
        return tuple(dict.fromkeys(name for c in self.constraints for name in c.features))

    def with_constraints(self, constraints: tuple[Constraint, ...]) -> Setting:
        """Return the setting under other constraints."""
        return replace(self, constraints=constraints)


def as_memory(memory: Any) -> float | None:
    """Return a memory, as given.

    Raises:
        ConstraintDefinitionError: it is not a number of samples.
    """
    if memory is None or (is_number(memory) and memory >= 1):
        return None if memory is None else float(memory)
    raise ConstraintDefinitionError(f"memory must be a number of samples >= 1, or None, but is {memory!r}.")


def as_window(window: Any) -> Window | None:
    """Return a window: a number of samples, or a time as a `datetime.timedelta` or a text such as "12h" or "30d".

    Raises:
        ParameterError: it is none of these, or not above 0.

    Example:
        >>> as_window(10_000), as_window("30d")
        (Window(length=10000.0, clock=False), Window(length=2592000.0, clock=True))
    """
    found: Window | None = None
    if window is None or isinstance(window, Window):
        return window
    if isinstance(window, datetime.timedelta):
        found = Window(window.total_seconds(), clock=True)
    elif isinstance(window, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([smhd])?\s*", window)
        if match:
            found = Window(float(match[1]) * _UNITS.get(match[2] or "", 1.0), clock=match[2] is not None)
    elif is_number(window):
        found = Window(float(window))
    if found is None or not math.isfinite(found.length) or found.length < (1e-9 if found.clock else 10):
        raise ParameterError(
            f"window must be a number of samples (at least 10), a timedelta, or a text such as '90m', '12h' or '30d', "
            f"but is {window!r}."
        )
    return found
