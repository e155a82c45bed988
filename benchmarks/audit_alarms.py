"""How often does an alarm that is looked at after every request come without a reason, and how soon with one?

    python benchmarks/audit_alarms.py [--streams 1000] [--requests 1500] [--seed 0]

Each stream is a `SequentialTest` of two groups, fed one request at a time. In the null streams the groups' rates
differ by at most the tolerance, so that an alarm at any request is a false one; 5 % of the streams may raise one. In
the others the rates begin equal and part after a fifth of the requests; the delay counts from there. `one look` is the
number of requests that a test looked at once needs for an 80 % chance of seeing the same difference beyond the
tolerance.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from fairlayer.audit.sequential import start, step

LEVEL = 0.05


class Case(NamedTuple):
    """A kind of stream: rates of the two groups before and after the change, share of the first group, tolerance."""

    name: str
    before: tuple[float, float]
    after: tuple[float, float]
    share: float
    tolerance: float


NULL = (
    Case("equal rates", (0.3, 0.3), (0.3, 0.3), 0.5, 0.0),
    Case("equal rates, one group of 10 %", (0.3, 0.3), (0.3, 0.3), 0.1, 0.0),
    Case("a difference of exactly the tolerance", (0.35, 0.3), (0.35, 0.3), 0.5, 0.05),
)
CHANGED = (
    Case("0.3 and 0.3, then 0.5 and 0.3", (0.3, 0.3), (0.5, 0.3), 0.5, 0.02),
    Case("0.3 and 0.3, then 0.5 and 0.3, one group of 10 %", (0.3, 0.3), (0.5, 0.3), 0.1, 0.02),
)


def alarm(case: Case, requests: int, change: int, seed: list[int]) -> int | None:
    """Return the request at which the first alarm came; None where none did."""
    rng = np.random.default_rng(seed)
    first = rng.random(requests) < case.share
    late = np.arange(requests) >= change
    rates = np.where(late[:, None], case.after, case.before)
    values = (rng.random(requests) < np.where(first, rates[:, 0], rates[:, 1])).astype(float)
    state = start(case.tolerance, LEVEL)
    for value, mine in zip(values.tolist(), first.tolist(), strict=True):
        state = step(state, (value,), ()) if mine else step(state, (), (value,))
        if state.alarm is not None:
            return state.alarm
    return None


def one_look(case: Case) -> float:
    """Return the requests that one look needs: (1.96 + 0.84)^2 (v_1 / share + v_2 / (1 - share)) / excess^2."""
    low, high = case.after
    spread = low * (1 - low) / case.share + high * (1 - high) / (1 - case.share)
    return float((1.96 + 0.84) ** 2 * spread / (abs(low - high) - case.tolerance) ** 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    change = told.requests // 5
    print(f"{told.streams} streams a line, up to {told.requests:,} requests, seed {told.seed}\n")
    print("| null streams | raised an alarm, ever |\n|---|---|")
    for number, case in enumerate(NULL):
        found = [alarm(case, told.requests, change, [told.seed, number, i]) for i in range(told.streams)]
        print(f"| {case.name} | {100 * np.mean([one is not None for one in found]):.1f} % |", flush=True)
    print(
        "\n| streams with a change | found | too early | median delay in requests | one look |\n|---|---|---|---|---|"
    )
    for number, case in enumerate(CHANGED):
        found = [alarm(case, told.requests, change, [told.seed, 9, number, i]) for i in range(told.streams)]
        delays = np.array([np.inf if one is None else one - change for one in found])
        middle = float(np.median(delays))
        print(
            f"| {case.name} | {100 * np.isfinite(delays).mean():.1f} % | {100 * (delays < 0).mean():.1f} % | "
            f"{f'{middle:,.0f}' if np.isfinite(middle) else 'none yet'} | {one_look(case):,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
