"""Proof, on the returned value, that a projection is feasible and nearest. It imports nothing of what it checks.

From the value, the multipliers, the raw batch and the statements alone, it computes the means of the statements, the
pull q that the multipliers put on each sample, and weak duality:

    primal = sum_i d(value_i, x_i)          dual = sum_i min_y [d(y, x_i) + q_i y] - sum_j multiplier_j limit_j

The dual is a lower limit of the distance to any feasible point for every choice of multipliers >= 0, right or wrong,
so a small difference proves that the value is nearest, whatever the solver did. Source: Boyd, Vandenberghe (2004),
section 5.5.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch

from fairlayer._rows import reach_of
from fairlayer._typing import FloatArray
from fairlayer.collective import Ranks
from fairlayer.constraints import GroupMeans, Rows, Spread, Statement
from fairlayer.constraints.statements import as_float
from fairlayer.geometry import Geometry

__all__ = ["Certificate", "Held", "RawBatch", "certify"]

_CHUNK = 4096
_ROUNDING = 5e-12  # of a raw score that no bound holds, per unit of its size, whatever the dtype returned
_ARITHMETIC = 2e-13  # what float64 leaves of a sum of raw scores and its solution, per unit of their size


@dataclass(frozen=True)
class Certificate:
    """How far a returned value is from feasible, and from nearest.

    Args:
        violation: violation of the statement that is worst relative to what is promised of it (<= 0: all hold with
            room to spare), in prediction units: a row that moves by r per unit of prediction (a covariance with a
            large feature) counts 1/r.
        bound_violation: largest distance of any prediction outside its domain, whose ends are taken as the dtype of
            the value holds them.
        duality_gap: the distance of the value minus the dual value at the multipliers. In the Euclidean geometry a
            feasible value is within `sqrt(2 duality_gap)` of the nearest one. Rounding may leave it slightly negative.
        distance: `sqrt(2 sum_i d(value_i, x_i))`; in the Euclidean geometry `|value - scores|` over the batch.
        atol: the violation promised of that statement: 1e-6 for float32, 1e-10 for float64, times the size of the
            predictions that it adds up where that is above 1, and 5e-12 times the size of raw scores far outside the
            bounds that still move. Where that exceeds a tolerance above 0 it is a hundredth of the tolerance, or
            `resolution` where that is larger.
        gap_atol: the duality gap that rounding can make. Moving each of n predictions by `atol` makes
            `atol sqrt(n) max(1, distance)`, for samples that count once, and in proportion to their mean weight. To
            that come a tenth of `atol` of slack at the price of each multiplier, and what it costs that the dtype
            holds a bound inexactly: that, times how far beyond the bound the raw score is. In a curved geometry comes
            what one step of the dtype costs each sample: near 0 and 1 a float32 may be far from the nearest prediction.
        resolution: how finely the dtype of the value holds that statement: rounding alone can violate it by so much. A
            tolerance far below it is met no more exactly, and `atol` is then the resolution. It counts half a step of
            the dtype for each prediction, and 2e-13 of the size of the raw scores for the arithmetic in float64.

    Example:
        >>> import torch, fairlayer as fl
        >>> scores, groups = torch.tensor([0.9, 0.7, 0.2, 0.4]), {"sex": ["F", "F", "M", "M"]}
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> result = fl.project(scores, parity, sensitive_features=groups, bounds=(0.0, 1.0))
        >>> proof = result.certificate
        >>> proof.holds, proof.violation <= proof.atol, round(proof.distance, 3)
        (True, True, 0.4)
    """

    violation: float
    bound_violation: float
    duality_gap: float
    distance: float
    atol: float
    gap_atol: float
    resolution: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether violations are within `atol` and the duality gap is within `gap_atol`."""
        nearest = self.duality_gap <= self.gap_atol
        return self.violation <= self.atol and self.bound_violation <= self.atol and nearest


class Held(NamedTuple):
    """One linear inequality `normal @ means <= limit` of a statement, with its multiplier in the user's units.

    Of a spread it is the pair (first, second): scale * v_first - v_second <= tolerance. Of rows it is the row `first`,
    its upper side for second = 1 and its lower side for second = -1.
    """

    statement: int
    first: int
    second: int
    multiplier: float


