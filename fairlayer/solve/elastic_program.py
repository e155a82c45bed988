"""The least widening of slabs that some predictions within the domain meet: a linear program, solved to the last digit.

    minimise w   subject to   a_j @ B v <= limit_j + w widens_j  for every face j,   v in the domain

    dual:  maximise L(p) = -p @ limit + min_v (p A B) v   subject to   p >= 0,  p @ widens = 1

`least_widening(blocks, domain)` answers with an `Elastic`. Its `widening` is 0 where the slabs are feasible. It is a
number that anybody can check: L at the weights is a lower limit, the worst violation at `statistics` an upper one.

    box = box_of_means(low, high)                                  # the predictions are the cell means themselves
    box = box_of_samples(codes, counts, dense, lower, upper, n)    # single predictions, with dense rows
    rows = simplex_of_means(cells, classes), simplex_of_samples(codes, counts, dense, dense_class, classes, n)
    elastic = least_widening([RowSlabs(...), SpreadSlabs(...)], box)
    elastic.widening, elastic.faces, elastic.by_lower, elastic.by_upper, elastic.statistics
    minimal_clash(blocks, domain, elastic)                         # keys of faces that cannot be met together, no fewer

The method is the dual simplex method of `elastic_search`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.errors import SolverError
from fairlayer.solve.elastic_domain import BoxDomain
from fairlayer.solve.elastic_faces import ElasticFaces
from fairlayer.solve.elastic_free import FreeEntries
from fairlayer.solve.elastic_samples import SampleMap
from fairlayer.solve.elastic_search import Ascent, ElasticResult, LostError
from fairlayer.solve.elastic_simplex import SimplexDomain
from fairlayer.solve.slabs import FaceKey, RowSlabs, SpreadSlabs

__all__ = [
    "BoxSpec",
    "Elastic",
    "SimplexSpec",
    "box_of_means",
    "box_of_samples",
    "least_widening",
    "minimal_clash",
    "simplex_of_means",
    "simplex_of_samples",
]

_NEAR = 8.0  # times the size of what is known: the first place to wait on the way to infinity
_TRIES = 6  # orders of steps
_UNPROVED = 1e-6  # of the size of what is known: a gap beyond which an answer is none


@dataclass(frozen=True)
class Elastic:
    """The least widening of slabs, with its proof.

    Args:
        widening: the least w >= 0 such that the slabs widened by w are feasible, in the user's units; 0 if they are.
        faces: faces that clash with their weights p_j > 0; d widening / d limit_j = -p_j. Empty where feasible.
        by_lower: d widening / d lower bound, one number for each entry of the domain; None where feasible or simplex.
        by_upper: d widening / d upper bound.
        point: predictions of the domain that meet the widened slabs.
        statistics: B point.
        upper: the worst violation of the point in the user's units; `widening` lies below it by rounding only.
        steps: how many steps the method took.
    """

    widening: float
    faces: tuple[tuple[FaceKey, float], ...]
    by_lower: FloatArray | None
    by_upper: FloatArray | None
    point: FloatArray
    statistics: FloatArray
    upper: float
    steps: int

    @property
    def feasible(self) -> bool:
        """Whether the slabs can be met as they are."""
        return self.widening == 0.0


class BoxSpec(NamedTuple):
    """Predictions in a box."""

    samples: SampleMap
    lower: FloatArray
    upper: FloatArray

    def domain(self, near: FloatArray | None, reach: float) -> BoxDomain:
        """Return the box at a start."""
        start = np.zeros(len(self.lower)) if near is None else np.asarray(near, float)
        return BoxDomain(self.samples, self.lower, self.upper, start, reach)

    def reach(self) -> float:
        """Return the largest finite bound."""
        bounds = np.abs(np.concatenate([self.lower, self.upper]))
        return float(bounds[np.isfinite(bounds)].max(initial=0.0))


class SimplexSpec(NamedTuple):
    """Rows of class probabilities, each at least `floor`."""

    samples: SampleMap
    rows: int
    classes: int
    floor: float = 0.0

    def domain(self, near: FloatArray | None, reach: float) -> SimplexDomain:
        """Return the simplex at a start."""
        start = np.full((self.rows, self.classes), 1.0 / self.classes) if near is None else np.asarray(near, float)
        return SimplexDomain(self.samples, start, self.floor)

    def reach(self) -> float:
        """Return the largest bound."""
        return 1.0


def box_of_means(low: FloatArray, high: FloatArray) -> BoxSpec:
    """Return the domain of cell means that may lie anywhere in a box; bounds may be infinite."""
    return BoxSpec(SampleMap(), np.asarray(low, float), np.asarray(high, float))


def box_of_samples(  # noqa: PLR0917 - a batch
    codes: IntArray | None,
    counts: FloatArray,
    dense: FloatArray | None,
    lower: FloatArray | float,
    upper: FloatArray | float,
    n: int,
    weights: FloatArray | None = None,
) -> BoxSpec:
    """Return the domain of n predictions in a box; see `SampleMap` for the statistics."""
    low = np.broadcast_to(np.asarray(lower, float), (n,)).copy()
    high = np.broadcast_to(np.asarray(upper, float), (n,)).copy()
    return BoxSpec(SampleMap(codes, counts, dense, weights=weights), low, high)


def simplex_of_means(cells: int, classes: int, floor: float = 0.0) -> SimplexSpec:
    """Return the domain of the mean class probabilities of cells."""
    return SimplexSpec(SampleMap(classes=classes), cells, classes, floor)


def simplex_of_samples(  # noqa: PLR0917 - a batch
    codes: IntArray | None,
    counts: FloatArray,
    dense: FloatArray | None,
    dense_class: IntArray | None,
    classes: int,
    n: int,
    weights: FloatArray | None = None,
    floor: float = 0.0,
) -> SimplexSpec:
    """Return the domain of n rows of class probabilities; see `SampleMap` for the statistics."""
    samples = SampleMap(codes, counts, dense, weights=weights, classes=classes, dense_class=dense_class)
    return SimplexSpec(samples, n, classes, floor)


def least_widening(
    blocks: Sequence[RowSlabs | SpreadSlabs],
    domain: BoxSpec | SimplexSpec,
    near: FloatArray | None = None,
    rtol: float = 1e-13,
) -> Elastic:
    """Return the least widening with which some predictions of the domain meet the slabs.

    Args:
        blocks: what must hold of the statistics.
        domain: where the predictions may lie.
        near: predictions from which to start, of the shape of the domain; feasible ones are the quickest answer.
        rtol: what counts as rounding, relative to the sums that the proof adds up.

    Raises:
        SolverError: the method did not end; no such problem is known.
    """
    known = max(domain.reach(), 0.0 if near is None else float(np.abs(near).max(initial=0.0)))
    free = None
    if isinstance(domain, BoxSpec):
        free = FreeEntries.of(blocks, domain.samples, domain.lower, domain.upper)
    faces = ElasticFaces(blocks, domain.samples.unit if free is None else free.users_unit)
    reach = _NEAR * (known or faces.reach)
    if free is None:
        proof = _proof(faces, domain, near, reach, rtol)
    else:
        proof = free.proved(_proof(faces, free, near, reach, rtol))
    statistics, unit = proof.statistics.copy(), domain.samples.unit
    if len(unit):
        statistics[-len(unit) :] *= unit
    return Elastic(*proof[:5], statistics, proof.upper, proof.steps)


def _proof(
    faces: ElasticFaces, domain: BoxSpec | SimplexSpec | FreeEntries, near: FloatArray | None, reach: float, rtol: float
) -> ElasticResult:
    found: ElasticResult | None = None
    for attempt in range(_TRIES):
        try:
            start = domain.domain(near, reach * 10.0 ** (attempt % 3))  # infinite bounds may have stood in the way
            proof = Ascent(faces, start, rtol, attempt).run()
        except (np.linalg.LinAlgError, LostError):
            continue
        if found is None or proof.gap < found.gap:
            found = proof
        if found.gap == 0.0:
            break
    if found is None or found.gap > _UNPROVED * reach:
        raise SolverError(
            f"the least widening of {len(faces.matrix)} rows was asked for, but {_TRIES} orders of steps were lost to "
            "rounding. Check for rows or weights of very different size."
        )
    return found


def minimal_clash(
    blocks: Sequence[RowSlabs | SpreadSlabs], domain: BoxSpec | SimplexSpec, elastic: Elastic, rtol: float = 1e-13
) -> tuple[FaceKey, ...]:
    """Return faces that no predictions of the domain meet together, though they meet them without any one.

    The weights of `elastic` say what the widening depends on. Not all of these faces need be there for a clash: the
    others may clash as well, only less. All pairs of a spread count as one.

    Args:
        blocks: what must hold, as given to `least_widening`.
        domain: as given to `least_widening`.
        elastic: its answer.
        rtol: as given to `least_widening`.
    """
    faces = elastic.faces
    names = list(dict.fromkeys(_name(blocks, key) for key, _ in faces))
    for name in names:
        rest = [key for key, _ in faces if _name(blocks, key) != name]
        if len(rest) < len(faces):
            without = least_widening(_only(blocks, rest), domain, rtol=rtol)
            faces = faces if without.feasible else without.faces
    return tuple(key for key, _ in faces)


def _name(blocks: Sequence[RowSlabs | SpreadSlabs], key: FaceKey) -> tuple[int, ...]:
    return key if isinstance(blocks[key[0]], RowSlabs) else key[:1]


def _only(blocks: Sequence[RowSlabs | SpreadSlabs], keys: Sequence[FaceKey]) -> list[RowSlabs | SpreadSlabs]:
    """Return the blocks with nothing but some faces; a pair of a spread stands for the whole spread."""
    return [_part(slabs, [key for key in keys if key[0] == block]) for block, slabs in enumerate(blocks)]


def _part(slabs: RowSlabs | SpreadSlabs, keys: Sequence[FaceKey]) -> RowSlabs | SpreadSlabs:
    if isinstance(slabs, SpreadSlabs):
        return slabs if keys else slabs._replace(width=np.inf)
    lower, upper = np.full(len(slabs.lower), -np.inf), np.full(len(slabs.upper), np.inf)
    for _, row, sign in keys:
        ends, given = (upper, slabs.upper) if sign > 0 else (lower, slabs.lower)
        ends[row] = given[row]
    return slabs._replace(lower=lower, upper=upper)
