"""Random slabs over random domains for the elastic program, and its answer by HiGHS.

Every problem is also written out as one linear program with an explicit matrix, so that the point and the weights of
an answer can be judged here by sums that share nothing with the method.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linprog

from fairlayer.solve.elastic_program import (
    BoxSpec,
    SimplexSpec,
    box_of_means,
    box_of_samples,
    simplex_of_means,
    simplex_of_samples,
)
from fairlayer.solve.slabs import RowSlabs, SpreadSlabs

Blocks = list[RowSlabs | SpreadSlabs]


class Stated(NamedTuple):
    """normal @ statistics - widens w <= limit, where `size` is what the limit adds up."""

    key: tuple[int, int, int]
    normal: np.ndarray
    limit: float
    widens: float
    size: float
    absolute: np.ndarray  # the absolute values that `normal` adds up, of a spread those of its largest pair


@dataclass(frozen=True)
class ElasticProblem:
    """Slabs, their domain, and the linear map from the entries of the predictions to the statistics."""

    name: str
    blocks: Blocks
    spec: BoxSpec | SimplexSpec
    map: np.ndarray  # (statistics, entries); entry i k + c of a simplex is class c of row i
    lower: np.ndarray  # (entries,)
    upper: np.ndarray
    classes: int  # 1 for a box
    scale: float  # the size of the numbers
    own: float  # by how much the slabs clash by design; 0 where they were made feasible, NaN where nobody knows

    @property
    def reach(self) -> float:
        """Return the size of the largest number that is known."""
        bounds = np.abs(np.append(self.lower, self.upper))
        return max(self.scale, float(bounds[np.isfinite(bounds)].max(initial=0.0)))

    def entries(self, point: np.ndarray) -> np.ndarray:
        """Return the entries of predictions."""
        return np.asarray(point).ravel()

    def faces(self) -> list[Stated]:
        """Return every face."""
        found = []
        for b, block in enumerate(self.blocks):
            if isinstance(block, RowSlabs):
                scale = np.ones(len(block.lower)) if block.scale is None else block.scale
                for i, row in enumerate(block.matrix):
                    for sign, ends in ((1, block.upper), (-1, block.lower)):
                        limit = sign * float(ends[i])
                        found.append(Stated((b, i, sign), sign * row, limit, 1.0 / scale[i], abs(limit), np.abs(row)))
                continue
            offset = np.zeros(len(block.matrix)) if block.offset is None else block.offset
            largest = (1.0 + block.scale) * np.abs(block.matrix).max(axis=0)  # a spread is as accurate as that
            for i, j in itertools.permutations(range(len(block.matrix)), 2):
                normal = block.scale * block.matrix[i] - block.matrix[j]
                limit = float(block.width + offset[j] - block.scale * offset[i])
                size = abs(block.width) + abs(offset[i]) + abs(offset[j])
                found.append(Stated((b, i, j), normal, limit, 1.0, size, largest))
        return [face for face in found if np.isfinite(face.limit)]

    def by_highs(self) -> float | None:
        """Return the least widening; None where HiGHS gives up."""
        faces, n = self.faces(), self.map.shape[1]
        if not faces:
            return 0.0
        left = np.array([np.append(a @ self.map, -widens) for _, a, _, widens, *_ in faces])
        right = np.array([limit for _, _, limit, *_ in faces])
        even = np.maximum(np.abs(left).max(axis=1), 1e-300)
        unit = self.scale  # variables in units of the scale
        equal: dict[str, Any] = {}
        if self.classes > 1:
            rows = np.kron(np.eye(n // self.classes), np.ones(self.classes))
            equal = {"A_eq": np.hstack([rows, np.zeros((len(rows), 1))]), "b_eq": np.full(len(rows), 1.0 / unit)}
        bounds = [(low / unit, high / unit) for low, high in zip(self.lower, self.upper, strict=True)]
        options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
        for method in ("highs", "highs-ipm", "highs-ds"):
            result = linprog(
                np.append(np.zeros(n), 1.0),
                A_ub=left / even[:, None],
                b_ub=right / even / unit,
                bounds=[*bounds, (0.0, None)],
                method=method,
                options=options,
                **equal,
            )
            if result.status == 0:
                return float(result.fun) * unit
        return None


def problem_of(seed: int) -> ElasticProblem:
    """Return a random problem."""
    rng = np.random.default_rng(seed)
    scale = float(rng.choice([1.0, 1.0, 1.0, 1e-6, 1e-3, 1e3, 1e6]))
    kind = str(rng.choice(["means", "samples", "samples", "simplex means", "simplex samples"]))
    if kind == "means":
        cells = int(rng.integers(2, 41))
        lower, upper = _bounds(rng, cells, scale)
        return _finished(rng, kind, seed, box_of_means(lower, upper), np.eye(cells), lower, upper, 1, scale)
    if kind == "samples":
        codes, counts, dense, weights, n = _samples(rng)
        lower, upper = _bounds(rng, n, scale)
        spec = box_of_samples(codes, counts, dense, lower, upper, n, weights)
        linear = _map(codes, counts, dense, weights, n, 1, None)
        return _finished(rng, kind, seed, spec, linear, lower, upper, 1, scale)
    classes = int(rng.integers(2, 7))
    if kind == "simplex means":
        cells = int(rng.integers(2, 21))
        linear = np.zeros((cells * classes, cells * classes))
        for c in range(classes):
            for g in range(cells):
                linear[c * cells + g, g * classes + c] = 1.0
        n, rows = cells * classes, simplex_of_means(cells, classes)
        return _finished(rng, kind, seed, rows, linear, np.zeros(n), np.ones(n), classes, 1.0)
    codes, counts, dense, weights, n = _samples(rng)
    dense_class = rng.integers(0, classes, 0 if dense is None else len(dense))
    spec_rows = simplex_of_samples(codes, counts, dense, dense_class, classes, n, weights)
    linear = _map(codes, counts, dense, weights, n, classes, dense_class)
    return _finished(rng, kind, seed, spec_rows, linear, np.zeros(n * classes), np.ones(n * classes), classes, 1.0)


def wide_problem_of(seed: int) -> ElasticProblem:
    """Return a random problem with bounds whose spreads compare cell means with features in units from 1e-6 to 1e6."""
    rng = np.random.default_rng(seed)
    scale = float(rng.choice([1.0, 1.0, 1e3, 1e6]))
    classes = int(rng.integers(1, 7))
    codes, counts, dense, weights, n = _samples(rng, style=2)
    linear_of = (codes, counts, dense, weights, n, classes)
    if classes == 1:
        lower, upper = _bounds(rng, n, scale, int(rng.integers(2)))
        spec: BoxSpec | SimplexSpec = box_of_samples(codes, counts, dense, lower, upper, n, weights)
        return _finished(rng, "wide samples", seed, spec, _map(*linear_of, None), lower, upper, 1, scale)
    dense_class = rng.integers(0, classes, len(dense))
    spec = simplex_of_samples(codes, counts, dense, dense_class, classes, n, weights)
    zero, one = np.zeros(n * classes), np.ones(n * classes)
    return _finished(rng, "wide simplex", seed, spec, _map(*linear_of, dense_class), zero, one, classes, 1.0)


def _bounds(rng: np.random.Generator, n: int, scale: float, style: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    style = int(rng.integers(6)) if style is None else style
    lower, upper = np.zeros(n), np.full(n, scale)
    if style == 1:
        lower = scale * rng.uniform(0.0, 0.6, n)
        upper = lower + scale * rng.uniform(0.0, 0.4, n)
    elif style == 2:
        upper = np.full(n, np.inf)
    elif style == 3:
        lower, upper = np.full(n, -np.inf), np.full(n, np.inf)
    elif style == 4:
        lower = np.where(rng.random(n) < 0.3, -np.inf, scale * rng.normal(size=n))
        upper = np.where(rng.random(n) < 0.3, np.inf, np.maximum(lower, -10 * scale) + scale * rng.random(n))
        upper = np.maximum(upper, lower)
    elif style == 5:
        lower = np.full(n, -np.inf)
    return lower, upper


def _samples(rng: np.random.Generator, style: int | None = None) -> Any:
    n, cells = int(rng.integers(2, 60)), int(rng.integers(1, 9))
    cells = min(cells, n)
    codes = np.concatenate([np.arange(cells), rng.integers(0, cells + (rng.random() < 0.3), n - cells)])
    weights = None
    if rng.random() < 0.3:
        weights = rng.lognormal(0.0, 1.0, n)
        if rng.random() < 0.3:
            weights = np.where(rng.random(n) < 0.2, 0.0, weights)
            weights[:cells] = 1.0
    each = np.ones(n) if weights is None else weights
    counts = np.bincount(codes, weights=each, minlength=cells + 1)[:cells]
    style = int(rng.integers(5)) if style is None else style
    rows = int(rng.integers(1, 9))
    if style == 0:
        return codes, counts, None, weights, n
    if style == 1:  # soft groups
        dense = rng.dirichlet(np.full(rows, float(rng.choice([0.05, 0.5, 2.0]))), n).T + 0.0
        dense = dense / np.maximum((dense * each).sum(axis=1, keepdims=True), 1e-12)
    elif style == 2:  # features in any unit
        dense = rng.normal(size=(rows, n)) * 10.0 ** rng.integers(-6, 7, (rows, 1)) / n
    elif style == 3:  # few distinct numbers, dependent rows
        dense = rng.integers(-1, 2, (rows, n)) / n
        dense[-1] = dense[0]
    else:
        dense = rng.normal(size=(rows, n)) / n
    return codes, counts, dense, weights, n


def _map(  # noqa: PLR0917 - a batch
    codes: Any, counts: Any, dense: Any, weights: Any, n: int, classes: int, dense_class: Any
) -> np.ndarray:
    cells, rows = len(counts), 0 if dense is None else len(dense)
    each = np.ones(n) if weights is None else weights
    linear = np.zeros((cells * classes + rows, n * classes))
    for i in range(n):
        if codes[i] < cells:
            for c in range(classes):
                linear[c * cells + codes[i], i * classes + c] = each[i] / counts[codes[i]]
    for d in range(rows):
        c = 0 if dense_class is None else int(dense_class[d])
        linear[cells * classes + d, c::classes] = dense[d] * each
    return linear


def _finished(  # noqa: PLR0917 - a problem
    rng: np.random.Generator,
    kind: str,
    seed: int,
    spec: BoxSpec | SimplexSpec,
    linear: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    classes: int,
    scale: float,
) -> ElasticProblem:
    """Add slabs: at random, or just met by a hidden point, or clashing by little."""
    s = len(linear)
    low, high = np.maximum(lower, -2.0 * scale), np.minimum(upper, 2.0 * scale)
    high = np.maximum(low, high)
    low = np.minimum(low, high)
    share = rng.choice([0.0, 0.5, 1.0], len(low)) if rng.random() < 0.3 else rng.random(len(low))
    hidden = low + share * (high - low)
    if classes > 1:
        hidden = rng.dirichlet(np.full(classes, 0.5), len(lower) // classes).ravel()
    statistics = linear @ hidden
    style = str(rng.choice(["wild", "hidden", "hair"]))
    typical = np.abs(linear).sum(axis=1)  # what a statistic is worth
    typical = np.where(typical > 0.0, typical, 1.0)
    blocks: Blocks = []
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.5:
            blocks.append(_rows(rng, statistics, typical, style, scale))
        else:
            blocks.append(_spread(rng, statistics, style, scale))
    own = np.nan if style == "wild" else 0.0
    if style == "hair":
        by = scale * 10.0 ** rng.uniform(-12, -4) * rng.choice([-1.0, 1.0])
        row = rng.normal(size=s) / typical
        row = row / np.abs(row @ linear).sum()
        value = float(row @ statistics)
        pair = np.array([row, row])
        blocks.append(RowSlabs(pair, np.array([value + by, -np.inf]), np.array([np.inf, value - by])))
        own = np.nan if by < 0 else max(by, 0.0)
    return ElasticProblem(
        f"seed {seed}, {kind}, {style}, {scale:g}", blocks, spec, linear, lower, upper, classes, scale, own
    )


def _rows(rng: np.random.Generator, s: np.ndarray, typical: np.ndarray, style: str, scale: float) -> RowSlabs:
    m = int(rng.integers(1, 7))
    matrix = rng.normal(size=(m, len(s))) / typical
    if rng.random() < 0.5:
        matrix *= rng.random(matrix.shape) < 0.3
    if rng.random() < 0.3:
        matrix = np.eye(len(s))[rng.integers(0, len(s), m)] / typical
    if rng.random() < 0.2:
        matrix[-1] = -2.0 * matrix[0]
    if rng.random() < 0.3:
        matrix *= 10.0 ** rng.integers(-4, 5, (m, 1))
    size = np.abs(matrix) @ typical * scale
    value = matrix @ s
    if style == "wild":
        lower = size * rng.uniform(-1.0, 1.0, m)
        upper = lower + size * rng.choice([0.0, 0.1, 0.5], m)
    else:
        lower, upper = (value + sign * size * rng.choice([0.0, 0.0, 0.1], m) for sign in (-1.0, 1.0))
    lower = np.where(rng.random(m) < 0.3, -np.inf, lower)
    upper = np.where(rng.random(m) < 0.3, np.inf, upper)
    units = 10.0 ** rng.integers(-3, 4, m) if rng.random() < 0.3 else None
    return RowSlabs(matrix, lower, upper, None if units is None else units.astype(float))


def _spread(rng: np.random.Generator, s: np.ndarray, style: str, scale: float) -> SpreadSlabs:
    m = int(rng.integers(2, min(8, len(s)) + 1)) if len(s) > 2 else 2
    matrix = np.zeros((m, len(s)))
    for i in range(m):
        members = rng.choice(len(s), int(rng.integers(1, min(3, len(s)) + 1)), replace=False)
        matrix[i, members] = rng.dirichlet(np.ones(len(members)))
    offset = scale * rng.normal(0.0, 0.3, m) if rng.random() < 0.4 else None
    ratio = float(rng.choice([1.0, 1.0, 0.8]))
    value = matrix @ s if offset is None else matrix @ s + offset
    least = float(ratio * value.max() - value.min())
    width = scale * float(rng.choice([0.0, 0.05, 0.3])) if style == "wild" else least
    if ratio == 1.0:
        width = max(width, 0.0)
    return SpreadSlabs(matrix, offset, ratio, width)
