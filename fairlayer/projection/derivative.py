"""The exact derivative of the projection (KKT), as one linear map that serves reverse, forward and second order.

With S = dy/dx and W = -dy/dq of the geometry at the solution, M the rows that hold it (those without slack always do),
B the statistics, B~ their rows per unit of sample weight, K = B W B~', and Q h the prices with which those rows cancel
a change h (see `fairlayer.solve.held`), the solution moves with scores x, limits b and bounds as

    dy0 = S dx + L d lower + U d upper                  L, U: samples at a bound
    w   = Q (M B dy0 - db)                              change of the prices
    dy  = dy0 - W B~' M' w

and the adjoint of an upstream v is

    w = Q M B~ W v,   g = v - B' M' w,   dx = S g,   d lower = L g,   d upper = U g,   db = w.

In the Euclidean geometry S = W is a mask, and the map does not depend on x inside a piece. In a curved one S, W and Q
are functions of (y, x), written in torch, so autograd differentiates them in their turn.
Source: Amos, Kolter (2017), equations 6-8, specialised to one pull per cell.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import transforming
from fairlayer._typing import FloatArray
from fairlayer.passes import Passes
from fairlayer.projection.statistics import TorchStatistics
from fairlayer.projection.weightless import held_rows
from fairlayer.solve import WidenedSolution
from fairlayer.solve.held import HeldAnswer

__all__ = ["Derivative", "Place"]

Place = tuple[Tensor, Tensor]  # the value and the scores at which a curved map is taken, as torch follows them


class Derivative:
    """The linear map from changes of scores, bounds and limits to changes of the projection.

    Args:
        passes: the batch.
        solved: its projection.
    """

    def __init__(self, passes: Passes, solved: WidenedSolution) -> None:
        self.passes, self.solved = passes, solved
        self.geometry = passes.geometry
        self.held = held_rows(passes, solved)

    @cached_property
    def metric(self) -> FloatArray:
        """K at the solution."""
        return self.solved.solution.point.curvature

    @cached_property
    def _answer(self) -> HeldAnswer:
        return self.held.answer(self.metric)

    @cached_property
    def free(self) -> Tensor | None:
        """What the geometry calls free, or None where every sample is."""
        mask = self.solved.solution.free
        return None if mask is None else self.passes.as_tensor(mask)

    @cached_property
    def at_lower(self) -> Tensor | None:
        """L as a mask."""
        return self._clipped_at(self.passes.lower)

    @cached_property
    def at_upper(self) -> Tensor | None:
        """U as a mask."""
        return self._clipped_at(self.passes.upper)

    def adjoint(
        self, upstream: Tensor, place: Place | None, dtype: torch.dtype, *, at_bounds: bool
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return dx, g and w for an upstream v of the shape of the value; differentiable in v.

        Args:
            upstream: v.
            place: the value and the scores of a curved geometry, where the derivative itself is differentiated.
            dtype: the dtype of dx.
            at_bounds: whether g is asked for, in float64; it is None otherwise.
        """
        if place is None and not (torch.is_grad_enabled() or transforming()):
            return self._plain_adjoint(upstream, dtype, at_bounds=at_bounds)
        dx, g, w = self._followed_adjoint(upstream.double(), place)
        return dx.to(dtype), g, w

    def _followed_adjoint(self, upstream: Tensor, place: Place | None) -> tuple[Tensor, Tensor, Tensor]:
        value, x = self._here if place is None else place
        kept = self.geometry.weigh(value, x, self.free, upstream)
        if not len(self.held):
            return self.geometry.follow(value, x, self.free, upstream), upstream, upstream.new_zeros(0)
        statistics = self._statistics
        w = self._followed(place)(self._times(statistics.measure(kept, weighted=False)))
        g = upstream - statistics.weighted(statistics.pull(self._transposed(w)))
        return self.geometry.follow(value, x, self.free, g), g, w

    def _plain_adjoint(
        self, upstream: Tensor, dtype: torch.dtype, *, at_bounds: bool
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Do what `adjoint` does, in the arrays of the passes: one sweep for w, and one that writes dx run by run."""
        passes, point, rule = self.passes, self.solved.solution.point, self.geometry
        w, nu = np.zeros(0), None
        if len(self.held):
            kept = np.zeros(passes.cells.size)
            for run in passes.runs:
                value, free = point.piece(run)
                v = rule.weigh(value, passes.scores[run], free, passes.from_tensor(upstream[run]))
                kept = kept + passes.sums(v, run, weighted=False)
            w = self._answer(self.held.matrix @ passes.together(kept))
            nu = w @ self.held.matrix
        dx = torch.empty(upstream.shape, dtype=dtype, device=upstream.device)
        at = torch.empty(upstream.shape, dtype=torch.float64, device=upstream.device) if at_bounds else None
        for run in passes.runs:
            value, free = point.piece(run)
            g = passes.from_tensor(upstream[run])
            if nu is not None:
                taken, weights = passes.pull(nu, run), self._row_weights
                g = g - (taken if weights is None else (taken.T * weights[run]).T)
            dx[run] = passes.as_tensor(rule.follow(value, passes.scores[run], free, g))
            if at is not None:
                at[run] = passes.as_tensor(g)
        return dx, at, torch.as_tensor(w, dtype=torch.float64)

    def tangent(
        self,
        scores: Tensor | None,
        lower: Tensor | None,
        upper: Tensor | None,
        limits: Tensor | None,
        place: Place | None,
    ) -> Tensor:
        """Return dy for changes (float64) of the scores, the bounds, and the limit of each face."""
        value, x = self._here if place is None else place
        moved: Any = torch.zeros_like(value)
        if scores is not None:
            moved = moved + self.geometry.carry(value, x, self.free, scores)
        for change, mask in ((lower, self.at_lower), (upper, self.at_upper)):
            if change is not None:
                moved = moved + (change * 0.0 if mask is None else change * mask)
        if not len(self.held):
            unmoved: Tensor = moved + 0.0
            return unmoved
        statistics = self._statistics
        change = self._times(statistics.measure(moved))
        w = self._followed(place)(change if limits is None else change - limits)
        pull = statistics.pull(self._transposed(w))
        tangent: Tensor = moved - self.geometry.weigh(value, x, self.free, pull)
        return tangent

    @cached_property
    def _row_weights(self) -> Any:
        """The weight of each row where the scores are, or None."""
        weights, scores = self.passes.cells.weights, self.passes.scores
        on_host = weights is None or not isinstance(scores, Tensor)
        return weights if on_host else torch.from_numpy(weights).to(scores.device)

    @cached_property
    def _here(self) -> Place:
        return self.passes.as_tensor(self.solved.solution.value), self.passes.as_tensor(self.passes.scores)

    @cached_property
    def _entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """M by its entries: rows, columns, values."""
        place, matrix = self._here[0].device, self.held.matrix
        rows, columns, data = (torch.from_numpy(each).to(place) for each in (matrix.rows, matrix.columns, matrix.data))
        return rows, columns, data

    def _times(self, statistics: Tensor) -> Tensor:
        """Return M s."""
        rows, columns, data = self._entries
        return statistics.new_zeros(len(self.held)).index_add(0, rows, data * statistics.index_select(0, columns))

    def _transposed(self, prices: Tensor) -> Tensor:
        """Return M' p."""
        rows, columns, data = self._entries
        size = self.held.matrix.shape[1]
        return prices.new_zeros(size).index_add(0, columns, data * prices.index_select(0, rows))

    @cached_property
    def _statistics(self) -> TorchStatistics:
        return TorchStatistics(self.passes.cells, self._here[0].device, self.passes.total)

    def _followed(self, place: Place | None) -> Callable[[Tensor], Tensor]:
        """Return the prices as a function of h, and where the map is curved of the place too."""
        if place is None or not self.geometry.smooth:
            metric = torch.from_numpy(np.asarray(self.metric)).to(self._here[0].device)
        else:
            metric = self._metric_at(*place)
        followed: Callable[[Tensor], Tensor] = self.held.answer_followed(metric)
        return followed

    def _metric_at(self, value: Tensor, x: Tensor) -> Tensor:
        """Return K as a function of the place: its diagonal where it has no other entries, else column by column."""
        statistics, cells = self._statistics, self.passes.cells
        if cells.dense is None and not self.geometry.on_simplex:
            weight = self.geometry.weigh(value, x, self.free, torch.ones_like(value))
            return statistics.measure(weight) / statistics.counts
        columns = []
        for unit in torch.eye(cells.size, dtype=torch.float64, device=value.device):
            columns.append(statistics.measure(self.geometry.weigh(value, x, self.free, statistics.pull(unit))))
        square = torch.stack(columns)
        return 0.5 * (square + square.T)

    def _clipped_at(self, bound: Any) -> Tensor | None:
        if bound is None or self.free is None or self.geometry.on_simplex:
            return None
        value = self.passes.as_tensor(self.solved.solution.value)
        at_bound: Tensor = value == (self.passes.as_tensor(bound) if isinstance(bound, np.ndarray) else bound)
        return ~self.free & at_bound
