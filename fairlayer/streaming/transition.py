"""A changed limit on a live stream: how much room is left of the way from what was held before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fairlayer.constraints import Constraint
from fairlayer.constraints.probe import probed_limit

__all__ = ["Event", "Transition", "limits_of"]

_UPPER, _LOWER = ("tolerance", "cap"), ("floor",)


class Event(NamedTuple):
    """Something that happened to a stream.

    Args:
        samples: predictions emitted before it.
        at: the caller's clock; None where none was given.
        kind: "limits changed", "category added", "sudden change", "labels lost", "synchronised" or "merged".
        text: what it was, in words.

    Example:
        >>> import torch, fairlayer as fl
        >>> stream = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.1)], bounds=(0.0, 1.0))
        >>> _ = stream.emit(torch.tensor([0.2, 0.8]), {"sex": ["F", "M"]})
        >>> stream.change_constraints([fl.DemographicParity("sex", tolerance=0.05)])
        >>> [(event.samples, event.kind) for event in stream.events]
        [(2.0, 'limits changed')]
    """

    samples: float
    at: float | None
    kind: str
    text: str


class Transition(NamedTuple):
    """The room that each changed constraint still has, shrinking linearly to nothing.

    Args:
        extra: for each constraint, by how much its limit was wider before, in prediction units (below 0: narrower);
            NaN where nothing was held before.
        start: samples emitted when it began.
        over: samples that it takes.
    """

    extra: Mapping[str, float]
    start: float
    over: float

    def left(self, samples: float) -> float:
        """Return the share of the way that is left, from 1 to 0."""
        return max(0.0, 1.0 - (samples - self.start) / self.over) if self.over > 0 else 0.0

    def room(self, name: str, samples: float, excess: float) -> float:
        """Return the room of a constraint whose raw excess now is `excess`: no more than what raw scores need."""
        extra = self.extra.get(name, 0.0)
        return self.left(samples) * min(math.inf if math.isnan(extra) else extra, max(excess, 0.0))

    def largest(self, samples: float) -> float:
        """Return the largest room among all constraints, 0 where a constraint was not held before."""
        known = [extra for extra in self.extra.values() if not math.isnan(extra)]
        return self.left(samples) * max([*known, 0.0])


def limits_of(constraints: Sequence[Constraint]) -> dict[str, list[Any]]:
    """Return name -> [text, limit in the direction in which more is wider, or None] of each constraint."""
    found: dict[str, list[Any]] = {}
    for constraint in constraints:
        limit, sign = constraint.limit, _direction(constraint)
        found[constraint.name] = [repr(constraint), None if limit is None or sign is None else sign * limit]
    return found


def _direction(constraint: Constraint) -> float | None:
    """Return 1 where a larger limit is wider, -1 where a smaller one is; None for a ratio and for limits of rows."""
    if constraint.limit_argument in _UPPER:
        return 1.0
    if constraint.limit_argument in _LOWER:
        return -1.0
    found = probed_limit(constraint)  # an argument of a user's own name
    if found is None or found.is_ratio:
        return None
    return -1.0 if found.at_least else 1.0


def changed_limits(before: Mapping[str, Sequence[Any]], constraints: Sequence[Constraint]) -> dict[str, float]:
    """Return by how much each constraint that is new, or whose text has changed, was wider before."""
    extra = {}
    for name, (text, limit) in limits_of(constraints).items():
        old_text, old = before.get(name, (None, None))
        if text != old_text:
            extra[name] = math.nan if old is None or limit is None else float(old) - limit
    return extra
