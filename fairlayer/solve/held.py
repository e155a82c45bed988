"""The rows that hold a solution in place, and how they answer a change.

At the solution a member of a spread stands at one of its two ends, and all ends of a spread move together with its
level. With M the rows that hold, E which level each belongs to, and K the answer of the statistics to a pull, a change
h = M ds of where the rows would go is cancelled by prices p with

    M K M' p - E d = h,     E' p = 0          (d: how far each level moves)

Thousands of groups that share no sample make M K M' diagonal, and p follows in closed form; so the derivative of one
range costs its groups, not their square. Otherwise d is eliminated by differences to one row of each level.
"""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
import torch

from fairlayer._rows import as_sparse
from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.passes.class_metric import ClassMetric
from fairlayer.solve.class_rows import ClassRows
from fairlayer.solve.class_systems import ClassEquations, class_system
from fairlayer.solve.parts import sums
from fairlayer.solve.slabs import Faces, RowSlabs, SlabSystem, SpreadSlabs
from fairlayer.solve.solution import Solution
from fairlayer.solve.table import RowTable

__all__ = ["HeldRows"]

_PSEUDO_UP_TO = 128  # rows of a system that is solved by its eigenvectors
_DEPENDENT = 1e-11  # eigenvalue of rows of unit size, below which they depend on each other
_REFINED = 6  # times
_REGULAR = 1e-10  # what is added to the diagonal of a larger one, and taken back by refinement


