"""How often do the audit's intervals hold the true gap, and what do they say where there is none?

    python benchmarks/audit_coverage.py [--draws 400] [--seed 0]

Rates (selection, and equalized odds as the worse of two rates) and mean scores of groups, drawn from populations whose
gap is known. For each line: the share of draws whose interval holds the true gap, the share of draws in which the lower
limit is above 0, the mean width, and the mean error of the estimate and of what was measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from fairlayer.audit import Interval, Means, range_interval

SIZES = {"200 each": (200, 200), "2,000 each": (2000, 2000), "3,000 to 5": (3000, 5), "3,000 to 30": (3000, 30)}


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


KINDS = {"rates": rates, "equalized odds": odds, "mean scores": scores}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0, help="of the draws; another one is a check of the table")
    draws, seed = parser.parse_args().draws, parser.parse_args().seed
    print(f"{draws} draws a line\n")
    print("| number | groups | people | true gap | covered | lower limit above 0 | width | estimate | measured |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind, draw in KINDS.items():
        for groups in (2, 5, 20):
            for name in SIZES:
                for gap in (0.0, 0.05, 0.2):
                    rng = np.random.default_rng(
                        [*([seed] if seed else []), groups, len(name), round(100 * gap), len(kind)]
                    )
                    means = np.append(np.full(groups - 1, 0.3), 0.3 + gap)
                    found = [range_interval(each) for each in draw(sizes(name, groups), means, draws, rng)]
                    print(f"| {kind} | {groups} | {name} | {gap:g} | {_line(found, gap)} |", flush=True)


def _line(found: list[Interval], gap: float) -> str:
    low, high, estimate, measured = np.array([(i.low, i.high, i.estimate, i.measured) for i in found]).T
    covered = ((low <= gap + 1e-12) & (gap <= high + 1e-12)).mean()
    shares = f"{100 * covered:.1f} % | {100 * (low > 0).mean():.1f} % | {(high - low).mean():.3f}"
    return f"{shares} | {(estimate - gap).mean():+.3f} | {(measured - gap).mean():+.3f}"


if __name__ == "__main__":
    main()
