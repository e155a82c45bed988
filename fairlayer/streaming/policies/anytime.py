"""Hard steps: the pooled means hold after every sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fairlayer._typing import FloatArray, IntArray
from fairlayer.streaming.control.correction import hard_step
from fairlayer.streaming.policies.base import check_numbers, register_policy
from fairlayer.streaming.policies.pooled import Pooled, falling

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

__all__ = ["Anytime"]


@register_policy
@dataclass(frozen=True)
class Anytime(Pooled):
    """Hard: the pooled means meet every constraint, within tolerance + slack(N), after every sample where they can.

        slack(N) = allowance * (N^-1/2 - settle^-1/2)+        room above the tolerance that vanishes at `settle` samples
        inset(N) = aim * N^-1/2                               room below it that the feed-forward keeps

    Args:
        allowance: size of the slack of the first samples; 0 allows none.
        settle: number of samples after which the slack is zero.
        aim: how far inside the tolerance the feed-forward aims.

    Source: the design of this package; keeping a cell at its running mean is always possible.

    Example:
        >>> Anytime(allowance=2.0).slack(100) > Anytime(allowance=2.0).slack(1000) == 0.0
        True
    """

    name: ClassVar[str] = "anytime"

    allowance: float = 0.0
    settle: int = 1000
    aim: float = 0.1

    def __post_init__(self) -> None:
        check_numbers(self, at_least_zero=("allowance", "aim"), above_zero=("settle",))

    @property
    def label_rate(self) -> float:
        """A rate of its own, as hard steps have none."""
        return 0.1

    def slack(self, samples: float) -> float:
        """Return the room above the tolerance after so many samples."""
        return max(0.0, self.allowance * (falling(samples) - falling(self.settle)))

    def inset(self, samples: float) -> float:
        """Return the room below the tolerance that the feed-forward keeps."""
        return self.aim * falling(samples)

    def correct(self, stream: Machine, cells: IntArray, target: FloatArray, slack: float) -> tuple[FloatArray, float]:
        """Return the core's projection, with the past folded in."""
        return hard_step(stream.frame, cells, target, slack)
