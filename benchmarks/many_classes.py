"""Many groups over class probabilities: one projection beside cvxpy and Clarabel built afresh, in one run.

    python benchmarks/many_classes.py [--repeat 2] [--only NAME ...]

Ratios are this package's time over the general solver's: below 1 is faster. The solver's time is that of
`Problem.solve`, which includes its translation; ours is `project` with the groups as arrays, and then the gradient.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from typing import NamedTuple

import clarabel
import cvxpy as cp
import numpy as np
import scipy.sparse as sp
import torch

import fairlayer as fl


class Case(NamedTuple):
    """One problem: rows, classes, rules over the groups `a`, `b` and labels, and noise added to the probabilities."""

    rows: int
    classes: int
    groups: int
    rules: str
    noise: float = 0.0
    geometry: str = "euclidean"


CASES = {
    "100 groups": Case(2_000, 3, 100, "one"),
    "300 groups": Case(6_000, 3, 300, "one"),
    "1,000 groups": Case(20_000, 3, 1_000, "one"),
    "1,000 groups, 6 classes": Case(20_000, 6, 1_000, "one"),
    "5,000 groups": Case(50_000, 3, 5_000, "one"),
    "1,000 groups, far rows": Case(20_000, 3, 1_000, "one", noise=5.0),
    "1,000 x 2 groups": Case(20_000, 3, 1_000, "two"),
    "40 x 50 groups": Case(20_000, 3, 40, "crossed"),
    "1,000 x 1,000, 2,000 cells": Case(20_000, 3, 1_000, "banded"),
    "50 of 1,000 groups": Case(20_000, 3, 1_000, "nested"),
    "floors, 1,000 groups": Case(20_000, 3, 1_000, "floors"),
    "ratio, 1,000 groups": Case(20_000, 3, 1_000, "ratio"),
    "250 strata of 4": Case(20_000, 3, 250, "strata"),
    "labels, 1,000 groups": Case(20_000, 3, 1_000, "labels"),
    "100 groups, entropic": Case(2_000, 3, 100, "one", geometry="entropic"),
}


def posed(case: Case):
    """Return scores, features, labels and constraints."""
    r = np.random.default_rng(0)
    n, a, y = case.rows, r.integers(0, case.groups, case.rows), r.integers(0, case.classes, case.rows)
    wide = fl.DemographicParity("a", 0.1)
    features, rules = {
        "one": lambda: ({}, [wide]),
        "two": lambda: ({"b": r.integers(0, 2, n)}, [wide, fl.DemographicParity("b", 0.05)]),
        "crossed": lambda: ({"b": r.integers(0, 50, n)}, [wide, fl.DemographicParity("b", 0.05)]),
        "banded": lambda: ({"b": (a + r.integers(0, 2, n)) % case.groups}, [wide, fl.DemographicParity("b", 0.1)]),
        "nested": lambda: ({"b": a // 20}, [wide, fl.DemographicParity("b", 0.05)]),
        "floors": lambda: ({}, [fl.MinimumRate("a", floor=0.8 / case.classes)]),
        "ratio": lambda: ({}, [fl.DisparateImpactRatio("a", ratio=0.8)]),
        "strata": lambda: ({"b": r.integers(0, 4, n)}, [fl.ConditionalParity("b", given="a", tolerance=0.1)]),
        "labels": lambda: ({}, [fl.EqualOpportunity("a", 0.1)]),
    }[case.rules]()
    logits = r.normal(0, 1, (n, case.classes)) + 0.6 * r.normal(0, 1, (case.groups, case.classes))[a]
    scores = np.exp(logits)
    scores = scores / scores.sum(axis=1, keepdims=True) + case.noise * r.normal(0, 1, logits.shape)
    return scores, {"a": a, **features}, (y if case.rules == "labels" else None), rules


def averages(codes: np.ndarray) -> tuple[sp.csr_matrix, np.ndarray]:
    """Return the matrix of means over each group that is there, and the groups."""
    present, codes = np.unique(codes, return_inverse=True)
    weights = 1.0 / np.bincount(codes)[codes]
    return sp.csr_matrix((weights, (codes, np.arange(len(codes))))), present


def general(scores, features, labels, rules, geometry: str) -> tuple[np.ndarray, float]:
    """Solve by cvxpy and Clarabel, built afresh; return the predictions and the seconds."""
    n, k = scores.shape
    y = cp.Variable((n, k))
    limits = [cp.sum(y, axis=1) == 1, y >= 0]
    for rule in rules:
        if isinstance(rule, fl.EqualOpportunity):
            for c in range(k):
                rows = np.flatnonzero(labels == c)
                means, low = averages(features["a"][rows])[0] @ y[rows, c], cp.Variable()
                limits += [means >= low, means <= low + rule.tolerance]
            continue
        codes = features[rule.features[0]]
        for name in rule.features[1:]:
            codes = codes * (int(features[name].max()) + 1) + features[name]
        matrix, present = averages(codes)
        if isinstance(rule, fl.MinimumRate):
            limits.append(matrix @ y >= rule.floor)
            continue
        given = isinstance(rule, fl.ConditionalParity)
        stratum = present % (int(features[rule.features[-1]].max()) + 1) if given else np.zeros(len(present), int)
        means, low = cp.Variable((len(present), k)), cp.Variable((int(stratum.max()) + 1, k))
        spread = sp.csr_matrix((np.ones(len(stratum)), (np.arange(len(stratum)), stratum))) @ low
        ratio = isinstance(rule, fl.DisparateImpactRatio)
        above = rule.ratio * means <= spread if ratio else means <= spread + rule.tolerance
        limits += [matrix @ y == means, means >= spread, above]
    far = cp.sum_squares(y - scores) if geometry == "euclidean" else cp.sum(cp.kl_div(y, scores))
    begin = time.perf_counter()
    cp.Problem(cp.Minimize(far), limits).solve(solver=cp.CLARABEL)
    return np.asarray(y.value), time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(CASES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # far rows do not sum to 1, and are told so
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    print(f"float64, 1 torch thread, OMP_NUM_THREADS={threads}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; numpy {np.__version__}, torch {torch.__version__}")
    print(f"cvxpy {cp.__version__}, clarabel {clarabel.__version__}, at its own default accuracy\n")
    print("| problem | forward, s | backward, s | cvxpy + Clarabel, s | ratio | passes | largest difference | holds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.only:
        scores, features, labels, rules = posed(CASES[name])
        geometry, known = CASES[name].geometry, {} if labels is None else {"y": labels}
        forward = backward = theirs = np.inf
        for _ in range(given.repeat):
            z = torch.tensor(scores).requires_grad_()
            begin = time.perf_counter()
            found = fl.project(z, rules, sensitive_features=features, bounds="simplex", geometry=geometry, **known)
            forward = min(forward, time.perf_counter() - begin)
            begin = time.perf_counter()
            found.value.backward(torch.randn_like(found.value))
            backward = min(backward, time.perf_counter() - begin)
            wanted, seconds = general(scores, features, labels, rules, geometry)
            theirs = min(theirs, seconds)
        off = float(np.abs(found.value.detach().numpy() - wanted).max())
        holds = "yes" if found.certificate.holds else "NO"
        ratio = (forward + backward) / theirs
        print(
            f"| {name} | {forward:.2f} | {backward:.3f} | {theirs:.2f} | {ratio:.2f} | {found.passes} "
            f"| {off:.0e} | {holds} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
