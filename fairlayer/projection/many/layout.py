"""The slabs of several problems in one assembly -> the rows of each problem over its own cells, padded to one size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fairlayer._rows import SparseRows, as_sparse
from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.projection.assembly import Assembly
from fairlayer.solve import RowSlabs, SpreadSlabs
from fairlayer.solve.many import ManyRows
from fairlayer.solve.many_rows import ManyPriced
from fairlayer.solve.table import pairs_of_prices

__all__ = ["CellPlaces", "Layout"]


@dataclass(frozen=True)
class CellPlaces:
    """Where the cells of an assembly stand among those of their problems.

    Args:
        owner: problem of each cell, -1 for none.
        position: place among the cells of its problem.
        place: which of all cells each cell of a problem is, (b, c); the number of all cells where there is none.
    """

    owner: IntArray
    position: IntArray
    place: IntArray

    @staticmethod
    def of(assembly: Assembly, problems: IntArray, count: int) -> CellPlaces:
        """Place the cells of an assembly whose samples belong to problems (n,), -1 for none."""
        cells = len(assembly.cells.counts)
        owner = np.full(cells + 1, -1)
        if assembly.cells.codes is not None:
            owner[assembly.cells.codes] = problems
        owner = owner[:-1]
        known = np.flatnonzero(owner >= 0)
        position = np.full(cells, 0)
        position[known] = _positions(owner[known])
        place = np.full((count, int(position.max(initial=0)) + 1), cells)
        place[owner[known], position[known]] = known
        return CellPlaces(owner, position, place)

    def rows_of(self, assembly: Assembly) -> tuple[int, int]:
        """Return how many rows a problem has at most, with every pair of a spread as two; and how many members."""
        pairs = members = 0
        for slabs in assembly.slabs.blocks:
            k = int(self.members(as_sparse(slabs.matrix))[1].max(initial=-1)) + 1
            pairs, members = pairs + (k * (k - 1) if isinstance(slabs, SpreadSlabs) else 2 * k), members + k
        return pairs, members

    def members(self, matrix: SparseRows) -> tuple[IntArray, IntArray]:
        """Return the problem of each row of a matrix, and its place among the rows of that problem."""
        of_row = np.zeros(len(matrix), dtype=np.int64)
        of_row[matrix.rows] = self.owner[matrix.columns]  # all cells of a row are of one problem
        return of_row, _positions(of_row)


@dataclass(frozen=True)
class Layout:
    """Which row of which statement each padded row is.

    Args:
        rows: the rows for the solver.
        block: statement of each row, (m,).
        first: member of the statement, (b, m); -1 where there is no row.
        second: for a spread the lower member; for other rows 1 for the upper limit, -1 for the lower one, (b, m).
        scale: how many of the user's units one unit of the row is, (b, m).
        equality: whether the row holds, whatever its multiplier, (b, m).
        owners: problem of each member of each statement.
    """

    rows: ManyRows
    block: IntArray
    first: IntArray
    second: IntArray
    scale: FloatArray
    equality: BoolArray
    owners: tuple[IntArray, ...]

    @staticmethod
    def of(assembly: Assembly, places: CellPlaces) -> Layout:
        """Lay out every row of every problem."""
        sides = [_every(slabs, places) for slabs in assembly.slabs.blocks]
        return _laid_out(assembly, places, sides)

    @staticmethod
    def none(assembly: Assembly, places: CellPlaces) -> Layout:
        """Lay out no row."""
        empty = np.zeros((len(places.place), 0), dtype=np.int64)
        return _laid_out(assembly, places, [(empty, empty)] * len(assembly.slabs.blocks))

    @staticmethod
    def in_force(assembly: Assembly, places: CellPlaces, priced: ManyPriced) -> tuple[Layout, FloatArray]:
        """Lay out the rows that hold a solution, and return their multipliers (b, m) too."""
        table, pairs = priced.table, pairs_of_prices(priced.table, priced.high, priced.low)
        sides, amounts = [], []
        for index, slabs in enumerate(assembly.slabs.blocks):
            of_row, member = places.members(as_sparse(slabs.matrix))
            here = table.block == index
            price = (priced.high - priced.low)[here]
            rows = [each[pairs.block == index] for each in pairs[1:]]
            if isinstance(slabs, SpreadSlabs) and slabs.tied:
                rows = _star(price, of_row, member)
            elif not isinstance(slabs, SpreadSlabs):  # a row without slack holds, whatever its price
                still = np.flatnonzero((table.lower == table.upper)[here] & (price == 0.0))
                more = still, np.ones_like(still), np.zeros(len(still))
                rows = [np.append(each, extra) for each, extra in zip(rows, more, strict=True)]
            first, second, amount = rows
            problem = of_row[first]
            column = _positions(problem)
            shape = len(places.place), int(column.max(initial=-1)) + 1
            padded = np.full(shape, -1), np.full(shape, -1), np.zeros(shape)
            for whole, part in zip(padded, (first, second, amount), strict=True):
                whole[problem, column] = part
            sides.append(padded[:2])
            amounts.append(padded[2])
        layout = _laid_out(assembly, places, sides)
        return replace(layout, equality=layout.first >= 0), np.concatenate(amounts, axis=1)


def _star(price: FloatArray, problem: IntArray, member: IntArray) -> list[Any]:
    """Tie every member of a spread without slack to the first of its problem, by a pair that its price has the sign of.

    All members of such a spread hold, also those that bear nothing.
    """
    root = np.zeros(int(problem.max(initial=0)) + 1, dtype=np.int64)
    root[problem[member == 0]] = np.flatnonzero(member == 0)
    others = np.flatnonzero(member > 0)
    up = price[others] >= 0.0
    roots = root[problem[others]]
    return [np.where(up, others, roots), np.where(up, roots, others), np.abs(price[others])]


def _laid_out(assembly: Assembly, places: CellPlaces, sides: list[tuple[IntArray, IntArray]]) -> Layout:
    """Write out the rows (first, second) of each statement, each (b, m) with -1 where there is none."""
    count, cells = len(places.place), len(places.owner)
    none = np.zeros((count, 0))
    empty = none.astype(np.int64)
    parts = [(np.zeros((count, 0, places.place.shape[1])), none, empty, empty, none, none.astype(bool))]
    parts += [
        (_matrix(slabs, places, *each), _limits(slabs, *each), *each, _scales(slabs, *each), _equalities(slabs, *each))
        for slabs, each in zip(assembly.slabs.blocks, sides, strict=True)
    ]
    matrix, limit, first, second, scale, equality = (
        np.concatenate([part[field] for part in parts], axis=1) for field in range(6)
    )
    block = np.repeat(np.arange(len(sides)), np.array([each.shape[1] for each, _ in sides], dtype=np.int64))
    owners = tuple(places.members(as_sparse(slabs.matrix))[0] for slabs in assembly.slabs.blocks)
    return Layout(ManyRows(matrix, limit, places.place, cells), block, first, second, scale, equality, owners)


def _positions(owners: IntArray) -> IntArray:
    """Return the place of each entry among those of the same owner, in order."""
    order = np.argsort(owners, kind="stable")
    counts = np.bincount(owners)
    starts = np.append(0, np.cumsum(counts))[:-1]
    place = np.empty(len(owners), dtype=np.int64)
    place[order] = np.arange(len(owners)) - starts[owners[order]]
    return place


def _every(slabs: RowSlabs | SpreadSlabs, places: CellPlaces) -> tuple[IntArray, IntArray]:
    """Return every ordered pair of members of a problem; or the upper limits of all rows, then the lower ones."""
    of_row, member = places.members(as_sparse(slabs.matrix))
    k = int(member.max(initial=-1)) + 1
    which = np.full((len(places.place), k), -1)
    which[of_row, member] = np.arange(len(member))
    if isinstance(slabs, SpreadSlabs):
        high, low = np.nonzero(~np.eye(k, dtype=bool))
        first, second = which[:, high], which[:, low]
        return np.where(second >= 0, first, -1), second
    return np.concatenate([which, which], axis=1), np.concatenate([np.ones_like(which), -np.ones_like(which)], axis=1)


def _matrix(slabs: RowSlabs | SpreadSlabs, places: CellPlaces, first: IntArray, second: IntArray) -> FloatArray:
    """Return each row over the cells of its problem, (b, m, c)."""
    matrix, out = as_sparse(slabs.matrix), np.zeros((*first.shape, places.place.shape[1]))
    problem, row = np.nonzero(first >= 0)
    at_first, at_second = first[problem, row], second[problem, row]
    terms = (
        [(at_first, np.full(len(row), slabs.scale)), (at_second, np.full(len(row), -1.0))]
        if isinstance(slabs, SpreadSlabs)
        else [(at_first, at_second.astype(np.float64))]
    )
    for members, factor in terms:
        taken = matrix.take_rows(members)
        at = problem[taken.rows], row[taken.rows], places.position[taken.columns]
        out[at] += factor[taken.rows] * taken.data
    return out


def _limits(slabs: RowSlabs | SpreadSlabs, first: IntArray, second: IntArray) -> FloatArray:
    if isinstance(slabs, SpreadSlabs):
        offset = np.zeros(len(slabs.matrix)) if slabs.offset is None else slabs.offset
        limit = slabs.width + offset[second] - slabs.scale * offset[first]
    else:
        limit = np.where(second > 0, slabs.upper[first], -slabs.lower[first])
    return np.where(first >= 0, limit, np.inf)


def _scales(slabs: RowSlabs | SpreadSlabs, first: IntArray, second: IntArray) -> FloatArray:
    if isinstance(slabs, SpreadSlabs) or slabs.scale is None:
        return np.ones(first.shape)
    return np.where(first >= 0, slabs.scale[first], 1.0)


def _equalities(slabs: RowSlabs | SpreadSlabs, first: IntArray, second: IntArray) -> BoolArray:
    there = first >= 0
    return there & slabs.tied if isinstance(slabs, SpreadSlabs) else there & (slabs.upper == slabs.lower)[first]
