"""The feasible set in the space of statistics: half-spaces, served one violated face at a time.

A slab system speaks of a vector `s` of statistics (cell means, then dense rows). It never lists the pairs
of a spread: of `scale * v_i - v_j <= width` only the worst pair matters to a solver, and that is
(argmax, argmin).

Each block knows how accurately its own rows can be met (`atol`), so that a huge number in one row does not excuse a
violation in another. Violations are counted in units of it; where nothing was set, that unit is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fairlayer._rows import SparseRows, largest_reach
from fairlayer._typing import FloatArray, IntArray

__all__ = [
    "Combination",
    "Face",
    "FaceKey",
    "Faces",
    "RowSlabs",
    "SingleSlab",
    "SlabSystem",
    "SpreadSlabs",
    "normals_of",
]

FaceKey: TypeAlias = tuple[int, int, int]  # (block, row, +1 | -1) for rows, (block, high, low) for spreads


class Combination(NamedTuple):
    """A normal that is a sum of rows of a sparse matrix, written out only when it is asked for as an array."""

    matrix: SparseRows
    rows: tuple[int, ...]
    factors: tuple[float, ...]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray:
        full = sum((f * self.matrix[row] for row, f in zip(self.rows, self.factors, strict=True)), np.zeros(1))
        return np.asarray(full, dtype=dtype)


def normals_of(faces: Sequence[Face], size: int) -> FloatArray:
    """Return the normals of faces over `size` statistics as an array (faces, size)."""
    return np.array([np.asarray(face.normal) for face in faces]).reshape(len(faces), size)


class Face(NamedTuple):
    """The half-space `normal @ s <= limit`, in units of the predictions; `scale` times that is the user's row."""

    key: FaceKey
    normal: Any  # an array (statistics,), or for a large system a `Combination`
    limit: float
    scale: float = 1.0
    atol: float = 1.0


class SingleSlab(NamedTuple):
    """`lower <= normal @ s <= upper`, and the keys of its two faces."""

    normal: FloatArray
    lower: float
    upper: float
    keys: tuple[FaceKey, FaceKey]  # of the lower and the upper face
    scale: float = 1.0
    atol: float = 1.0

    def face(self, value: float) -> Face:
        """Return the face that a value of `normal @ s` violates."""
        if value > self.upper:
            return Face(self.keys[1], self.normal, self.upper, self.scale, self.atol)
        return Face(self.keys[0], -self.normal, -self.lower, self.scale, self.atol)


