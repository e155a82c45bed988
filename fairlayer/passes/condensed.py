"""A batch condensed once, whose sums at many dual points then cost next to nothing.

The samples of each cell are sorted. In the Euclidean geometry the sums at any pull q are read off sums so far:

    sum of y = lower * (weight below) + (sum of x - q between) + upper * (weight above)

In the geometries of probabilities y, W and d are analytic in the log-odds of the raw score up to the imaginary part pi,
whatever the pull: there a sigmoid has its poles, and the root sqrt((1 + q)^2 - 4 q z) its branch point, at log-odds
2 log|(1 + q) / (1 - q)| + i pi. So on an interval of length 1 the polynomial of degree 13 through Chebyshev's points
c_j is such a function f up to (2 pi + sqrt(4 pi^2 + 1))^-14 = 4e-16, and the samples there may be replaced by them:

    sum_i w_i f(x_i) = sum_j W_j f(c_j),     W_j = sum_i w_i l_j(x_i)     (l_j: Lagrange's polynomials of the points)

An interval with no more samples than points keeps its samples. Source: Trefethen (2013), Approximation Theory and
Approximation Practice, theorem 8.2.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.fused import kernels, loaded
from fairlayer.geometry import Entropic, Euclidean, Geometry, Likelihood
from fairlayer.passes.base import Cells, Passes, Point
from fairlayer.passes.compiled import NUMBERS
from fairlayer.passes.sorting import SortedSamples, sorted_by_cell

__all__ = ["CondensedBatch", "CondensedPasses"]

_KNOWN: tuple[Geometry, ...] = (Euclidean(), Entropic(), Likelihood())
_PLAIN = (float, type(None))  # bounds that are the same for all samples
_FAR = 30.0  # widths of the box, beyond which sums over raw scores round too coarsely
_POINTS = 14  # for each interval of log-odds
_NEAR_ONE = 14.0  # log-odds of a probability from which 1 - z no longer says where the sample lies
_TOO_FAR = 600.0  # log-odds of which exp(-x) leaves the range of float64
_RUN = 8192  # samples that are worked on at a time, so that what lies between stays in the cache
_NUMBERS = 400_000  # that are worked on at a time
_SLACK = 1e-9  # by which the place of a threshold may be missed before it is looked at sample by sample


class CondensedBatch:
    """The samples of a batch, sorted and condensed.

    Pulls are given for several dual points at once, one row each: one for each cell, and at last 0 for the samples in
    no cell.

    Args:
        passes: a batch that `serves` says can be condensed.
    """

    def __init__(self, passes: Passes) -> None:
        self.lower, self.upper = passes.lower, passes.upper
        self.geometry: Any = passes.geometry
        self.samples = sorted_by_cell(passes.scores, passes.cells)
        self.counts, self.cells = passes.cells.counts, len(passes.cells.counts)

    @staticmethod
    def serves(passes: Passes) -> bool:
        """Return whether a batch can be condensed, and is large enough beside its cells."""
        cells = passes.cells
        hard = cells.codes is not None and cells.dense is None and cells.classes == 1
        plain = isinstance(passes.lower, _PLAIN) and isinstance(passes.upper, _PLAIN)
        here = isinstance(passes.scores, np.ndarray) and passes.parts == 1
        if not (hard and plain and here and passes.geometry in _KNOWN) or passes.n < _POINTS * len(cells.counts):
            return False
        if cells.weights is not None and not bool((cells.weights > 0).all()):
            return False
        return passes.geometry != Euclidean() or passes.size <= _FAR * _width(passes)

    def pulls(self, nu: FloatArray) -> FloatArray:
        """Return the pulls at dual points, one row each, (points, cells + 1)."""
        found = np.zeros((nu.size // self.cells, self.cells + 1))
        np.divide(nu.reshape(-1, self.cells), self.counts, out=found[:, :-1])
        return found

    @cached_property
    def start(self) -> tuple[FloatArray, FloatArray]:
        """The sums at no pull, as `at` returns them."""
        return self.at(np.zeros((1, self.cells + 1)))

    def at(self, pulls: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the sums of y and of W of each cell, (points, cells + 1) each."""
        found = self._compiled(pulls)
        if found is not None:
            return found
        if self.geometry != Euclidean():
            total, free = self._nodes_sum(pulls, self._answer)
            return total, free
        below, above = self._ends(pulls)
        free = self._read(self._weights, above) - self._read(self._weights, below)
        total = self._read(self._scores, above) - self._read(self._scores, below) - pulls * free
        if self.lower is not None:
            total += self.lower * self._read(self._weights, below)
        if self.upper is not None:
            total += self.upper * (self.whole - self._read(self._weights, above))
        return total, free

    def _compiled(self, pulls: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        """Return the same by compiled sweeps; None where there are none, or log-odds are too far for them."""
        compiled = loaded()
        if compiled is None:
            return None
        total, free = np.empty(pulls.shape), np.empty(pulls.shape)
        if self.geometry == Euclidean():
            scores, _, starts = self.samples
            so_far = (np.empty(0) if self._weights is None else self._weights), self._scores
            low, high = -np.inf if self.lower is None else self.lower, np.inf if self.upper is None else self.upper
            compiled.cells.read_off(scores, starts, *so_far, pulls, low, high, total, free)
            return total, free
        if self.geometry == Entropic() and self._farthest + np.abs(pulls).max(initial=0.0) > _TOO_FAR:
            return None
        _, weights, starts = self.nodes
        compiled.cells.weigh(NUMBERS[self.geometry], self._swept, weights, starts, pulls, total, free)
        return total, free

    @cached_property
    def _farthest(self) -> float:
        return float(np.abs(self.nodes.scores).max(initial=0.0))

    @cached_property
    def _swept(self) -> FloatArray:
        """The nodes as compiled sweeps take them: exp(-x) in the entropic geometry."""
        x = self.nodes.scores
        return np.exp(-x) if self.geometry == Entropic() else x

    def distance(self, pulls: FloatArray) -> FloatArray:
        """Return the sum of d(y, x) at each point, (points,)."""
        if self.geometry == Entropic() and self._farthest + np.abs(pulls).max(initial=0.0) <= _TOO_FAR:
            return self._entropic_distance(pulls)
        if self.geometry != Euclidean():
            return np.asarray(self._nodes_sum(pulls, self._divergence)[0].sum(axis=1))
        below, above = self._ends(pulls)
        free = self._read(self._weights, above) - self._read(self._weights, below)
        total = (0.5 * pulls * pulls * free).sum(axis=1)
        scores, weights, starts = self.samples
        for cell, (first, last) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
            if first == last:
                continue
            # What a bound holds is counted from that bound's side, so that nothing cancels.
            for end, bound, held in (
                (below[:, cell] - first, self.lower, slice(first, int(below[:, cell].max()))),
                (last - above[:, cell], self.upper, slice(int(above[:, cell].min()), last)),
            ):
                far = 0.5 * (scores[held] - bound) ** 2 if bound is not None else np.zeros(0)
                far = far if weights is None else far * weights[held]
                total += np.append(0.0, np.cumsum(far if bound is self.lower else far[::-1]))[end]
        return np.asarray(total)

    def _entropic_distance(self, pulls: FloatArray) -> FloatArray:
        """Return the same in the entropic geometry, with one logarithm for each sample.

        With z the raw score, y(q) minimises d + q y, and the minimum is known, so that d is that less q y:

            d = -log(1 + z (exp(-q) - 1)) - q y = -log(1 + (1 - z) (exp(q) - 1)) + q (1 - y)

        of which the first is exact for z up to 1/2, and the second beyond.
        """
        x, weights, starts = self.nodes
        assert weights is not None
        high = x > 0.0
        lengths, side = np.diff(starts), np.where(high, 1.0, -1.0)
        near = 1.0 / (1.0 + np.exp(np.abs(x)))  # z or 1 - z, whichever is smaller
        beyond = np.bincount(np.repeat(np.arange(len(lengths)), lengths), weights * high, len(lengths))
        found = np.empty(len(pulls))
        length = max(1, _NUMBERS // max(1, len(x)))
        for first in range(0, len(pulls), length):
            some = pulls[first : first + length]
            total = self.at(some)[0]
            grown = np.expm1(np.repeat(some, lengths, axis=1) * side)
            grown *= near
            found[first : first + length] = (some * (beyond - total)).sum(axis=1) - np.log1p(grown, out=grown) @ weights
        return found

    def reaching(self, pulls: FloatArray, threshold: float) -> FloatArray:
        """Return the weight of the samples of each cell whose y is at least a threshold, (points, cells + 1).

        y rises with the score, so that they are those from some place on. The geometry says nearly where; the few
        samples that lie about there are asked one by one.
        """
        scores, _, starts = self.samples
        inside = 0.0 < threshold < 1.0 if self.geometry.bounded else self._between(threshold)
        first, last = np.broadcast_to(starts[:-1], pulls.shape), np.broadcast_to(starts[1:], pulls.shape)
        if inside:
            near = self.geometry.score_at(threshold, pulls)
            slack = _SLACK * (1.0 + np.abs(near))
            first, last = self._places(near - slack, "left"), self._places(near + slack, "right")
        while bool((first < last).any()):
            open_still, middle = first < last, (first + last) // 2
            x = scores[np.minimum(middle, len(scores) - 1)]
            short = open_still & (self.geometry.step(x, pulls, self.lower, self.upper)[0] < threshold)
            first, last = np.where(short, middle + 1, first), np.where(open_still & ~short, middle, last)
        return self.whole - self._read(self._weights, first)

    @cached_property
    def whole(self) -> FloatArray:
        """The weight of each cell."""
        return self._read(self._weights, self.samples.starts[1:])

    def _between(self, threshold: float) -> bool:
        return not (self.lower is not None and threshold <= self.lower) and not (
            self.upper is not None and threshold > self.upper
        )

    def _ends(self, pulls: FloatArray) -> tuple[IntArray, IntArray]:
        """Return in each cell the place of the first sample that no lower bound holds, and that an upper one does."""
        starts = self.samples.starts
        below = np.broadcast_to(starts[:-1], pulls.shape)
        above = np.broadcast_to(starts[1:], pulls.shape)
        if self.lower is not None:
            below = self._places(self.lower + pulls, "left")
        if self.upper is not None:
            above = self._places(self.upper + pulls, "right")
        return below, above

    def _places(self, values: FloatArray, side: Any) -> IntArray:
        scores, _, starts = self.samples
        found = np.empty(values.shape, dtype=np.int64)
        for cell, (first, last) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
            found[:, cell] = first + scores[first:last].searchsorted(values[:, cell], side)
        return found

    def _read(self, so_far: FloatArray | None, places: IntArray) -> FloatArray:
        """Return sums from the beginning of each cell up to a place in it; None: of 1 each."""
        if so_far is None:
            return np.asarray(places - self.samples.starts[:-1], dtype=np.float64)
        return np.asarray(so_far[places + np.arange(self.cells + 1)])

    def _so_far(self, values: FloatArray) -> FloatArray:
        """Return running sums that begin anew in each cell, each with a 0 before it, (n + cells + 1,)."""
        starts, found = self.samples.starts.tolist(), np.zeros(len(values) + self.cells + 1)
        for cell in range(self.cells + 1):
            first, last = starts[cell], starts[cell + 1]
            np.cumsum(values[first:last], out=found[first + cell + 1 : last + cell + 1])
        return found

    @cached_property
    def _weights(self) -> FloatArray | None:
        weights = self.samples.weights
        return None if weights is None else self._so_far(weights)

    @cached_property
    def _scores(self) -> FloatArray:
        scores, weights, _ = self.samples
        return self._so_far(scores if weights is None else scores * weights)

    def _answer(self, x: FloatArray, pulls: FloatArray) -> tuple[FloatArray, ...]:
        value = self.geometry.step(x, pulls, None, None)[0]
        return value, self.geometry.weigh(value, x, None, 1.0)

    def _divergence(self, x: FloatArray, pulls: FloatArray) -> tuple[FloatArray, ...]:
        found = self.geometry.divergence(self.geometry.step(x, pulls, None, None)[0], x, None, None)
        return (np.where(pulls == 0.0, 0.0, found),)  # what does not move has come no way, not even by rounding

    def _nodes_sum(self, pulls: FloatArray, of: Any) -> list[FloatArray]:
        """Return the sums over the nodes of each cell of what a function makes of them at their pulls."""
        x, weights, starts = self.nodes
        lengths = np.diff(starts)
        filled, found = np.flatnonzero(lengths), []
        length = max(1, _NUMBERS // max(1, len(x)))
        for first in range(0, len(pulls), length):
            each = of(x, np.repeat(pulls[first : first + length], lengths, axis=1))
            found.append([np.add.reduceat(values * weights, starts[filled], axis=1) for values in each])
        out = [np.zeros(pulls.shape) for _ in found[0]]
        for whole, parts in zip(out, zip(*found, strict=True), strict=True):
            whole[:, filled] = np.concatenate(parts)
        return out

    @cached_property
    def nodes(self) -> SortedSamples:
        """The samples, those of an interval of log-odds as Chebyshev's points where they are more than these."""
        scores, weights, starts = self.samples
        likelihood = self.geometry == Likelihood()
        odds = np.log(scores) - np.log1p(-scores) if likelihood else scores
        number = np.floor(odds)
        new = np.zeros(len(odds) + 1, dtype=bool)
        new[1:-1] = number[1:] != number[:-1]
        new[starts] = True
        runs = np.flatnonzero(new)
        first, lengths = runs[:-1], np.diff(runs)
        equal = odds[first] == odds[runs[1:] - 1]
        dense = ~equal & (lengths > _POINTS)
        if likelihood:
            dense &= np.abs(number[first]) < _NEAR_ONE
        sizes = np.where(equal, 1, np.where(dense, _POINTS, lengths))
        place = np.append(0, np.cumsum(sizes))
        x, w = np.empty(place[-1]), np.empty(place[-1])
        each = np.ones(len(odds)) if weights is None else weights
        x[place[:-1][equal]], w[place[:-1][equal]] = scores[first[equal]], np.add.reduceat(each, first)[equal]
        kept, into = (np.repeat(~equal & ~dense, many) for many in (lengths, sizes))
        x[into], w[into] = scores[kept], each[kept]
        into, condensed = np.repeat(dense, sizes), np.repeat(dense, lengths)
        unit = 2.0 * (odds - number)[condensed] - 1.0
        points, amounts = _condensed(unit, None if weights is None else weights[condensed], lengths[dense])
        at = (number[first][dense][:, None] + 0.5 * (points + 1.0)).ravel()
        x[into], w[into] = (1.0 / (1.0 + np.exp(-at)) if likelihood else at), amounts.ravel()
        return SortedSamples(x, w, place[np.searchsorted(first, starts)])


def _width(passes: Passes) -> float:
    """Return how far a score may lie from the others, or from the bounds, to count as near."""
    low, high = passes.lower, passes.upper
    if low is None and high is None:
        return np.inf
    if low is not None and high is not None:
        return float(high - low + max(abs(low), abs(high)) / _FAR)
    return float(np.abs(passes.scores).mean() + abs(low if high is None else high))


def _condensed(unit: FloatArray, weights: FloatArray | None, lengths: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return Chebyshev's points in (-1, 1), rising, and for runs of samples there the amounts that stand for them.

    With moments M_j = sum_i w_i T_j(u_i) these are W(c) = (M_0 + 2 sum_j M_j T_j(c)) / points.
    """
    angles = np.pi * (np.arange(_POINTS) + 0.5) / _POINTS
    basis = np.cos(np.outer(np.arange(_POINTS), angles)) * np.where(np.arange(_POINTS) == 0, 1.0, 2.0)[:, None]
    amounts = _moments(unit, weights, lengths) @ basis / _POINTS
    return np.cos(angles)[::-1], amounts[:, ::-1]


def _moments(unit: FloatArray, weights: FloatArray | None, lengths: IntArray) -> FloatArray:
    """Return the sums of Chebyshev's polynomials over each run of samples, (runs, points)."""
    starts, compiled = np.append(0, np.cumsum(lengths)), kernels(len(unit))
    if compiled is None:
        return _plain_moments(unit, weights, starts[:-1])
    found = np.zeros((len(lengths), _POINTS))
    compiled.cells.moments(unit, np.empty(0) if weights is None else weights, starts, found)
    return found


def _plain_moments(unit: FloatArray, weights: FloatArray | None, starts: IntArray) -> FloatArray:
    cuts = np.union1d(starts, np.arange(0, len(unit), _RUN))
    found = np.zeros((_POINTS, len(cuts)))
    for first in range(0, len(unit), _RUN):
        some = slice(*np.searchsorted(cuts, [first, first + _RUN]))
        at, u = cuts[some] - first, unit[first : first + _RUN]
        before = np.ones(len(u)) if weights is None else weights[first : first + _RUN]
        last, twice = u * before, 2.0 * u
        for j in range(_POINTS):
            found[j, some] = np.add.reduceat(before, at)
            before, last = last, twice * last - before
    of = np.searchsorted(cuts, starts)
    return np.add.reduceat(found, of, axis=1).T if len(of) else np.zeros((0, _POINTS))


class CondensedPasses:
    """Passes over a condensed batch, or over several copies of it, one below the other, each with its own dual point.

    Args:
        base: the passes over the batch; everything else is theirs.
        batch: the same, condensed.
        copies: how often its cells are there; only a single copy has predictions.
    """

    def __init__(self, base: Passes, batch: CondensedBatch, copies: int = 1) -> None:
        self.base, self.batch, self.copies = base, batch, copies
        self.cells = base.cells if copies == 1 else Cells(None, self._copied(base.cells.counts), None)
        self.scores = base.scores if copies == 1 else None

    @staticmethod
    def of(base: Passes) -> CondensedPasses | None:
        """Condense a batch; None where it cannot be, or is too small beside its cells."""
        return CondensedPasses(base, CondensedBatch(base)) if CondensedBatch.serves(base) else None

    def copied(self, copies: int) -> CondensedPasses:
        """Return passes over several copies of the same batch."""
        return CondensedPasses(self.base, self.batch, copies)

    def at(self, nu: FloatArray | None) -> Point:
        """See `Passes.at`."""
        counts = self.base.cells.counts
        if nu is None:  # the same in every copy
            sums, free = (np.broadcast_to(each, (self.copies, each.shape[1]))[:, :-1] for each in self.batch.start)
        else:
            sums, free = (each[:, :-1] for each in self.batch.at(self.batch.pulls(nu)))
        emit = None if self.copies > 1 else lambda run: self.base.at(nu).piece(run)
        return Point(None, None, (sums / counts).ravel(), (free / (counts * counts)).ravel(), emit)

    def widest_metric(self) -> FloatArray:
        """See `Passes.widest_metric`."""
        counts = self.base.cells.counts
        return self._copied(self.batch.whole[:-1] / (counts * counts))

    def magnitudes(self, point: Point) -> FloatArray:
        """See `Passes.magnitudes`: at most, as if every sample were free."""
        scores, weights, starts = self.batch.samples
        sizes = np.abs(scores) if weights is None else np.abs(scores) * weights
        whole = np.array([sizes[a:b].sum() for a, b in pairwise(starts[:-1])])
        return np.abs(point.statistics) + self._copied(whole / self.base.cells.counts)

    def _copied(self, values: FloatArray) -> FloatArray:
        return np.concatenate([values] * self.copies)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)
