"""One range on a device: the prices of its groups in a fixed number of steps, without a question to the host.

With means m_g(p), falling in the price p_g of each group, the level c of the range is where prices cancel,

    m_g(p_g) = clip(m_g(0), c, c + tolerance),     sum_g p_g = 0.

Each step measures all groups at their own prices. From mean and slope there the level follows in closed form (a
piecewise linear equation), and with it the next prices, which stay inside the bracket of what has been measured. As the
host is not asked, nobody can stop early: a batch that has settled stays as it is for the steps that are left.
`fairlayer.solve.ranges` is the same idea for many ranges on the host, with safer methods behind it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairlayer.geometry import Geometry
from fairlayer.passes.lanes import Lanes

__all__ = ["MOST_GROUPS", "STEPS", "DeviceBatch", "RangeFound", "adjoint", "solve_range"]

STEPS = 16
MOST_GROUPS = 512  # whose level is looked for in a table of groups times 2 groups
_INF = math.inf


class DeviceBatch(NamedTuple):
    """A batch on a device.

    Args:
        x: (n,) float64, in the coordinate of the geometry.
        codes: (n,) int64, the number of groups for a sample in none.
        lanes: where samples add up.
        size: samples of each group, 1 for a group without any, (groups,) float64.
        present: which groups have samples.
        lower: None or a number.
        upper: likewise.
        rule: how a sample answers a pull.
    """

    x: Tensor
    codes: Tensor
    lanes: Lanes
    size: Tensor
    present: Tensor
    lower: float | None
    upper: float | None
    rule: Geometry

    @staticmethod
    def of(  # noqa: PLR0917 - a batch
        x: Tensor, codes: Tensor, groups: int, lower: float | None, upper: float | None, rule: Geometry
    ) -> DeviceBatch:
        """Count the groups of a batch."""
        lanes = Lanes.of(codes, groups)
        counts = lanes.sums(torch.ones_like(x))
        return DeviceBatch(x, codes, lanes, counts.clamp(min=1.0), counts > 0.0, lower, upper, rule)

    def step(self, price: Tensor) -> tuple[Any, Any]:
        """Return predictions at the prices of the groups, and which samples are free to move."""
        pull = torch.nn.functional.pad(price / self.size, (0, 1)).index_select(0, self.codes)
        return self.rule.step(self.x, pull, self.lower, self.upper)

    def means(self, value: Tensor) -> Tensor:
        """Return the mean of each group."""
        return self.lanes.sums(value) / self.size

    def slopes(self, value: Tensor, free: Any) -> Tensor:
        """Return by how much the mean of each group falls per unit of its price."""
        weight = self.rule.weigh(value, self.x, free, torch.ones_like(self.x))
        return self.lanes.sums(weight) / (self.size * self.size)

    def accuracy(self) -> Tensor:
        """Return how accurately a mean can be met, as `fairlayer.solve.accuracy` says it."""
        base = 1e-13 + 1e-15 * math.sqrt(self.x.numel())
        if self.lower is not None and self.upper is not None:
            return self.size.new_full((), base * max(1.0, abs(self.lower), abs(self.upper)))
        return base * self.x.abs().max().clamp(min=1.0)


class RangeFound(NamedTuple):
    """What was found.

    Args:
        value: predictions (n,), float64.
        price: the price of each group, above 0 where it is held at the upper end of the range.
        settled: whether the steps have reached the accuracy, 0-d.
        steps: after how many sweeps, 0-d float64.
    """

    value: Tensor
    price: Tensor
    settled: Tensor
    steps: Tensor


class _Measured(NamedTuple):
    price: Tensor
    mean: Tensor
    slope: Tensor


def solve_range(batch: DeviceBatch, tolerance: float) -> RangeFound:
    """Return the nearest predictions whose means differ by at most the tolerance."""
    atol = batch.accuracy()
    here = _measured(batch, torch.zeros_like(batch.size))
    most = torch.where(batch.present, here.mean, -_INF).max()
    least = torch.where(batch.present, here.mean, _INF).min()
    settled = most - least <= tolerance + atol
    steps = torch.ones_like(atol)
    seen = [here]
    for step in range(STEPS):
        slope = torch.where(here.slope > 0.0, here.slope, max(0.05 * 0.5**step, 1e-9) / batch.size)
        centre = here.mean + slope * here.price
        c = _level(centre, torch.where(batch.present, 1.0 / slope, 0.0), tolerance)
        price = (centre - torch.minimum(torch.maximum(centre, c), c + tolerance)) / slope
        target = torch.minimum(torch.maximum(seen[0].mean, c), c + tolerance)
        price = _limited(batch, _bracketed(price, here.price, target, atol, seen), here.price)
        price = torch.where(batch.present & settled.logical_not(), price, here.price)
        here = _measured(batch, price)
        seen.append(here)
        steps = steps + settled.logical_not().to(steps.dtype)
        settled = settled | _met(batch, here, c, tolerance, atol)
    return RangeFound(batch.step(here.price)[0], here.price, settled, steps)


def _measured(batch: DeviceBatch, price: Tensor) -> _Measured:
    value, free = batch.step(price)
    return _Measured(price, batch.means(value), batch.slopes(value, free))


def _level(centre: Tensor, weight: Tensor, tolerance: float) -> Tensor:
    """Return the level at which the prices of groups that answer in proportion cancel; weight 0 for an absent one.

    The force sum_g weight_g (centre_g - clip(centre_g, c, c + tolerance)) falls with c, linearly between its kinks,
    of which those on either side of its root are found.
    """
    counts = weight > 0.0
    ends = torch.cat([torch.where(counts, centre - tolerance, _INF), torch.where(counts, centre, _INF)])
    kinks = torch.where(torch.isfinite(ends), ends, ends.min()).unsqueeze(1)
    beyond = centre - torch.minimum(torch.maximum(centre, kinks), kinks + tolerance)
    force = (torch.where(counts, beyond, 0.0) * weight).sum(dim=1)
    left, at_left = torch.where(force >= 0.0, kinks.squeeze(1), -_INF).max(dim=0)
    right, at_right = torch.where(force <= 0.0, kinks.squeeze(1), _INF).min(dim=0)
    above, below = force.take(at_left), force.take(at_right)
    share = torch.where(above > below, above / (above - below), 0.5)
    return left + share * (right - left)


def _bracketed(price: Tensor, before: Tensor, target: Tensor, atol: Tensor, seen: list[_Measured]) -> Tensor:
    """Keep each price between those that were seen to be too small and too large for the group's target."""
    prices, means = torch.stack([each.price for each in seen]), torch.stack([each.mean for each in seen])
    least, at_least = torch.where(means > target + atol, prices, -_INF).max(dim=0)
    most, at_most = torch.where(means < target - atol, prices, _INF).min(dim=0)
    high, low = (means.gather(0, at.unsqueeze(0)).squeeze(0) for at in (at_least, at_most))
    share = ((high - target) / (high - low)).clamp(0.1, 0.9)
    step = torch.maximum((price - before).abs(), before.abs()).clamp(min=1e-300)
    open_end = torch.where(torch.isfinite(least), least + step, most - step)
    both = torch.isfinite(least) & torch.isfinite(most)
    inside = torch.where(both, least + share * (most - least), open_end)
    return torch.where((price <= least) | (price >= most), inside, price)


