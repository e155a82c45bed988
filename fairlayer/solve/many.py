"""Many small problems at once: a projected Newton method on the multipliers of each, without a loop over problems.

With A_p the rows of problem p over its own cells, limits l_p and multipliers lambda_p >= 0, the dual of each

    D_p(lambda) = min_y [d(y, z) + lambda' A s(y)] - lambda' l,     gradient g = A s - l,     curvature H = A K A'

is concave. Multipliers at 0 whose row holds with room stay there; the others take a Newton step, cut off at 0, whose
length each problem finds for itself. All problems share their sweeps over the samples, and what has converged stays.
Source: Bertsekas (1982), "Projected Newton methods for optimization problems with simple constraints", SIAM J. Control
Optim. 20(2), section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.passes import Passes, Point

__all__ = ["ManyRows", "ManySolved", "solve_many"]

_MOST_STEPS = 60
_MOST_TRIALS = 25
_RIDGE = 1e-11  # of the largest curvature, for rows that depend on each other
_ACCURATE = 1e-13
_ROUNDING = 20.0  # an error that no step reduces, up to this many times the accuracy, is rounding


@dataclass(frozen=True)
class ManyRows:
    """The rows `matrix @ cells <= limit` of b problems, padded to one size.

    Args:
        matrix: (b, m, c).
        limit: (b, m), inf where there is no row.
        place: which of all cells each cell of a problem is, (b, c); the number of all cells where there is none.
        cells: number of all cells.
    """

    matrix: FloatArray
    limit: FloatArray
    place: IntArray
    cells: int

    @cached_property
    def in_order(self) -> bool:
        """Whether the cells of the problems follow each other, as all of them are."""
        return self.place.size == self.cells and bool((self.place.ravel() == np.arange(self.cells)).all())

    def gathered(self, cells: FloatArray) -> FloatArray:
        """Return a number per cell as (b, c), 0 where there is none."""
        return cells.reshape(self.place.shape) if self.in_order else np.append(cells, 0.0)[self.place]

    def scattered(self, values: FloatArray) -> FloatArray:
        """Return (b, c) as a number per cell."""
        if self.in_order:
            return values.ravel()
        out = np.zeros(self.cells + 1)
        out[self.place.ravel()] = values.ravel()
        return out[:-1]

    def prices(self, multipliers: FloatArray) -> FloatArray:
        """Return the dual point over all cells."""
        return self.scattered(np.einsum("bm,bmc->bc", multipliers, self.matrix))

    def gradient(self, statistics: FloatArray) -> FloatArray:
        """Return A s - l, (b, m); -inf where there is no row."""
        return np.asarray(np.einsum("bmc,bc->bm", self.matrix, self.gathered(statistics)) - self.limit)


@dataclass(frozen=True)
class ManySolved:
    """What was found.

    Args:
        multipliers: (b, m).
        converged: which problems were solved to their accuracy, (b,).
        point: predictions and statistics at the multipliers.
        sweeps: the number of sweeps over the samples of all problems.
    """

    multipliers: FloatArray
    converged: BoolArray
    point: Point
    sweeps: int


def solve_many(passes: Passes, rows: ManyRows, largest_pulls: FloatArray, most_steps: int = _MOST_STEPS) -> ManySolved:
    """Solve all problems, as far as the method goes.

    Args:
        passes: the samples of all problems; cells belong to one problem each.
        rows: what must hold.
        largest_pulls: (b, c), by how much a unit of a cell's price pulls its samples.
        most_steps: the number of steps after which to stop.
    """
    b, m, _ = rows.matrix.shape
    multipliers, sweeps = np.zeros((b, m)), 1
    point = passes.at(None)
    widest = rows.gathered(passes.widest_metric())
    gradient = rows.gradient(point.statistics)
    atol = _ACCURATE * np.maximum(1.0, np.abs(rows.matrix) @ np.ones(rows.matrix.shape[2]))
    atol = atol * max(1.0, float(np.abs(point.statistics).max(initial=0.0)))
    best, done = np.full(b, np.inf), np.zeros(b, dtype=bool)
    for step in range(most_steps):
        error = _errors(gradient, multipliers, atol)
        done = done | (error <= 1.0) | ((error <= _ROUNDING) & (error >= best))
        best = np.minimum(best, error)
        if bool(done.all()):
            break
        direction = _direction(passes, rows, point, gradient, multipliers, widest, step)
        direction[done] = 0.0
        multipliers, point, gradient, used = _searched(
            passes, rows, multipliers, direction, point, gradient, largest_pulls
        )
        sweeps += used
    return ManySolved(multipliers, done, point, sweeps)


def _errors(gradient: FloatArray, multipliers: FloatArray, atol: FloatArray) -> FloatArray:
    """Return the largest violation, or slack of a row with a multiplier, in accuracies, (b,)."""
    held = np.where(multipliers > 0.0, np.abs(gradient), gradient) / atol
    return np.asarray(held.max(axis=1, initial=0.0))


def _direction(  # noqa: PLR0917 - where the search stands
    passes: Passes,
    rows: ManyRows,
    point: Point,
    gradient: FloatArray,
    multipliers: FloatArray,
    widest: FloatArray,
    step: int,
) -> FloatArray:
    metric = rows.gathered(point.curvature)
    # A cell of which no sample can move counts as slightly free, ever less.
    metric = np.where(metric <= 0.0, max(0.05 * 0.5**step, 1e-9) * widest, metric)
    free = (multipliers > 0.0) | (gradient > 0.0)
    square = (rows.matrix * metric[:, None, :]) @ rows.matrix.transpose(0, 2, 1)
    diagonal = np.einsum("bmm->bm", square)
    unit = np.maximum(diagonal.max(axis=1, initial=0.0), 1e-300)
    square = np.where(free[:, :, None] & free[:, None, :], square, 0.0)
    own = np.arange(square.shape[1])
    square[:, own, own] += np.where(free, _RIDGE * unit[:, None], unit[:, None])
    right = np.where(free, gradient, 0.0)
    found = np.linalg.solve(square, right[:, :, None])[:, :, 0]
    return np.where(free, found, 0.0)


def _searched(  # noqa: PLR0917 - where the search stands
    passes: Passes,
    rows: ManyRows,
    multipliers: FloatArray,
    direction: FloatArray,
    point: Point,
    gradient: FloatArray,
    largest_pulls: FloatArray,
) -> tuple[FloatArray, Point, FloatArray, int]:
    """Move each problem along its direction until the dual no longer rises along the move."""
    share = _longest_shares(passes, rows, multipliers, direction, largest_pulls)
    settled = ~(direction != 0.0).any(axis=1)
    finite = np.where(np.isfinite(gradient), gradient, 0.0)
    used = 0
    while True:
        used += 1
        trial = np.maximum(multipliers + share[:, None] * direction, 0.0)
        moved = trial - multipliers
        reached = passes.at(rows.prices(trial))
        found = rows.gradient(reached.statistics)
        first = (finite * moved).sum(axis=1)
        last = (np.where(np.isfinite(found), found, 0.0) * moved).sum(axis=1)
        settled = settled | (last >= -0.5 * np.abs(first)) | (np.abs(first) <= 1e-300)
        if bool(settled.all()) or used == _MOST_TRIALS:
            break
        shorter = np.divide(first, first - last, out=np.ones_like(first), where=~settled)
        share = np.where(settled, share, share * np.clip(shorter, 0.1, 0.7))
    return trial, reached, found, used


def _longest_shares(
    passes: Passes, rows: ManyRows, multipliers: FloatArray, direction: FloatArray, largest_pulls: FloatArray
) -> FloatArray:
    """Return how much of its step each problem may take at first: a curved geometry limits how a pull changes."""
    most = passes.geometry.longest_step
    if np.isinf(most):
        return np.ones(len(multipliers))
    here, change = (
        np.abs(np.einsum("bm,bmc->bc", each, rows.matrix) * largest_pulls).max(axis=1, initial=0.0)
        for each in (multipliers, direction)
    )
    return np.asarray(np.minimum(1.0, (most + here) / np.maximum(change, 1e-300)))