@dataclass(frozen=True)
class RawBatch:
    """What was projected, as it came: nothing that a solver has made of it.

    Args:
        scores: (n,), or (n, k) on the simplex, in the coordinate of the geometry.
        statements: what must hold, each with the class that it speaks of (0 for a single column).
        geometry: the notion of nearness.
        lower: None, a float or (n,).
        upper: likewise.
        weights: how many samples each row stands for, (n,), or None.
        ranks: the processes that hold the batch together, or None.
    """

    scores: torch.Tensor
    statements: Sequence[tuple[Statement, int]]
    geometry: Geometry
    lower: Any
    upper: Any
    weights: FloatArray | None
    ranks: Ranks | None

    def total(self, sums: FloatArray) -> FloatArray:
        """Return sums over the rows here as sums over the rows of all processes."""
        return sums if self.ranks is None else self.ranks.total(sums)


def certify(raw: RawBatch, held: Sequence[Held], widening: float, value: torch.Tensor) -> Certificate:
    """Compute the certificate of a returned value, after its last cast.

    Args:
        raw: the batch as it came.
        held: the inequalities with a multiplier.
        widening: by how much every limit was widened, in its own units.
        value: what is returned, of the shape of the scores.
    """
    final, x = _host(value), _host(raw.scores)
    lower, upper = (_host(bound) if isinstance(bound, torch.Tensor) else bound for bound in (raw.lower, raw.upper))
    pull, sigma, price = _pull(raw, held, widening, x)
    sizes = _sizes(raw, final, x, pull, lower, upper)
    worst, loosest = _worst(raw, widening, final, sizes, value.dtype)
    ends = _cast(lower, value.dtype), _cast(upper, value.dtype)
    sums = _totals(raw, final, x, pull, (lower, upper), ends, value.dtype)
    unit = sums.weight / max(sums.samples, 1.0)
    # What the domain alone takes away does not count as a move.
    moved = math.sqrt(2.0 * max(sums.primal, 0.0) / unit) if unit else 0.0
    return Certificate(
        violation=worst.violation,
        bound_violation=sums.outside,
        duality_gap=sums.primal - (sums.dual - sigma),
        distance=math.sqrt(2.0 * max(sums.whole, 0.0)),
        atol=worst.atol,
        gap_atol=loosest * (unit * math.sqrt(sums.samples) * max(1.0, moved) + 0.1 * price) + sums.rounding,
        resolution=worst.resolution,
    )


class _Worst(NamedTuple):
    """The statement that is worst relative to what is promised of it."""

    violation: float
    atol: float
    resolution: float


class _Sums(NamedTuple):
    """Sums over the batch, each sample by its weight, and how far outside the domain any sample is.

    `samples` counts those of a positive weight; `rounding` is what the dtype of the value costs them all.
    """

    primal: float
    dual: float
    whole: float
    samples: float
    weight: float
    rounding: float
    outside: float


def _host(tensor: torch.Tensor) -> FloatArray:
    return np.asarray(tensor.detach().double().cpu().numpy(), dtype=np.float64)


def _cast(bound: Any, dtype: torch.dtype) -> FloatArray | None:
    """Return a bound as predictions of some dtype can meet it."""
    return None if bound is None else _host(torch.as_tensor(bound, dtype=torch.float64).to(dtype))


def _sizes(  # noqa: PLR0917 - the batch in numbers
    raw: RawBatch, value: FloatArray, x: FloatArray, pull: FloatArray, lower: Any, upper: Any
) -> tuple[FloatArray, FloatArray]:
    """Return the size of each prediction before and after, and of what rounds in those that no bound holds.

    Such a prediction is the difference of its raw score and its pull. One of the others may be about to become free.
    """
    if raw.geometry.bounded or raw.geometry.on_simplex:
        return np.ones(len(x)), np.zeros(len(x))
    inside = x if lower is None else np.maximum(x, lower)
    inside = inside if upper is None else np.minimum(inside, upper)
    free = np.ones(len(x), dtype=bool)
    free = free if lower is None else free & (value > lower)
    free = free if upper is None else free & (value < upper)
    return np.maximum(np.abs(inside), np.abs(value)), np.where(free, np.abs(x), np.abs(pull) / max(len(x), 1))


