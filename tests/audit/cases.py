"""Populations whose gaps are known, and samples of them: the truth that intervals are held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.audit import Interval, Means

GROUPS = (2, 5, 10, 20)
GAPS = (0.0, 0.02, 0.05, 0.2)
SIZES: dict[str, Callable[[int], FloatArray]] = {
    "200 each": lambda groups: np.full(groups, 200.0),
    "2,000 each": lambda groups: np.full(groups, 2000.0),
    "3,000 ... 5": lambda groups: np.round(np.geomspace(3000, 5, groups)),
}


class Case(NamedTuple):
    """A population of groups, of which the means differ by a gap: one group is off, or they are spread."""

    groups: int
    gap: float
    sizes: str
    base: float
    pattern: str

    @property
    def n(self) -> FloatArray:
        return SIZES[self.sizes](self.groups)

    @property
    def means(self) -> FloatArray:
        if self.pattern == "spread":
            return np.linspace(self.base, self.base + self.gap, self.groups)
        return np.append(np.full(self.groups - 1, self.base), self.base + self.gap)

    def random(self) -> np.random.Generator:
        return np.random.default_rng([self.groups, round(1000 * self.gap), len(self.sizes), round(100 * self.base)])

    def rates(self, draws: int) -> Iterator[Means]:
        for hits in self.random().binomial(self.n.astype(int), self.means, (draws, self.groups)):
            yield Means.of_rates(self.n, hits.astype(float))

    def odds(self, draws: int) -> Iterator[list[Means]]:
        """Yield two rates, of the labels 1 and 0; the first has the gap, the second has half of it."""
        ones = np.maximum(np.round(0.4 * self.n), 2)
        zeros = np.maximum(self.n - ones, 2)
        rng, second = self.random(), np.linspace(0.2, 0.2 + self.gap / 2, self.groups)
        for _ in range(draws):
            first = rng.binomial(ones.astype(int), 0.3 + self.means)
            yield [
                Means.of_rates(ones, first.astype(float)),
                Means.of_rates(zeros, rng.binomial(zeros.astype(int), second).astype(float)),
            ]

    def scores(self, draws: int) -> Iterator[Means]:
        """Yield means of Beta scores with a deviation of about 0.26."""
        rng, spread = self.random(), 2.7
        sums, squares = np.zeros((draws, self.groups)), np.zeros((draws, self.groups))
        for g, (n, m) in enumerate(zip(self.n.astype(int), self.means, strict=True)):
            for start in range(0, draws, 100):
                part = slice(start, min(start + 100, draws))
                scores = rng.beta(m * spread, (1 - m) * spread, (part.stop - start, n))
                sums[part, g], squares[part, g] = scores.sum(axis=1), (scores**2).sum(axis=1)
        for total, square in zip(sums, squares, strict=True):
            yield Means.of_numbers(self.n, total, square)


def all_cases(*, bases: tuple[float, ...] = (0.3,), sizes: tuple[str, ...] = tuple(SIZES)) -> list[Case]:
    """Return every combination; without a gap, nothing distinguishes the patterns."""
    return [
        Case(groups, gap, size, base, pattern)
        for groups, gap, size, base, pattern in product(GROUPS, GAPS, sizes, bases, ("one", "spread"))
        if gap or pattern == "one"
    ]


class Seen(NamedTuple):
    """What became of the draws of a case: shares of draws, and means over them."""

    covered: float
    contained: float  # the printed numbers lie inside
    above_zero: float  # the lower limit says that there is a gap
    width: float
    bias: float


def seen(intervals: list[Interval], truth: float) -> Seen:
    low, high, estimate, measured = np.array([(i.low, i.high, i.estimate, i.measured) for i in intervals]).T
    inside = (low <= estimate) & (estimate <= high) & (low <= measured) & (measured <= high)
    return Seen(
        float(((low <= truth + 1e-12) & (truth <= high + 1e-12)).mean()),
        float(inside.mean()),
        float((low > 0).mean()),
        float((high - low).mean()),
        float((estimate - truth).mean()),
    )