class RowSlabs(NamedTuple):
    """`lower <= matrix @ s <= upper`; the user's rows are `scale` times these."""

    matrix: Any  # (rows, statistics), an array or by its entries
    lower: FloatArray
    upper: FloatArray
    scale: FloatArray | None = None
    atol: FloatArray | None = None

    def worst(self, s: FloatArray) -> tuple[float, int, int]:
        """Return the largest violation in units of `atol`, and which row and side has it."""
        value = self.matrix @ s
        above, below = value - self.upper, self.lower - value
        if self.atol is not None:
            above, below = above / self.atol, below / self.atol
        i, j = int(above.argmax()), int(below.argmax())
        return (float(above[i]), i, 1) if above[i] >= below[j] else (float(below[j]), j, -1)

    def face(self, block: int, row: int, sign: int) -> Face:
        """Return one side of one row."""
        limit = self.upper[row] if sign > 0 else -self.lower[row]
        scale = 1.0 if self.scale is None else float(self.scale[row])
        atol = 1.0 if self.atol is None else float(self.atol[row])
        return Face((block, row, sign), _row(self.matrix, row, sign), float(limit), scale, atol)

    def limits(self, rows: IntArray, signs: IntArray) -> FloatArray:
        """Return the limits of many faces."""
        return np.where(signs > 0, self.upper[rows], -self.lower[rows])

    def accuracies(self, rows: IntArray) -> FloatArray:
        """Return how accurately many faces can be met."""
        return np.ones(len(rows)) if self.atol is None else self.atol[rows]

    def asked(self, s: FloatArray) -> FloatArray:
        """Return how large the limits violated at s would make each statistic that their rows read, (s,)."""
        value = self.matrix @ s
        limit = np.where(value > self.upper, self.upper, np.where(value < self.lower, self.lower, 0.0))
        return largest_reach(limit, self.matrix)

    def accurate_to(self, base: float, sizes: FloatArray) -> RowSlabs:
        """Return the slabs with the accuracy that sums of statistics of such sizes allow, `base` for a size of 1."""
        return self._replace(atol=base * np.maximum(1.0, np.abs(self.matrix) @ sizes))

    @property
    def has_equalities(self) -> bool:
        """Whether any row has no slack."""
        return bool((self.lower == self.upper).any())

    def single(self) -> SingleSlab | None:
        """Return the slab where there is one row."""
        if len(self.matrix) != 1:
            return None
        scale = 1.0 if self.scale is None else float(self.scale[0])
        limits = float(self.lower[0]), float(self.upper[0])
        atol = 1.0 if self.atol is None else float(self.atol[0])
        return SingleSlab(self.matrix[0], *limits, ((0, 0, -1), (0, 0, 1)), scale, atol)

    def equalities(self, block: int) -> list[Face]:
        """Return the rows without slack."""
        return [self.face(block, int(row), 1) for row in np.flatnonzero(self.lower == self.upper)]

    def widened(self, by: float) -> RowSlabs:
        """Return the slabs with both limits moved outwards (inwards for `by` < 0, at most until they meet).

        `by` is in the user's units, which are `scale` times those of these rows.
        """
        step = by if self.scale is None else by / self.scale
        lower, upper = self.lower - step, self.upper + step
        if by < 0:
            middle = 0.5 * (np.maximum(self.lower, -1e300) + np.minimum(self.upper, 1e300))
            lower, upper = np.minimum(lower, middle), np.maximum(upper, middle)
        return self._replace(lower=lower, upper=upper)

    @property
    def holds_for_constants(self) -> bool:
        """Whether equal statistics always meet the slabs; rows may ask for anything."""
        return False


class SpreadSlabs(NamedTuple):
    """`scale * v_i - v_j <= width` for all i, j with `v = matrix @ s + offset`."""

    matrix: Any  # (members, statistics), an array or by its entries
    offset: FloatArray | None
    scale: float
    width: float
    atol: float = 1.0

    def worst(self, s: FloatArray) -> tuple[float, int, int]:
        """Return the violation of the pair (highest, lowest) in units of `atol`."""
        value = self.matrix @ s
        if self.offset is not None:
            value = value + self.offset
        i, j = int(value.argmax()), int(value.argmin())
        return (float(self.scale * value[i] - value[j]) - self.width) / self.atol, i, j

    def face(self, block: int, high: int, low: int) -> Face:
        """Return the half-space of one ordered pair."""
        limit = self.width
        if self.offset is not None:
            limit += float(self.offset[low] - self.scale * self.offset[high])
        if isinstance(self.matrix, SparseRows):
            normal: Any = Combination(self.matrix, (high, low), (self.scale, -1.0))
        else:
            normal = self.scale * self.matrix[high] - self.matrix[low]
        return Face((block, high, low), normal, limit, atol=self.atol)

    def limits(self, highs: IntArray, lows: IntArray) -> FloatArray:
        """Return the limits of many faces."""
        limits = np.full(len(highs), self.width)
        return limits if self.offset is None else limits + (self.offset[lows] - self.scale * self.offset[highs])

    def accuracies(self, highs: IntArray) -> FloatArray:
        """Return how accurately many faces can be met."""
        return np.full(len(highs), self.atol)

    def asked(self, s: FloatArray) -> FloatArray:
        """Return how large the limits violated at s would make each statistic: no larger than they are."""
        return np.abs(s)

    def accurate_to(self, base: float, sizes: FloatArray) -> SpreadSlabs:
        """Return the slabs with the accuracy that sums of statistics of such sizes allow, `base` for a size of 1."""
        reach = np.abs(self.matrix) @ sizes
        if self.offset is not None:
            reach = np.maximum(reach, np.abs(self.offset))
        return self._replace(atol=base * max(1.0, float(reach.max(initial=0.0))))

    @property
    def has_equalities(self) -> bool:
        """Whether all members are tied together."""
        return self.tied

    @property
    def tied(self) -> bool:
        """Whether the width is zero."""
        return self.width <= 0 and self.scale == 1.0

    def single(self) -> SingleSlab | None:
        """Return the slab where there are two members: their difference is bounded on both sides."""
        if len(self.matrix) != 2 or self.scale != 1.0:
            return None
        off = 0.0 if self.offset is None else float(self.offset[0] - self.offset[1])
        normal = self.matrix[0] - self.matrix[1]
        limits = -self.width - off, self.width - off
        return SingleSlab(normal, *limits, ((0, 1, 0), (0, 0, 1)), atol=self.atol)

    def equalities(self, block: int) -> list[Face]:
        """Return pairs that tie all members together, where the width is zero."""
        if not self.has_equalities:
            return []
        return [self.face(block, i, 0) for i in range(1, len(self.matrix))]

    def widened(self, by: float) -> SpreadSlabs:
        """Return the spread with a larger width (smaller for `by` < 0, at least 0 where it was)."""
        return self._replace(width=max(self.width + by, min(self.width, 0.0)))

    @property
    def holds_for_constants(self) -> bool:
        """Whether equal statistics always meet the slabs."""
        return self.offset is None and self.scale == 1.0


