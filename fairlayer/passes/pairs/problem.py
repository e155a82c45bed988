"""The nearest predictions to raw scores and pulls under which pairs of samples stay close, exactly.

    minimise  sum_i [ weight_i d(y_i, x_i) + q_i y_i ]    subject to   |y_i - y_j| <= c_ij for each pair,   bounds

Samples that must be equal are one node. On the nodes the method of multipliers runs, whose inner problem

    sum_i [ ... ]  +  s/2 sum_ij dist(y_i - y_j + m_ij / s, [-c_ij, c_ij])^2        m: the multipliers

is solved by Newton's method. Only the pairs outside their interval enter its matrix: they are the working set, joined
by what is violated and left by what has slack. Once the pairs with a multiplier are known, the rest is in closed form:
they make trees of samples at fixed distances, each tree has one level, and the multipliers follow from a Laplacian.
What is returned is checked: every pair and bound met, every multiplier of the right sign, every force in balance.

Source: Hestenes (1969), Powell (1969) for the method; Li, Sun, Toh (2018), "On efficiently solving the subproblems of a
level-set method for fused lasso problems", SIAM J. Optim. 28(2), for Newton's method inside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.errors import SolverError
from fairlayer.geometry import Geometry
from fairlayer.passes.pairs import ends
from fairlayer.passes.pairs.clusters import Clusters
from fairlayer.passes.pairs.flows import balanced_flow, opened, sent_to_roots
from fairlayer.passes.pairs.graph import Forest, Pairs, closest_between, forest, not_implied, tightest_bound
from fairlayer.passes.pairs.linear import solve_laplacian

__all__ = ["PairAnswer", "PairProblem"]

_MOST_ROUNDS = 80
_MOST_STEPS = 30
_FEW_STEPS = 12
_MOST_EXCHANGES = 12
_NEAR = 3e-4  # violations of the pairs, per unit of the predictions' size, from which the working set is tried
_ROUGH = 4e-2  # the same, of an answer that is only about right
_FEW_JOIN, _SOME_JOIN = 0.1, 20  # share of the working set, and number of pairs, that may join it at once
_STRONGER = 100.0  # penalty per force, where the pulls are strong
_STIFFEST = 1e6  # penalty per curvature: beyond it the sums of the penalty round too much
_FEASIBLE = 5e-13  # by how much a pair may be violated, per unit of the predictions' size
_BALANCED = 1e-11  # what may be left of the forces on a node, per unit of their size
_INACTIVE = 1e-9  # a multiplier that is none, per unit of the forces' size


@dataclass(frozen=True)
class PairAnswer:
    """Predictions that meet every pair, and what holds them.

    Args:
        value: (n,).
        clusters: which samples move together.
        multipliers: the multipliers of each pair, (e,): above 0 where first - second is at its limit, below where
            second - first is.
    """

    value: FloatArray
    clusters: Clusters
    multipliers: FloatArray


class _State(NamedTuple):
    """Predictions of the nodes, and the multipliers of edges and bounds."""

    y: FloatArray
    edges: FloatArray
    bounds: FloatArray


class PairProblem:
    """All of the problem but its pulls, ready for any number of them; each answer starts from the one before.

    Args:
        pairs: what must be close.
        geometry: the geometry of single samples, on a box.
        x: coordinates, (n,).
        weights: how many samples each row stands for, (n,), all above 0; None for one each.
        lower: None, a float or (n,).
        upper: likewise.
    """

    def __init__(  # noqa: PLR0917 - a problem
        self, pairs: Pairs, geometry: Geometry, x: FloatArray, weights: FloatArray | None, lower: Any, upper: Any
    ) -> None:
        self.pairs, self.geometry, self.x = pairs, geometry, x
        self.weights = np.ones(len(x)) if weights is None else weights
        tied = np.flatnonzero(pairs.limit == 0.0)
        self.tied = tied
        self.equal = forest(len(x), pairs.first[tied], pairs.second[tied], np.zeros(len(tied)))
        self.node, self.nodes = self.equal.tree, self.equal.trees
        rows, i, j = closest_between(pairs, self.node, self.nodes)
        kept = not_implied(i, j, pairs.limit[rows], self.nodes)
        self.rows, self.i, self.j = rows[kept], i[kept], j[kept]
        self.limit = pairs.limit[self.rows]
        self.open = geometry.bounded
        self.lower, self.upper = (
            None if bound is None or self.open else tightest_bound(bound, self.node, self.nodes, tightest)
            for bound, tightest in ((lower, np.maximum), (upper, np.minimum))
        )
        self._state: _State | None = None

    def _fold(self, values: FloatArray) -> FloatArray:
        return np.bincount(self.node, values, self.nodes).astype(np.float64, copy=False)

    def _forces(self, y: FloatArray, pull: FloatArray) -> FloatArray:
        """Return the derivative of the objective by each node."""
        return self._fold(self.weights * self.geometry.slope(y[self.node], self.x) + pull)

    def _curvature(self, y: FloatArray) -> FloatArray:
        value = y[self.node]
        with np.errstate(over="ignore"):  # at the very end of an open domain nothing moves
            return self._fold(self.weights / self.geometry.weigh(value, self.x, None, np.ones_like(value)))

    def _noise(self, y: FloatArray) -> FloatArray:
        """Return what the rounding of the predictions alone makes of the forces: near an end, log-odds change fast."""
        return ends.ROUNDING * np.minimum(self._curvature(y), 1e100) if self.open else np.zeros_like(y)

    @cached_property
    def _ground(self) -> FloatArray:
        """The curvature where it does not depend on the predictions."""
        return self._fold(self.weights)

    def answer(self, pull: FloatArray) -> PairAnswer:
        """Return the nearest predictions under the pulls (n,), per row of the batch.

        Raises:
            SolverError: it was not found to the accuracy that is promised.
        """
        return self._sought(pull, rough=False)

    def about(self, pull: FloatArray) -> PairAnswer:
        """Return an answer whose pairs are about met, unchecked and without multipliers; exact ones may start there."""
        return self._sought(pull, rough=True)

    def _sought(self, pull: FloatArray, *, rough: bool) -> PairAnswer:
        if self._state is not None:  # what held the answer before may hold this one
            found = self._finished(self._state, pull)
            if found is not None:
                return self._kept(found, self._state)
        state = self._state or self._start(pull)
        unit, forces = float(np.median(self._curvature(state.y))), self._force_size(state, pull)
        stiffest = max(_STIFFEST * unit, _STRONGER * forces)
        stiffness = max(10.0 * unit, forces)
        for _ in range(_MOST_ROUNDS):
            state, steps = self._newton(state, pull, stiffness)
            if rough and self._missed(state) <= _ROUGH:
                self._state = state
                return self._as_it_is(state)
            found = self._finished(state, pull)
            if found is not None:
                return self._kept(found, state)
            if steps <= _FEW_STEPS:  # it can take a stiffer penalty
                stiffness = min(3.0 * stiffness, stiffest)
        raise SolverError(
            f"the {len(self.pairs)} pairs of LipschitzFairness were not met to the accuracy promised after "
            f"{_MOST_ROUNDS} rounds. Check for scores, weights or distances of very different size."
        )

    def _start(self, pull: FloatArray) -> _State:
        y = self._fold(self.weights * self._alone(pull)) / self._ground
        y = y.clip(ends.START, 1.0 - ends.START) if self.open else y
        return _State(y, np.zeros(len(self.i)), np.zeros(self.nodes))

    def _alone(self, pull: FloatArray) -> FloatArray:
        """Return the predictions (n,) without any pair or bound."""
        return np.asarray(self.geometry.step(self.x, pull / self.weights, None, None)[0])

    def _kept(self, answer: PairAnswer, state: _State) -> PairAnswer:
        """Return an answer, at which the next one starts, with what holds it."""
        y = np.empty(self.nodes)
        y[self.node] = answer.value
        self._state = _State(y, answer.multipliers[self.rows], state.bounds)
        return answer

    def _beyond(self, state: _State, stiffness: float) -> tuple[FloatArray, FloatArray]:
        """Return how far each pair, and each node, is outside its interval, multipliers counted."""
        moved = state.y[self.i] - state.y[self.j] + state.edges / stiffness
        pairs = moved - moved.clip(-self.limit, self.limit)
        at = state.y + state.bounds / stiffness
        inside = at if self.lower is None else np.maximum(at, self.lower)
        return pairs, at - (inside if self.upper is None else np.minimum(inside, self.upper))

    def _gradient(self, state: _State, pull: FloatArray, stiffness: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        pairs, bounds = self._beyond(state, stiffness)
        return self._forces(state.y, pull) + stiffness * (self._divergence(pairs) + bounds), pairs, bounds

    def _divergence(self, flow: FloatArray) -> FloatArray:
        """Return B' of a number per edge."""
        return np.asarray(np.bincount(self.i, flow, self.nodes) - np.bincount(self.j, flow, self.nodes))

    def _newton(self, state: _State, pull: FloatArray, stiffness: float) -> tuple[_State, int]:
        """Minimise over y, and return the state with the multipliers that this makes, and how many steps it took."""
        gradient, pairs, bounds = self._gradient(state, pull, stiffness)
        goal, steps = _BALANCED * self._force_size(state, pull), 0
        while steps < _MOST_STEPS:
            size = float((np.abs(gradient) - self._noise(state.y)).max(initial=0.0))
            if size <= goal:
                break
            active = np.flatnonzero(pairs)
            diagonal = np.minimum(self._curvature(state.y), ends.STEEPEST) + stiffness * (bounds != 0.0)
            step = -solve_laplacian(diagonal, self.i[active], self.j[active], stiffness, gradient, 1e-4)
            steps += 1
            state, gradient, pairs, bounds = self._along(state, step, gradient, pull, stiffness)
            left = float((np.abs(gradient) - self._noise(state.y)).max(initial=0.0))
            if left >= size and size <= 100.0 * goal:
                break  # rounding
        return _State(state.y, stiffness * pairs, stiffness * bounds), steps

    def _along(
        self, state: _State, step: FloatArray, gradient: FloatArray, pull: FloatArray, stiffness: float
    ) -> tuple[_State, FloatArray, FloatArray, FloatArray]:
        """Move along a step, and halve it while the (convex) objective rises steeply towards where it leads.

        With the derivative g' there, the objective is at most higher by g' @ (y' - y) than where the step began.
        """
        share = 1.0
        for _ in range(40):
            y = ends.bent_step(state.y, step, share) if self.open else state.y + share * step
            moved = state._replace(y=y)
            found = self._gradient(moved, pull, stiffness)
            way = y - state.y
            if float(found[0] @ way) <= 0.5 * abs(float(gradient @ way)):
                break
            share *= 0.5
        return moved, *found

    def _force_size(self, state: _State, pull: FloatArray) -> float:
        """Return the size of the largest force that acts on a node."""
        own = self._fold(self.weights * np.abs(self.geometry.slope(state.y[self.node], self.x)))
        reach = self._fold(np.abs(pull)) + self._ground * np.abs(state.y)
        return float(max(np.abs(own).max(initial=0.0), reach.max(initial=0.0), 1e-300))

    def _finished(self, state: _State, pull: FloatArray) -> PairAnswer | None:
        """Return the exact answer that the multipliers point to, or None where they do not yet point to it."""
        if self._missed(state) > _NEAR:
            return None
        size = max(1.0, float(np.abs(state.y).max(initial=0.0)))
        forces = self._force_size(state, pull)
        edges = np.where(np.abs(state.edges) > _INACTIVE * forces, state.edges, 0.0)
        for _ in range(_MOST_EXCHANGES):
            tried = self._tried(state._replace(edges=edges), pull, forces, size)
            if tried is None or isinstance(tried, PairAnswer):
                return tried
            edges = tried
        return None

    def _missed(self, state: _State) -> float:
        """Return the largest violation of a pair, per unit of the predictions' size."""
        far = float((np.abs(state.y[self.i] - state.y[self.j]) - self.limit).max(initial=0.0))
        return far / max(1.0, float(np.abs(state.y).max(initial=0.0)))

    def _as_it_is(self, state: _State) -> PairAnswer:
        """Return an answer that is about right, in which pairs with a multiplier move together."""
        active = np.flatnonzero(state.edges)
        tree = forest(self.nodes, self.i[active], self.j[active], np.zeros(len(active))).tree
        pinned = np.zeros(int(tree.max(initial=-1)) + 1, dtype=bool)
        pinned[tree[state.bounds != 0.0]] = True
        return PairAnswer(state.y[self.node], Clusters(tree[self.node], pinned), np.zeros(len(self.pairs)))

    def _tried(self, state: _State, pull: FloatArray, forces: float, size: float) -> PairAnswer | FloatArray | None:
        """Return the answer with just the pairs that have a multiplier, or which multipliers to try next.

        What has the wrong sign leaves the working set, and what is violated joins it. None where its limits clash, and
        where so much is violated that the exchange would go round in circles.
        """
        active = np.flatnonzero(state.edges)
        sign = np.sign(state.edges[active])
        trees = forest(self.nodes, self.i[active], self.j[active], sign * self.limit[active])
        level, pinned = self._levels(trees, state.y, pull)
        if level is None:
            return None
        y = level[trees.tree] + trees.offset
        y = y if self.lower is None else np.maximum(y, self.lower)
        y = y if self.upper is None else np.minimum(y, self.upper)
        y = ends.within_those_alone(y, self._alone(pull)) if self.open else y
        apart = y[self.i] - y[self.j]
        loose = active[np.abs(apart[active] - sign * self.limit[active]) > _FEASIBLE * size]
        if len(loose):
            return opened(trees, (self.i, self.j, self.limit), active, state.edges, loose)
        flow, held, balanced = self._balanced(y, state, active, trees.tree, pinned, pull, forces)
        wrong = sign * flow < -10.0 * _INACTIVE * forces
        violated = np.flatnonzero(np.abs(apart) - self.limit > _FEASIBLE * size)
        if len(violated) > _FEW_JOIN * len(active) + _SOME_JOIN:
            return None
        edges = np.zeros(len(self.i))
        edges[active] = np.where(sign * flow > 0.0, flow, 0.0)
        if len(violated) or bool(wrong.any()):
            edges[active] = np.where(wrong, 0.0, sign * np.maximum(sign * flow, _INACTIVE * forces))
            edges[violated] = np.where(
                edges[violated] == 0.0, np.sign(apart[violated]) * _INACTIVE * forces, edges[violated]
            )
            return edges
        if not balanced:
            return None
        rows = self._of_rows(edges, y, held, pull)
        return PairAnswer(y[self.node], self._clusters(trees, pinned, apart, edges, size), rows)

    def _levels(self, trees: Forest, y: FloatArray, pull: FloatArray) -> tuple[FloatArray | None, BoolArray]:
        """Return the level of each tree that balances it, or that a bound holds, and which ones are held."""
        tree, offset, k = trees.tree, trees.offset, trees.trees

        def total(values: FloatArray) -> FloatArray:
            return np.bincount(tree, values, k).astype(np.float64, copy=False)

        least, most = np.full(k, -np.inf), np.full(k, np.inf)
        lower, upper = (0.0, 1.0) if self.open else (self.lower, self.upper)
        if lower is not None:
            np.maximum.at(least, tree, lower - offset)
        if upper is not None:
            np.minimum.at(most, tree, upper - offset)
        if bool((least > most + 1e-14).any()):
            return None, np.zeros(k, dtype=bool)
        weight = total(self._ground)
        level = (total(self._ground * (y - offset)) / weight).clip(least, most)
        low, high, several = least.copy(), most.copy(), np.bincount(tree, minlength=k) > 1
        for _ in range(100):
            at = level[tree] + offset
            if self.open:
                at = at.clip(ends.FIRST, ends.LAST)
            force, curve = total(self._forces(at, pull)), total(self._curvature(at))
            low, high = np.where(force < 0, level, low), np.where(force > 0, level, high)
            newton = level - force / curve
            with np.errstate(invalid="ignore"):
                middle = 0.5 * (low + high)
            outside = (newton <= low) | (newton >= high) | (several & (curve > ends.STEEP * weight))
            last, level = level, np.where(outside & np.isfinite(middle) & self.open, middle, newton.clip(least, most))
            if float(np.abs(level - last).max(initial=0.0)) <= 1e-15:
                break
            if not self.geometry.smooth:
                break
        if self.open:
            return level, np.zeros(k, dtype=bool)
        return level, (level <= least) | (level >= most)

    def _balanced(  # noqa: PLR0917 - all that acts on the nodes
        self,
        y: FloatArray,
        state: _State,
        active: Any,
        tree: IntArray,
        pinned: BoolArray,
        pull: FloatArray,
        forces: float,
    ) -> tuple[FloatArray, FloatArray, bool]:
        """Return multipliers of the active pairs, and of bounds, and whether they balance every node."""
        near = _FEASIBLE * max(1.0, float(np.abs(y).max(initial=0.0)))
        at_lower = np.zeros(self.nodes, dtype=bool) if self.lower is None else y <= self.lower + near
        at_upper = np.zeros(self.nodes, dtype=bool) if self.upper is None else y >= self.upper - near
        holds = (at_lower | at_upper) & pinned[tree]
        goal = _BALANCED * forces
        flow, held, worst = balanced_flow(
            (self.i[active], self.j[active]),
            state.edges[active],
            np.where(holds, state.bounds, 0.0),
            own=self._forces(y, pull),
            noise=self._noise(ends.nearer_to_end(y, ends.ROUNDING)) if self.open else np.zeros_like(y),
            holds=holds,
            tree=tree,
            goal=goal,
        )
        wrong = max(
            float(held[at_lower & holds & ~at_upper].max(initial=0.0)),
            float((-held[at_upper & holds & ~at_lower]).max(initial=0.0)),
        )
        return flow, held, worst <= 100.0 * goal and wrong <= 10.0 * _INACTIVE * forces

    def _clusters(
        self, trees: Forest, pinned: BoolArray, apart: FloatArray, edges: FloatArray, size: float
    ) -> Clusters:
        """Return which samples move together.

        A pair at its limit without a multiplier lets its ends move apart in one direction only. Where such pairs close
        a circle nothing can move in it, so that all of it moves together.
        """
        tree = trees.tree
        touching = (np.abs(apart) >= self.limit - 1e-11 * size) & (edges == 0.0) & (tree[self.i] != tree[self.j])
        if bool(touching.any()):
            up, i, j = apart[touching] > 0, tree[self.i[touching]], tree[self.j[touching]]
            return Clusters(tree, pinned).joined(np.where(up, i, j), np.where(up, j, i)).of(self.node)
        return Clusters(tree[self.node], pinned)

    def _of_rows(self, edges: FloatArray, y: FloatArray, held: FloatArray, pull: FloatArray) -> FloatArray:
        """Return the multipliers of all pairs: those of edges, and what flows between samples that are equal."""
        pairs, flow = self.pairs, np.zeros(len(self.pairs))
        flow[self.rows] = edges
        if not len(self.tied):
            return flow
        n = len(self.x)
        value = y[self.node]
        force = self.weights * self.geometry.slope(value, self.x) + pull
        force += np.bincount(pairs.first, flow, n) - np.bincount(pairs.second, flow, n)
        root = self.equal.order[self.equal.parent[self.equal.order] < 0]
        force[root] += held[self.node[root]]
        flow[self.tied] = sent_to_roots(self.equal, pairs.first[self.tied], force)
        return flow
