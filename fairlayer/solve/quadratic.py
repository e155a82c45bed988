"""The tiny quadratic program over statistics, solved exactly by a dual active-set method.

    minimise 1/2 (m - centre)' K^-1 (m - centre)   subject to   normal_j @ m <= limit_j

Only K is used, never its inverse: m = centre - K N' lambda. Faces enter one at a time, the most violated
first; a dependent face replaces one that blocks it, so dependent rows are no special case.
Source: Goldfarb, Idnani (1983), "A numerically stable dual method for solving strictly convex QPs".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.errors import SolverError
from fairlayer.solve.slabs import Face, SlabSystem, normals_of

__all__ = ["ClashingFaces", "QuadraticSolution", "solve_quadratic"]

_DEPENDENT = 1e-12  # relative curvature below which a face depends on the active ones


class ClashingFaces(Exception):  # noqa: N818 - an outcome, turned into a named error at the edge
    """The faces that cannot hold together (a Farkas certificate)."""

    def __init__(self, faces: Sequence[Face]) -> None:
        super().__init__("clashing faces")
        self.faces = tuple(faces)


@dataclass(frozen=True)
class QuadraticSolution:
    """The point, its active faces, and their multipliers (>= 0)."""

    point: FloatArray
    faces: tuple[Face, ...]
    multipliers: FloatArray


def solve_quadratic(
    centre: FloatArray, metric: FloatArray, slabs: SlabSystem, start: Sequence[Face] = (), atol: float = 1e-13
) -> QuadraticSolution:
    """Return the point nearest to `centre` in the metric K^-1.

    Args:
        centre: (s,).
        metric: K, (s,) for a diagonal or (s, s); positive definite where a face has weight.
        slabs: the feasible set.
        start: faces guessed to be active (a warm start).
        atol: violation up to which a face counts as met, in units of the slabs' own accuracy.

    Raises:
        ClashingFaces: the feasible set is empty.
        SolverError: the iteration limit was reached.

    Example:
        >>> from fairlayer.solve.slabs import SpreadSlabs
        >>> slabs = SlabSystem([SpreadSlabs(np.eye(2), np.zeros(2), 1.0, 0.2)])
        >>> solve_quadratic(np.array([1.0, 0.0]), np.ones(2), slabs).point
        array([0.6, 0.4])
    """
    active = _ActiveSet(centre, metric)
    active.warm_start(start)
    for _ in range(100 + 20 * len(centre)):
        violation, key = slabs.worst(active.point)
        if violation <= atol:
            return active.solution()
        if not active.add(slabs.face(key), atol):
            return active.solution()
    raise SolverError(
        f"the quadratic program over {len(centre)} statistics did not settle: violation {violation:.3g} is left, "
        f"{atol:.3g} was asked. Check for rows of very different size."
    )


class _ActiveSet:
    """A point that is optimal for its own faces, with multipliers >= 0."""

    def __init__(self, centre: FloatArray, metric: FloatArray) -> None:
        self.centre, self.metric = centre, metric
        self.point = centre
        self.faces: list[Face] = []
        self.normals = self.scaled = np.zeros((0, len(centre)))  # N and N K
        self.gram = np.zeros((0, 0))  # N K N'
        self.multipliers = np.zeros(0)

    def warm_start(self, faces: Sequence[Face]) -> None:
        self._set(list(faces))
        while self.faces:
            self.refresh()
            worst = int(self.multipliers.argmin())
            if self.multipliers[worst] >= 0:
                return
            self._drop(worst)
        self.point = self.centre

    def refresh(self) -> None:
        """Recompute multipliers and point from the faces: N K N' lambda = N centre - limits."""
        if not self.faces:
            return
        limits = np.array([face.limit for face in self.faces])
        self.multipliers = _solve(self.gram, self.normals @ self.centre - limits)
        self.point = self.centre - self.multipliers @ self.scaled

    def solution(self) -> QuadraticSolution:
        """Return the point, refreshed; of faces that depend on each other but for rounding, some are let go for it."""
        self.refresh()
        while self.faces and float(self.multipliers.min()) < -1e-9 * float(self.multipliers.max()):
            self._drop(int(self.multipliers.argmin()))
            self.refresh()
        if not self.faces:
            self.point = self.centre
        return QuadraticSolution(self.point, tuple(self.faces), self.multipliers)

    def add(self, face: Face, atol: float) -> bool:
        """Move along the face's dual direction, dropping what blocks, until the face holds with equality.

        Return False where the face depends on active ones that already imply it: its violation is rounding.
        """
        face = face._replace(normal=np.asarray(face.normal))
        step = self._apply(face.normal)
        size = float(face.normal @ step)
        price = 0.0
        while True:
            change = _solve(self.gram, self.normals @ step)  # d lambda per unit of price
            direction = step - change @ self.scaled
            curvature = float(face.normal @ direction)
            dependent = curvature <= _DEPENDENT * size
            full = np.inf if dependent else (float(face.normal @ self.point) - face.limit) / curvature
            blocking, partial = _first_blocking(self.multipliers, change)
            if np.isinf(full) and np.isinf(partial):
                self._raise_if_clashing(face, change, atol)
                return False
            length = min(full, partial)
            self.multipliers = self.multipliers - length * change
            price += length
            if not dependent:
                self.point = self.point - length * direction
            if full <= partial:
                self._append(face, step, price)
                return True
            self._drop(blocking)

    def _raise_if_clashing(self, face: Face, change: FloatArray, atol: float) -> None:
        """Raise by Farkas' lemma: face + sum_j weight_j face_j reads `0 <= limit`, which fails for a negative limit.

        It is a proof only if the normals do cancel; where K is nearly singular they may cancel in its metric alone.
        """
        weights = np.where(-change > 1e-9, -change, 0.0)
        left = np.abs(face.normal + weights @ self.normals).max()
        if left > 1e-9 * np.abs(face.normal).max():
            return
        limits = np.array([f.limit for f in self.faces])
        limit = face.limit + float(weights @ limits)
        accuracies = np.array([f.atol for f in self.faces])
        rounding = 100 * atol * (face.atol + float(weights @ accuracies))
        rounding += 1e-15 * (abs(face.limit) + float(weights @ np.abs(limits)))
        if limit < -rounding:
            raise ClashingFaces([face, *(f for f, w in zip(self.faces, weights, strict=True) if w > 0)])

    def _set(self, faces: list[Face]) -> None:
        self.faces = faces
        self.normals = normals_of(faces, len(self.centre))
        self.scaled = self._apply(self.normals)
        self.gram = self.normals @ self.scaled.T
        self.multipliers = np.zeros(len(faces))

    def _append(self, face: Face, scaled: FloatArray, multiplier: float) -> None:
        held = len(self.faces)
        gram = np.empty((held + 1, held + 1))
        gram[:held, :held] = self.gram
        gram[held, :held] = gram[:held, held] = self.normals @ scaled
        gram[held, held] = face.normal @ scaled
        self.gram = gram
        self.faces = [*self.faces, face]
        self.normals = np.vstack([self.normals, face.normal])
        self.scaled = np.vstack([self.scaled, scaled])
        self.multipliers = np.append(self.multipliers, multiplier)

    def _drop(self, index: int) -> None:
        self.faces = self.faces[:index] + self.faces[index + 1 :]
        self.normals, self.scaled = (np.delete(rows, index, axis=0) for rows in (self.normals, self.scaled))
        self.gram = np.delete(np.delete(self.gram, index, axis=0), index, axis=1)
        self.multipliers = np.delete(self.multipliers, index)

    def _apply(self, normals: FloatArray) -> FloatArray:
        return normals * self.metric if self.metric.ndim == 1 else normals @ self.metric


def _first_blocking(multipliers: FloatArray, change: FloatArray) -> tuple[int, float]:
    falling = np.flatnonzero(change > 1e-10 * max(1.0, float(np.abs(change).max(initial=0.0))))
    if not len(falling):
        return -1, np.inf
    lengths = np.maximum(multipliers[falling], 0.0) / change[falling]
    first = int(lengths.argmin())
    return int(falling[first]), float(lengths[first])


def _solve(matrix: FloatArray, right: FloatArray) -> FloatArray:
    if len(right) == 0:
        return right
    if len(right) == 1:
        return right / float(matrix[0, 0])
    try:
        return np.linalg.solve(matrix, right).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(matrix, right, rcond=None)[0].astype(np.float64, copy=False)
