"""Many groups, cells and strata: one projection beside cvxpy and Clarabel built afresh, in one run.

    python benchmarks/many_groups.py [--rows 20000] [--repeat 2]

Ratios are this package's time over the general solver's: below 1 is faster. Both get the same batch; the solver's time
is that of `Problem.solve`, which includes its translation, and ours that of `project` with the groups as arrays.
"""

from __future__ import annotations

import argparse
import os
import time

import clarabel
import cvxpy as cp
import numpy as np
import scipy.sparse as sp
import torch

import fairlayer as fl

TOLERANCE = 0.02


def case(kind: str, n: int) -> tuple[np.ndarray, dict[str, np.ndarray], list[fl.Constraint]]:
    """Return scores, features and constraints."""
    r = np.random.default_rng(0)

    def parity(on: str | tuple[str, ...], times: float = 1.0) -> fl.Constraint:
        return fl.DemographicParity(on, times * TOLERANCE)

    features, rules = {
        "one range, 1,000 groups": lambda: ({"a": r.integers(0, 1000, n)}, [parity("a")]),
        "one range, 5,000 groups": lambda: ({"a": r.integers(0, 5000, n)}, [parity("a")]),
        "floors, 200 groups": lambda: ({"a": r.integers(0, 200, n)}, [fl.MinimumRate("a", 0.45)]),
        "500 strata of 4": lambda: (
            {"a": r.integers(0, 4, n), "s": r.integers(0, 500, n)},
            [fl.ConditionalParity("a", given="s", tolerance=TOLERANCE)],
        ),
        "40 x 50 cells": lambda: (
            {"a": r.integers(0, 40, n), "b": r.integers(0, 50, n)},
            [parity("a"), parity("b")],
        ),
        "12 x 12 x 12 cells": lambda: ({k: r.integers(0, 12, n) for k in "abc"}, [parity(k) for k in "abc"]),
        "1,000 x 2 cells": lambda: (
            {"a": r.integers(0, 1000, n), "b": r.integers(0, 2, n)},
            [parity("a"), parity("b")],
        ),
        "nested, 50 of 1,000": lambda: nested(r, n, parity),
        "one 90 % of the other, 40 x 40": lambda: dependent(r, n, parity),
        "20 x 25 and their crossing": lambda: (
            {"a": r.integers(0, 20, n), "b": r.integers(0, 25, n)},
            [parity("a"), parity("b"), parity(("a", "b"), 5.0)],
        ),
        "500 strata of 4 and their parity": lambda: (
            {"a": r.integers(0, 4, n), "s": r.integers(0, 500, n)},
            [fl.ConditionalParity("a", given="s", tolerance=TOLERANCE), parity("s", 2.0)],
        ),
        "1,000 x 1,000, 2,000 cells": lambda: banded(r, n, parity),
        "opportunity by estimates, 1,000 groups": lambda: (
            {"a": r.integers(0, 1000, n)},
            [fl.EqualOpportunity("a", TOLERANCE)],
        ),
        "odds by estimates, 1,000 groups": lambda: ({"a": r.integers(0, 1000, n)}, [fl.EqualizedOdds("a", TOLERANCE)]),
    }[kind]()
    lifts = sum(0.3 * (r.random(v.max() + 1) - 0.5)[v] for v in features.values())
    return np.clip(r.beta(2, 3, n) + lifts, 0, 1), features, rules


