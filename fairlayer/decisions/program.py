"""The best lottery between thresholds: a linear program over the breaks of all curves.

    maximise sum_g sum_j w_gj gain_gj   subject to   sum_j w_gj = 1,  w >= 0,  slabs on sum_g sum_j w_gj statistics_gj

`w_gj` is the probability with which cell g uses its break j. The program has a column per distinct score, but few rows,
so columns are generated: solve for a few breaks, ask each curve for the break of largest reduced cost (one pass), add
it, until there is none. What results is optimal over all of them, and its row prices are d optimum / d limit.
Source: Dantzig, Wolfe (1960), "Decomposition principle for linear programs"; Hardt, Price, Srebro (2016), section 4,
for the convex hull of thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.decisions.curves import Curve
from fairlayer.decisions.simplex import Simplex
from fairlayer.solve import RowSlabs, SlabSystem, SpreadSlabs

__all__ = ["ClashingBlocks", "Mixture", "Optimum", "solve_program"]

_FIRST = 8  # breaks per cell to begin with
_GAIN = 1e-11  # reduced cost that counts as none
_FEASIBLE = 1e-9
_ROUNDS = 500


class ClashingBlocks(Exception):  # noqa: N818 - an outcome, turned into a named error at the edge
    """The blocks that no lottery meets together."""

    def __init__(self, blocks: Sequence[int]) -> None:
        super().__init__("clashing blocks")
        self.blocks = tuple(blocks)


class Mixture(NamedTuple):
    """A lottery between breaks of one curve: which, and with what probabilities (sum 1)."""

    breaks: IntArray
    weights: FloatArray

    def of(self, curve: Curve) -> tuple[float, FloatArray, float]:
        """Return the expected count, statistics and gain."""
        w = self.weights
        count, gain = float(w @ curve.counts[self.breaks]), float(w @ curve.gains[self.breaks])
        return count, w @ curve.statistics[self.breaks], gain


class Optimum(NamedTuple):
    """The best lottery per cell, its gain, and the price of each block (gain per unit of its limits)."""

    mixtures: tuple[Mixture, ...]
    gain: float
    prices: FloatArray


@dataclass(frozen=True)
class _Inequalities:
    """`matrix @ statistics + free * c <= limits`, with one free number c per spread.

    A spread, scale * max(v) - min(v) <= width, says that some c has c <= v_i and scale * v_i <= c + width.
    """

    matrix: FloatArray  # (rows, statistics)
    free: FloatArray  # (rows, spreads)
    limits: FloatArray
    blocks: IntArray  # the block of each row
    slopes: FloatArray  # d limit / d tolerance of the block

    @staticmethod
    def of(slabs: SlabSystem, statistics: int) -> _Inequalities:
        spreads = sum(isinstance(block, SpreadSlabs) for block in slabs.blocks)
        parts = [(np.zeros((0, statistics)), np.zeros((0, spreads)), np.zeros(0), np.zeros(0))]
        owners, column = [np.zeros(0, dtype=np.int64)], 0
        for number, block in enumerate(slabs.blocks):
            if isinstance(block, SpreadSlabs):
                parts.append(_spread_rows(block, np.eye(spreads)[column]))
                column += 1
            else:
                parts.append(_slab_rows(block, spreads))
            owners.append(np.full(len(parts[-1][0]), number))
        matrix, free, limits, slopes = (np.concatenate(each) for each in zip(*parts, strict=True))
        return _Inequalities(matrix, free, limits, np.concatenate(owners), slopes)


def _spread_rows(block: SpreadSlabs, free: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    m = len(block.matrix)
    offset = np.zeros(m) if block.offset is None else block.offset
    high, low = (block.scale * block.matrix, block.width - block.scale * offset), (-block.matrix, offset)
    return (
        np.vstack([high[0], low[0]]),
        np.vstack([np.tile(-free, (m, 1)), np.tile(free, (m, 1))]),
        np.append(high[1], low[1]),
        np.append(np.ones(m), np.zeros(m)),
    )


def _slab_rows(block: RowSlabs, spreads: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    upper, lower = np.isfinite(block.upper), np.isfinite(block.lower)
    scale = np.ones(len(block.matrix)) if block.scale is None else block.scale
    matrix = np.vstack([block.matrix[upper], -block.matrix[lower]])
    limits = np.append(block.upper[upper], -block.lower[lower])
    return matrix, np.zeros((len(matrix), spreads)), limits, np.append(1.0 / scale[upper], 1.0 / scale[lower])


def solve_program(curves: Sequence[Curve], slabs: SlabSystem, statistics: int) -> Optimum:
    """Return the best lottery per cell.

    Args:
        curves: one per cell.
        slabs: what must hold for the statistics.
        statistics: their number.

    Raises:
        ClashingBlocks: no lottery meets the slabs.
        SolverError: the solver did not settle.
    """
    return _Master(curves, _Inequalities.of(slabs, statistics)).solve(len(slabs.blocks))


class _Master:
    """The program over the breaks asked for so far. Rows: one per cell, then those of the slabs.

    Columns: slack of each slab row, the free numbers (as a difference), the widening of all limits, then breaks.
    """

    def __init__(self, curves: Sequence[Curve], rows: _Inequalities) -> None:
        self.curves, self.rows = curves, rows
        self.cells, m, free = len(curves), len(rows.limits), rows.free.shape[1]
        self.widening = m + 2 * free
        self.cell_of = np.zeros(0, dtype=np.int64)
        self.break_of = np.zeros(0, dtype=np.int64)
        own = np.hstack([np.eye(m), rows.free, -rows.free, -np.ones((m, 1))])
        nobody = self._columns(np.arange(self.cells), np.zeros(self.cells, dtype=np.int64))
        basis = np.append(own.shape[1] + np.arange(self.cells), np.arange(m))
        columns = np.hstack([np.vstack([np.zeros((self.cells, own.shape[1])), own]), nobody])
        self.simplex = Simplex(columns, np.append(np.ones(self.cells), rows.limits), basis)
        for cell, curve in enumerate(curves):
            self._ask(cell, np.unique(np.linspace(0, len(curve.values), _FIRST + 1).astype(np.int64))[1:])

    def solve(self, blocks: int) -> Optimum:
        if len(self.rows.limits) and self.rows.limits.min() < 0:
            self._make_feasible()
        self.simplex.drop(self.widening)
        prices = self._generate(selecting=True)
        per_block = np.bincount(self.rows.blocks, prices[self.cells :] * self.rows.slopes, blocks).astype(np.float64)
        return Optimum(tuple(self._mixtures()), float(self._costs() @ self.simplex.solution()), per_block)

    def _make_feasible(self) -> None:
        """Widen all limits until selecting nobody meets them, then take the widening back."""
        self.simplex.pivot(self.widening, self.cells + int(self.rows.limits.argmin()))
        prices = self._generate(selecting=False)
        if self.simplex.solution()[self.widening] > _FEASIBLE:
            raise ClashingBlocks(np.unique(self.rows.blocks[np.abs(prices[self.cells :]) > 1e-9]).tolist())

    def _generate(self, *, selecting: bool) -> FloatArray:
        """Solve for the breaks so far, and add the best further one of each cell, until none is left."""
        for _ in range(_ROUNDS):
            prices = self.simplex.maximise(self._costs() if selecting else self._widening_costs())
            nu = prices[self.cells :] @ self.rows.matrix
            asked = [self._best(cell, float(prices[cell]), nu, selecting=selecting) for cell in range(self.cells)]
            fresh = [(cell, j) for cell, j in enumerate(asked) if j is not None]
            if not fresh:
                break
            for cell, j in fresh:
                self._ask(cell, np.array([j]))
        return prices

    def _best(self, cell: int, price: float, nu: FloatArray, *, selecting: bool) -> int | None:
        curve = self.curves[cell]
        reduced = (curve.gains if selecting else 0.0) - curve.statistics @ nu[curve.touched] - price
        best = int(reduced.argmax())
        known = self.break_of[self.cell_of == cell]
        return best if reduced[best] > _GAIN and best not in known else None

    def _ask(self, cell: int, breaks: IntArray) -> None:
        self.simplex.append(self._columns(np.full(len(breaks), cell), breaks))

    def _columns(self, cells: IntArray, breaks: IntArray) -> FloatArray:
        self.cell_of, self.break_of = np.append(self.cell_of, cells), np.append(self.break_of, breaks)
        columns = np.zeros((self.cells + len(self.rows.limits), len(cells)))
        columns[cells, np.arange(len(cells))] = 1.0
        for position, (cell, j) in enumerate(zip(cells.tolist(), breaks.tolist(), strict=True)):
            curve = self.curves[cell]
            columns[self.cells :, position] = self.rows.matrix[:, curve.touched] @ curve.statistics[j]
        return columns

    def _costs(self) -> FloatArray:
        gains = [self.curves[g].gains[j] for g, j in zip(self.cell_of.tolist(), self.break_of.tolist(), strict=True)]
        return np.append(np.zeros(self.widening + 1), gains)

    def _widening_costs(self) -> FloatArray:
        costs = np.zeros(self.simplex.columns.shape[1])
        costs[self.widening] = -1.0
        return costs

    def _mixtures(self) -> list[Mixture]:
        weights = self.simplex.solution()[self.widening + 1 :]
        mixtures = []
        for cell in range(self.cells):
            used = np.flatnonzero((self.cell_of == cell) & (weights > 1e-11))
            used = used[np.argsort(self.break_of[used])]
            mixtures.append(Mixture(self.break_of[used], weights[used] / weights[used].sum()))
        return mixtures
