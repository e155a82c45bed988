"""The dual simplex method of the elastic program.

Only faces that bind are held, so the equations are as many as these, however many predictions there are. A step passes
every breakpoint at which the dual still rises (the bound flipping ratio test: Maros, Computational Techniques of the
Simplex Method, 2003, section 10.2), which is one sort. Each step solves its equations afresh, so that rounding does
not pile up. The end is a vertex: its weights are exact, and few.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.solve.elastic_domain import Breakpoints, Domain
from fairlayer.solve.elastic_faces import EPS, ElasticFace, ElasticFaces
from fairlayer.solve.slabs import FaceKey

__all__ = ["Ascent", "ElasticResult", "LostError"]

_COST = 1e-7  # of a prediction at first, in units of the weights
_PATIENCE = 25  # steps without a rise, after which violated faces are taken at random, so that nothing cycles
_MOST_STEPS = 3_000
_INEXACT = 1e4  # roundings by which weights from nearly dependent equations may be wrong
_FURTHER = 5  # times that infinite bounds are moved out, by 100 each
_FEW_STEPS = 100  # without costs: more mean that the method goes round in circles


class LostError(Exception):
    """Rounding led the method astray; another order of steps may not."""


class ElasticResult(NamedTuple):
    """Where the method ended.

    Args:
        widening: the least widening in the user's unit; 0 where none is needed.
        faces: faces that bind, with their weights.
        by_lower: d widening / d lower bound of each entry; None where none is needed, and on the simplex.
        by_upper: d widening / d upper bound.
        point: the predictions reached.
        statistics: B point.
        upper: its worst violation in the user's unit.
        gap: by how much the weights fail to prove the widening, beyond rounding.
        steps: how many steps were taken.
    """

    widening: float
    faces: tuple[tuple[FaceKey, float], ...]
    by_lower: FloatArray | None
    by_upper: FloatArray | None
    point: FloatArray
    statistics: FloatArray
    upper: float
    gap: float
    steps: int


class _Choice(NamedTuple):
    """What a step mends: a face that shall bind, or else a basic entry that shall go to its bound."""

    face: ElasticFace | None
    position: int
    slope: float  # by how much it is violated: how fast the dual rises at first
    change: FloatArray  # of the weights of the faces that bind
    rounding: FloatArray  # what `change` adds up

    def steepness(self) -> float:
        """Return the rise of the dual for a step of length 1."""
        length = float(self.change @ self.change) + (self.face is not None)
        return self.slope / float(np.sqrt(length))


class Ascent:
    """The state of the method: the faces that bind, the domain with its basic entries, the weights.

    The equations K (w, v_basic) = limit - A B v_others have one row for each binding face, the first column for w.

    A dual of few distinct numbers is degenerate: most steps would not raise it. So each prediction costs a little at
    first, a random number in units of the weights. Which points meet the widened slabs does not depend on
    costs; only the weights do, and they are solved again without them at the end.
    """

    def __init__(self, faces: ElasticFaces, domain: Domain, rtol: float, seed: int) -> None:
        self.faces, self.rtol = faces, rtol
        self.domain = domain
        self.samples = domain.samples
        self.active: list[ElasticFace] = []
        self.w, self.steps = 0.0, 0
        self.random = np.random.default_rng(seed)
        self.cost = _COST * 10.0 ** -(seed // 2)
        self.costs, self.least_cost = np.zeros(domain.x.shape), 0.0
        self.met, self.own_units = False, True

    def run(self) -> ElasticResult:
        """Return the answer.

        Whether the slabs are feasible is asked in the units of the rows, which are alike. Only where they are not, the
        widening is sought in the user's, which may differ by many powers of ten. The weights that prove the one are,
        divided by another sum, a start for the other.
        """
        start = self._first()
        if start is None:
            return self._met()
        self.active, self.weights = [start], np.ones(1)
        self.domain.settle(*self._reduced())
        if not self._climb() or not self._rise_from_afar() or self.w <= self.rtol * self._size_of_proof():
            return self._met()
        self._in_users_units()
        if self.faces.units_differ:
            self._climb()
            self._rise_from_afar()
        self._rise()
        return self._answer()

    def _first(self) -> ElasticFace | None:
        """Return what the start violates most; None where it, or equal predictions, violate nothing."""
        self._measure()
        start = self._worst() if len(self.faces.matrix) else None
        if start is None:
            return None
        x, self.domain.x = self.domain.x, self.domain.level()
        self._measure()
        if self._worst() is None:
            return None
        self.domain.x = x
        self._measure()
        return start

    def _climb(self) -> bool:
        """Rise with costs, smaller each time, until the end needs none; return whether some widening is needed."""
        for smaller in (1.0, 1e-2, 1e-4):
            self.least_cost = smaller * self.cost * float(np.abs(self.weights).sum())
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
        """Go on with infinite bounds further out, while something is still pulled there and that helps.

        What is pulled so little that an inexact weight may be the cause does not count.
        """
        for _ in range(_FURTHER):
            self.domain.settle_others(*self._reduced())
            if not self._rise():
                return False
            reduced, noise = self._reduced()
            if not self.domain.beyond(reduced, _INEXACT * noise):
                return True
            before = self.w
            self.domain.enlarge(100.0)
            if not self._rise():
                return False
            if self.w >= before - EPS * abs(before):
                return True
        return True

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
                raise LostError

    # The point, and what it violates.

    def _measure(self) -> None:
        self.s = self.samples.measure(self.domain.x)
        self.sizes = self.samples.sizes(self.domain.x, self.s)

    def _read(self) -> tuple[FloatArray, FloatArray]:
        return self.faces.matrix @ self.s, self.faces.absolute @ self.sizes

    def _worst(self) -> ElasticFace | None:
        """Return the face that is most violated without any widening, or None."""
        found = [f for f in self.faces.violated(*self._read(), 0.0, own_units=True) if f.clear(4.0 * EPS)]
        if not found:
            return None
        return self.faces.face(max(found, key=lambda f: f.excess), own_units=True)

    def _met(self) -> ElasticResult:
        point = self.domain.clipped()
        s = self.samples.measure(point)
        return ElasticResult(0.0, (), None, None, point, s, max(0.0, self.faces.excess(s)), 0.0, self.steps)

    # The equations.

    def _solve(self) -> None:
        self.normals = np.array([f.normal for f in self.active])
        self.limits = np.array([f.limit for f in self.active])
        self.widens = np.array([f.widens for f in self.active])
        self._invert()
        self._measure()
        for _ in range(3):
            residual = self.limits - self.normals @ self.s + self.w * self.widens
            size = np.abs(self.limits) + np.abs(self.normals) @ self.sizes + abs(self.w) * self.widens
            if bool((np.abs(residual) <= 2.0 * EPS * size).all()):
                break
            change = self.inverse @ residual
            change = change + self.inverse @ (residual - self.K @ change)
            self.w += float(change[0])
            self.domain.shift(change[1:])
            self._measure()
        if self.domain.exchange():
            self._invert()

    def _invert(self) -> None:
        self.K = np.concatenate([-self.widens[:, None], self.domain.columns(self.normals)], axis=1)
        even = 1.0 / np.abs(self.K).max(axis=1)
        self.inverse = np.linalg.inv(self.K * even[:, None]) * even
        costs = np.append(-1.0, -self.domain.costs(self.costs))
        weights = costs @ self.inverse
        self.weights = weights + (costs - weights @ self.K) @ self.inverse
        if not np.isfinite(self.weights).all():
            raise LostError

    def _reduced(self) -> tuple[FloatArray, FloatArray]:
        """Return the reduced costs of all predictions, and their rounding."""
        q = self.weights @ np.array([f.normal for f in self.active])
        return self.costs + self.samples.pull(q), 16.0 * EPS * float(np.abs(self.weights).sum()) * self.domain.size

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
        tolerance = (4.0 if stall < _PATIENCE else 64.0) * EPS
        excess, size = self.domain.excess()
        out = np.flatnonzero(np.abs(excess) > tolerance * size)
        value, sizes = self._read()
        if self.own_units and self.w <= tolerance and len(out) == 0:
            plain = self.faces.violated(value, sizes, 0.0, own_units=True)
            if not any(f.clear(4.0 * EPS) for f in plain):
                self.met = True
                return None
        held = {f.key for f in self.active}
        options = []
        for violation in self.faces.violated(value, sizes, self.w, own_units=self.own_units, held=self.active):
            if violation.clear(tolerance) and violation.key not in held:
                face = self.faces.face(violation, own_units=self.own_units)
                row = np.append(-face.widens, self.domain.columns(face.normal[None])[0])
                options.append(_Choice(face, -1, violation.excess, *self._change(-row)))
        if len(out) and (not options or stall < _PATIENCE or self.random.random() < 0.5):
            rows = self.inverse[1 + out]
            steep = np.abs(excess[out]) / np.sqrt((rows * rows).sum(axis=1))
            best = int(steep.argmax()) if stall < _PATIENCE else int(self.random.integers(len(out)))
            position, sign = int(out[best]), -1.0 if excess[out[best]] > 0.0 else 1.0
            unit = np.zeros(len(self.inverse))
            unit[1 + position] = sign
            options.append(_Choice(None, position, float(np.abs(excess[position])), *self._change(unit)))
        return max(options, key=_Choice.steepness, default=None)

    def _change(self, row: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the change of the weights with change @ K = row, corrected once, and what its rounding adds up."""
        change = row @ self.inverse
        change = change + (row - change @ self.K) @ self.inverse
        return change, np.abs(change) + (np.abs(row) + np.abs(change) @ np.abs(self.K)) @ np.abs(self.inverse)

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
                raise LostError
        entering, leaving = self._pivot(points, order[passed:], falling, ends, change, rounding)
        self.domain.flip(points.at_places(order[:passed]))
        if face is None:
            self.domain.leave(position)
        if entering is not None:
            self.domain.enter(int(points.entry[entering]), int(points.target[entering]))
        if leaving is not None:
            del self.active[leaving]
        if face is not None:
            self.active.append(face)

    def _pivot(
        self, points: Breakpoints, order: IntArray, falling: IntArray, *rates: FloatArray
    ) -> tuple[int | None, int | None]:
        """Return the breakpoint that enters or the face that leaves: the clearest of those within rounding (Harris)."""
        ends, change, rounding = rates
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

    def _answer(self) -> ElasticResult:
        """Return the answer that the weights prove: L, at weights without noise."""
        weights = np.maximum(self.weights, 0.0)
        weights[weights * self.widens < 1e-14] = 0.0
        weights = weights / float(weights @ self.widens)
        reduced = self.samples.pull(weights @ self.normals)
        noise = 64.0 * EPS * float(weights.sum()) * self.domain.size
        point = self.domain.clipped()
        s = self.samples.measure(point)
        upper = self.faces.excess(s)
        size = self._size_of_proof()
        least = -float(weights @ self.limits) + self.domain.lowest(reduced, noise)
        clear = self.faces.excess(s, self.samples.sizes(point, s))
        gap = max(0.0, max(abs(self.w - least), clear - max(least, 0.0)) - 1e-13 * size)
        if least <= self.rtol * size:
            return ElasticResult(0.0, (), None, None, point, s, max(0.0, upper), gap, self.steps)
        used = [(f, float(p)) for f, p in zip(self.active, weights, strict=True) if p > 0.0]
        faces = tuple((f.key, p / f.norm) for f, p in used)
        ends = self.domain.by_bounds(np.where(np.abs(reduced) > self._each(noise), reduced, 0.0))
        return ElasticResult(least, faces, *ends, point, s, upper, gap, self.steps)

    def _size_of_proof(self) -> float:
        """Return the sum of the absolute values that L adds up, however far out the point is."""
        near = self.domain.near()
        sizes = self.samples.sizes(near, self.samples.measure(near))
        return float(np.abs(self.weights) @ (np.abs(self.limits) + np.abs(self.normals) @ sizes))

    def _each(self, noise: FloatArray) -> FloatArray:
        return noise if self.costs.ndim == 1 else noise[:, None]
