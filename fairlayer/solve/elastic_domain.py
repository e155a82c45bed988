"""Where predictions may lie, as the elastic program sees it: numbers in a box, or rows of class probabilities.

The program moves along a line in the space of multipliers. Each free choice of the predictions then answers by its
cheapest end: a number by its lower or its upper bound, a row of classes by one class. Along the line that answer
changes at breakpoints, and the domains here list them.

`x` is a point whose entries are at an end, but for the basic ones, which the program determines by equations, and
for those of a box that nothing has pulled yet, which stay where they started.
"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray

__all__ = ["BoxDomain", "Breakpoints", "Domain", "SampleMap", "SimplexDomain"]


class SampleMap:
    """The linear map B from predictions to statistics: cell means, then dense rows.

    With m cells and k classes, entry c m + g is the mean of class c in cell g, and the dense rows follow, each in a
    unit of its own, the sum of its absolute weights: a feature in tiny units rounds like any other.

    Args:
        codes: cell of each sample, (n,); `len(counts)` marks samples in no cell. None with `counts` None: the
            predictions are the cell means themselves.
        counts: what the sum over each cell is divided by, (m,).
        dense: weights (d, n) of the dense rows, or None.
        weights: how many samples each row stands for, (n,); dense rows are per unit of weight.
        classes: number of columns of the predictions.
        dense_class: the class that each dense row speaks of, (d,).
    """

    def __init__(
        self,
        codes: IntArray | None = None,
        counts: FloatArray | None = None,
        dense: FloatArray | None = None,
        *,
        weights: FloatArray | None = None,
        classes: int = 1,
        dense_class: IntArray | None = None,
    ) -> None:
        self.codes, self.cells, self.classes = codes, 0 if counts is None else len(counts), classes
        self.identity = codes is None and counts is None and dense is None
        if codes is not None and counts is not None:
            self.share = np.append(1.0 / counts, 0.0)[codes]  # of a sample in the mean of its cell
            if weights is not None:
                self.share = self.share * weights
        self.dense = dense if dense is None or weights is None else dense * weights
        self.unit = np.ones(0)  # of each dense row
        if self.dense is not None:
            self.unit = np.abs(self.dense).sum(axis=1)  # 0 for a row without weights, which nothing can move
            self.dense = self.dense / np.where(self.unit > 0.0, self.unit, 1.0)[:, None]
        self.dense_class = np.zeros(0 if dense is None else len(dense), int) if dense_class is None else dense_class

    def only(self, chosen: BoolArray) -> SampleMap:
        """Return the map of some of the entries of a box to the same statistics."""
        other = SampleMap()
        other.identity, other.cells, other.unit, other.dense_class = False, self.cells, self.unit, self.dense_class
        if self.identity:
            other.codes, other.cells, other.share = np.flatnonzero(chosen), len(chosen), np.ones(int(chosen.sum()))
        elif self.codes is not None:
            other.codes, other.share = self.codes[chosen], self.share[chosen]
        other.dense = None if self.dense is None else self.dense[:, chosen]
        return other

    def measure(self, x: FloatArray) -> FloatArray:
        """Return B x."""
        if self.identity:
            return x.T.ravel()
        columns = x[:, None] if x.ndim == 1 else x
        means = [self._means(column) for column in columns.T]
        if self.dense is None:
            return np.concatenate(means)
        if self.classes == 1:
            return np.append(means[0], self.dense @ columns[:, 0])
        dense = [row @ columns[:, c] for row, c in zip(self.dense, self.dense_class.tolist(), strict=True)]
        return np.concatenate([*means, np.array(dense)])

    def _means(self, column: FloatArray) -> FloatArray:
        if self.codes is None:
            return np.zeros(self.cells)
        sums = np.bincount(self.codes, weights=self.share * column, minlength=self.cells + 1)
        return sums[: self.cells].astype(np.float64, copy=False)

    def pull(self, q: FloatArray) -> FloatArray:
        """Return B' q: (n,) or (n, classes)."""
        if self.identity:
            return q if self.classes == 1 else np.ascontiguousarray(q.reshape(self.classes, -1).T)
        hard, m = self.classes * self.cells, self.cells
        if self.classes == 1:
            pulled = np.zeros(self.count) if self.codes is None else np.append(q[:m], 0.0)[self.codes] * self.share
            return pulled if self.dense is None else pulled + q[hard:] @ self.dense
        table = np.zeros((m + 1, self.classes))
        table[:m] = q[:hard].reshape(self.classes, m).T
        pulled = np.zeros((self.count, self.classes))
        if self.codes is not None:
            pulled = table[self.codes] * self.share[:, None]
        if self.dense is not None:
            for row, c, price in zip(self.dense, self.dense_class.tolist(), q[hard:].tolist(), strict=True):
                if price:
                    pulled[:, c] += price * row
        return pulled

    def columns(self, normals: FloatArray, entries: IntArray, classes: IntArray) -> FloatArray:
        """Return normals @ B at some entries of the predictions, (len(normals), len(entries))."""
        if self.identity:
            m = normals.shape[1] // self.classes
            return normals[:, classes * m + entries]
        hard, m = self.classes * self.cells, self.cells
        found = np.zeros((len(normals), len(entries)))
        if self.codes is not None:
            inside = self.codes[entries] < m
            where = classes * m + np.where(inside, self.codes[entries], 0)
            found = normals[:, where] * (self.share[entries] * inside)
        if self.dense is not None:
            found = found + normals[:, hard:] @ (self.dense[:, entries] * (self.dense_class[:, None] == classes))
        return found

    def norms(self, n: int) -> FloatArray:
        """Return the size of each column of B, (n,)."""
        if self.identity:
            return np.ones(n)
        size = np.zeros(n) if self.codes is None else np.abs(self.share)
        return size if self.dense is None else size + np.abs(self.dense).sum(axis=0)

    @cached_property
    def absolute(self) -> SampleMap:
        """The map with the absolute value of every weight."""
        other = copy.copy(self)
        other.dense = None if self.dense is None else np.abs(self.dense)
        return other

    def sizes(self, x: FloatArray, s: FloatArray) -> FloatArray:
        """Return the sums of the absolute values that s = B x adds up."""
        if self.identity:
            return np.abs(s)
        return s if self._adds_up and float(x.min(initial=0.0)) >= 0.0 else self.absolute.measure(np.abs(x))

    @cached_property
    def _adds_up(self) -> bool:
        return self.dense is None or float(self.dense.min(initial=0.0)) >= 0.0

    @property
    def count(self) -> int:
        """The number of rows of predictions, where it is known."""
        if self.codes is not None:
            return len(self.codes)
        return 0 if self.dense is None else self.dense.shape[1]