def _totals(  # noqa: PLR0917 - the batch in numbers
    raw: RawBatch,
    value: FloatArray,
    x: FloatArray,
    pull: FloatArray,
    bounds: tuple[Any, Any],
    ends: tuple[FloatArray | None, FloatArray | None],
    dtype: torch.dtype,
) -> _Sums:
    """Return the sums; `ends` are the bounds as the dtype of the value holds them."""
    weights = np.ones(len(x)) if raw.weights is None else raw.weights
    primal = weights * raw.geometry.divergence(value, x, *bounds)
    dual = weights * raw.geometry.least(x, pull, *bounds)
    whole = weights * raw.geometry.divergence(value, x, None, None)
    rounding, outside = weights * _cost_of_a_step(raw.geometry, value, x, pull, dtype), [0.0]
    for bound, end, sign in zip(bounds, ends, (1.0, -1.0), strict=True):
        if end is not None and len(value):
            outside.append(float((sign * (end - value)).max()))
        if end is not None and x.ndim == 1:
            rounding = rounding + weights * np.maximum(sign * (bound - x), 0.0) * np.abs(end - bound)
    if len(value) and raw.geometry.on_simplex:
        outside.append(float(np.abs(value.sum(axis=1) - 1.0).max()))
    here = np.array([float(each.sum()) for each in (primal, dual, whole, weights > 0, weights, rounding)])
    if raw.ranks is None:
        return _Sums._make([*here.tolist(), max(outside)])
    everywhere = raw.ranks.gather(np.append(here, max(outside)), "certificate")
    return _Sums._make([*everywhere[:, :-1].sum(axis=0).tolist(), float(everywhere[:, -1].max())])


def _cost_of_a_step(
    geometry: Geometry, value: FloatArray, x: FloatArray, pull: FloatArray, dtype: torch.dtype
) -> FloatArray:
    """Return at most how much nearer than its value any sample could be within one step h of the dtype.

    f(y) = d(y, x) + q y is convex. If its minimum is within h of the value v, and lies above v, then
    f(v) - min f <= h |f'(v)| <= f(v - h) - f(v); likewise below. Elsewhere this is small against what is lost.
    """
    if not geometry.smooth or geometry.on_simplex:
        return np.zeros(len(x))  # what a free sample loses there is of second order; the ends are bounds
    step = np.spacing(value if dtype == torch.float64 else value.astype(np.float32)).astype(np.float64)
    here, cost = geometry.divergence(value, x, 0.0, 1.0), np.zeros(len(x))
    for way in (-step, step):
        inside = (value + way > 0.0) & (value + way < 1.0)
        there = geometry.divergence(np.where(inside, value + way, value), x, 0.0, 1.0)
        cost = np.maximum(cost, np.where(inside, there - here + pull * way, 0.0))
    return cost


def _worst(
    raw: RawBatch, widening: float, value: FloatArray, sizes: tuple[FloatArray, FloatArray], dtype: torch.dtype
) -> tuple[_Worst, float]:
    """Return the statement that is worst, and the loosest accuracy of any."""
    base, half_step = (1e-10, 2.0**-53) if dtype == torch.float64 else (1e-6, 2.0**-24)
    worst, loosest = _Worst(-math.inf, base, 0.0), base
    known: dict[Any, FloatArray] = {}
    for statement, column in raw.statements:
        key = (statement.means.key, column)
        if key not in known:
            y = value if value.ndim == 1 else value[:, column]
            known[key] = raw.total(_measure(statement.means, raw.weights, y, sizes))
        for excess, scale, free, width in _excesses(statement, known[key], widening):
            atol = max(base * max(1.0, scale), _ROUNDING * free)
            loosest = max(loosest, atol)
            resolution = 2.0 * half_step * scale + _ARITHMETIC * free  # two members are rounded to the dtype
            atol = max(base, 0.01 * width, resolution) if 0.0 < width < atol else atol
            if math.isnan(excess):
                return _Worst(excess, atol, resolution), loosest
            if excess / atol > worst.violation / worst.atol:
                worst = _Worst(excess, atol, resolution)
    return worst, loosest


def _excesses(statement: Statement, measured: FloatArray, widening: float) -> list[tuple[float, float, float, float]]:
    """Return (violation, size of the predictions, size of free raw scores, tolerance) of each row.

    A spread has one row, its worst pair. All are in prediction units; `measured` is what `_measure` returns.
    """
    tolerance = as_float(statement.tolerance) + widening
    v = statement.matrix @ measured[0]
    sizes, free, reach = (np.abs(statement.matrix) @ each for each in measured[1:])
    if isinstance(statement, Spread):
        offset = np.zeros(len(v)) if statement.offset is None else statement.offset
        v = v + offset
        excess = float(statement.scale * v.max() - v.min()) - tolerance
        return [(excess, float(np.maximum(sizes, np.abs(offset)).max()), float(free.max()), tolerance)]
    outside = np.maximum(v - statement.upper_offset, statement.lower_offset - v) - tolerance
    unit = np.where(reach > 0, reach, 1.0)
    return list(
        zip(*(each.tolist() for each in (outside / unit, sizes / unit, free / unit)), [0.0] * len(v), strict=True)
    )


