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

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.errors import SolverError
from fairlayer.solve.elastic_domain import BoxDomain, Samples, SimplexDomain
from fairlayer.solve.elastic_faces import Faces
from fairlayer.solve.elastic_search import Ascent, LostError, Proof
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
_ENOUGH = 3  # of them, where each answered and none proved its answer to the last digit


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

    samples: Samples
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

    samples: Samples
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
    return BoxSpec(Samples(), np.asarray(low, float), np.asarray(high, float))


def box_of_samples(  # noqa: PLR0917 - a batch
    codes: IntArray | None,
    counts: FloatArray,
    dense: FloatArray | None,
    lower: FloatArray | float,
    upper: FloatArray | float,
    n: int,
    weights: FloatArray | None = None,
) -> BoxSpec:
    """Return the domain of n predictions in a box; see `Samples` for the statistics."""
    low = np.broadcast_to(np.asarray(lower, float), (n,)).copy()
    high = np.broadcast_to(np.asarray(upper, float), (n,)).copy()
    return BoxSpec(Samples(codes, counts, dense, weights=weights), low, high)


def simplex_of_means(cells: int, classes: int, floor: float = 0.0) -> SimplexSpec:
    """Return the domain of the mean class probabilities of cells."""
    return SimplexSpec(Samples(classes=classes), cells, classes, floor)


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
    """Return the domain of n rows of class probabilities; see `Samples` for the statistics."""
    samples = Samples(codes, counts, dense, weights=weights, classes=classes, dense_class=dense_class)
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
    faces = Faces(blocks)
    known = max(domain.reach(), 0.0 if near is None else float(np.abs(near).max(initial=0.0)))
    proof = _proof(faces, domain, near, _NEAR * (known or faces.reach), rtol)
    return Elastic(*proof[:7], proof.steps)


def _proof(faces: Faces, domain: BoxSpec | SimplexSpec, near: FloatArray | None, reach: float, rtol: float) -> Proof:
    found: Proof | None = None
    for attempt in range(_TRIES):
        try:
            proof = Ascent(faces, domain.domain(near, reach), rtol, attempt).run()
        except (np.linalg.LinAlgError, LostError):
            continue
        if found is None or proof.gap < found.gap:
            found = proof
        if found.gap == 0.0 or attempt + 1 >= _ENOUGH:
            break
    if found is None:
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
<<<<<<< HEAD


def _nothing(slabs: RowSlabs | SpreadSlabs) -> RowSlabs | SpreadSlabs:
    width = slabs.matrix.shape[1]
    return RowSlabs(np.zeros((0, width)), np.zeros(0), np.zeros(0))


class _Face(NamedTuple):
    """normal @ s - widens w <= limit, divided by `norm`, the size of its normal."""

    key: FaceKey
    normal: FloatArray
    limit: float
    widens: float
    users: float  # what it widens by in the user's unit
    norm: float
    row: int  # of the matrix; -1 for a pair of a spread


class _Violation(NamedTuple):
    excess: float  # in units of the norm of the face
    rounding: float  # what `excess` adds up
    key: FaceKey
    first: int  # rows of the matrix
    second: int

    def clear(self, tolerance: float) -> bool:
        """Return whether the violation is more than rounding."""
        return self.excess > tolerance * self.rounding


class _Choice(NamedTuple):
    """What a step mends: a face that shall bind, or else a basic entry that shall go to its bound."""

    face: _Face | None
    position: int
    slope: float  # by how much it is violated: how fast the dual rises at first
    change: FloatArray  # of the weights of the faces that bind
    rounding: FloatArray  # what `change` adds up

    def steepness(self) -> float:
        """Return the rise of the dual for a step of length 1."""
        length = float(self.change @ self.change) + (self.face is not None)
        return self.slope / math.sqrt(length)


class _Spread(NamedTuple):
    block: int
    rows: slice
    offset: FloatArray | None
    scale: float
    width: float


