"""The exact derivative of the projection (KKT), as one linear map that serves reverse, forward and second order.

With S = dy/dx and W = -dy/dq of the geometry at the solution, N the active faces (equalities are always active), B the
statistics, B~ their rows per unit of sample weight, and Q = (N K N')^+ with K = B W B~', the solution moves with scores
x, limits b and bounds as

    dy0 = S dx + L d lower + U d upper                  L, U: samples at a bound
    w   = Q (N B dy0 - db)                              change of the multipliers
    dy  = dy0 - W B~' N' w

and the adjoint of an upstream v is

    w = Q N B~ W v,   g = v - B' N' w,   dx = S g,   d lower = L g,   d upper = U g,   db = w.

In the Euclidean geometry S = W is a mask, and the map does not depend on x inside a piece. In a curved one S, W and Q
are functions of (y, x), written in torch, so autograd differentiates them in their turn.
Source: Amos, Kolter (2017), equations 6-8, specialised to one pull per cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import transforming
from fairlayer._typing import FloatArray
from fairlayer.passes import Passes, Point
from fairlayer.projection.statistics import TorchStatistics
from fairlayer.solve import Face, Solved

__all__ = ["Derivative", "Place"]

Place = tuple[Tensor, Tensor]  # the value and the scores at which a curved map is taken, as torch follows them


class Derivative:
    """The linear map from changes of scores, bounds and limits to changes of the projection.

    Args:
        passes: the batch.
        solved: its projection.
    """

    def __init__(self, passes: Passes, solved: Solved) -> None:
        self.passes, self.solved = passes, solved
        self.geometry = passes.geometry
        self.faces = self._all_faces() if solved.slabs.has_equalities else solved.solution.faces

    def _all_faces(self) -> tuple[Face, ...]:
        """Active faces, then the equalities that do not depend on those before them."""
        faces = list(self.solved.solution.faces)
        for face in self.solved.slabs.equalities():
            if self._independent(face, faces):
                faces.append(face)
        return tuple(faces)

    @cached_property
    def normals(self) -> FloatArray:
        """N, (faces, statistics)."""
        return self._stack(self.faces)

    @cached_property
    def metric(self) -> FloatArray:
        """K at the solution."""
        solution = self.solved.solution
        return self.passes.metric(Point(solution.value, solution.free, solution.statistics))

    @cached_property
    def _curvature_of_one(self) -> float:
        """Q where N is one row, without matrices."""
        normal, metric = self.faces[0].normal, self.metric
        square = float((normal * metric) @ normal if metric.ndim == 1 else normal @ metric @ normal)
        return 1.0 / square if square > 0 else 0.0

    @cached_property
    def inverse(self) -> FloatArray:
        """Q = (N K N')^+, of the matrix scaled to unit diagonal."""
        square = self._products(self.normals, self.normals)
        if len(square) == 1:
            return np.asarray(1.0 / square if square.item() > 0 else square)
        diagonal = np.diag(square)
        scale = np.where(diagonal > 0, 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)), 0.0)
        unit = np.linalg.pinv(square * np.outer(scale, scale), rcond=1e-11, hermitian=True)
        return np.asarray(unit * np.outer(scale, scale))

    def _products(self, left: FloatArray, right: FloatArray) -> FloatArray:
        scaled = left * self.metric if self.metric.ndim == 1 else left @ self.metric
        return np.asarray(scaled @ right.T)

    def _stack(self, faces: Sequence[Face]) -> FloatArray:
        return np.array([face.normal for face in faces]).reshape(len(faces), self.passes.cells.size)

    def _independent(self, face: Face, faces: Sequence[Face]) -> bool:
        normals, normal = self._stack(faces), face.normal[None, :]
        size = self._products(normal, normal).item()
        cross = self._products(normals, normal)[:, 0]
        explained = cross @ np.linalg.lstsq(self._products(normals, normals), cross, rcond=1e-12)[0]
        return bool(size - explained > 1e-9 * size)

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

    def adjoint(self, upstream: Tensor, place: Place | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return dx, g and w for an upstream v of the shape of the value, in float64; differentiable in v.

        Args:
            upstream: v.
            place: of a curved geometry, the value and the scores, where the derivative itself is differentiated.
        """
        if place is None and not (torch.is_grad_enabled() or transforming()):
            return self._plain_adjoint(upstream)
        value, x = self._here if place is None else place
        kept = self.geometry.weigh(value, x, self.free, upstream)
        if not self.faces:
            return self.geometry.follow(value, x, self.free, upstream), upstream, upstream.new_zeros(0)
        statistics = self._statistics
        w = self._followed_inverse(place) @ (self._normals @ statistics.measure(kept, weighted=False))
        g = upstream - statistics.weighted(statistics.pull(self._normals.T @ w))
        return self.geometry.follow(value, x, self.free, g), g, w

    def _plain_adjoint(self, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`adjoint` in the arrays of the passes, with as few sweeps as it takes."""
        passes, solution, rule = self.passes, self.solved.solution, self.geometry
        v = passes.from_tensor(upstream)
        if not self.faces:
            followed = rule.follow(solution.value, passes.scores, solution.free, v)
            return passes.as_tensor(followed), upstream, torch.zeros(0, dtype=torch.float64)
        kept = rule.weigh(solution.value, passes.scores, solution.free, v)
        measured = passes.measure(kept, weighted=False)
        if len(self.faces) == 1:
            normal = self.faces[0].normal
            w: Any = [self._curvature_of_one * float(normal @ measured)]
            taken = passes.pull(w[0] * normal)
        else:
            w = self.inverse @ (self.normals @ measured)
            taken = passes.pull(self.normals.T @ w)
        weights = passes.cells.weights
        g = v - (taken if weights is None else (taken.T * weights).T)
        followed = rule.follow(solution.value, passes.scores, solution.free, g)
        return passes.as_tensor(followed), passes.as_tensor(g), torch.as_tensor(w, dtype=torch.float64)

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
            moved = moved + self.geometry.follow(value, x, self.free, scores)
        for change, mask in ((lower, self.at_lower), (upper, self.at_upper)):
            if change is not None:
                moved = moved + (change * 0.0 if mask is None else change * mask)
        if not self.faces:
            unmoved: Tensor = moved + 0.0
            return unmoved
        statistics = self._statistics
        change = self._normals @ statistics.measure(moved)
        w = self._followed_inverse(place) @ (change if limits is None else change - limits)
        pull = statistics.pull(self._normals.T @ w)
        tangent: Tensor = moved - self.geometry.weigh(value, x, self.free, pull)
        return tangent

    @cached_property
    def _here(self) -> Place:
        return self.passes.as_tensor(self.solved.solution.value), self.passes.as_tensor(self.passes.scores)

    @cached_property
    def _normals(self) -> Tensor:
        return torch.from_numpy(self.normals).to(self._here[0].device)

    @cached_property
    def _statistics(self) -> TorchStatistics:
        return TorchStatistics(self.passes.cells, self._here[0].device, self.passes.total)

    def _followed_inverse(self, place: Place | None) -> Tensor:
        """Q, as a function of the place where the map is curved."""
        if place is None or not self.geometry.smooth:
            return torch.from_numpy(self.inverse).to(self._here[0].device)
        value, x = place
        columns = []
        for normal in self._normals:
            answer = self.geometry.weigh(value, x, self.free, self._statistics.pull(normal))
            columns.append(self._normals @ self._statistics.measure(answer))
        square = torch.stack(columns)
        diagonal = torch.diagonal(square).detach().clamp(min=1e-300) ** -0.5
        scale = torch.outer(diagonal, diagonal)
        inverse: Tensor = torch.linalg.pinv(0.5 * (square + square.T) * scale, rtol=1e-11, hermitian=True) * scale
        return inverse

    def _clipped_at(self, bound: Any) -> Tensor | None:
        if bound is None or self.free is None or self.geometry.on_simplex:
            return None
        value = self.passes.as_tensor(self.solved.solution.value)
        at_bound: Tensor = value == (self.passes.as_tensor(bound) if isinstance(bound, np.ndarray) else bound)
        return ~self.free & at_bound