class Breakpoints(NamedTuple):
    """Where the answer of the domain changes along a line of multipliers."""

    at: FloatArray  # step, ascending within an entry
    drop: FloatArray  # by how much the slope falls there; infinite where it must not be passed
    entry: IntArray
    target: IntArray  # box: 0 for the lower, 1 for the upper end; simplex: the class
    pivot: FloatArray  # rate at which the reduced cost reaches zero

    def at_places(self, places: IntArray) -> Breakpoints:
        """Return some of the breakpoints."""
        return Breakpoints(
            self.at[places], self.drop[places], self.entry[places], self.target[places], self.pivot[places]
        )


class Domain(Protocol):
    """What the elastic program asks of a domain."""

    samples: SampleMap
    x: FloatArray
    size: FloatArray  # of each column of B

    def level(self) -> FloatArray:
        """Return predictions that are all equal, or as nearly as the domain allows."""

    def tilted(self, random: np.random.Generator) -> FloatArray:
        """Return random costs, in units of `size`, that draw each entry to where it started; none for basic entries."""

    def costs(self, costs: FloatArray) -> FloatArray:
        """Return the costs of the basic entries."""

    def settle(self, reduced: FloatArray, noise: FloatArray) -> None:
        """Move every entry to the end that is cheapest at the reduced costs; nothing is basic."""

    def settle_others(self, reduced: FloatArray, noise: FloatArray) -> None:
        """Move every entry that is not basic to the end that is cheapest at the reduced costs."""

    def beyond(self, reduced: FloatArray, noise: FloatArray) -> bool:
        """Return whether the cheapest end of some entry is infinite."""

    def enlarge(self, factor: float) -> None:
        """Move the replacements of infinite bounds outwards."""

    def columns(self, normals: FloatArray) -> FloatArray:
        """Return normals @ B at the basic entries, (k, basic)."""

    def shift(self, change: FloatArray) -> None:
        """Move the basic entries."""

    def exchange(self) -> bool:
        """Make the basic entries those that can be out of their bounds; return whether their columns changed."""

    def excess(self) -> tuple[FloatArray, FloatArray]:
        """Return by how much each basic entry lies above (> 0) or below (< 0) its bounds, and the size of it all."""

    def breakpoints(self, reduced: FloatArray, change: FloatArray, noise: FloatArray) -> Breakpoints:
        """Return the breakpoints along `reduced + t change`, t >= 0, of what is not basic."""

    def flip(self, passed: Breakpoints) -> None:
        """Move entries whose breakpoints were passed."""

    def enter(self, entry: int, target: int) -> None:
        """Make an entry basic."""

    def leave(self, position: int) -> None:
        """Put a basic entry to the end that it passed."""

    def clipped(self) -> FloatArray:
        """Return the point of the domain nearest to x."""

    def near(self) -> FloatArray:
        """Return the point nearest to x that is no further out than the first replacements of infinite bounds."""

    def lowest(self, reduced: FloatArray, noise: FloatArray) -> float:
        """Return the least value of `reduced` over the domain, infinite bounds replaced by their first numbers."""

    def by_bounds(self, reduced: FloatArray) -> tuple[FloatArray | None, FloatArray | None]:
        """Return the derivative of `lowest` in the lower and in the upper bounds; None where there are none."""


