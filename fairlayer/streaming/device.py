"""The step of one parity between two groups on an accelerator: no value is read, so the host does not wait.

With N_g samples in group g after a call, pull_i = +-1 / N_g (the sign that narrows the gap) and the past folded in,

    y(x) = clip(target - x pull),     excess(x) = gap(y(x)) - width

the host's hard step is y(x) for the x >= 0 with excess(x) = 0, its soft step, whose statistics give way, that with
excess(x) = x / (rate N_0 N_1). Either side is linear between the 2 n points at which some sample reaches a bound. So
it is computed at all of them at once; the root lies between the last at which the excess is >= 0 and the first at
which it is not. One sample has the formulas of `single`.

A score that is not finite (or beyond 1e28), or a category that is not known, makes a NaN prediction and takes no other
part.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["LARGEST_CALL", "Call", "Rule", "emit"]

LARGEST_CALL = 512  # samples; the table of a call is 2 n by n
_OVERFLOW = 1e280  # so that scores beyond 1e28 are taken for infinite, and sums stay far from it
_FAR, _FARTHER = 1e60, 1e150  # beyond every multiplier, and beyond that


class Rule:
    """What holds for every call: bounds, and for a soft step its rate and limit; and constants on the device."""

    def __init__(
        self,
        device: torch.device,
        bounds: tuple[float | None, float | None],
        rate: float | None = None,
        limit: float | None = None,
    ) -> None:
        self.bounds, self.rate, self.limit = bounds, rate, limit
        exact = partial(torch.tensor, dtype=torch.float64, device=device)
        self.ones = exact([1.0] * LARGEST_CALL)
        self.sign = exact([1.0, -1.0])
        self.ends = exact([bound for bound in bounds if bound is not None]).reshape(-1, 1)
        self.far = exact([0.0, _FAR])
        self.before, self.behind = exact([-inf, _FARTHER])

    def clip(self, values: Tensor, beyond: float | None = 0.0) -> Tensor:
        """Return the values within the bounds, or at most so far beyond (None for any distance)."""
        low, high = self.bounds
        if beyond is None or (low is None and high is None):
            return values
        return values.clamp(None if low is None else low - beyond, None if high is None else high + beyond)


class Call(NamedTuple):
    """What the host knows of one call: a gap up to `width` needs nothing; one above `cap` must not be (None: may)."""

    width: float
    cap: float | None


def emit(past: Tensor, shifts: Tensor, member: Tensor, raw: Tensor, *, rule: Rule, call: Call) -> tuple[Tensor, Tensor]:
    """Return predictions (n,), NaN where the input is bad, and the past after them.

    Args:
        past: (2, 2), counts and sums of what each group was given.
        shifts: (3,), the feed-forward of both groups, and 0.
        member: (3, n), whether a sample is of either group, or its category is missing.
        raw: (n,), scores in float64.
        rule: bounds and softness.
        call: room for the gap.
    """
    share = member.double()
    target = raw - shifts @ share
    huge = target * _OVERFLOW
    mark = (huge - huge) / share.sum(0)  # 0, or NaN
    pair = share.narrow(0, 0, 2) * (mark == 0.0)
    target = rule.clip(target.nan_to_num_(0.0, 0.0, 0.0), rule.limit)
    values = (_one if len(raw) == 1 else _many)(past, pair, target, rule, call)
    return values + mark, _after(past, pair, values, rule)


def _after(past: Tensor, pair: Tensor, values: Tensor, rule: Rule) -> Tensor:
    return torch.addmm(past, torch.stack((rule.ones.narrow(0, 0, len(values)), values)), pair.T)


def _one(past: Tensor, pair: Tensor, target: Tensor, rule: Rule, call: Call) -> Tensor:
    """One sample, in closed form; while the other group is absent the ends of its interval are NaN and hold nothing."""
    (own, others), (own_sum, others_sum) = past @ torch.cat((pair, pair.flip(0)), 1)
    count = own + 1.0
    middle = others_sum / others * count - own_sum
    values, width = target, call.cap
    if rule.rate is None:
        width = call.width
    else:
        end = _within(target, middle, count, call.width)
        values = torch.addcmul(end, target - end, count / count.add(others, alpha=rule.rate))
    return rule.clip(values if width is None else _within(values, middle, count, width))


def _within(values: Tensor, middle: Tensor, count: Tensor, width: float) -> Tensor:
    return values.fmax(middle.sub(count, alpha=width)).fmin(middle.add(count, alpha=width))


def _many(past: Tensor, pair: Tensor, target: Tensor, rule: Rule, call: Call) -> Tensor:
    counts, sums = _after(past, pair, rule.clip(target), rule)
    inverse = rule.sign / counts.clamp(min=1.0)
    inverse = inverse * (sums.dot(inverse) * counts.amin()).sign()  # 0 while a group is absent
    _, past_sums = past
    path = _Path(inverse @ pair, past_sums.dot(inverse), rule)
    if rule.rate is None:
        return path.descend(target, call.width)
    values = path.descend(target, call.width, inverse.prod() / rule.rate)
    return values if call.cap is None else path.descend(values, call.cap)


class _Path:
    """Where the samples of a call go as the multiplier x grows.

    Args:
        pull: (n,), how far each goes per unit.
        base: (), the past's part of the gap.
        rule: bounds.
    """

    def __init__(self, pull: Tensor, base: Tensor, rule: Rule) -> None:
        self.pull, self.base, self.rule = pull, base, rule

    def descend(self, start: Tensor, width: float, slope: Tensor | None = None) -> Tensor:
        """Return the first point on the path with gap + slope x <= width; where there is none, its end."""
        reached = ((start - self.rule.ends) / self.pull).nan_to_num_(0.0, 0.0, 0.0).clamp_(min=0.0)
        x = torch.cat((reached.reshape(-1), self.rule.far))
        excess = torch.addmv(self.base - width, self._at(start, x.unsqueeze(1)), self.pull)
        if slope is not None:
            excess = torch.addcmul(excess, x, slope)
        # The last (x, -excess) with excess >= 0, and the first with excess < 0. None of the former ends in NaN: x = 0.
        over, points = excess >= 0.0, torch.stack((x, -excess))
        last = torch.where(over, points, self.rule.before).amax(1)
        across, down = torch.where(over, self.rule.behind, points).amin(1) - last
        x_last, minus_excess = last
        return self._at(start, torch.addcmul(x_last, minus_excess, across / down, value=-1.0).nan_to_num_(0.0))

    def _at(self, start: Tensor, x: Tensor) -> Tensor:
        return self.rule.clip(torch.addcmul(start, x, self.pull, value=-1.0))
