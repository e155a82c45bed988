"""The exact derivative of the projection (KKT), as one linear map that serves reverse, forward and second order.

With F the unclipped samples, N the active faces (equalities are always active), B the statistics, and
Q = (N K N')^+ with K = B F B', the solution moves with scores z, limits b and bounds as

    dy0 = F dz + L d lower + U d upper                  L, U: samples at a bound
    w   = Q (N B dy0 - db)                              change of the multipliers
    dy  = dy0 - F B' N' w

and the adjoint of an upstream v is

    w = Q N B F v,   g = v - B' N' w,   dz = F g,   d lower = L g,   d upper = U g,   db = w.

dy/dz is an orthogonal projector: symmetric and idempotent. The map does not depend on z inside a piece, so its own
derivative there is zero, and autograd finds the second derivative of anything composed with it.
Source: Amos, Kolter (2017), equations 6-8, specialised to one shift per cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import transforming
from fairlayer._typing import FloatArray
from fairlayer.passes import Passes, Point
from fairlayer.solve.slabs import Face
from fairlayer.solve.solve import Solved

__all__ = ["Derivative"]


class _Statistics(Protocol):
    """B and its transpose, on arrays of one kind."""

    def measure(self, value: Any) -> Any: ...
    def pull(self, nu: Any) -> Any: ...
    def small(self, array: FloatArray) -> Any: ...


class Derivative:
    """The linear map from changes of scores, bounds and limits to changes of the projection.

    Args:
        passes: the batch.
        solved: its projection.
    """

    def __init__(self, passes: Passes, solved: Solved) -> None:
        self.passes, self.solved = passes, solved
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
        """K = B F B' at the solution."""
        return self._metric_now()

    def _metric_now(self) -> FloatArray:
        solution = self.solved.solution
        return self.passes.metric(Point(solution.value, solution.unclipped, solution.statistics))

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
    def response(self) -> FloatArray:
        """Q N, the multipliers' change per change of the statistics."""
        return self.inverse @ self.normals

    @cached_property
    def free(self) -> Tensor | None:
        """F as a mask, or None where nothing can be clipped."""
        mask = self.solved.solution.unclipped
        return None if mask is None else self.passes.as_tensor(mask)

    @cached_property
    def at_lower(self) -> Tensor | None:
        """L as a mask."""
        return self._clipped_at(self.passes.lower)

    @cached_property
    def at_upper(self) -> Tensor | None:
        """U as a mask."""
        return self._clipped_at(self.passes.upper)

    def adjoint_of_scores(self, upstream: Tensor) -> Tensor:
        """Return dz alone; see `adjoint`."""
        if len(self.faces) == 1 and self.passes.cells.dense is None and not (torch.is_grad_enabled() or transforming()):
            return self.passes.as_tensor(self._adjoint_of_one(self.passes.from_tensor(upstream))[0])
        return self.adjoint(upstream)[0]

    def adjoint(self, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return dz = F g, g = v - B' N' w, and w, for an upstream v (n,) in float64; differentiable in v."""
        if torch.is_grad_enabled() or transforming():
            return self._adjoint(upstream, self.free, self._cells)
        passes = self.passes
        if len(self.faces) == 1 and passes.cells.dense is None:
            d_scores, g, price = self._adjoint_of_one(passes.from_tensor(upstream))
            return passes.as_tensor(d_scores), passes.as_tensor(g), torch.tensor([price], dtype=torch.float64)
        d_scores, g, w = self._adjoint(passes.from_tensor(upstream), self.solved.solution.unclipped, passes)
        return passes.as_tensor(d_scores), passes.as_tensor(g), torch.from_numpy(w)

    def _adjoint_of_one(self, upstream: Any) -> tuple[Any, Any, float]:
        """`_adjoint` where N is one row, without matrices."""
        passes, free, normal = self.passes, self.solved.solution.unclipped, self.faces[0].normal
        kept = upstream if free is None else upstream * free
        square = float((normal * self._metric_now()) @ normal)
        w = float(normal @ passes.measure(kept)) / square if square > 0 else 0.0
        g = upstream - passes.pull(w * normal)
        return g if free is None else g * free, g, w

    def _adjoint(self, upstream: Any, free: Any, statistics: _Statistics) -> tuple[Any, Any, Any]:
        if not self.faces:
            return upstream if free is None else upstream * free, upstream, statistics.small(np.zeros(0))
        kept = upstream if free is None else upstream * free
        w = statistics.small(self.response) @ statistics.measure(kept)
        g = upstream - statistics.pull(statistics.small(self.normals.T) @ w)
        return g if free is None else g * free, g, w

    def tangent(
        self, scores: Tensor | None, lower: Tensor | None, upper: Tensor | None, limits: Tensor | None
    ) -> Tensor:
        """Return dy for changes (float64) of the scores, the bounds, and the limit of each face."""
        statistics = self._cells
        moved: Any = torch.zeros_like(self.passes.as_tensor(self.solved.solution.value))
        for change, mask in ((scores, self.free), (lower, self.at_lower), (upper, self.at_upper)):
            if change is not None:
                moved = moved + (change if mask is None else change * mask)
        if not self.faces:
            unmoved: Tensor = moved + 0.0
            return unmoved
        w = statistics.small(self.response) @ statistics.measure(moved)
        if limits is not None:
            w = w - statistics.small(self.inverse) @ limits
        shift = statistics.pull(statistics.small(self.normals.T) @ w)
        tangent: Tensor = moved - (shift if self.free is None else shift * self.free)
        return tangent

    def _clipped_at(self, bound: Any) -> Tensor | None:
        if bound is None or self.free is None:
            return None
        value = self.passes.as_tensor(self.solved.solution.value)
        at_bound: Tensor = value == (self.passes.as_tensor(bound) if isinstance(bound, np.ndarray) else bound)
        return ~self.free & at_bound

    @cached_property
    def _cells(self) -> _DifferentiableCells:
        return _DifferentiableCells(self.passes, self.passes.as_tensor(self.solved.solution.value).device)


class _DifferentiableCells:
    """B and its transpose as torch operations that autograd and functorch can follow."""

    def __init__(self, passes: Passes, device: torch.device) -> None:
        cells = passes.cells
        self.device, self.total = device, passes.total
        self.codes = None if cells.codes is None else torch.from_numpy(cells.codes).to(device)
        self.counts = torch.from_numpy(cells.counts).to(device)
        self.dense = None if cells.dense is None else torch.from_numpy(cells.dense).to(device)

    def small(self, array: FloatArray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def measure(self, value: Tensor) -> Tensor:
        parts = []
        if self.codes is not None:
            sums = torch.zeros(len(self.counts) + 1, dtype=value.dtype, device=self.device)
            parts.append(sums.index_add(0, self.codes, value)[:-1] / self.counts)
        if self.dense is not None:
            parts.append(self.dense @ value)
        return self.total(parts[0] if len(parts) == 1 else torch.cat(parts))

    def pull(self, nu: Tensor) -> Tensor:
        k = len(self.counts)
        pull = nu.new_zeros(())
        if self.codes is not None:
            table = torch.nn.functional.pad(nu[:k] / self.counts, (0, 1))
            pull = table.index_select(0, self.codes)
        return pull if self.dense is None else pull + nu[k:] @ self.dense
