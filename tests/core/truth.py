"""The constraints, from the formulas in their documentation, and an independent solver. No fairlayer code.

`terms` states a rule as linear functions of the predictions, for the oracle; `number` computes what the rule
bounds, straight from group means, for given predictions. The two are written separately on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import clarabel
import numpy as np
from scipy import sparse
from scipy.optimize import linprog, nnls

if TYPE_CHECKING:
    from tests.core.problems import Problem, Rule


@dataclass(frozen=True)
class Between:
    """`lower <= rows @ y + offset <= upper`."""

    rows: np.ndarray
    offset: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True)
class AllPairs:
    """`scale * v_i - v_j <= width` for every ordered pair, `v = rows @ y + offset`."""

    rows: np.ndarray
    offset: np.ndarray
    width: float
    scale: float = 1.0


# --- who belongs to what


def membership(problem: Problem, names: tuple[str, ...]) -> list[np.ndarray]:
    """A weight per sample for each group (intersection) in order; unknown samples have weight 0 everywhere."""
    return [np.prod(parts, axis=0) for parts in product(*(_one_feature(problem.features[name]) for name in names))]


def _one_feature(column: np.ndarray) -> list[np.ndarray]:
    if column.ndim == 2:
        return [np.where(np.isnan(column).any(axis=1), 0.0, column[:, k]) for k in range(column.shape[1])]
    return [(column == code).astype(float) for code in sorted(set(column.tolist()) - {-1})]


def counted(problem: Problem) -> np.ndarray:
    """How many samples each row stands for."""
    return np.ones(problem.n) if problem.weights is None else problem.weights


def _members(problem: Problem, names: tuple[str, ...]) -> list[np.ndarray]:
    """`membership` times how many samples each row stands for; a product with plain memberships keeps it once."""
    each = counted(problem)
    return [member * each for member in membership(problem, names)]


def _positive(problem: Problem) -> np.ndarray:
    """Weight of label 1: the label, or its estimate."""
    weight = problem.labels if problem.labels is not None else problem.estimates
    assert weight is not None
    return weight


def _average(weights: list[np.ndarray]) -> np.ndarray:
    """Rows of means; groups without weight are left out."""
    kept = [w / w.sum() for w in weights if w.sum() > 0]
    return np.array(kept).reshape(len(kept), -1) if kept else np.zeros((0, 0))


def _bins(problem: Problem, rule: Rule) -> list[np.ndarray]:
    count = rule.more["bins"]
    edges = np.linspace(0, 1, count + 1)
    index = np.array([sum(z >= e for e in edges[1:-1]) for z in problem.scores])
    return [(index == b).astype(float) for b in range(count)]


# --- rules as linear functions


def terms(problem: Problem, rule: Rule) -> list[Between | AllPairs]:  # noqa: PLR0911, PLR0912
    """The rule as linear statements about y."""
    kind, tol, n = rule.kind, rule.limit, problem.n
    if kind == "CovarianceBound":
        s = problem.features[rule.on[0]]
        known = np.isfinite(s)
        each = known * counted(problem)
        if each.sum() == 0:
            return [_between([0.0 * each], tol=tol)]
        centred = np.where(known, s - np.average(s[known], weights=each[known]), 0.0)
        return [_between([each * centred / each.sum()], tol=tol)]
    if kind == "AffineSamples":
        rows = rule.more["rows"] * counted(problem)
        return [Between(rows, np.zeros(len(rows)), rule.more["lower"], rule.more["upper"])]
    groups = _members(problem, rule.on)
    if kind == "AffineGroups":
        return _affine_groups(rule, groups)
    if kind in ("DemographicParity", "DisparateImpactRatio"):
        ratio = kind == "DisparateImpactRatio"
        return _pairs(_average(groups), 0.0 if ratio else tol, tol if ratio else 1.0)
    if kind == "MinimumRate":
        return [_between(_average(groups), lower=tol)]
    if kind == "ConditionalParity":
        given = rule.more["given"]
        strata = membership(problem, (given,) if isinstance(given, str) else given)
        return [t for s in strata for t in _pairs(_average([g * s for g in groups]), tol)]
    p = _positive(problem)
    if kind in ("EqualOpportunity", "PredictiveEquality", "EqualizedOdds"):
        strata = {"EqualOpportunity": [p], "PredictiveEquality": [1 - p], "EqualizedOdds": [1 - p, p]}[kind]
        return [t for s in strata for t in _pairs(_average([g * s for g in groups]), tol)]
    if kind == "GroupCalibration":
        rows = _average([g * b for g in groups for b in _bins(problem, rule)])
        return [_between(rows, offset=-(rows @ p) if len(rows) else [], tol=tol)]
    rows = _average(groups)
    if not len(rows):
        return []
    if kind == "MeanResidualParity":
        return [_between(rows, offset=-(rows @ p), tol=tol)]
    if kind == "ResidualBetweenGroups":
        return _pairs(-rows, tol, offset=rows @ p)
    if kind == "ErrorRateParity":
        return _pairs(rows * (1 - 2 * p), tol, offset=rows @ p)
    if kind == "BoundedGroupLoss":
        return [_between(rows * (1 - 2 * p), offset=rows @ p, upper=tol)]
    if kind == "BoundedGroupLossCustom":
        return [_between(rows * (1.5 - p), offset=rows @ (0.3 * p), upper=tol)]
    raise AssertionError(f"{kind} of {n} samples")


def _affine_groups(rule: Rule, groups: list[np.ndarray]) -> list[Between | AllPairs]:
    kept = []
    for j, coefficients in enumerate(rule.more["rows"]):
        if any(c != 0 and g.sum() == 0 for c, g in zip(coefficients, groups, strict=True)):
            continue  # speaks of a group that is not there
        row = sum(c * g / g.sum() for c, g in zip(coefficients, groups, strict=True) if c != 0)
        kept.append((row, rule.more["lower"][j], rule.more["upper"][j]))
    if not kept:
        return []
    rows, lower, upper = (np.array(part) for part in zip(*kept, strict=True))
    return [Between(rows, np.zeros(len(rows)), lower, upper)]


def _pairs(rows: np.ndarray, width: float, scale: float = 1.0, offset: np.ndarray | None = None) -> list[AllPairs]:
    if len(rows) < 2:
        return []
    return [AllPairs(rows, np.zeros(len(rows)) if offset is None else offset, width, scale)]


def _between(rows, *, offset=None, tol=None, lower=None, upper=None) -> Between:  # type: ignore[no-untyped-def]
    rows = np.asarray(rows)
    m = len(rows)
    low = -np.inf if lower is None and tol is None else (lower if tol is None else -tol)
    high = np.inf if upper is None and tol is None else (upper if tol is None else tol)
    return Between(rows, np.zeros(m) if offset is None else np.asarray(offset), np.full(m, low), np.full(m, high))


# --- rules as numbers


def group_means(problem: Problem, names: tuple[str, ...], y: np.ndarray) -> list[float]:
    """Mean of y over each group that has a member."""
    return _means(_members(problem, names), y)


def _means(weights: list[np.ndarray], y: np.ndarray) -> list[float]:
    return [float(np.average(y, weights=w)) for w in weights if w.sum() > 0]


def _range(values: list[float]) -> float:
    return max(values) - min(values) if len(values) > 1 else 0.0


def affine_values(problem: Problem, rule: Rule, y: np.ndarray) -> np.ndarray:
    """rows @ y, or rows @ group means (0 for an empty group)."""
    if rule.kind == "AffineSamples":
        return np.asarray(rule.more["rows"] @ (counted(problem) * y))
    groups = _members(problem, rule.on)
    means = np.array([np.average(y, weights=g) if g.sum() > 0 else 0.0 for g in groups])
    return np.asarray(rule.more["rows"] @ means) if len(means) else np.zeros(len(rule.more["rows"]))


def number(problem: Problem, rule: Rule, y: np.ndarray) -> float:  # noqa: PLR0911, PLR0912
    """What the rule bounds: by `limit` from above, MinimumRate and DisparateImpactRatio from below."""
    kind = rule.kind
    if kind == "CovarianceBound":
        s = problem.features[rule.on[0]]
        known = np.isfinite(s)
        each = counted(problem)[known]
        if each.sum() == 0:
            return 0.0
        return float(abs(np.average((s[known] - np.average(s[known], weights=each)) * y[known], weights=each)))
    groups = _members(problem, rule.on)
    if kind == "DemographicParity":
        return _range(_means(groups, y))
    if kind == "DisparateImpactRatio":
        means = _means(groups, y)
        return min(means) - rule.limit * max(means) if len(means) > 1 else 0.0  # to be >= 0
    if kind == "MinimumRate":
        return min(_means(groups, y), default=np.inf)
    if kind == "ConditionalParity":
        given = rule.more["given"]
        strata = membership(problem, (given,) if isinstance(given, str) else given)
        return max((_range(_means([g * s for g in groups], y)) for s in strata), default=0.0)
    p = _positive(problem)
    if kind in ("EqualOpportunity", "PredictiveEquality", "EqualizedOdds"):
        yes = _range(_means([g * p for g in groups], y))
        no = _range(_means([g * (1 - p) for g in groups], y))
        return {"EqualOpportunity": yes, "PredictiveEquality": no, "EqualizedOdds": max(yes, no)}[kind]
    if kind == "MeanResidualParity":
        return max((abs(m) for m in _means(groups, p - y)), default=0.0)
    if kind == "ResidualBetweenGroups":
        return _range(_means(groups, p - y))
    if kind == "ErrorRateParity":
        return _range(_means(groups, (1 - 2 * p) * y + p))
    if kind == "BoundedGroupLoss":
        return max(_means(groups, (1 - 2 * p) * y + p), default=-np.inf)
    if kind == "BoundedGroupLossCustom":
        return max(_means(groups, 0.3 * p + (1.5 - p) * y), default=-np.inf)
    if kind == "GroupCalibration":
        cells = [g * b for g in groups for b in _bins(problem, rule)]
        return max((abs(m) for m in _means(cells, p - y)), default=0.0)
    raise AssertionError(kind)


def violation(problem: Problem, rule: Rule, y: np.ndarray) -> float:
    """By how much y breaks the rule (<= 0: it holds)."""
    if rule.kind.startswith("Affine"):
        return max((_term_violation(t, y) for t in terms(problem, rule)), default=-np.inf)
    value = number(problem, rule, y)
    if rule.kind == "DisparateImpactRatio":
        return -value
    return rule.limit - value if rule.kind == "MinimumRate" else value - rule.limit


def reach(problem: Problem, rule: Rule) -> float:
    """The size of the numbers that the rule adds up, which bounds how exactly it can be met."""
    return max(
        (float(np.abs(t.rows).sum(axis=1).max()) * problem.size for t in terms(problem, rule) if len(t.rows)),
        default=1.0,
    )


def _term_violation(term: Between | AllPairs, y: np.ndarray) -> float:
    v = term.rows @ y + term.offset
    if isinstance(term, Between):
        return float(max((v - term.upper).max(), (term.lower - v).max()))
    return float((term.scale * v[:, None] - v[None, :]).max() - term.width)


# --- the independent solver


def all_terms(problem: Problem) -> list[Between | AllPairs]:
    """Every statement of every rule that says something about this batch."""
    return [t for rule in problem.rules for t in terms(problem, rule) if len(t.rows)]


@dataclass(frozen=True)
class Program:
    """`minimise 1/2 sum_i weight_i (x_i - z_i)^2`, `A x = b` in the first `equal` rows, `A x <= b` in the others."""

    z: np.ndarray
    A: sparse.csc_matrix
    b: np.ndarray
    equal: int
    unit: float


def program(problem: Problem) -> Program:
    """The projection over the predictions, the means as variables of their own, and one level per range.

    In units of the largest score, with each mean's defining row scaled to norm one.
    """
    unit, n = max(1e-12, float(np.abs(problem.scores).max())), problem.n
    equalities: list[tuple[dict[int, float], float]] = []
    others: list[tuple[dict[int, float], float]] = []
    extra = n
    for term in all_terms(problem):
        first = extra
        for row in term.rows:
            norm = float(np.linalg.norm(row)) or 1.0
            entries = {int(i): float(row[i]) / norm for i in np.flatnonzero(row)}
            equalities.append(({**entries, extra: -1.0 / norm}, 0.0))
            extra += 1
        offset = term.offset / unit
        if isinstance(term, Between):
            for j in range(len(term.rows)):
                if np.isfinite(term.upper[j]):
                    others.append(({first + j: 1.0}, term.upper[j] / unit - offset[j]))
                if np.isfinite(term.lower[j]):
                    others.append(({first + j: -1.0}, offset[j] - term.lower[j] / unit))
            continue
        level = extra
        extra += 1
        for j in range(len(term.rows)):  # scale * v_i - width <= level <= v_j
            others.append(({first + j: term.scale, level: -1.0}, term.width / unit - term.scale * offset[j]))
            others.append(({first + j: -1.0, level: 1.0}, offset[j]))
    for bound, sign in zip(problem.bounds or (None, None), (-1.0, 1.0), strict=True):
        if bound is not None:
            limits = np.broadcast_to(np.asarray(bound, dtype=float), n)
            others += [({i: sign}, sign * float(limits[i]) / unit) for i in range(n)]
    rows = equalities + others
    triples = [(r, c, v) for r, (entries, _) in enumerate(rows) for c, v in entries.items()]
    r, c, v = zip(*triples, strict=True) if triples else ((), (), ())
    A = sparse.csc_matrix((np.array(v, dtype=float), (r, c)), shape=(len(rows), extra))
    return Program(problem.scores / unit, A, np.array([limit for _, limit in rows]), len(equalities), unit)


def interior_point(problem: Problem, *, accuracy: float = 1e-13, refine: bool = False) -> np.ndarray:
    """The projection by Clarabel.

    Args:
        problem: what to project, and onto what.
        accuracy: what Clarabel is asked for; it stops early on some problems when this is tight.
        refine: solve the optimality conditions once more, on the rows that Clarabel finds active.
    """
    p = program(problem)
    n, size = len(p.z), p.A.shape[1]
    if not len(p.b):
        return problem.scores
    P = sparse.diags([*counted(problem), *[0.0] * (size - n)], format="csc")
    q = np.concatenate([-p.z * counted(problem), np.zeros(size - n)])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_iter = 200
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = accuracy
    cones = [clarabel.ZeroConeT(p.equal), clarabel.NonnegativeConeT(len(p.b) - p.equal)]
    solution = clarabel.DefaultSolver(P, q, p.A, p.b, cones, settings).solve()
    if "Infeasible" in str(solution.status):
        raise ValueError(f"the oracle says {solution.status}")
    x = np.array(solution.x)
    if refine:
        active = np.flatnonzero(np.array(solution.z) > np.array(solution.s))
        active = np.union1d(np.arange(p.equal), active)
        N = p.A[active].toarray()
        zero = np.zeros((len(active), len(active)))
        kkt = np.block([[P.toarray(), N.T], [N, zero]])
        x = np.linalg.lstsq(kkt, np.concatenate([-q, p.b[active]]), rcond=1e-13)[0][:size]
    return x[:n] * p.unit


def deviation(problem: Problem, y: np.ndarray) -> float:
    """Largest distance of y from the oracle's answer, in units of the scores.

    Clarabel alone is exact to about 1e-7 here, and stops short on a few problems (tolerances near 0 beside bounds).
    Those get further attempts: refined, and asked for less to begin with; in the end, the optimality conditions.
    """
    least = np.inf
    for attempt in ({}, {"refine": True}, {"accuracy": 1e-10, "refine": True}, {"accuracy": 1e-8, "refine": True}):
        try:
            found = interior_point(problem, **attempt)  # type: ignore[arg-type]
        except ValueError:
            continue
        least = min(least, float(np.abs(y - found).max()) / problem.size)
        if least <= 1e-7:
            return least
    return min(least, optimality_residual(problem, y) / problem.size)


def optimality_residual(problem: Problem, y: np.ndarray) -> float:
    """The smallest |r| such that `z - y - r` is a sum of normals of tight statements and bounds, weights >= 0.

    A feasible y is then the projection of `z - r`, so it is within |r| of the projection of z.
    """
    near = 1e-9 * max(1.0, problem.size)
    if not _feasible(problem, y, near):
        return np.inf
    normals: list[np.ndarray] = []
    for term in all_terms(problem):
        v, reach = term.rows @ y + term.offset, near * max(1.0, float(np.abs(term.rows).sum(axis=1).max()))
        if isinstance(term, Between):
            normals += [*term.rows[v >= term.upper - reach], *-term.rows[v <= term.lower + reach]]
            continue
        slack = term.width - (term.scale * v[:, None] - v[None, :])
        normals += [term.scale * term.rows[i] - term.rows[j] for i, j in np.argwhere(slack <= reach) if i != j]
    for bound, sign in zip(problem.bounds or (None, None), (-1.0, 1.0), strict=True):
        if bound is not None:
            normals += [*sign * np.eye(problem.n)[sign * (y - bound) >= -near]]
    kept = [a / size for a in normals if (size := float(np.linalg.norm(a))) > 0]
    if not kept:
        return float(np.abs(problem.scores - y).max())
    return float(nnls(np.array(kept).T, problem.scores - y, maxiter=50 * len(kept) + 1000)[1])


def _feasible(problem: Problem, y: np.ndarray, near: float) -> bool:
    sides = zip(problem.bounds or (None, None), (-1.0, 1.0), strict=True)
    inside = all(bound is None or (sign * (y - bound)).max() <= near for bound, sign in sides)
    rules = all(violation(problem, r, y) <= near * max(1.0, reach(problem, r)) for r in problem.rules)
    return inside and rules


def least_widening(problem: Problem) -> float:
    """The smallest w >= 0 such that every limit, moved outwards by w, can be met within the bounds (an LP)."""
    n = problem.n
    lower, upper = (None, None) if problem.bounds is None else problem.bounds
    rows, right = [], []
    for term in all_terms(problem):
        if isinstance(term, Between):
            for row, offset, low, high in zip(term.rows, term.offset, term.lower, term.upper, strict=True):
                if np.isfinite(high):
                    rows.append(np.append(row, -1.0))
                    right.append(high - offset)
                if np.isfinite(low):
                    rows.append(np.append(-row, -1.0))
                    right.append(offset - low)
            continue
        for i in range(len(term.rows)):
            for j in range(len(term.rows)):
                rows.append(np.append(term.scale * term.rows[i] - term.rows[j], -1.0))
                right.append(term.width - term.scale * term.offset[i] + term.offset[j])
    if not rows:
        return 0.0
    low = np.broadcast_to(np.asarray(-np.inf if lower is None else lower, dtype=float), n)
    high = np.broadcast_to(np.asarray(np.inf if upper is None else upper, dtype=float), n)
    box = [*zip(low, high, strict=True), (0.0, None)]
    cost = np.append(np.zeros(n), 1.0)
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    result = linprog(cost, np.array(rows), np.array(right), bounds=box, method="highs", options=options)
    assert result.status == 0, result.message
    return float(result.fun)