def nested(r, n, parity):
    inner = r.integers(0, 1000, n)
    return {"a": inner // 20, "b": inner}, [parity("a"), parity("b", 2.0)]


def dependent(r, n, parity):
    a = r.integers(0, 40, n)
    return {"a": a, "b": np.where(r.random(n) < 0.9, a, r.integers(0, 40, n))}, [parity("a"), parity("b")]


def banded(r, n, parity):
    a = r.integers(0, 1000, n)
    return {"a": a, "b": (a + r.integers(0, 2, n)) % 1000}, [parity("a"), parity("b")]


KINDS = (
    "one range, 1,000 groups",
    "one range, 5,000 groups",
    "floors, 200 groups",
    "500 strata of 4",
    "40 x 50 cells",
    "12 x 12 x 12 cells",
    "1,000 x 2 cells",
    "nested, 50 of 1,000",
    "one 90 % of the other, 40 x 40",
    "20 x 25 and their crossing",
    "500 strata of 4 and their parity",
    "1,000 x 1,000, 2,000 cells",
    "opportunity by estimates, 1,000 groups",
    "odds by estimates, 1,000 groups",
)


def estimates(n: int) -> np.ndarray:
    """Return probabilities of label 1, (n,)."""
    return np.random.default_rng(1).random(n)


def means(codes: np.ndarray, weights: np.ndarray) -> sp.csr_matrix:
    """Return the rows that take the mean of each group."""
    n, shares = len(codes), weights / np.bincount(codes, weights)[codes]
    return sp.csr_matrix((shares, (codes, np.arange(n))), shape=(int(codes.max()) + 1, n))


def projected(z: np.ndarray, features: dict[str, np.ndarray], rules: list[fl.Constraint]) -> fl.Projection:
    """Solve by `project`."""
    labels = estimates(len(z)) if any(rule.needs_labels for rule in rules) else None
    return fl.project(
        torch.tensor(z), rules, sensitive_features=features, label_probabilities=labels, bounds=(0.0, 1.0)
    )


def general(z: np.ndarray, features: dict[str, np.ndarray], rules: list[fl.Constraint]) -> tuple[np.ndarray, float]:
    """Solve by cvxpy and Clarabel, built afresh; return the predictions and the seconds."""
    n = len(z)
    y = cp.Variable(n)
    limits = [y >= 0, y <= 1]
    for rule in rules:
        names = rule.features
        codes = features[names[0]]
        for name in names[1:]:
            codes = codes * (int(features[name].max()) + 1) + features[name]
        present, codes = np.unique(codes, return_inverse=True)
        if isinstance(rule, fl.EqualOpportunity | fl.EqualizedOdds):
            p = estimates(n)
            for label in (p,) if isinstance(rule, fl.EqualOpportunity) else (p, 1 - p):
                low = cp.Variable()
                mean = means(codes, label) @ y
                limits += [mean >= low, mean <= low + rule.tolerance]
            continue
        rows = means(codes, np.ones(n))
        if isinstance(rule, fl.MinimumRate):
            limits.append(rows @ y >= rule.floor)
            continue
        given = isinstance(rule, fl.ConditionalParity)
        stratum = present % (int(features[names[1]].max()) + 1) if given else np.zeros(len(present), int)
        mean, low = cp.Variable(len(present)), cp.Variable(int(stratum.max()) + 1)
        limits += [rows @ y == mean, mean >= low[stratum], mean <= low[stratum] + rule.tolerance]
    begin = time.perf_counter()
    cp.Problem(cp.Minimize(cp.sum_squares(y - z)), limits).solve(solver=cp.CLARABEL)
    return np.asarray(y.value), time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    print(f"{given.rows} rows, float64, 1 torch thread, OMP_NUM_THREADS={threads}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; numpy {np.__version__}, torch {torch.__version__}")
    print(f"cvxpy {cp.__version__}, clarabel {clarabel.__version__}, at its own default accuracy\n")
    print("| problem | over cvxpy + Clarabel | passes | largest difference | certificate |\n|---|---|---|---|---|")
    for kind in KINDS:
        z, features, rules = case(kind, given.rows)
        ours = theirs = np.inf
        for _ in range(given.repeat):
            begin = time.perf_counter()
            found = projected(z, features, rules)
            ours = min(ours, time.perf_counter() - begin)
            wanted, seconds = general(z, features, rules)
            theirs = min(theirs, seconds)
        off = float(np.abs(found.value.numpy() - wanted).max())
        holds = "holds" if found.certificate.holds else "DOES NOT HOLD"
        print(f"| {kind} | {ours / theirs:.2f} | {found.passes} | {off:.0e} | {holds} |", flush=True)


if __name__ == "__main__":
    main()