class HeldRows:
    """The rows that hold a solution.

    Args:
        solution: the solution.
        slabs: what it meets.

    Rows without slack hold even where their price is zero. `least` says whether their prices act as the smallest.
    """

    least = False

    def __init__(self, solution: Solution, slabs: SlabSystem) -> None:
        table = RowTable.of(slabs)
        first = np.append(0, np.cumsum([len(block.matrix) for block in slabs.blocks], dtype=np.int64))
        place, prices = _priced(solution, slabs, first)
        tight = _without_slack(slabs, first)
        more = 2 * tight[~np.isin(tight, place // 2)]  # rows that hold without a price, as if from below
        place, prices = np.append(place, more), np.append(prices, np.zeros(len(more)))
        order = np.argsort(place)
        rows, from_above, prices = place[order] // 2, place[order] % 2 == 1, prices[order]
        self._read(slabs, table, rows, from_above, prices)

    def _read(self, slabs: SlabSystem, table: RowTable, rows: IntArray, above: BoolArray, prices: FloatArray) -> None:
        self.block: IntArray = table.block[rows]
        level = table.level[rows]
        _, self.level = np.unique(level, return_inverse=True)
        self.tied: BoolArray = level >= 0
        scale = np.append(table.scale, 1.0)[level]
        factor = np.where(self.tied & above, scale, 1.0)
        taken = table.matrix.take_rows(rows)
        self.matrix = taken * factor[:, None] if len(rows) else taken
        units = [
            np.ones(len(b.matrix)) if b.scale is None else b.scale for b in slabs.blocks if isinstance(b, RowSlabs)
        ]
        per_row = np.ones(len(table.level))
        if units:
            per_row[~table.tied] = np.concatenate(units)
        self.price: FloatArray = np.where(above, prices, -prices)
        side = np.where(above, 1.0, np.where(self.tied, 0.0, -1.0))
        # How far the limit of each row moves per unit of its block's tolerance, in the user's units.
        self.opening: FloatArray = np.where(prices > 0, side / per_row[rows], 0.0)

    def __len__(self) -> int:
        return len(self.level)

    def with_least_prices(self, widest: FloatArray) -> HeldRows | None:
        """Return the rows such that any prices of the batch act as the smallest that pull it alike; None: they do now.

        Rows that depend on each other leave their prices open: a change of prices that pulls no sample of positive
        weight changes no prediction that counts. It does change those of weight 0 beyond the cells of the others, so
        for them R M stands for M, with R the projector onto prices that are orthogonal to all such changes.

        Args:
            widest: K with every sample free to move, to which samples of weight 0 add nothing.
        """
        matrix = np.asarray(self.matrix)
        square = (matrix * widest if widest.ndim == 1 else matrix @ widest) @ matrix.T
        levels = np.eye(int(self.level.max(initial=-1)) + 1)[self.level] * self.tied[:, None]
        diagonal = np.diag(square)
        size = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        # A price of row j is counted in the unit 1 / size_j. It may not change what the prices of a level add up to.
        ties = levels / size[:, None]
        gram = square / np.outer(size, size) + ties @ ties.T / max(1.0, float((ties**2).sum(axis=0).max(initial=0.0)))
        values, vectors = np.linalg.eigh(gram)
        kept = vectors[:, values > _DEPENDENT * len(self)]
        if kept.shape[1] == len(self):
            return None
        least = copy(self)
        least.least = True
        least.__dict__.pop("normals", None)
        least.__dict__.pop("disjoint", None)
        least.matrix = as_sparse(size[:, None] * (kept @ (kept.T @ (matrix / size[:, None]))))
        return least

    @cached_property
    def disjoint(self) -> bool:
        """Whether no two rows read the same statistic."""
        return bool((np.bincount(self.matrix.columns[self.matrix.data != 0]) <= 1).all()) if len(self) else True

    @cached_property
    def differences(self) -> FloatArray:
        """N: each row that is tied minus the first of its level, and every other row, (faces, rows)."""
        made, first = [], {}
        for row, (level, tied) in enumerate(zip(self.level.tolist(), self.tied.tolist(), strict=True)):
            one = np.zeros(len(self))
            one[row] = 1.0
            if tied and level not in first:
                first[level] = row
                continue
            if tied:
                one[first[level]] = -1.0
            made.append(one)
        return np.array(made).reshape(len(made), len(self))

    @cached_property
    def normals(self) -> FloatArray:
        """N M, (faces, statistics)."""
        return np.array([row @ self.matrix for row in self.differences]).reshape(
            len(self.differences), self.matrix.shape[1]
        )

    def curvature(self, metric: FloatArray) -> FloatArray:
        """Return the diagonal of M K M' for a diagonal K."""
        entries = self.matrix.data**2 * metric[self.matrix.columns]
        return np.bincount(self.matrix.rows, entries, len(self)).astype(np.float64, copy=False)

    def answer(self, metric: FloatArray) -> HeldAnswer:
        """Return the map from h to prices at a metric K, (s,) or (s, s)."""
        if metric.ndim == 1 and self.disjoint:
            return _Apart(self, self.curvature(metric))
        if isinstance(metric, ClassMetric) and len(self) > _PSEUDO_UP_TO:
            return _Bundled(self, metric)
        return _Together(self, metric)

    def answer_followed(self, metric: torch.Tensor) -> Any:
        """Return that map for a metric that torch follows, as a function of tensors."""
        place = metric.device
        if metric.ndim == 1 and self.disjoint:
            columns, rows = (torch.from_numpy(each).to(place) for each in (self.matrix.columns, self.matrix.rows))
            squares = torch.from_numpy(self.matrix.data**2).to(place)
            curvature = metric.new_zeros(len(self)).index_add(0, rows, squares * metric.index_select(0, columns))
            return _TorchApart(self, curvature)
        normals = torch.from_numpy(self.normals).to(place)
        square = (normals * metric) @ normals.T if metric.ndim == 1 else normals @ metric @ normals.T
        diagonal = torch.diagonal(square).detach().clamp(min=1e-300) ** -0.5
        scale = torch.outer(diagonal, diagonal)
        inverse = torch.linalg.pinv(0.5 * (square + square.T) * scale, rtol=1e-11, hermitian=True) * scale
        differences = torch.from_numpy(self.differences).to(place)
        return lambda h: differences.T @ (inverse @ (differences @ h))


def _priced(solution: Solution, slabs: SlabSystem, first: IntArray) -> tuple[IntArray, FloatArray]:
    """Return which rows have a price, as 2 row + (1 where it is held from above), and their prices."""
    faces, price = solution.faces, solution.multipliers
    keys = faces.keys if isinstance(faces, Faces) else np.array([f.key for f in faces], np.int64).reshape(-1, 3)
    block, i, j = keys.T
    spread = np.array([isinstance(each, SpreadSlabs) for each in slabs.blocks], dtype=bool)[block]
    ends = 2 * (first[block] + i) + (spread | (j > 0))
    place, which = np.unique(np.append(ends, 2 * (first[block] + j)[spread]), return_inverse=True)
    return place, np.bincount(which, np.append(price, price[spread]), len(place)).astype(np.float64, copy=False)


def _without_slack(slabs: SlabSystem, first: IntArray) -> IntArray:
    """Return the rows that hold whatever their price."""
    found = [np.zeros(0, dtype=np.int64)]
    for start, slab in zip(first.tolist(), slabs.blocks, strict=False):
        if slab.has_equalities:
            rows = isinstance(slab, RowSlabs)
            found.append(start + (np.flatnonzero(slab.lower == slab.upper) if rows else np.arange(len(slab.matrix))))  # type: ignore[union-attr]
    return np.concatenate(found)


class _Apart:
    """Rows that share no statistic: p = (h + d) / k, with d such that the prices of each level cancel."""

    def __init__(self, held: HeldRows, curvature: FloatArray) -> None:
        self.tied, self.level = held.tied, held.level
        self.dead = curvature <= 0.0
        self.inverse = np.where(self.dead, 0.0, 1.0 / np.where(self.dead, 1.0, curvature))
        self.levels = int(self.level.max(initial=-1)) + 1
        weight = self._add(self.inverse)
        # An end that nothing can move holds its level: the level moves as that end's limit does, and the price of the
        # end is whatever cancels the others. Of several such ends each takes a part.
        self.stand = self._add(self.dead.astype(float))
        self.share = np.where((self.stand > 0) | (weight <= 0), 0.0, 1.0 / np.where(weight > 0, weight, 1.0))
        self.part = np.where(self.stand > 0, 1.0 / np.where(self.stand > 0, self.stand, 1.0), 0.0)

    def _add(self, values: FloatArray) -> FloatArray:
        return np.bincount(self.level[self.tied], values[self.tied], self.levels).astype(np.float64, copy=False)

    def __call__(self, h: FloatArray) -> FloatArray:
        d = -self._add(h * self.inverse) * self.share
        if not self.stand.any():
            return np.asarray((h + np.where(self.tied, d[self.level], 0.0)) * self.inverse)
        d = d - self._add(h * self.dead) * self.part
        price = (h + np.where(self.tied, d[self.level], 0.0)) * self.inverse
        rest = -self._add(price) * self.part
        return np.asarray(price + np.where(self.tied & self.dead, rest[self.level], 0.0))


class _TorchApart:
    """The same, followed by torch."""

    def __init__(self, held: HeldRows, curvature: torch.Tensor) -> None:
        place = curvature.device
        dead = curvature.detach() <= 0.0
        self.inverse = torch.where(dead, 0.0, 1.0 / torch.where(dead, 1.0, curvature))
        self.tied = torch.from_numpy(held.tied.astype(float)).to(place)
        self.level = torch.from_numpy(held.level).to(place)
        self.levels = int(held.level.max(initial=-1)) + 1
        self.dead = dead.to(curvature.dtype)
        weight, stand = self._add(self.inverse), self._add(self.dead)
        held_still = (stand > 0) | (weight.detach() <= 0)
        self.share = torch.where(held_still, 0.0, 1.0 / torch.where(held_still, 1.0, weight))
        self.part = torch.where(stand > 0, 1.0 / torch.where(stand > 0, stand, 1.0), 0.0)

    def _add(self, values: torch.Tensor) -> torch.Tensor:
        return values.new_zeros(self.levels).index_add(0, self.level, values * self.tied)

    def __call__(self, h: torch.Tensor) -> torch.Tensor:
        d = -self._add(h * self.inverse) * self.share - self._add(h * self.dead) * self.part
        price = (h + self.tied * d.index_select(0, self.level)) * self.inverse
        rest = -self._add(price) * self.part
        return price + self.tied * self.dead * rest.index_select(0, self.level)


class _Together:
    """Rows that share statistics: p = N' (N M K M' N')^+ N h, of the matrix scaled to unit diagonal."""

    def __init__(self, held: HeldRows, metric: FloatArray) -> None:
        self.held = held
        normals = held.normals
        square = np.asarray((normals * metric if metric.ndim == 1 else normals @ metric) @ normals.T)
        diagonal = np.diag(square)
        self.scale = np.where(diagonal > 0, 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)), 0.0)
        self.square = square * np.outer(self.scale, self.scale)
        size = len(square)
        if size <= _PSEUDO_UP_TO:
            self.inverse = np.linalg.pinv(self.square, rcond=1e-11, hermitian=True)
        else:
            self.inverse = np.linalg.inv(self.square + _REGULAR * np.eye(size))

    def __call__(self, h: FloatArray) -> FloatArray:
        right = self.scale * (self.held.differences @ h)
        found = self.inverse @ right
        for _ in range(0 if len(right) <= _PSEUDO_UP_TO else _REFINED):
            found = found + self.inverse @ (right - self.square @ found)
        return np.asarray((self.scale * found) @ self.held.differences)