def _measure(
    means: GroupMeans, weights: FloatArray | None, value: FloatArray, sizes: tuple[FloatArray, FloatArray]
) -> FloatArray:
    """Return (4, rows): the means of the value, those of both sizes, and how far each mean moves per unit."""
    ones = np.ones(len(value)) if weights is None or means.of_pairs else weights
    if means.codes is None:
        assert means.weights is not None
        counted = (reach_of(means.weights, ones * each) for each in (*sizes, 1.0))
        return np.array([means.weights @ (ones * value), *counted]).reshape(4, len(means))
    counts = np.where(means.counts > 0, means.counts, 1.0)
    return np.array([_sums(means.codes, len(means), ones * each) / counts for each in (value, *sizes, 1.0)])


def _sums(codes: Any, k: int, values: FloatArray) -> FloatArray:
    """Return the sum of the values of each code, code -1 left out; short partial sums round little."""
    blocks = -(-max(len(codes), 1) // _CHUNK)
    place = codes + 1 + (k + 1) * (np.arange(len(codes)) // _CHUNK)
    sums = np.bincount(place, weights=values, minlength=blocks * (k + 1))
    return np.asarray(sums.reshape(blocks, k + 1).sum(axis=0)[1:])


def _pull(raw: RawBatch, held: Sequence[Held], widening: float, x: FloatArray) -> tuple[FloatArray, float, float]:
    """Return the pull of each sample per unit of its weight, sum_j multiplier_j limit_j, and what one unit costs.

    The last is sum_j multiplier_j times how far the statement moves per unit of prediction.
    """
    pull, sigma = np.zeros_like(x), 0.0
    normals: dict[
        Any, tuple[GroupMeans, int, FloatArray]
    ] = {}  # what is asked of each measure, all statements together
    for index, group in groupby(sorted(held, key=lambda each: each.statement), key=lambda each: each.statement):
        statement, column = raw.statements[index]
        normal, limits = _combined(statement, list(group), widening)
        sigma += limits
        key = (statement.means.key, column)
        normals[key] = (statement.means, column, normal + (normals[key][2] if key in normals else 0.0))
    for means, column, normal in normals.values():
        if means.codes is None:
            assert means.weights is not None
            one = normal @ means.weights
            if means.of_pairs and raw.weights is not None:
                one = one / raw.weights
        else:
            one = np.append(normal / np.where(means.counts > 0, means.counts, 1.0), 0.0)[means.codes]
        if pull.ndim == 1:
            pull += one
        else:
            pull[:, column] += one
    weights = np.ones(len(x)) if raw.weights is None else raw.weights
    largest = np.abs(pull) if pull.ndim == 1 else np.abs(pull).max(axis=1, initial=0.0)
    price = raw.total(np.array([float(weights @ largest)]))
    return pull, sigma, float(price[0])


def _combined(statement: Statement, held: Sequence[Held], widening: float) -> tuple[FloatArray, float]:
    """Return sum_j multiplier_j normal_j over the means of a statement, and sum_j multiplier_j limit_j."""
    tolerance = as_float(statement.tolerance) + widening
    prices = np.array([each.multiplier for each in held])
    first, second = (np.array([each[place] for each in held]) for place in (1, 2))
    members = np.zeros(len(statement.matrix))
    if isinstance(statement, Spread):
        np.add.at(members, first, statement.scale * prices)
        np.subtract.at(members, second, prices)
        offset = np.zeros(len(members)) if statement.offset is None else statement.offset
        limits = tolerance + offset[second] - statement.scale * offset[first]
    else:
        assert isinstance(statement, Rows)
        np.add.at(members, first, np.where(second > 0, prices, -prices))
        ends = np.where(second > 0, statement.upper_offset[first], -statement.lower_offset[first])
        limits = ends + tolerance
    return members @ statement.matrix, float(prices @ limits)