class _Faces:
    """All faces, from one matrix: rows first, then the members of the spreads."""

    def __init__(self, blocks: Sequence[RowSlabs | SpreadSlabs]) -> None:
        rows = [(b, slabs) for b, slabs in enumerate(blocks) if isinstance(slabs, RowSlabs)]
        spreads = [(b, s) for b, s in enumerate(blocks) if isinstance(s, SpreadSlabs) and len(s.matrix) > 1]
        parts = [slabs.matrix for _, slabs in rows] + [slabs.matrix for _, slabs in spreads]
        self.matrix = np.concatenate(parts) if parts else np.zeros((0, 0))
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
            self.spreads.append(_Spread(b, slice(at, at + len(s.matrix)), s.offset, s.scale, s.width))
            at += len(s.matrix)

    @property
    def units_differ(self) -> bool:
        """Whether the user's units are not all the same multiple of the rows' own."""
        users = [*(self.widens / self.norm), *(1.0 for _ in self.spreads)]
        return bool(users) and max(users) > min(users)

    @property
    def reach(self) -> float:
        """Return the size of a usual limit."""
        sizes = [*(self.lower_size / self.norm), *(self.upper_size / self.norm), *(abs(s.width) for s in self.spreads)]
        return float(np.median([size for size in sizes if size > 0.0] or [1.0]))

    def violated(
        self,
        value: FloatArray,
        size: FloatArray,
        w: float,
        *,
        own_units: bool,
        held: Sequence[_Face] = (),
    ) -> list[_Violation]:
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
            excess[excess <= 4.0 * _EPS * rounding] = -np.inf
            excess[[f.row for f in held if f.row >= 0 and bool(above[f.row]) == (f.key[2] > 0)]] = -np.inf
            i = int(excess.argmax())
            sign = 1 if above[i] else -1
            key = int(self.block[i]), int(self.row[i]), sign
            found.append(_Violation(float(excess[i]), float(rounding[i]), key, i, -1))
        for spread in self.spreads:
            v, reach = value[spread.rows], size[spread.rows]
            if spread.offset is not None:
                v, reach = v + spread.offset, reach + np.abs(spread.offset)
            i, j = int(v.argmax()), int(v.argmin())
            if i == j:
                j = 1 if i == 0 else 0
            excess_of = float(spread.scale * v[i] - v[j]) - spread.width - w
            noise = float(spread.scale * reach[i] + reach[j]) + abs(spread.width) + abs(w)
            at = spread.rows.start
            found.append(_Violation(excess_of, noise, (spread.block, i, j), at + i, at + j))
        return found

    def face(self, violation: _Violation, *, own_units: bool) -> _Face:
        """Return a face that `violated` named."""
        _, _, key, first, second = violation
        if second < 0:
            sign, norm = float(key[2]), float(self.norm[first])
            limit = float(self.upper[first] if sign > 0 else -self.lower[first])
            widens = float(self.widens[first]) / norm
            face = _Face(key, self.matrix[first] * (sign / norm), limit / norm, widens, widens, norm, first)
            return face._replace(widens=1.0) if own_units else face
        spread = next(s for s in self.spreads if s.block == key[0])
        limit = spread.width
        if spread.offset is not None:
            limit += float(spread.offset[key[2]] - spread.scale * spread.offset[key[1]])
        return _Face(key, spread.scale * self.matrix[first] - self.matrix[second], limit, 1.0, 1.0, 1.0, -1)

    def excess(self, s: FloatArray) -> float:
        """Return the worst violation at some statistics in the user's units."""
        value = self.matrix @ s
        rows = value[: self.count]
        worst = (np.maximum(rows - self.upper, self.lower - rows) / self.widens).max(initial=-np.inf)
        for spread in self.spreads:
            v = value[spread.rows] if spread.offset is None else value[spread.rows] + spread.offset
            worst = max(worst, float(spread.scale * v.max() - v.min()) - spread.width)
        return float(worst)


def _finite(array: FloatArray) -> FloatArray:
    return np.where(np.isfinite(array), np.abs(array), 0.0)


