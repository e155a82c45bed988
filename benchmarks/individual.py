"""LipschitzFairness beside cvxpy and Clarabel built afresh, in one run.

    python benchmarks/individual.py [--rows 1000 3000] [--neighbours 10]

The pairs are given to both, so that the search for neighbours is not timed. Ratios are this package's time over that
of `Problem.solve`, which includes its translation: below 1 is faster.
"""

from __future__ import annotations

import argparse
import time

import cvxpy as cp
import numpy as np
import torch

import fairlayer as fl
from fairlayer.constraints.lipschitz import nearest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 3000])
    parser.add_argument("--neighbours", type=int, default=10)
    asked = parser.parse_args()
    print(f"{'rows':>7}{'columns':>9}{'pairs':>9}{'hold':>7}{'ours s':>9}{'cvxpy s':>9}{'ratio':>8}{'off':>10}")
    for n in asked.rows:
        for columns in (2, 5):
            compare(n, columns, asked.neighbours)


def compare(n: int, columns: int, neighbours: int) -> None:
    """Print one row: half of the raw pairs are further apart than the constant allows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, columns))
    z = 1 / (1 + np.exp(-(x[:, 0] + 0.5 * rng.normal(size=n))))
    near, sex = nearest(x, neighbours, standardise=False), np.arange(n) % 2
    constant = float(np.median(np.abs(z[near.first] - z[near.second]) / near.distance))
    rules = [fl.LipschitzFairness(constant=constant, pairs=tuple(near)), fl.DemographicParity("sex", 0.01)]
    start = time.perf_counter()
    result = fl.project(torch.tensor(z), rules, sensitive_features={"sex": sex}, bounds=(0.0, 1.0))
    ours = time.perf_counter() - start
    start = time.perf_counter()
    y = cp.Variable(n)
    gap = ((sex == 0) / (sex == 0).sum() - (sex == 1) / (sex == 1).sum()) @ y
    limits = [cp.abs(y[near.first] - y[near.second]) <= constant * near.distance, cp.abs(gap) <= 0.01, y >= 0, y <= 1]
    cp.Problem(cp.Minimize(cp.sum_squares(y - z)), limits).solve(solver=cp.CLARABEL)
    theirs = time.perf_counter() - start
    off = float(np.abs(result.value.numpy() - y.value).max())
    assert result.certificate.holds
    row = f"{n:>7}{columns:>9}{len(near.first):>9}{len(result.active):>7}"
    print(f"{row}{ours:>9.2f}{theirs:>9.2f}{ours / theirs:>8.2f}{off:>10.1e}")


if __name__ == "__main__":
    main()
