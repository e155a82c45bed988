"""The problem that every library solves, and its exact solution by another method than any of theirs.

    minimise 1/2 |y - z|^2   subject to   |mean_g(y) - mean_h(y)| <= tolerance for all g, h,   0 <= y <= 1

All pairs within the tolerance is the same as all means inside one interval [c, c + tolerance]. Given c, the
groups separate; y in group g is clip(z - t_g), with t_g chosen so that its mean is the point of the interval
nearest to mean(clip(z)). The cost is convex in c, with derivative -sum_g n_g t_g: two nested bisections on
sorted scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 0.02
BATCHES = 4  # each library is called on these in turn, as in training: no result can be remembered


@dataclass(frozen=True)
class Batch:
    """Scores (n,), group codes (n,) int64, and the gradient that arrives from above (n,)."""

    scores: Tensor
    groups: Tensor
    upstream: Tensor


@dataclass(frozen=True)
class Problem:
    """Batches of n scores in `group_count` groups; `slabs` is the number of pairs of groups."""

    n: int
    slabs: int
    dtype: torch.dtype
    batches: tuple[Batch, ...]

    @property
    def group_count(self) -> int:
        """Number of groups."""
        return groups_for(self.slabs)

    def pairs(self) -> np.ndarray:
        """Return C, (slabs, groups): 1 and -1 for each pair."""
        count = self.group_count
        matrix = np.zeros((self.slabs, count))
        for row, (g, h) in enumerate(combinations(range(count), 2)):
            matrix[row, g], matrix[row, h] = 1.0, -1.0
        return matrix

    def averages(self, batch: Batch) -> np.ndarray:
        """Return P, (groups, n): averages each group."""
        codes = batch.groups.numpy()
        members = codes == np.arange(self.group_count)[:, None]
        return members / members.sum(1, keepdims=True)


@dataclass(frozen=True)
class Accuracy:
    """How good an answer is: each number in prediction units, the last in units of the upstream gradient."""

    violation: float  # of tolerance or bounds, the worst
    distance: float  # max |value - exact value|
    gradient: float  # max |gradient - exact gradient|


def groups_for(slabs: int) -> int:
    """Return the number of groups that have so many pairs: 1 -> 2, 3 -> 3, 6 -> 4, ..., 28 -> 8."""
    for count in range(2, 65):
        if count * (count - 1) // 2 == slabs:
            return count
    raise ValueError(f"{slabs} slabs are not all pairs of some groups; take 1, 3, 6, 10, 15, 21 or 28.")


def make_problem(n: int, slabs: int, dtype: torch.dtype, seed: int = 0) -> Problem:
    """Draw batches: group sizes in ratios 1 to 2, mean scores 0.43 to 0.57, deviation 0.25.

    Some 4 % of the scores are outside [0, 1], so the bounds matter.
    """
    rng = np.random.default_rng(seed)
    count = groups_for(slabs)
    edges = np.cumsum(np.linspace(1.0, 2.0, count))
    share = np.searchsorted(edges / edges[-1], (np.arange(n) + 0.5) / n)
    batches = []
    for _ in range(BATCHES):
        codes = rng.permutation(share)
        scores = rng.normal(0.43 + 0.14 * codes / (count - 1), 0.25)
        upstream = rng.normal(size=n)
        scores, upstream = (torch.from_numpy(array).to(dtype) for array in (scores, upstream))
        batches.append(Batch(scores, torch.from_numpy(codes), upstream))
    return Problem(n, slabs, dtype, tuple(batches))


def exact_solution(problem: Problem, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Return the projection of the batch and the gradient for its upstream, in float64."""
    scores, codes = batch.scores.double().numpy(), batch.groups.numpy()
    groups = [_Group(scores[codes == g]) for g in range(problem.group_count)]
    means = [group.mean(0.0) for group in groups]

    def slope(c: float) -> float:
        return -sum(group.n * group.shift_to(_nearest(m, c)) for group, m in zip(groups, means, strict=True))

    c = _bisect(slope, min(means), max(means))
    shifts = np.array([group.shift_to(_nearest(m, c)) for group, m in zip(groups, means, strict=True)])
    moved = scores - shifts[codes]
    free = (moved > 0.0) & (moved < 1.0)
    return np.clip(moved, 0.0, 1.0), _exact_gradient(batch.upstream.double().numpy(), codes, free, shifts)


def accuracy(problem: Problem, batch: Batch, value: Tensor, gradient: Tensor) -> Accuracy:
    """Compare an answer with the exact one."""
    exact_value, exact_grad = exact_solution(problem, batch)
    found, codes = value.detach().double().numpy().reshape(-1), batch.groups.numpy()
    means = np.bincount(codes, weights=found) / np.bincount(codes)
    outside = max(-found.min(), found.max() - 1.0)
    violation = max(0.0, float(np.ptp(means)) - TOLERANCE, float(outside))
    distance = float(np.abs(found - exact_value).max())
    return Accuracy(violation, distance, float(np.abs(gradient.double().numpy() - exact_grad).max()))


class _Group:
    """The mean of clip(scores - t) in one group as a function of t, from sorted scores and running sums."""

    def __init__(self, scores: np.ndarray) -> None:
        self.n = len(scores)
        self.sorted = np.sort(scores)
        self.sums = np.concatenate([[0.0], np.cumsum(self.sorted, dtype=np.longdouble)])

    def mean(self, t: float) -> float:
        """Return the mean: scores in (t, t + 1) count z - t, those above count 1."""
        low, high = np.searchsorted(self.sorted, [t, t + 1.0], side="right")
        total = self.sums[high] - self.sums[low] - (high - low) * np.longdouble(t) + (self.n - high)
        return float(total / self.n)

    def shift_to(self, target: float) -> float:
        """Return the t with that mean."""
        if target == self.mean(0.0):
            return 0.0
        return _bisect(lambda t: target - self.mean(t), self.sorted[0] - 1.0, self.sorted[-1])


def _nearest(mean: float, c: float) -> float:
    return min(max(mean, c), c + TOLERANCE)


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """Return the root of a non-decreasing function, to the last bit."""
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            return middle
        if function(middle) < 0.0:
            low = middle
        else:
            high = middle


def _exact_gradient(v: np.ndarray, codes: np.ndarray, free: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Differentiate the conditions on the groups that move (t_g != 0), and apply the result, symmetric, to v.

    Means move together, (s_g - k_g dt_g) / n_g = dc with s_g = sum of v over the k_g unclipped, and
    sum_g n_g dt_g = 0; a group that does not move has dt_g = 0.
    """
    count = len(shifts)
    n = np.bincount(codes, minlength=count)
    k = np.bincount(codes, weights=free, minlength=count)
    s = np.bincount(codes, weights=free * v, minlength=count)
    active = (shifts != 0.0) & (k > 0)
    change = np.zeros(count)
    if active.any():
        n, k, s = n[active], k[active], s[active]
        dc = (n * s / k).sum() / (n * n / k).sum()
        change[active] = (s - n * dc) / k
    return free * (v - change[codes])
