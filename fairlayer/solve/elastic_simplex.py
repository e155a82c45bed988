"""Rows of class probabilities as a domain of the elastic program: a row answers by one class, its cheapest."""

from __future__ import annotations

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.solve.elastic_domain import Breakpoints
from fairlayer.solve.elastic_samples import SampleMap

__all__ = ["SimplexDomain"]


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
