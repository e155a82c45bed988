"""The faces of slabs as the elastic program reads them: all rows in one matrix, pairs of a spread only when asked for.

normal @ s - widens w <= limit
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.solve.slabs import FaceKey, RowSlabs, SpreadSlabs

__all__ = ["EPS", "ElasticFace", "ElasticFaces", "Violation"]

EPS = float(np.finfo(np.float64).eps)
_ALLOWED = 64.0 * EPS  # of a sum, for its rounding


class ElasticFace(NamedTuple):
    """normal @ s - widens w <= limit, divided by `norm`, the size of its normal."""

    key: FaceKey
    normal: FloatArray
    limit: float
    widens: float
    users: float  # what it widens by in the user's unit
    norm: float
    row: int  # of the matrix; -1 for a pair of a spread


class Violation(NamedTuple):
    excess: float  # in units of the norm of the face
    rounding: float  # what `excess` adds up
    key: FaceKey
    first: int  # rows of the matrix
    second: int

    def clear(self, tolerance: float) -> bool:
        """Return whether the violation is more than rounding."""
        return self.excess > tolerance * self.rounding


class _SpreadBlock(NamedTuple):
    block: int
    rows: slice
    offset: FloatArray | None
    scale: float
    width: float
    norm: float  # of its largest member


class ElasticFaces:
    """All faces, from one matrix: rows first, then the members of the spreads.

    Args:
        blocks: the slabs.
        unit: the unit of the last statistics, the dense rows.
    """

    def __init__(self, blocks: Sequence[RowSlabs | SpreadSlabs], unit: FloatArray) -> None:
        rows = [(b, slabs) for b, slabs in enumerate(blocks) if isinstance(slabs, RowSlabs)]
        spreads = [
            (b, s)
            for b, s in enumerate(blocks)
            if isinstance(s, SpreadSlabs) and len(s.matrix) > 1 and s.width < np.inf
        ]
        parts = [slabs.matrix for _, slabs in rows] + [slabs.matrix for _, slabs in spreads]
        self.matrix = np.concatenate(parts) if parts else np.zeros((0, 1))
        if len(unit) and len(self.matrix):
            self.matrix[:, -len(unit) :] *= unit
        self.absolute = np.abs(self.matrix)
        self.count = sum(len(slabs.matrix) for _, slabs in rows)
        none = np.zeros(0)
        self.lower = np.concatenate([none, *(slabs.lower for _, slabs in rows)])
        self.upper = np.concatenate([none, *(slabs.upper for _, slabs in rows)])
        scales = (np.ones(len(s.lower)) if s.scale is None else s.scale for _, s in rows)
        self.widens = 1.0 / np.concatenate([none, *scales])
        self.block = np.concatenate([none, *(np.full(len(s.lower), b) for b, s in rows)]).astype(int)
        self.row = np.concatenate([none, *(np.arange(len(s.lower)) for _, s in rows)]).astype(int)
        norm = self.absolute[: self.count].max(axis=1, initial=0.0)
        self.norm = np.where(norm > 0.0, norm, 1.0)
        self.lower_size, self.upper_size = _finite(self.lower), _finite(self.upper)
        self.spreads, at = [], self.count
        for b, s in spreads:
            largest = float(self.absolute[at : at + len(s.matrix)].max(initial=0.0)) or 1.0
            self.spreads.append(_SpreadBlock(b, slice(at, at + len(s.matrix)), s.offset, s.scale, s.width, largest))
            at += len(s.matrix)

    @property
    def units_differ(self) -> bool:
        """Whether the user's units are not all the same multiple of the rows' own."""
        users = [*(self.widens / self.norm), *(1.0 / s.norm for s in self.spreads)]
        return bool(users) and max(users) > min(users)

    @property
    def reach(self) -> float:
        """Return the size of a usual limit."""
        sizes = [
            *(self.lower_size / self.norm),
            *(self.upper_size / self.norm),
            *(abs(s.width) / s.norm for s in self.spreads),
        ]
        return float(np.median([size for size in sizes if size > 0.0] or [1.0]))

    def violated(
        self,
        value: FloatArray,
        size: FloatArray,
        w: float,
        *,
        own_units: bool,
        held: Sequence[ElasticFace] = (),
    ) -> list[Violation]:
        """Return the worst face of each block.

        Args:
            value: matrix @ statistics.
            size: the sums of the absolute values that were added up for them.
            w: the widening.
            own_units: whether it widens each row in the row's own unit, its norm, instead of the user's.
            held: faces that bind, and are not asked for.
        """
        found = []
        if self.count:
            rows, room = value[: self.count], w * (self.norm if own_units else self.widens)
            over, under = rows - self.upper, self.lower - rows
            above = over >= under
            excess = (np.where(above, over, under) - room) / self.norm
            limit = np.where(above, self.upper_size, self.lower_size)
            rounding = (size[: self.count] + limit + np.abs(room)) / self.norm
            excess[excess <= 4.0 * EPS * rounding] = -np.inf
            excess[[f.row for f in held if f.row >= 0 and bool(above[f.row]) == (f.key[2] > 0)]] = -np.inf
            i = int(excess.argmax())
            sign = 1 if above[i] else -1
            key = int(self.block[i]), int(self.row[i]), sign
            found.append(Violation(float(excess[i]), float(rounding[i]), key, i, -1))
        for spread in self.spreads:
            v, reach = value[spread.rows], size[spread.rows]
            if spread.offset is not None:
                v, reach = v + spread.offset, reach + np.abs(spread.offset)
            i, j = int(v.argmax()), int(v.argmin())
            if i == j:
                j = 1 if i == 0 else 0
            widened = w * (spread.norm if own_units else 1.0)
            excess_of = float(spread.scale * v[i] - v[j]) - spread.width - widened
            noise = float(spread.scale * reach[i] + reach[j]) + abs(spread.width) + abs(widened)
            at = spread.rows.start
            found.append(Violation(excess_of / spread.norm, noise / spread.norm, (spread.block, i, j), at + i, at + j))
        return found

    def face(self, violation: Violation, *, own_units: bool) -> ElasticFace:
        """Return a face that `violated` named."""
        _, _, key, first, second = violation
        if second < 0:
            sign, norm = float(key[2]), float(self.norm[first])
            limit = float(self.upper[first] if sign > 0 else -self.lower[first])
            widens = float(self.widens[first]) / norm
            face = ElasticFace(key, self.matrix[first] * (sign / norm), limit / norm, widens, widens, norm, first)
            return face._replace(widens=1.0) if own_units else face
        spread = next(s for s in self.spreads if s.block == key[0])
        limit = spread.width
        if spread.offset is not None:
            limit += float(spread.offset[key[2]] - spread.scale * spread.offset[key[1]])
        normal = (spread.scale * self.matrix[first] - self.matrix[second]) / spread.norm
        users = 1.0 / spread.norm
        return ElasticFace(key, normal, limit / spread.norm, 1.0 if own_units else users, users, spread.norm, -1)

    def excess(self, s: FloatArray, sizes: FloatArray | None = None) -> float:
        """Return the worst violation at some statistics in the user's units.

        Args:
            s: the statistics.
            sizes: the sums of the absolute values that s adds up; what a violation owes to rounding does not count.
        """
        if not len(self.matrix):
            return -np.inf
        value, allowed = self.matrix @ s, np.zeros(len(self.matrix))
        if sizes is not None:
            allowed = _ALLOWED * (self.absolute @ sizes)
        rows, ends = value[: self.count], np.maximum(self.lower_size, self.upper_size)
        over = np.maximum(rows - self.upper, self.lower - rows) - allowed[: self.count]
        worst = ((over if sizes is None else over - _ALLOWED * ends) / self.widens).max(initial=-np.inf)
        for spread in self.spreads:
            v, doubt = value[spread.rows], float(allowed[spread.rows].max())  # as accurate as its largest member
            if spread.offset is not None:
                v = v + spread.offset
                doubt += 0.0 if sizes is None else _ALLOWED * float(np.abs(spread.offset).max())
            worst = max(worst, float(spread.scale * (v.max() - doubt) - (v.min() + doubt)) - spread.width)
        return float(worst)


def _finite(array: FloatArray) -> FloatArray:
    return np.where(np.isfinite(array), np.abs(array), 0.0)
