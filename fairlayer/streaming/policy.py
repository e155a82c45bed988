"""How a stream is held: values only.

Every policy shifts a sample by the feed-forward of its cell and then corrects for the history. They differ in how
hard the correction is, and how the tolerance is scheduled over the first samples. With N samples seen:

    slack(N) = allowance * (N^-1/2 - settle^-1/2)+        room above the tolerance that vanishes at `settle` samples
    inset(N) = aim * N^-1/2                               room below it that the feed-forward keeps
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

from fairlayer.errors import ConstraintDefinitionError

__all__ = ["Anytime", "PerBatch", "Policy", "Tracking", "as_half_life", "as_policy"]


@dataclass(frozen=True)
class Anytime:
    """Hard: the pooled means meet every constraint, within tolerance + slack(N), after every sample where they can.

    Args:
        allowance: size of the slack of the first samples; 0 allows none.
        settle: number of samples after which the slack is zero.
        aim: how far inside the tolerance the feed-forward aims.

    Source: design of this package; keeping a cell at its running mean is always possible.

    Example:
        >>> Anytime(allowance=2.0).slack(100) > Anytime(allowance=2.0).slack(1000) == 0.0
        True
    """

    allowance: float = 0.0
    settle: int = 1000
    aim: float = 0.1

    def __post_init__(self) -> None:
        _check(self, at_least_zero=("allowance", "aim"), above_zero=("settle",))

    def slack(self, samples: float) -> float:
        """Return the room above the tolerance after so many samples."""
        return max(0.0, self.allowance * (_falling(samples) - _falling(self.settle)))

    def inset(self, samples: float) -> float:
        """Return the room below the tolerance that the feed-forward keeps."""
        return self.aim * _falling(samples)


@dataclass(frozen=True)
class Tracking:
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
    """

    rate: float = 0.05
    limit: float = 1.0
    implicit: bool = True
    allowance: float = 2.0
    settle: int = 1000
    aim: float = 0.07

    def __post_init__(self) -> None:
        _check(self, at_least_zero=("allowance", "aim", "limit"), above_zero=("settle", "rate"))

    def slack(self, samples: float) -> float:
        """Return the room above the tolerance (below it where negative) that the feedback leaves."""
        if samples >= self.settle:
            return float(-self.aim * samples**-0.5)
        return self._extra(samples) - self.inset(samples)

    def cap(self, samples: float) -> float:
        """Return the room above the tolerance at which the step turns hard; infinite where there is no band."""
        return self._extra(samples) if self.aim > 0 else math.inf

    def _extra(self, samples: float) -> float:
        return max(0.0, self.allowance * (_falling(samples) - _falling(self.settle)))

    def inset(self, samples: float) -> float:
        """Return the room below the tolerance that the feed-forward keeps."""
        return self.aim * _falling(samples)


@dataclass(frozen=True)
class PerBatch:
    """The published primal-dual, for reproduction: it bounds the average *per-batch* gap, not the pooled one.

        y = argmin |y - z|^2 + multiplier * n * gap(y),     multiplier += step / sqrt(t) * n * (gap(y) - tolerance)

    A batch with one group counts as gap 0, so at batch size 1 nothing is ever moved.

    Args:
        step: first step size (eta0).

    Source: the fairness_training package, version 0.1.0 (ICML 2026), online inference.
    """

    step: float = 1.0

    def __post_init__(self) -> None:
        _check(self, at_least_zero=("step",), above_zero=())


def _check(policy: object, *, at_least_zero: tuple[str, ...], above_zero: tuple[str, ...]) -> None:
    for name in at_least_zero + above_zero:
        value = getattr(policy, name)
        if not _is_finite(value) or value < 0 or (name in above_zero and value == 0):
            sign = "> 0" if name in above_zero else ">= 0"
            raise ConstraintDefinitionError(
                f"{type(policy).__name__} was given {name}={value!r}; it must be a finite number {sign}."
            )


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _falling(samples: float) -> float:
    return float(samples**-0.5) if samples > 1.0 else 1.0


Policy = Anytime | Tracking | PerBatch
_NAMES: dict[str, Policy] = {"anytime": Anytime(), "tracking": Tracking(), "per_batch": PerBatch()}


def as_policy(policy: Any) -> Policy:
    """Return a policy by its name, or as given.

    Raises:
        ConstraintDefinitionError: an unknown name, or no policy.
    """
    if isinstance(policy, Anytime | Tracking | PerBatch):
        return policy
    if isinstance(policy, str) and policy in _NAMES:
        return _NAMES[policy]
    raise ConstraintDefinitionError(
        f"policy must be one of {', '.join(map(repr, _NAMES))}, or an Anytime, Tracking or PerBatch object, "
        f"but is {policy!r}."
    )


def as_half_life(half_life: Any) -> float | None:
    """Return a half-life, as given.

    Raises:
        ConstraintDefinitionError: it is no number of samples.
    """
    if half_life is None or (_is_finite(half_life) and half_life >= 1):
        return None if half_life is None else float(half_life)
    raise ConstraintDefinitionError(f"half_life must be a number of samples >= 1, or None, but is {half_life!r}.")
