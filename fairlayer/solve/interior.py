"""An interior-point method: how far apart the scores lie costs it nothing.

    minimise  sum_i w_i d(y_i, x_i)   subject to   limits(c) of M B y   and   bounds of y

with a level c per spread (see `table`). Every limit keeps a slack t > 0 and a price p > 0, with t p = mu for all of
them at once, also at the bounds of each sample. At a large mu every sample lies well inside, so that all of them say
where to go; a search along the dual sees only those that a pull happens to free. mu falls by a tenth in each step of
Newton's method, and about ten steps lead from log-odds of 1,000 to a place from which the exact method needs a few
sweeps. What a step asks of the batch is one sweep: with D = d'' + p/t of a sample and g what its own equation lacks,

    dy = (g - B' M' dp) / D,        M B D^-1 B' M' dp + ... = ...

Divergences change slowly beside such a barrier (|d'''| <= 3 d'' / distance to the bounds), so that Newton's method is
as quick as in a linear program. Sources: Nesterov, Nemirovskii (1994), "Interior-point polynomial algorithms in convex
programming", section 3.2; Wright (1997), "Primal-dual interior-point methods", chapter 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.errors import SolverError
from fairlayer.passes import NumpyPasses, Passes, Point
from fairlayer.passes.simplex import SimplexPasses
from fairlayer.solve.counted import CountedPasses
from fairlayer.solve.interior_step import RowEquations
from fairlayer.solve.newton import accurate_enough, descend
from fairlayer.solve.quadratic import ClashingFaces
from fairlayer.solve.sides import Side, first_levels, priced_solution
from fairlayer.solve.slabs import SlabSystem
from fairlayer.solve.solution import Solution
from fairlayer.solve.table import RowTable

__all__ = ["SWEEPS", "InteriorSearch", "polished", "roomy", "solve_interior"]

_MOST_STEPS = 60
SWEEPS = 3  # how often a step goes over the batch: for its equations, and for where they lead
_LEAST_FALL = 1e-3  # of mu in a step
_SLOWER = 1e-9  # mu from which numbers may cancel, so that steps lead nowhere
_STALLED = 0.3  # a share that says that they have cancelled
_SHORT = 0.99  # of the way to the first slack or price that would be used up
_ENDS = (1e-5, 1e-10, 1e-12, 1e-14)  # mu at which the exact method is tried
_MET = 1e-6  # what the limits may be missed by there
_ROOM = 0.1  # the slack of each limit at the start, of the width of the domain
_LEAST, _MOST = 1e-300, 1.0 - 2.0**-53  # predictions whose slope is a number
_POLISHING, _MOST_PASSES = 6, 10  # steps and sweeps of the exact method, unless it is near by then
_FINE = 10  # how many steps of a search from nothing its first one is worth
_FINE_OF_BLOCKS = 3  # the most of them where prices serve, which find hard what clipped rows hardly answer


def roomy(passes: Passes) -> bool:
    """Return whether the method serves: one process, on the host, and every sample held from both sides."""
    here = isinstance(passes.scores, np.ndarray) and passes.parts == 1 and passes.n > 0
    if not here or passes.geometry.on_simplex:
        return here
    return all(end is not None and bool(np.isfinite(end).all()) for end in (passes.lower, passes.upper))


def solve_interior(
    passes: Passes, slabs: SlabSystem, start: Point, accurate: Callable[..., bool] = accurate_enough
) -> Solution | None:
    """Return the projection, or None where it is not reached.

    Args:
        passes: a batch that is `roomy`.
        slabs: a feasible system with its accuracy.
        start: the point at nu = 0.
        accurate: whether a solution (of a batch, slabs) is accurate enough.
    """
    search = InteriorSearch(passes, slabs)
    for end in _ENDS:
        before = search.steps
        near = search.near(end)
        if isinstance(passes, CountedPasses):
            passes.count += SWEEPS * (search.steps - before)
        if near is None:
            return None
        found = polished(passes, slabs, start, near, _FINE, accurate)
        if found is not None or search.stalled:
            return found
    return None


def polished(  # noqa: PLR0917 - a search
    passes: Passes, slabs: SlabSystem, start: Point, near: Solution, fine: int, accurate: Callable[..., bool]
) -> Solution | None:
    """Return the projection by a few steps of the exact method from what is near, or that itself if it is as good.

    Args:
        passes: the batch.
        slabs: a feasible system with its accuracy.
        start: the point at nu = 0.
        near: what is near the solution.
        fine: the steps of a search from nothing that the first one is worth.
        accurate: whether a solution (of a batch, slabs) is accurate enough.
    """
    fine = min(fine, _FINE_OF_BLOCKS) if passes.cells.in_blocks else fine
    try:
        found = descend(passes, slabs, start, _POLISHING, near, fine, _MOST_PASSES, patient=False)
    except (SolverError, ClashingFaces, np.linalg.LinAlgError):
        found = None
    if found is not None and accurate(passes, slabs, found):
        return found
    itself = near._replace(point=passes.at(near.nu))
    return itself if accurate(passes, slabs, itself) else None


class _Direction(NamedTuple):
    """A step: the changes of the four sides, of the predictions, the levels, the rows' values and the tied prices."""

    sides: tuple[Side, Side, Side, Side]
    y: FloatArray
    level: FloatArray
    value: FloatArray
    tied: FloatArray