class BoxDomain:
    """Numbers between bounds, which may be infinite.

    What is pulled towards an infinite bound waits at a large number, until it can be basic; basic entries may go
    beyond. `enlarge` moves that number further out.
    """

    def __init__(
        self, samples: SampleMap, lower: FloatArray, upper: FloatArray, start: FloatArray, reach: float
    ) -> None:
        self.samples, self.true_lower, self.true_upper = samples, lower, upper
        self.reach = reach
        self._place()
        self.near_lower, self.near_upper = self.lower, self.upper
        self.x = np.minimum(np.maximum(start, self.lower), self.upper)
        self.basic: list[int] = []
        self.size = samples.norms(len(lower))

    def _place(self) -> None:
        self.lower = np.maximum(self.true_lower, np.minimum(-self.reach, self.true_upper - self.reach))
        self.upper = np.minimum(self.true_upper, np.maximum(self.reach, self.true_lower + self.reach))

    def enlarge(self, factor: float) -> None:
        """Move the replacements of infinite bounds outwards."""
        at_lower, at_upper = self.x == self.lower, self.x == self.upper
        self.reach *= factor
        self._place()
        free = np.ones(len(self.x), bool)
        free[self.basic] = False
        self.x = np.where(free & at_lower, self.lower, np.where(free & at_upper, self.upper, self.x))

    def level(self) -> FloatArray:
        """See `Domain.level`."""
        level = np.full_like(self.x, self.x.mean() if len(self.x) else 0.0)
        return np.minimum(np.maximum(level, self.lower), self.upper)

    def by_bounds(self, reduced: FloatArray) -> tuple[FloatArray | None, FloatArray | None]:
        """See `Domain.by_bounds`."""
        return np.maximum(reduced, 0.0), np.minimum(reduced, 0.0)

    def beyond(self, reduced: FloatArray, noise: FloatArray) -> bool:
        """See `Domain.beyond`."""
        pulled_down, pulled_up = reduced > noise, reduced < -noise
        return bool((pulled_down & np.isinf(self.true_lower)).any() or (pulled_up & np.isinf(self.true_upper)).any())

    def tilted(self, random: np.random.Generator) -> FloatArray:
        """See `Domain.tilted`: towards the nearer end."""
        size = self.size * random.uniform(0.5, 1.0, len(self.x))
        below, above = self.x - self.true_lower, self.true_upper - self.x
        costs = np.where(np.isinf(below) & np.isinf(above), 0.0, np.where(below <= above, size, -size))
        costs[self.basic] = 0.0
        return costs

    def costs(self, costs: FloatArray) -> FloatArray:
        """See `Domain.costs`."""
        return costs[self.basic]

    def settle_others(self, reduced: FloatArray, noise: FloatArray) -> None:
        """See `Domain.settle_others`."""
        basic = self.x[self.basic]
        self.x = np.where(reduced > noise, self.lower, np.where(reduced < -noise, self.upper, self.x))
        self.x[self.basic] = basic

    def settle(self, reduced: FloatArray, noise: FloatArray) -> None:
        """See `Domain.settle`."""
        self.basic = []
        self.x = np.where(reduced > noise, self.lower, np.where(reduced < -noise, self.upper, self.x))

    def columns(self, normals: FloatArray) -> FloatArray:
        """See `Domain.columns`."""
        entries = np.array(self.basic, int)
        return self.samples.columns(normals, entries, np.zeros(len(entries), int))

    def shift(self, change: FloatArray) -> None:
        """See `Domain.shift`."""
        self.x[self.basic] += change

    def exchange(self) -> bool:
        """See `Domain.exchange`."""
        return False

    def excess(self) -> tuple[FloatArray, FloatArray]:
        """See `Domain.excess`."""
        x, lower, upper = self.x[self.basic], self.true_lower[self.basic], self.true_upper[self.basic]
        end = np.where(x > upper, upper, np.where(x < lower, lower, x))
        return x - end, np.maximum(np.abs(x), np.abs(end))

    def breakpoints(self, reduced: FloatArray, change: FloatArray, noise: FloatArray) -> Breakpoints:
        """See `Domain.breakpoints`."""
        down, up = change > noise, change < -noise
        target = np.where(down, self.lower, self.upper)
        room = np.abs(self.x - target)
        moving = (down | up) & (room > 0.0)
        moving[self.basic] = False
        entry = np.flatnonzero(moving)
        rate = np.abs(change[entry])
        to_go = np.where(down[entry], -reduced[entry], reduced[entry])
        at = np.maximum(to_go, 0.0) / rate
        return Breakpoints(at, rate * room[entry], entry, up[entry].astype(int), rate)

    def flip(self, passed: Breakpoints) -> None:
        """See `Domain.flip`."""
        self.x[passed.entry] = np.where(passed.target == 1, self.upper[passed.entry], self.lower[passed.entry])

    def enter(self, entry: int, target: int) -> None:
        """See `Domain.enter`."""
        self.basic.append(entry)

    def leave(self, position: int) -> None:
        """See `Domain.leave`."""
        entry = self.basic.pop(position)
        above = self.x[entry] - self.upper[entry] > self.lower[entry] - self.x[entry]
        self.x[entry] = self.upper[entry] if above else self.lower[entry]

    def clipped(self) -> FloatArray:
        """See `Domain.clipped`."""
        return np.minimum(np.maximum(self.x, self.true_lower), self.true_upper)

    def near(self) -> FloatArray:
        """See `Domain.near`."""
        return np.minimum(np.maximum(self.x, self.near_lower), self.near_upper)

    def lowest(self, reduced: FloatArray, noise: FloatArray) -> float:
        """See `Domain.lowest`."""
        end = np.where(reduced > 0.0, self.near_lower, self.near_upper)
        true = np.where(reduced > 0.0, self.true_lower, self.true_upper)
        return float(np.where(np.isinf(true) & (np.abs(reduced) <= noise), 0.0, reduced * end).sum())