class SlabSystem:
    """Several blocks of slabs that must hold together."""

    def __init__(self, blocks: Sequence[RowSlabs | SpreadSlabs]) -> None:
        self.blocks = tuple(blocks)

    def worst(self, s: FloatArray) -> tuple[float, FaceKey]:
        """Return the largest violation in units of `atol` (<= 0 where all hold) and the face that has it."""
        best, key = -np.inf, (-1, 0, 0)
        for block, slabs in enumerate(self.blocks):
            violation, i, j = slabs.worst(s)
            if violation > best:
                best, key = violation, (block, i, j)
        return best, key

    def violation(self, s: FloatArray) -> float:
        """Return the largest violation in prediction units, whatever accuracy was set; -inf without slabs."""
        plain = [b._replace(atol=None) if isinstance(b, RowSlabs) else b._replace(atol=1.0) for b in self.blocks]
        return SlabSystem(plain).worst(s)[0]

    def face(self, key: FaceKey) -> Face:
        """Return a face by its key."""
        block, i, j = key
        return self.blocks[block].face(block, i, j)

    def limits(self, keys: IntArray) -> FloatArray:
        """Return the limits of many faces, by their keys (faces, 3)."""
        found = np.empty(len(keys))
        for here, slabs in self._by_block(keys):
            found[here] = slabs.limits(keys[here, 1], keys[here, 2])
        return found

    def accuracies(self, keys: IntArray) -> FloatArray:
        """Return how accurately many faces can be met, by their keys (faces, 3)."""
        found = np.empty(len(keys))
        for here, slabs in self._by_block(keys):
            found[here] = slabs.accuracies(keys[here, 1])
        return found

    def _by_block(self, keys: IntArray) -> Iterator[tuple[Any, RowSlabs | SpreadSlabs]]:
        for block in np.unique(keys[:, 0]).tolist():
            yield keys[:, 0] == block, self.blocks[block]

    def equalities(self) -> list[Face]:
        """Return every face without slack, one orientation each."""
        return [face for block, slabs in enumerate(self.blocks) for face in slabs.equalities(block)]

    def shortened(self, faces: Sequence[Face], multipliers: FloatArray) -> tuple[list[Face], FloatArray]:
        """Return an equal combination of faces in which no member of a zero spread is both a high and a low.

        Without slack the active pairs may form chains (a - b, b - c). They hold the point, but their multipliers
        add up to more than the price of the width; pairs from net highs to net lows add up to just that.
        """
        tied = {block for block, slabs in enumerate(self.blocks) if isinstance(slabs, SpreadSlabs) and slabs.tied}
        kept = [(f, m) for f, m in zip(faces, multipliers.tolist(), strict=True) if f.key[0] not in tied]
        for block in tied:
            pairs = {f.key[1:]: m for f, m in zip(faces, multipliers.tolist(), strict=True) if f.key[0] == block}
            kept += [(self.face((block, i, j)), m) for i, j, m in _transport(pairs)]
        return [face for face, _ in kept], np.array([m for _, m in kept])

    @property
    def has_equalities(self) -> bool:
        """Whether any slab has no slack."""
        if len(self.blocks) == 1:
            return self.blocks[0].has_equalities
        return any(slabs.has_equalities for slabs in self.blocks)

    @property
    def holds_for_constants(self) -> bool:
        """Whether equal statistics always meet the slabs."""
        if len(self.blocks) == 1:
            return self.blocks[0].holds_for_constants
        return all(slabs.holds_for_constants for slabs in self.blocks)

    def widened(self, by: float) -> SlabSystem:
        """Return the system with every slab moved outwards."""
        return SlabSystem([slabs.widened(by) for slabs in self.blocks])

    def accurate_to(self, base: float, sizes: FloatArray) -> SlabSystem:
        """Return the system with the accuracy that sums of statistics of such sizes allow.

        Args:
            base: accuracy of a row whose statistics are of size 1.
            sizes: magnitude of each statistic, (s,).
        """
        return SlabSystem([slabs.accurate_to(base, sizes) for slabs in self.blocks])

    def single(self) -> SingleSlab | None:
        """Return the system as one two-sided slab where it is one, else None."""
        return self.blocks[0].single() if len(self.blocks) == 1 else None