class _Bundled:
    """Many rows that read the means of classes: the equations as they stand, with refinement for what is added."""

    def __init__(self, held: HeldRows, metric: ClassMetric) -> None:
        self.held, self.metric = held, metric
        self.levels = int(held.level.max(initial=-1)) + 1
        rows, self.slope = ClassRows(held.matrix, held.block, metric.layout), np.where(held.tied, -1.0, 0.0)
        own = rows.diagonal(metric)
        soft = _REGULAR * np.where(own > 0, own, float(own.max(initial=0.0)) or 1.0)
        loose = np.where(np.bincount(held.level[held.tied], minlength=self.levels) > 0, 0.0, 1.0)
        active, levels = np.arange(len(held)), np.where(held.tied, held.level, -1)
        self.system = class_system(ClassEquations(rows, metric, active, soft, self.slope, levels, loose))

    def __call__(self, h: FloatArray) -> FloatArray:
        matrix, level = self.held.matrix, self.held.level
        price, d = self.system.solve(h, np.zeros(self.levels))
        for _ in range(_REFINED):
            left = h - matrix @ (self.metric @ (price @ matrix)) - self.slope * d[level]
            added = sums(level, self.slope * price, self.levels)
            more, d_more = self.system.solve(left, -added)
            price, d = price + more, d + d_more
        return price


HeldAnswer = _Apart | _Together | _Bundled
