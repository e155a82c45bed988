"""Soft steps: feed-forward, and feedback on the pooled means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.streaming.control.correction import excess, feedback, hard_step, soft_step
from fairlayer.streaming.control.single import SpreadSums, clip
from fairlayer.streaming.policies.base import check_numbers, register_policy
from fairlayer.streaming.policies.pooled import Pooled, at_bounds, falling

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

__all__ = ["Tracking"]


@register_policy
@dataclass(frozen=True)
class Tracking(Pooled):
    """Soft up to the tolerance: feed-forward plus feedback inside a thin band below it, hard where the band ends.

    The band is `inset(N)` wide; beyond tolerance + slack the step is that of `Anytime`. With aim = 0 there is no band
    and no hard end: the pooled gap then exceeds the tolerance by O(1/N) at most. For two groups, scores in [0, 1] and
    allowance = aim = 0, after every sample of any sequence

        abs(gap) <= tolerance + ((1 + limit) / rate + 1) (1 / N0 + 1 / N1)

    and without the `+ 1` for the implicit update (docs/streaming.md has the proof).

    Args:
        rate: shift per unit of excess, per share of the group (eta).
        limit: largest feed-forward shift (U), in prediction units.
        implicit: use the excess after this sample (solved for) instead of the one before it.
        allowance: as for `Anytime`.
        settle: as for `Anytime`.
        aim: how far inside the tolerance feed-forward and feedback aim.

    Example:
        >>> import torch, fairlayer as fl
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> stream = fl.InferenceState([parity], bounds=(0.0, 1.0), policy=Tracking(settle=100))
        >>> for _ in range(500):
        ...     _ = stream.emit(torch.tensor([0.2, 0.8]), {"sex": ["F", "M"]})
        >>> [found] = stream.report().everything.values()
        >>> found.holds, found.limit
        (True, 0.1)
    """

    name: ClassVar[str] = "tracking"

    rate: float = 0.05
    limit: float = 1.0
    implicit: bool = True
    allowance: float = 2.0
    settle: int = 1000
    aim: float = 0.07

    def __post_init__(self) -> None:
        check_numbers(self, at_least_zero=("allowance", "aim", "limit"), above_zero=("settle", "rate"))

    @property
    def label_rate(self) -> float:
        """The same rate for labels."""
        return self.rate

    def slack(self, samples: float) -> float:
        """Return the room above the tolerance (below it where negative) that the feedback leaves."""
        if samples >= self.settle:
            return float(-self.aim * samples**-0.5)
        return self._extra(samples) - self.inset(samples)

    def cap(self, samples: float) -> float:
        """Return the room above the tolerance at which the step turns hard; infinite where there is no band."""
        return self._extra(samples) if self.aim > 0 else math.inf

    def inset(self, samples: float) -> float:
        """Return the room below the tolerance that the feed-forward keeps."""
        return self.aim * falling(samples)

    def correct(self, stream: Machine, cells: IntArray, target: FloatArray, slack: float) -> tuple[FloatArray, float]:
        """Return the soft step, and the hard one where it would leave the cap."""
        frame = stream.frame
        emitted = self._soft(stream, cells, target, slack)
        cap = self.cap(stream.samples + len(cells)) + stream.transition_room
        if excess(frame, cells, emitted) > cap + 1e-12:
            return hard_step(frame, cells, emitted, cap)
        stuck = at_bounds(emitted, stream.bounds)
        return emitted, max(excess(frame, cells, emitted) - max(slack, 0.0), 0.0) if stuck else 0.0

    def correct_one(self, sums: SpreadSums, cell: int, target: float, end: float, cap: float) -> float | None:
        """Return the soft step of one sample in closed form, kept within the cap."""
        k = sums.stiffness(cell, self.rate) if self.implicit else None
        ends = None if k is None else sums.interval(cell, cap)
        if k is None or ends is None:
            return None
        return min(max((target + k * end) / (1.0 + k), ends[0]), ends[1])

    def limited(self, shifts: FloatArray) -> FloatArray:
        """Return shifts within the limit."""
        return np.clip(shifts, -self.limit, self.limit)

    def beyond(self) -> float:
        """Return the limit: a target further out could not be brought back by a shift."""
        return self.limit

    def _soft(self, stream: Machine, cells: IntArray, target: FloatArray, slack: float) -> FloatArray:
        if self.implicit:
            return soft_step(stream.frame, cells, target, slack, self.rate)
        return clip(target - feedback(stream.frame, self.rate, slack, labelled=False)[cells], stream.bounds)

    def _extra(self, samples: float) -> float:
        return max(0.0, self.allowance * (falling(samples) - falling(self.settle)))