class Faces(Sequence[Face]):
    """Faces of a system by their keys, each written out only when it is asked for.

    Args:
        slabs: the system.
        keys: (faces, 3).
    """

    def __init__(self, slabs: SlabSystem, keys: IntArray) -> None:
        self.slabs, self.keys = slabs, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, int):
            return self.slabs.face(tuple(self.keys[which].tolist()))
        return Faces(self.slabs, self.keys[which])

    def __iter__(self) -> Iterator[Face]:
        return (self.slabs.face((block, i, j)) for block, i, j in self.keys.tolist())

    @property
    def limits(self) -> FloatArray:
        """The limit of each."""
        return self.slabs.limits(self.keys)

    def accuracies(self, slabs: SlabSystem | None = None) -> FloatArray:
        """Return how accurately each can be met, or could as a face of the same system at other accuracies."""
        return (slabs or self.slabs).accuracies(self.keys)


def _row(matrix: Any, row: int, sign: float) -> Any:
    if isinstance(matrix, SparseRows):
        return Combination(matrix, (row,), (sign,))
    return sign * matrix[row]


def _transport(pairs: dict[tuple[int, int], float]) -> list[tuple[int, int, float]]:
    """Send the net amount of each high member to the low ones, first to first."""
    net: dict[int, float] = {}
    for (high, low), amount in pairs.items():
        net[high] = net.get(high, 0.0) + amount
        net[low] = net.get(low, 0.0) - amount
    noise = 1e-12 * sum(pairs.values())
    highs = [[member, amount] for member, amount in net.items() if amount > noise]
    lows = [[member, -amount] for member, amount in net.items() if amount < -noise]
    sent = []
    while highs and lows:
        amount = min(highs[-1][1], lows[-1][1])
        sent.append((int(highs[-1][0]), int(lows[-1][0]), amount))
        for side in (highs, lows):
            side[-1][1] -= amount
            if side[-1][1] <= noise:
                side.pop()
    return sent