class SimplexDomain:
    """Rows of class probabilities, each at least `floor`.

    A row that nothing ties is at one of its k corners, its key. In a row with basic entries the key takes what they
    leave.
    """

    def __init__(self, samples: SampleMap, start: FloatArray, floor: float = 0.0) -> None:
        self.samples, self.floor = samples, floor
        self.start = start
        self.n, self.k = start.shape
        self.most = 1.0 - (self.k - 1) * floor
        self.key = start.argmax(axis=1)
        self.x = self._corners(self.key)
        self.rows: list[int] = []
        self.classes: list[int] = []
        self.size = samples.norms(self.n)

    def level(self) -> FloatArray:
        """See `Domain.level`."""
        return np.broadcast_to(self.start.mean(axis=0), self.x.shape) if self.n else self.x

    def by_bounds(self, reduced: FloatArray) -> tuple[FloatArray | None, FloatArray | None]:
        """See `Domain.by_bounds`: a simplex has no bounds."""
        return None, None

    def beyond(self, reduced: FloatArray, noise: FloatArray) -> bool:
        """See `Domain.beyond`: nothing is infinite."""
        return False

    def enlarge(self, factor: float) -> None:
        """See `Domain.enlarge`: there is nothing to move."""

    def _corners(self, key: IntArray) -> FloatArray:
        x = np.full((len(key), self.k), self.floor)
        x[np.arange(len(key)), key] = self.most
        return x

    def tilted(self, random: np.random.Generator) -> FloatArray:
        """See `Domain.tilted`: towards the class that the start prefers."""
        costs = -self.size[:, None] * (self.start + random.uniform(0.0, 0.5, self.x.shape))
        costs[self.rows] = 0.0
        return costs

    def costs(self, costs: FloatArray) -> FloatArray:
        """See `Domain.costs`."""
        rows = np.array(self.rows, int)
        return np.asarray(costs[rows, np.array(self.classes, int)] - costs[rows, self.key[rows]])

    def settle_others(self, reduced: FloatArray, noise: FloatArray) -> None:
        """See `Domain.settle_others`."""
        least = reduced.min(axis=1)
        wrong = reduced[np.arange(self.n), self.key] > least + noise
        wrong[self.rows] = False
        self.key[wrong] = reduced[wrong].argmin(axis=1)
        self.x[wrong] = self._corners(self.key[wrong])

    def settle(self, reduced: FloatArray, noise: FloatArray) -> None:
        """See `Domain.settle`: where classes tie, the one that the start prefers."""
        self.rows, self.classes = [], []
        ties = reduced <= reduced.min(axis=1, keepdims=True) + noise[:, None]
        self.key = np.where(ties, self.start, -np.inf).argmax(axis=1)
        self.x = self._corners(self.key)

    def columns(self, normals: FloatArray) -> FloatArray:
        """See `Domain.columns`: an entry moves at the cost of its key."""
        rows = np.array(self.rows, int)
        classes = np.array(self.classes, int)
        keys = self.key[rows]
        return self.samples.columns(normals, rows, classes) - self.samples.columns(normals, rows, keys)

    def shift(self, change: FloatArray) -> None:
        """See `Domain.shift`."""
        rows = np.array(self.rows, int)
        self.x[rows, self.classes] += change
        np.add.at(self.x, (rows, self.key[rows]), -change)

    def exchange(self) -> bool:
        """See `Domain.exchange`: a key below the floor changes place with the largest basic entry of its row."""
        rows = np.array(self.rows, int)
        classes = np.array(self.classes, int)
        low = np.unique(rows[self.x[rows, self.key[rows]] < self.floor])
        for row in low.tolist():
            same = np.flatnonzero(rows == row)
            position = int(same[self.x[row, classes[same]].argmax()])
            self.key[row], self.classes[position] = self.classes[position], int(self.key[row])
        return len(low) > 0

    def excess(self) -> tuple[FloatArray, FloatArray]:
        """See `Domain.excess`."""
        below = np.minimum(self.x[self.rows, self.classes] - self.floor, 0.0)
        return below, np.ones(len(below))

    def breakpoints(self, reduced: FloatArray, change: FloatArray, noise: FloatArray) -> Breakpoints:
        """See `Domain.breakpoints`: each row follows the lower envelope of its k lines."""
        every = np.arange(self.n)
        tied = np.zeros(self.n, bool)
        tied[self.rows] = True
        basic = np.zeros((self.n, self.k), bool)
        basic[self.rows, self.classes] = True
        current, now, alive = self.key.copy(), np.zeros(self.n), every
        at: list[FloatArray] = []
        parts: list[tuple[FloatArray, IntArray, IntArray, FloatArray]] = []
        for _ in range(self.k - 1):
            rate = change[alive, current[alive]][:, None] - change[alive]
            ahead = reduced[alive] - reduced[alive, current[alive]][:, None]
            can = (rate > noise[alive, None]) & ~basic[alive]
            with np.errstate(divide="ignore", invalid="ignore"):
                step = np.where(can, np.maximum(ahead, 0.0) / rate, np.inf)
            step = np.maximum(step, now[alive][:, None])
            first = step.min(axis=1)
            # Of several classes that meet there the one that falls fastest takes over.
            following = np.where(step <= first[:, None], rate, -np.inf).argmax(axis=1)
            here = np.isfinite(first)
            alive, first, following = alive[here], first[here], following[here]
            if len(alive) == 0:
                break
            pivot = rate[here, following]
            drop = np.where(tied[alive], np.inf, pivot * (self.most - self.floor))
            at.append(first)
            parts.append((drop, alive, following, pivot))
            current[alive], now[alive] = following, first
            alive = alive[~tied[alive]]
        if not at:
            none = np.zeros(0)
            return Breakpoints(none, none, none.astype(int), none.astype(int), none)
        drops, entries, targets, pivots = (np.concatenate(list(part)) for part in zip(*parts, strict=True))
        return Breakpoints(np.concatenate(at), drops, entries, targets, pivots)

    def flip(self, passed: Breakpoints) -> None:
        """See `Domain.flip`: the last breakpoint of a row counts."""
        order = np.argsort(passed.at, kind="stable")
        rows = passed.entry[order]
        self.key[rows] = passed.target[order]
        self.x[rows] = self._corners(self.key[rows])

    def enter(self, entry: int, target: int) -> None:
        """See `Domain.enter`."""
        self.rows.append(entry)
        self.classes.append(target)

    def leave(self, position: int) -> None:
        """See `Domain.leave`."""
        row, cls = self.rows.pop(position), self.classes.pop(position)
        self.x[row, self.key[row]] += self.x[row, cls] - self.floor
        self.x[row, cls] = self.floor
        if row not in self.rows:
            self.x[row] = self._corners(self.key[row : row + 1])[0]

    def clipped(self) -> FloatArray:
        """See `Domain.clipped`."""
        x = np.maximum(self.x, self.floor)
        over = (x - self.floor).sum(axis=1, keepdims=True)
        return np.asarray(self.floor + (x - self.floor) * ((self.most - self.floor) / over))

    def near(self) -> FloatArray:
        """See `Domain.near`: nothing is infinite."""
        return self.x

    def lowest(self, reduced: FloatArray, noise: FloatArray) -> float:
        """See `Domain.lowest`."""
        least = reduced.min(axis=1)
        return float((self.floor * (reduced.sum(axis=1) - self.k * least)).sum() + least.sum())
