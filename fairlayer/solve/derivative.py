"""The exact derivative of the projection (KKT), as one linear map that serves reverse, forward and second order.

With F the unclipped samples, N the active faces (equalities are always active), B the statistics, and
Q = (N K N')^+ with K = B F B', the solution moves with scores z, limits b and bounds as

    dy0 = F dz + L d lower + U d upper                  L, U: samples at a bound
    w   = Q (N B dy0 - db)                              change of the multipliers
    dy  = dy0 - F B' N' w

and the adjoint of an upstream v is

    w = Q N B F v,   g = v - B' N' w,   dz = F g,   d lower = L g,   d upper = U g,   db = w.

dz/dv is an orthogonal projector: symmetric and idempotent. The map does not depend on z inside a piece, so its own
derivative there is zero, and autograd finds the second derivative of anything composed with it.
Source: Amos, Kolter (2017), equations 6-8, specialised to one shift per cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import FloatArray
from fairlayer.solve.passes import Passes, Point
from fairlayer.solve.slabs import Face
from fairlayer.solve.solve import Solved

__all__ = ["Derivative", "Job", "differentiable_solve"]


@dataclass(frozen=True)
class Derivative:
    """The linear map from changes of scores, bounds and tolerances to changes of the projection."""

    passes: Passes
    solved: Solved

    @cached_property
    def faces(self) -> tuple[Face, ...]:
        """Active faces, and every equality."""
        active = self.solved.solution.faces
        keys = {face.normal.tobytes() for face in active} | {(-face.normal).tobytes() for face in active}
        equal = self.solved.slabs.equalities() if self.solved.slabs.has_equalities else []
        return (*active, *(face for face in equal if face.normal.tobytes() not in keys))

    @cached_property
    def normals(self) -> FloatArray:
        """N, (faces, statistics)."""
        return np.array([face.normal for face in self.faces]).reshape(len(self.faces), self.passes.cells.size)

    @cached_property
    def inverse(self) -> FloatArray:
        """Q = (N K N')^+."""
        solution = self.solved.solution
        metric = self.passes.metric(Point(solution.value, solution.unclipped, solution.statistics))
        normals = self.normals
        square = (normals * metric if metric.ndim == 1 else normals @ metric) @ normals.T
        if len(square) == 1:
            return np.asarray(1.0 / square if square[0, 0] > 0 else square)
        return np.linalg.pinv(square, rcond=1e-11, hermitian=True)

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

    def _clipped_at(self, bound: Any) -> Tensor | None:
        if bound is None or self.free is None:
            return None
        value = self.passes.as_tensor(self.solved.solution.value)
        return ~self.free & (value == torch.as_tensor(bound, dtype=torch.float64, device=value.device))

    def adjoint(self, upstream: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return g = v - B' N' w and w, the multipliers' change for an upstream gradient v (n,)."""
        if not self.faces:
            return upstream, None
        kept = upstream if self.free is None else upstream * self.free
        w = self._matrix(self.inverse @ self.normals, upstream) @ self._measure(kept)
        return upstream - self._pull(self._matrix(self.normals.T, upstream) @ w), w

    def tangent(
        self, scores: Tensor | None, lower: Tensor | None, upper: Tensor | None, limits: Tensor | None
    ) -> Tensor:
        """Return dy for changes of the scores, the bounds, and the limit of each face."""
        given = next(t for t in (scores, lower, upper, limits) if t is not None)
        value = self.passes.as_tensor(self.solved.solution.value)
        moved = torch.zeros_like(value, dtype=given.dtype)
        for change, mask in ((scores, self.free), (lower, self.at_lower), (upper, self.at_upper)):
            if change is not None:
                moved = moved + (change if mask is None else change * mask)
        if not self.faces:
            return moved
        excess = self._matrix(self.normals, given) @ self._measure(moved)
        w = self._matrix(self.inverse, given) @ (excess if limits is None else excess - limits)
        shift = self._pull(self._matrix(self.normals.T, given) @ w)
        return moved - (shift if self.free is None else shift * self.free)

    @cached_property
    def _device_cells(self) -> tuple[Tensor | None, Tensor, Tensor | None]:
        cells, place = self.passes.cells, self.passes.as_tensor(self.solved.solution.value).device
        codes = None if cells.codes is None else torch.from_numpy(cells.codes).to(place)
        dense = None if cells.dense is None else torch.from_numpy(cells.dense).to(place)
        return codes, torch.from_numpy(cells.counts).to(place), dense

    def _measure(self, value: Tensor) -> Tensor:
        """B v."""
        codes, counts, dense = self._device_cells
        parts = []
        if codes is not None:
            sums = torch.zeros(len(counts) + 1, dtype=value.dtype, device=value.device)
            parts.append(sums.index_add(0, codes, value)[:-1] / counts.to(value.dtype))
        if dense is not None:
            parts.append(dense.to(value.dtype) @ value)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _pull(self, nu: Tensor) -> Tensor:
        """B' nu."""
        codes, counts, dense = self._device_cells
        k = len(counts)
        pull = nu.new_zeros(())
        if codes is not None:
            table = torch.nn.functional.pad(nu[:k] / counts.to(nu.dtype), (0, 1))
            pull = table.index_select(0, codes)
        return pull if dense is None else pull + nu[k:] @ dense.to(nu.dtype)

    @staticmethod
    def _matrix(array: FloatArray, like: Tensor) -> Tensor:
        return torch.from_numpy(array).to(device=like.device, dtype=like.dtype)


class Job:
    """A projection about to run: `solve` is called on plain scores, once, and its outcome is kept.

    Args:
        solve: from scores (n,) without gradient to (value, passes, solved).
        blocks: for each tolerance that takes a gradient, the blocks of slabs that it widens.
    """

    def __init__(self, solve: Callable[[Tensor], tuple[Tensor, Passes, Solved]], blocks: list[list[int]]) -> None:
        self._solve = solve
        self.blocks = blocks
        self.passes: Passes
        self.solved: Solved

    def run(self, scores: Tensor) -> Tensor:
        """Solve and keep what the derivative needs."""
        value, self.passes, self.solved = self._solve(scores)
        return value

    @cached_property
    def derivative(self) -> Derivative:
        """The derivative at the solution."""
        return Derivative(self.passes, self.solved)

    def faces_of_tolerance(self) -> Tensor:
        """Return the matrix (tolerances, faces) that is 1 where a tolerance is part of a face's limit."""
        blocks = [face.key[0] for face in self.derivative.faces]
        return torch.tensor([[float(b in owned) for b in blocks] for owned in self.blocks], dtype=torch.float64)


class _Projection(torch.autograd.Function):
    """scores, lower, upper, tolerances -> projection."""

    @staticmethod
    def forward(
        scores: Tensor, lower: Tensor | None, upper: Tensor | None, tolerances: Tensor | None, job: Job
    ) -> Tensor:
        return job.run(scores)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, lower, upper, _, ctx.job = inputs
        ctx.shapes = [None if bound is None else bound.shape for bound in (lower, upper)]
        ctx.dtype = output.dtype

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        derivative: Derivative = ctx.job.derivative
        upstream = upstreams[0].double()
        g, w = derivative.adjoint(upstream)
        masked = g if derivative.free is None else g * derivative.free
        needs = ctx.needs_input_grad
        d_lower = _bound_gradient(g, derivative.at_lower, ctx.shapes[0]) if needs[1] else None
        d_upper = _bound_gradient(g, derivative.at_upper, ctx.shapes[1]) if needs[2] else None
        d_tolerance = _tolerance_gradient(ctx.job, w, upstream) if needs[3] else None
        return masked.to(ctx.dtype), d_lower, d_upper, d_tolerance, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        d_scores, d_lower, d_upper, d_tolerances, _ = tangents
        limits = None
        if d_tolerances is not None:
            limits = d_tolerances.double() @ ctx.job.faces_of_tolerance().to(d_tolerances.device)
        changes = [None if change is None else change.double() for change in (d_scores, d_lower, d_upper)]
        return ctx.job.derivative.tangent(*changes, limits).to(ctx.dtype)


def _bound_gradient(g: Tensor, mask: Tensor | None, shape: torch.Size) -> Tensor:
    masked = g * 0.0 if mask is None else g * mask
    return masked.sum() if len(shape) == 0 else masked


def _tolerance_gradient(job: Job, w: Tensor | None, like: Tensor) -> Tensor:
    if w is None:
        return like.new_zeros(len(job.blocks))
    return job.faces_of_tolerance().to(w.device) @ w


def differentiable_solve(
    scores: Tensor, lower: Tensor | None, upper: Tensor | None, tolerances: Tensor | None, job: Job
) -> Tensor:
    """Run the job on the scores, with the derivative of the projection attached.

    Args:
        scores: (n,), floating.
        lower: bound as a float64 tensor, 0-d or (n,), where it takes a gradient, else None.
        upper: likewise.
        tolerances: (t,) float64, those that take a gradient, or None.
        job: what to solve.
    """
    value: Tensor = _Projection.apply(scores, lower, upper, tolerances, job)
    return value