class _Search:
    """The state of the method: the faces that bind, the domain with its basic entries, the weights.

    The equations K (w, v_basic) = limit - A B v_others have one row for each binding face, the first column for w.

    A dual of few distinct numbers is degenerate: most steps would not raise it. So each prediction costs a little at
    first, a random number of the size `tilt` of the weights. Which points meet the widened slabs does not depend on
    costs; only the weights do, and they are solved again without them at the end.
    """

    def __init__(self, faces: _Faces, domain: BoxDomain | SimplexDomain, rtol: float, seed: int) -> None:
        self.faces, self.rtol = faces, rtol
        self.domain: BoxDomain | SimplexDomain = domain
        self.samples = domain.samples
        self.active: list[_Face] = []
        self.w, self.steps = 0.0, 0
        self.random = np.random.default_rng(seed)
        self.tilt = _TILT * 10.0 ** -(seed // 2)
        self.costs, self.least_cost = np.zeros(domain.x.shape), 0.0
        self.met, self.own_units = False, True

    def run(self) -> tuple[Elastic, float]:
        """Return the answer, and by how much its proof misses it beyond rounding.

        Whether the slabs are feasible is asked in the units of the rows, which are alike. Only where they are not, the
        widening is sought in the user's, which may differ by many powers of ten. The weights that prove the one are,
        divided by another sum, a start for the other.
        """
        self._measure()
        start = self._worst()
        if start is None:
            return self._met()
        self.active, self.weights = [start], np.ones(1)
        self.domain.settle(*self._reduced())
        if not self._climb() or not self._rise_from_afar():
            return self._met()
        self._in_users_units()
        if self.faces.units_differ:
            self._climb()
        self._rise()
        return self._answer()

    def _climb(self) -> bool:
        """Rise with costs, smaller each time, until the end needs none; return whether some widening is needed."""
        for smaller in (1.0, 1e-2, 1e-4):
            self.least_cost = smaller * self.tilt * float(np.abs(self.weights).sum())
            self.costs = self.least_cost * self.domain.tilted(self.random)
            self.domain.settle_others(*self._reduced())
            if not self._rise():
                return False
            self.costs, self.least_cost = np.zeros_like(self.costs), 0.0
            self._solve()
            self.domain.settle_others(*self._reduced())
            self._solve()
            if self._choose(0) is None:
                return not self.met
        return self._rise()

    def _rise_from_afar(self) -> bool:
        """Go on with infinite bounds further out, while something is still pulled there."""
        for _ in range(8):
            if not (isinstance(self.domain, BoxDomain) and self.domain.beyond(*self._reduced())):
                return True
            self.domain.enlarge(100.0)
            if not self._rise():
                return False
        raise _LostError

    def _in_users_units(self) -> None:
        self.own_units = False
        self.weights = np.maximum(self.weights, 0.0)
        self.active = [f._replace(widens=f.users) for f in self.active]
        self.weights = self.weights / float(self.weights @ np.array([f.widens for f in self.active]))

    def _rise(self) -> bool:
        """Take steps until nothing is violated; return whether some widening is needed."""
        most = self.steps + (_MOST_STEPS if self.least_cost else _FEW_STEPS)
        best, stall = -np.inf, 0
        while True:
            self._solve()
            value = self.w + float((self.costs * self.domain.x).sum())
            best, stall = (value, 0) if value > best else (best, stall + 1)
            if not self._step(stall):
                return not self.met
            self.steps += 1
            if self.steps > most:
                raise _LostError

    # The point, and what it violates.

    def _measure(self) -> None:
        self.s = self.samples.measure(self.domain.x)
        self.sizes = self.samples.sizes(self.domain.x, self.s)

    def _read(self) -> tuple[FloatArray, FloatArray]:
        return self.faces.matrix @ self.s, self.faces.absolute @ self.sizes

    def _worst(self) -> _Face | None:
        """Return the face that is most violated without any widening, or None."""
        found = [f for f in self.faces.violated(*self._read(), 0.0, own_units=True) if f.clear(4.0 * _EPS)]
        if not found:
            return None
        return self.faces.face(max(found, key=lambda f: f.excess), own_units=True)

    def _met(self) -> tuple[Elastic, float]:
        s = self.samples.measure(self.domain.clipped())
        return Elastic(0.0, (), None, None, s, max(0.0, self.faces.excess(s)), self.steps), 0.0

    # The equations.

    def _solve(self) -> None:
        self.normals = np.array([f.normal for f in self.active])
        self.limits = np.array([f.limit for f in self.active])
        self.widens = np.array([f.widens for f in self.active])
        self._invert()
        self._measure()
        for _ in range(4):
            residual = self.limits - self.normals @ self.s + self.w * self.widens
            size = np.abs(self.limits) + np.abs(self.normals) @ self.sizes + abs(self.w) * self.widens
            change = self.inverse @ residual
            self.w += float(change[0])
            self.domain.shift(change[1:])
            self._measure()
            if bool((np.abs(residual) <= 2.0 * _EPS * size).all()):
                break
        if self.domain.exchange():
            self._invert()

    def _invert(self) -> None:
        self.K = np.concatenate([-self.widens[:, None], self.domain.columns(self.normals)], axis=1)
        even = 1.0 / np.abs(self.K).max(axis=1)
        self.inverse = np.linalg.inv(self.K * even[:, None]) * even
        size = np.abs(self.inverse)
        self.doubt = size + size @ np.abs(self.K) @ size  # entries of the inverse are rounded relative to these
        costs = np.append(-1.0, -self.domain.costs(self.costs))
        weights = costs @ self.inverse
        self.weights = weights + (costs - weights @ self.K) @ self.inverse

    def _reduced(self) -> tuple[FloatArray, FloatArray]:
        """Return the reduced costs of all predictions, and their rounding."""
        q = self.weights @ np.array([f.normal for f in self.active])
        return self.costs + self.samples.pull(q), 16.0 * _EPS * float(np.abs(self.weights).sum()) * self.domain.size

    # A step.

    def _step(self, stall: int) -> bool:
        """Take one step; return whether anything was violated."""
        choice = self._choose(stall)
        if choice is None:
            return False
        q = choice.change @ self.normals if choice.face is None else choice.face.normal + choice.change @ self.normals
        noise = 1e-11 * (1.0 + float(np.abs(choice.change).sum())) * self.domain.size
        reduced, _ = self._reduced()
        self._advance(choice, self.domain.breakpoints(reduced, self.samples.pull(q), noise))
        return True

    def _choose(self, stall: int) -> _Choice | None:
        """Return what is violated most, for the change of the weights that it asks for (the steepest edge).

        A face p binds from now on: K' change = -K_p. Or a basic entry r goes to its bound: K' change = -+ e_r.
        """
        tolerance = (4.0 if stall < _PATIENCE else 64.0) * _EPS
        excess, size = self.domain.excess()
        out = np.flatnonzero(np.abs(excess) > tolerance * size)
        value, sizes = self._read()
        if self.own_units and self.w <= tolerance and len(out) == 0:
            plain = self.faces.violated(value, sizes, 0.0, own_units=True)
            if not any(f.clear(4.0 * _EPS) for f in plain):
                self.met = True
                return None
        held = {f.key for f in self.active}
        options = []
        for violation in self.faces.violated(value, sizes, self.w, own_units=self.own_units, held=self.active):
            if violation.clear(tolerance) and violation.key not in held:
                face = self.faces.face(violation, own_units=self.own_units)
                row = np.append(-face.widens, self.domain.columns(face.normal[None])[0])
                options.append(_Choice(face, -1, violation.excess, -(row @ self.inverse), np.abs(row) @ self.doubt))
        if len(out) and (not options or stall < _PATIENCE or self.random.random() < 0.5):
            rows = self.inverse[1 + out]
            steep = np.abs(excess[out]) / np.sqrt((rows * rows).sum(axis=1))
            best = int(steep.argmax()) if stall < _PATIENCE else int(self.random.integers(len(out)))
            position, sign = int(out[best]), -1.0 if excess[out[best]] > 0.0 else 1.0
            change, rounding = sign * rows[best], self.doubt[1 + position]
            options.append(_Choice(None, position, float(np.abs(excess[position])), change, rounding))
        return max(options, key=_Choice.steepness, default=None)

    def _advance(self, choice: _Choice, points: Breakpoints) -> None:
        """Go along a line of weights to the breakpoint at which the dual no longer rises; change the basis there."""
        face, position, slope, change, rounding = choice
        share = change * self.widens
        noise = 1e-14 * max(float(np.abs(share).max()), 0.0 if face is None else face.widens)
        falling = np.flatnonzero((change < -1e-10 * rounding) & (share < -noise))
        ends = np.maximum(self.weights[falling], 0.0) / -change[falling]
        last = float(ends.min(initial=np.inf))
        within = np.flatnonzero(points.at <= last)
        order = within[np.argsort(points.at[within], kind="stable")]
        left = slope - np.cumsum(points.drop[order])
        stops = np.flatnonzero(left <= 0.0)
        passed = int(stops[0]) if len(stops) else len(order)
        if not len(stops) and not len(falling):
            # A dual on a compact set cannot rise for ever: some face falls, however small its change beside rounding.
            falling = np.flatnonzero(share == share.min())
            ends = np.maximum(self.weights[falling], 0.0) / np.abs(change[falling])
            if share[falling[0]] >= 0.0:
                raise _LostError
        entering, leaving = self._pivot(points, order[passed:], falling, ends, change, rounding)
        self.domain.flip(points.first(order, passed))
        if face is None:
            self.domain.leave(position)
        if entering is not None:
            self.domain.enter(int(points.entry[entering]), int(points.target[entering]))
        if leaving is not None:
            del self.active[leaving]
        if face is not None:
            self.active.append(face)

    def _pivot(  # noqa: PLR0917 - a step of the method
        self,
        points: Breakpoints,
        order: IntArray,
        falling: IntArray,
        ends: FloatArray,
        change: FloatArray,
        rounding: FloatArray,
    ) -> tuple[int | None, int | None]:
        """Return the breakpoint that enters, or the face that leaves: within rounding the clearest (Harris)."""
        scale = float(np.abs(self.weights).sum())
        size = self.domain.size[points.entry[order]]
        clear = np.concatenate([points.pivot[order] / size, -change[falling] / rounding[falling]])
        at = np.concatenate([points.at[order], ends])
        slack = 1e-14 * scale + 1e-5 * self.least_cost
        room = np.concatenate([slack * size / points.pivot[order], 1e-14 * scale / -change[falling]])
        near = np.flatnonzero(at <= (at + room).min())
        best = int(near[clear[near].argmax()])
        if best < len(order):
            return int(order[best]), None
        return None, int(falling[best - len(order)])

    # The end.

    def _answer(self) -> tuple[Elastic, float]:
        """Return the answer that the weights prove."""
        weights = np.maximum(self.weights, 0.0)
        weights[weights * self.widens < 1e-14] = 0.0
        weights = weights / float(weights @ self.widens)
        reduced = self.samples.pull(weights @ self.normals)
        noise = 64.0 * _EPS * float(weights.sum()) * self.domain.size
        s = self.samples.measure(self.domain.clipped())
        upper = self.faces.excess(s)
        size = float((weights * (np.abs(self.limits) + np.abs(self.normals) @ self.sizes)).sum())
        least = -float(weights @ self.limits) + self.domain.lowest(reduced, noise)
        difference = max(0.0, abs(self.w - least) - 1e-13 * size)
        if max(self.w, least) <= self.rtol * size:
            return Elastic(0.0, (), None, None, s, max(0.0, upper), self.steps), difference
        used = [(f, float(p)) for f, p in zip(self.active, weights, strict=True) if p > 0.0]
        faces = tuple((f.key, p / f.norm) for f, p in used)
        by_lower = by_upper = None
        if isinstance(self.domain, BoxDomain):
            clear = np.where(np.abs(reduced) > noise, reduced, 0.0)
            by_lower, by_upper = np.maximum(clear, 0.0), np.minimum(clear, 0.0)
        return Elastic(least, faces, by_lower, by_upper, s, upper, self.steps), difference
=======
>>>>>>> room-feasibility