class InteriorSearch:
    """Predictions, levels, and both sides of all limits."""

    def __init__(self, passes: Passes, slabs: SlabSystem) -> None:
        self.table = RowTable.of(slabs)
        self.equations = RowEquations(self.table)
        self.geometry: Any = passes.geometry
        self.passes = _plain(passes)
        x, self.steps, self.share, self.slabs = passes.scores, 0, 0.0, slabs
        weights = np.ones(len(x)) if passes.cells.weights is None else passes.cells.weights
        if self.geometry.on_simplex:
            weights = np.broadcast_to(weights[:, None], x.shape)
            low: Any = 0.0
            self.y, wide, roof = np.full(x.shape, 1.0 / x.shape[1]), 1.0, np.zeros(x.shape, dtype=bool)
            self.movable = weights > 0
        else:
            low, high = np.broadcast_to(passes.lower, x.shape), np.broadcast_to(passes.upper, x.shape)
            self.y, roof = 0.5 * (low + high), high > low
            wide, self.movable = float((high - low).max()), roof & (weights > 0)
        self.weights = np.where(weights > 0, weights, 0.0)
        self.wide = wide or 1.0
        slope = self.geometry.slope(self.y, x)
        least = 0.5 * float(np.abs(slope).mean()) + 1e-3 * self.wide
        half = np.asarray(self.y - low)
        below = Side.of(half, 0.0, self.movable).priced(np.maximum(slope, 0.0) + least)
        above = Side.of(half, 0.0, self.movable & roof).priced(np.maximum(-slope, 0.0) + least)
        self.value = self.table.matrix @ self.passes.measure(self.y)
        self.c = first_levels(self.table, self.value)
        lower, upper = self.table.ends(self.c)
        room, either = _ROOM * self.wide, ~self.equations.equal
        under = Side.of(self.value - lower, room, either & np.isfinite(lower))
        over = Side.of(upper - self.value, room, either & np.isfinite(upper))
        self.tied = np.zeros(len(self.value))  # prices of the rows without slack
        mu = self._mean((below, above, under, over))
        self.sides: tuple[Side, ...] = (
            below,
            above,
            under.priced(mu / under.slack),
            over.priced(mu / over.slack),
        )

    def _mean(self, sides: Sequence[Side]) -> float:
        """Return the mean product of slack and price; each sample counts by its weight."""
        below, above, low, high = sides
        samples = float((self.weights * (below.product() + above.product())).sum())
        count = float((self.weights * (below.there.astype(float) + above.there)).sum())
        rows = float(low.product().sum() + high.product().sum())
        priced = int((low.price > 0).sum() + (high.price > 0).sum())
        return (samples + rows) / max(count + priced, 1.0)

    @property
    def price(self) -> FloatArray:
        """The price of each row, > 0 at its upper limit."""
        return np.asarray(self.sides[3].price - self.sides[2].price + self.tied)

    def near(self, end: float) -> Solution | None:
        """Return where the projection lies once mu has fallen to `end`; None where it does not come so far."""
        with np.errstate(all="ignore"):  # what overflows ends the search
            try:
                return self._prices() if self._run(end * self.wide) else None
            except np.linalg.LinAlgError:
                return None

    def _run(self, end: float) -> bool:
        last, before = np.inf, (self.sides, self.tied)
        while self.steps < _MOST_STEPS:
            lower, upper = self.table.ends(self.c)
            low, high = self.sides[2:]
            self.missed_low = np.where(low.there, self.value - lower - low.slack, 0.0)
            self.missed_high = np.where(high.there, upper - self.value - high.slack, 0.0)
            self.missed_tie = np.where(self.equations.equal, upper - self.value, 0.0)
            missed = max(float(np.abs(each).max(initial=0.0)) for each in self._missed)
            mu = self._mean(self.sides)
            if not np.isfinite(mu + missed):
                return False
            near = missed <= _MET * self.wide
            self.stalled = last <= _SLOWER * self.wide and (self.share < _STALLED or mu >= last)
            if self.stalled:
                self.sides, self.tied = before
            if (near and mu <= end) or self.stalled:
                return True
            last, before = mu, (self.sides, self.tied)
            self._step(mu)
            self.steps += 1
        return False

    @property
    def _missed(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        return self.missed_low, self.missed_high, self.missed_tie

    def _step(self, mu: float) -> None:
        """Take a step of Newton's method towards mu falling to 0, corrected for how the products would have curved."""
        self._look()
        straight = self._direction((0.0, 0.0, 0.0, 0.0))
        ahead = min(1.0, self._longest(straight))
        moved = [side.moved(ahead, change) for side, change in zip(self.sides, straight.sides, strict=True)]
        fall = max((self._mean(moved) / mu) ** 3, _LEAST_FALL)
        found = self._direction(tuple(fall * mu - change.product() for change in straight.sides))
        share = self.share = min(1.0, _SHORT * self._longest(found))
        self.sides = tuple(side.moved(share, change) for side, change in zip(self.sides, found.sides, strict=True))
        self.y, self.c = self.y + share * found.y, self.c + share * found.level
        self.value = self.value + share * found.value
        self.tied = self.tied + share * found.tied

    def _longest(self, found: _Direction) -> float:
        return float(min(side.longest(change) for side, change in zip(self.sides, found.sides, strict=True)))

    def _look(self) -> None:
        """Work out what a step from here needs of the batch."""
        below, above, _, _ = self.sides
        pull = self.passes.pull(self.price @ self.table.matrix)
        y = self.y if self.geometry.name == "euclidean" else np.clip(self.y, _LEAST, _MOST)
        self.force = -self.geometry.slope(y, self.passes.scores) - pull
        softness = self.geometry.softness(y, self.passes.scores)
        give = softness / (1.0 + softness * (below.stiffness + above.stiffness))
        self.give = np.where(self.movable, give, 0.0)
        self.metric = self.passes.metric_of(self.give)

    def _direction(self, mu: Any) -> _Direction:
        """Return the step of Newton's method towards products of slack and price, given for the four sides."""
        table, equations = self.table, self.equations
        below, above, low, high = self.sides
        # Each sample: D dy + dq = g, with the forces of its own bounds at mu.
        g = self.force + np.where(below.there, mu[0] / below.slack, 0.0)
        g = g - np.where(above.there, mu[1] / above.slack, 0.0)
        given = self.passes.measure(self.geometry.share(self.give, g))
        sides = low, high, low.asked(mu[2], self.missed_low), high.asked(mu[3], self.missed_high)
        found = equations.solve(self.metric, table.matrix @ given, sides, self.tied, self.missed_tie)
        dy = self.geometry.share(self.give, g - self.passes.pull(found.price @ table.matrix))
        value = table.matrix @ self.passes.measure(dy)
        level = np.append(found.level, 0.0)[table.level]
        changes = (
            below.change(mu[0], dy),
            above.change(mu[1], -dy),
            low.change(mu[2], self.missed_low + value - level),
            high.change(mu[3], self.missed_high + level / equations.scale - value),
        )
        return _Direction(changes, dy, found.level, value, np.where(equations.equal, found.price, 0.0))

    def _prices(self) -> Solution:
        """Return the prices of the limits that hold, as a place to start from."""
        table = self.table
        high, low = (side.binding(self.wide) for side in (self.sides[3], self.sides[2]))
        high, low = high + np.maximum(self.tied, 0.0), low + np.maximum(-self.tied, 0.0)
        return priced_solution(self.slabs, table, high, low, self.steps)


def _plain(passes: Passes) -> Any:
    """Return the batch as passes that tell K for any weights."""
    if passes.geometry.on_simplex:
        return SimplexPasses(passes.scores, passes.cells, passes.geometry, passes.device)  # type: ignore[attr-defined]
    return NumpyPasses(passes.scores, passes.cells, passes.lower, passes.upper, passes.geometry)