def _limited(batch: DeviceBatch, price: Tensor, before: Tensor) -> Tensor:
    """Let no pull change by more than the geometry allows at once."""
    if math.isinf(batch.rule.longest_step):
        return price
    most = batch.rule.longest_step * batch.size + before.abs()
    return before + torch.maximum(torch.minimum(price - before, most), -most)


def _met(batch: DeviceBatch, here: _Measured, c: Tensor, tolerance: float, atol: Tensor) -> Tensor:
    """Return whether each group is where its price says that it should be, and the prices cancel."""
    above, below = here.mean - (c + tolerance), c - here.mean
    off = torch.where(here.price > 0.0, above.abs(), torch.where(here.price < 0.0, below.abs(), above.maximum(below)))
    met = (torch.where(batch.present, off, 0.0) <= atol).all()
    return met & (here.price.sum().abs() <= 1e-12 * here.price.abs().sum())


def adjoint(batch: DeviceBatch, price: Tensor, upstream: Tensor, *, equal: bool) -> Tensor:
    """Return the gradient by x for an upstream v, (n,) float64; see `fairlayer.projection.derivative`.

        w_g = (s_g - d) / K_g over the groups that hold the range, d = sum s_g / K_g over sum 1 / K_g, s = B W v

    Args:
        batch: what was projected.
        price: the price of each group, at the solution.
        upstream: v.
        equal: whether the tolerance is 0, where every group holds the range.
    """
    value, free = batch.step(price)
    rule, x = batch.rule, batch.x
    held = batch.present if equal else batch.present & (price != 0.0)
    slope = batch.slopes(value, free)
    s = batch.means(rule.weigh(value, x, free, upstream))
    dead = held & (slope <= 0.0)  # nothing can move it: it holds the level
    inverse = torch.where(held & dead.logical_not(), 1.0 / torch.where(slope > 0.0, slope, 1.0), 0.0)
    weight = inverse.sum()
    stands = dead.any() | (weight <= 0.0)
    d = torch.where(stands, 0.0, (s * inverse).sum() / torch.where(weight > 0.0, weight, 1.0))
    w = (s - d) * inverse
    taken = torch.nn.functional.pad(w / batch.size, (0, 1)).index_select(0, batch.codes)
    gradient: Tensor = rule.follow(value, x, free, upstream - taken)
    return gradient
