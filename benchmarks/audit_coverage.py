"""How often do the audit's intervals hold the true gap, and what do they say where there is none?

    python benchmarks/audit_coverage.py [--draws 1000] [--seed 0] [--kind KIND] [--lines]

Groups are drawn from populations whose gap is known, one group above all others: rates (selection rates, as difference
and as ratio; equalized odds, as the worse of two rates) and mean scores (of a Beta distribution). For each population:
the share of draws whose interval holds the true gap; the share with a lower limit above 0; the shares that are certain
of the wrong side of a limit set at the true gap; the mean width; the mean error of the estimate and of what was
measured. At the end, for each kind, the worst of all its populations.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from fairlayer.audit import Interval, Means, range_interval, ratio_interval

SIZES = {"200 each": (200, 200), "2,000 each": (2000, 2000), "3,000 to 5": (3000, 5), "3,000 to 30": (3000, 30)}
GROUPS, GAPS = (2, 5, 10, 20), (0.0, 0.02, 0.05, 0.2)
Draw = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], Iterator[list[Means]]]


class Kind(NamedTuple):
    """What is drawn, how the interval is made, and around which overall rates."""

    draw: Draw
    interval: Callable[[list[Means]], Interval]
    rates: tuple[float, ...]


class Found(NamedTuple):
    """What the draws of one population showed."""

    size: str
    gap: float
    covered: float
    above: float
    outside: float
    wrong: float
    width: float
    estimate: float
    measured: float


def sizes(name: str, groups: int) -> np.ndarray:
    first, last = SIZES[name]
    return np.round(np.geomspace(first, last, groups))


def rates(n: np.ndarray, means: np.ndarray, draws: int, rng: np.random.Generator) -> Iterator[list[Means]]:
    for hits in rng.binomial(n.astype(int), means, (draws, len(n))):
        yield [Means.of_rates(n, hits.astype(float))]


def odds(n: np.ndarray, means: np.ndarray, draws: int, rng: np.random.Generator) -> Iterator[list[Means]]:
    ones, zeros = np.maximum(np.round(0.4 * n), 2), np.maximum(np.round(0.6 * n), 2)
    other = 0.1 + (means - means.min()) / 2
    for _ in range(draws):
        first, second = rng.binomial(ones.astype(int), means), rng.binomial(zeros.astype(int), other)
        yield [Means.of_rates(ones, first.astype(float)), Means.of_rates(zeros, second.astype(float))]


def scores(n: np.ndarray, means: np.ndarray, draws: int, rng: np.random.Generator) -> Iterator[list[Means]]:
    for _ in range(draws):
        drawn = [rng.beta(2.7 * m, 2.7 * (1 - m), int(size)) for m, size in zip(means, n, strict=True)]
        totals, squares = (np.array([(d**power).sum() for d in drawn]) for power in (1, 2))
        yield [Means.of_numbers(n, totals, squares)]


KINDS = {
    "rates": Kind(rates, range_interval, (0.12, 0.3, 0.5)),
    "ratios of rates": Kind(rates, ratio_interval, (0.3,)),
    "equalized odds": Kind(odds, range_interval, (0.3,)),
    "mean scores": Kind(scores, range_interval, (0.3,)),
    "rare rates": Kind(rates, range_interval, (0.05,)),
}


def population(  # noqa: PLR0917 - what makes a population
    kind: Kind, groups: int, size: str, rate: float, gap: float, draws: int, seed: list[int]
) -> Found:
    """Draw one population many times."""
    means = np.append(np.full(groups - 1, rate), rate + gap)
    drawn = kind.draw(sizes(size, groups), means, draws, np.random.default_rng(seed))
    intervals = [kind.interval(each) for each in drawn]
    low, high, estimate, measured = np.array([(i.low, i.high, i.estimate, i.measured) for i in intervals]).T
    ratio = kind.interval is ratio_interval
    truth, equal = (rate / (rate + gap), high < 1) if ratio else (gap, low > 0)
    inside = np.minimum(estimate, measured) >= low - 1e-12
    inside &= np.maximum(estimate, measured) <= high + 1e-12
    below, beyond = (high < truth - 1e-12).mean(), (low > truth + 1e-12).mean()
    return Found(
        size,
        gap,
        covered=1 - below - beyond,
        above=float(equal.mean()),
        outside=1 - float(inside.mean()),
        wrong=float(max(below, beyond)),
        width=float((high - low).mean()),
        estimate=float((estimate - truth).mean()),
        measured=float((measured - truth).mean()),
    )


def worst(name: str, found: list[Found]) -> str:
    """Return one line for populations of one kind: the least coverage, and the largest of all errors."""
    equal = max((f.above for f in found if f.gap == 0), default=0.0)
    errors = f"{min(f.estimate for f in found):+.3f} to {max(f.estimate for f in found):+.3f}"
    cells = (
        f"{len(found)}",
        f"{100 * min(f.covered for f in found):.1f} to {100 * max(f.covered for f in found):.1f} %",
        f"{100 * equal:.1f} %",
        f"{100 * max(f.wrong for f in found):.1f} %",
        f"{100 * max(f.outside for f in found):.1f} %",
        errors,
        f"{np.mean([f.width for f in found]):.3f}",
    )
    return f"| {name} | {' | '.join(cells)} |"


def line(kind: str, groups: int, rate: float, f: Found) -> str:
    shares = f"{100 * f.covered:.1f} % | {100 * f.above:.1f} % | {100 * f.wrong:.1f} % | {f.width:.3f}"
    return f"| {kind} | {groups} | {f.size} | {rate:g} | {f.gap:g} | {shares} | {f.estimate:+.3f} | {f.measured:+.3f} |"


def milliseconds() -> float:
    """Return how long the interval of 20 groups takes; the same counts give the same digits in every call."""
    means = Means.of_rates(np.full(20, 200.0), np.arange(40.0, 60.0))
    first = range_interval(means)
    assert all(range_interval(means) == first for _ in range(100))
    begun = time.perf_counter()
    for _ in range(100):
        range_interval(means)
    return 10 * (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000, help="of each population")
    parser.add_argument("--seed", type=int, default=0, help="of the draws; another one is a check of the table")
    parser.add_argument("--kind", choices=KINDS, action="append", help="what to draw (default: everything)")
    parser.add_argument("--lines", action="store_true", help="print every population too")
    told = parser.parse_args()
    print(f"{told.draws} draws of each population, seed {told.seed}; 20 groups take {milliseconds():.1f} ms\n")
    print(
        "| number, people in the groups | populations | held the true gap | a gap seen where there is none | certain "
        "of the wrong side of a limit at the gap | printed number outside | error of the estimate | mean width |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in told.kind or KINDS:
        kind, every = KINDS[name], []
        for groups in GROUPS:
            for k, size in enumerate(SIZES):
                for rate in kind.rates:
                    for gap in GAPS:
                        seed = [told.seed, groups, k, round(100 * rate), round(100 * gap), list(KINDS).index(name)]
                        found = population(kind, groups, size, rate, gap, told.draws, seed)
                        every.append(found)
                        if told.lines:
                            print(line(name, groups, rate, found), flush=True)
        for size in SIZES:
            print(worst(f"{name}, {size}", [f for f in every if f.size == size]), flush=True)
        print(worst(f"**{name}, all**", every), flush=True)


if __name__ == "__main__":
    main()
