"""Random projection problems, in the user's terms: scores, columns, labels, bounds and rules.

A `Rule` names a constraint class and its arguments; `constraint(rule)` makes the fairlayer object, and
`tests.core.truth` states the same rule from its documented formula. Neither looks at the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

import fairlayer as fl
from tests.core import truth

SOLO_KINDS = (
    "DemographicParity",
    "EqualOpportunity",
    "PredictiveEquality",
    "EqualizedOdds",
    "ConditionalParity",
    "MeanResidualParity",
    "ResidualBetweenGroups",
    "DisparateImpactRatio",
    "ErrorRateParity",
    "BoundedGroupLoss",
    "BoundedGroupLossCustom",
    "MinimumRate",
    "GroupCalibration",
    "CovarianceBound",
    "AffineGroups",
    "AffineSamples",
)
LIMIT = {"BoundedGroupLoss": "cap", "BoundedGroupLossCustom": "cap", "MinimumRate": "floor"}


@dataclass(frozen=True)
class Rule:
    """A constraint in words: class, features, its limit (tolerance, cap, floor or ratio) and the rest."""

    kind: str
    on: tuple[str, ...]
    limit: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """One batch and its rules; everything is NumPy and float64."""

    name: str
    scores: np.ndarray  # (n,)
    features: dict[str, np.ndarray]  # codes (n,), -1 unknown; or soft (n, k); or numbers (n,)
    rules: tuple[Rule, ...]
    labels: np.ndarray | None = None
    estimates: np.ndarray | None = None
    bounds: tuple[Any, Any] | None = None
    weights: np.ndarray | None = None  # how many samples each row stands for

    @property
    def n(self) -> int:
        return len(self.scores)

    @property
    def size(self) -> float:
        """The unit in which deviations are judged."""
        return max(1e-3, float(np.abs(self.scores).max()))

    def constraints(self) -> list[fl.Constraint]:
        return [constraint(rule) for rule in self.rules]

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `fl.project`."""
        return {
            "sensitive_features": self.features or None,
            "y": self.labels,
            "label_probabilities": self.estimates,
            "sample_weight": self.weights,
            "bounds": self.bounds,
        }

    def project(self, scores: Any = None, dtype: torch.dtype = torch.float64, **more: Any) -> fl.Projection:
        """Project these scores (default: the problem's own) onto the problem's set."""
        given = scores if isinstance(scores, torch.Tensor) else torch.tensor(self.scores if scores is None else scores)
        return fl.project(given.to(dtype), self.constraints(), **{**self.arguments(), **more})

    def take(self, order: np.ndarray) -> Problem:
        """The same problem with samples taken (permuted, or repeated) in this order."""
        pick: Callable[[Any], Any] = lambda a: None if a is None else np.asarray(a)[order]  # noqa: E731
        rules = tuple(
            replace(r, more={**r.more, "rows": r.more["rows"][:, order]}) if r.kind == "AffineSamples" else r
            for r in self.rules
        )
        bounds = self.bounds and tuple(b if b is None or np.ndim(b) == 0 else b[order] for b in self.bounds)
        features = {k: pick(v) for k, v in self.features.items()}
        labels, estimates = pick(self.labels), pick(self.estimates)
        return replace(
            self,
            scores=pick(self.scores),
            features=features,
            rules=rules,
            labels=labels,
            estimates=estimates,
            bounds=bounds,  # type: ignore[arg-type]
            weights=pick(self.weights),
        )


def custom_loss(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A loss that is affine in the prediction: 0.3 label + (1.5 - label) y."""
    return 0.3 * labels, 1.5 - labels


def constraint(rule: Rule) -> fl.Constraint:  # noqa: PLR0911
    """The fairlayer object of a rule."""
    on = rule.on[0] if len(rule.on) == 1 else rule.on
    match rule.kind:
        case "ResidualBetweenGroups":
            return fl.MeanResidualParity(on, rule.limit, between_groups=True)
        case "DisparateImpactRatio":
            return fl.DisparateImpactRatio(on, ratio=rule.limit)
        case "BoundedGroupLoss":
            return fl.BoundedGroupLoss(on, rule.limit)
        case "BoundedGroupLossCustom":
            return fl.BoundedGroupLoss(on, rule.limit, loss=custom_loss)
        case "MinimumRate":
            return fl.MinimumRate(on, rule.limit)
        case "AffineGroups":
            return fl.Affine(rule.more["rows"], lower=rule.more["lower"], upper=rule.more["upper"], on=on)
        case "AffineSamples":
            return fl.Affine(rule.more["rows"], lower=rule.more["lower"], upper=rule.more["upper"])
        case _:
            return getattr(fl, rule.kind)(on, tolerance=rule.limit, **rule.more)


# --- columns


def _codes(rng: np.random.Generator, n: int, groups: int) -> np.ndarray:
    """Group codes: balanced, skewed, with one-member groups, with absent codes, or with unknown members."""
    style = rng.integers(5)
    if style == 0:
        codes = np.arange(n) % groups
    elif style == 1:
        codes = rng.choice(groups, size=n, p=rng.dirichlet(np.full(groups, 0.5)))
    elif style == 2:  # one large group, the others with one member each
        codes = np.where(np.arange(n) < min(groups - 1, n), np.arange(n) + 1, 0)
    else:
        codes = rng.integers(0, groups, size=n)
    if style == 3:  # a code that never occurs
        codes = np.where(codes == groups // 2, 0, codes)
    if style == 4 or rng.random() < 0.15:
        codes = np.where(rng.random(n) < 0.2, -1, codes)
    return rng.permutation(codes.astype(np.int64)) if rng.random() < 0.7 else codes.astype(np.int64)


def _scores(rng: np.random.Generator, n: int, groups: np.ndarray) -> np.ndarray:
    """Raw scores, mostly within [0, 1]: smooth, shifted by group, tied, constant, or saturated."""
    style = rng.integers(6)
    effect = rng.normal(size=64)[groups] * 0.3
    if style == 0:
        return rng.random(n)
    if style == 1:  # ties
        return np.round(rng.random(n) + effect, 1)
    if style == 2:  # all equal
        return np.full(n, rng.random())
    if style == 3:  # whole cells far outside the bounds
        far = rng.choice([-7.0, 0.0, 0.0, 7.0], size=64)[groups]
        return 0.5 + far + 0.2 * rng.normal(size=n)
    if style == 4:  # nearly everything is clipped
        return 0.5 + 3.0 * rng.normal(size=n)
    return 1 / (1 + np.exp(-(rng.normal(size=n) + 3 * effect)))


def random_problem(seed: int, *, scale: float | None = None, soft: bool = True, dense: bool = True) -> Problem:
    """A feasible problem with 2 to about 40 cells and at most 400 samples."""
    rng = np.random.default_rng(seed)
    problem = made_feasible(raw_problem(rng, f"seed {seed}", soft=soft, dense=dense), rng)
    return scaled(problem, float(rng.choice([1.0, 1.0, 1e-3, 1e3])) if scale is None else scale)


def raw_problem(rng: np.random.Generator, name: str, *, soft: bool = True, dense: bool = True) -> Problem:
    """The same before `made_feasible`."""
    n = int(rng.choice([1, 2, 3, 5, 8, 13, 30, 60, 120, 250, 400], p=[0.03, 0.04, 0.05] + [0.11] * 8))
    a, b = int(rng.integers(2, 41)), int(rng.integers(2, 6))
    features = {"a": _codes(rng, n, a), "b": _codes(rng, n, b), "c": _codes(rng, n, 2)}
    if soft and rng.random() < 0.3:
        features["p"] = rng.dirichlet(np.full(int(rng.integers(2, 5)), 0.5), size=n)
        features["p"][rng.random(n) < 0.1] = np.nan
    if dense:
        features["s"] = rng.normal(size=n) * 10.0 ** rng.integers(-1, 3)
        features["s"][rng.random(n) < 0.1] = np.nan
    z = _scores(rng, n, np.maximum(features["a"], 0))
    labels = (rng.random(n) < np.clip(z, 0.1, 0.9)).astype(np.float64)
    use_estimates = rng.random() < 0.15
    bounds = _bounds(rng, n)
    chosen = _rules(rng, features, n)
    return Problem(
        name,
        z,
        features,
        chosen,
        labels=None if use_estimates else labels,
        estimates=np.clip(z + 0.1 * rng.normal(size=n), 0, 1) if use_estimates else None,
        bounds=bounds,
    )


def _bounds(rng: np.random.Generator, n: int) -> tuple[Any, Any] | None:
    style = rng.integers(8)
    if style <= 1:
        return None
    if style <= 4:
        return (0.0, 1.0)
    if style == 5:
        return (0.0, None) if rng.random() < 0.5 else (None, 1.0)
    if style == 6:  # per sample, some with no room at all
        low = rng.uniform(0, 0.3, n)
        return low, low + np.where(rng.random(n) < 0.2, 0.0, rng.uniform(0.1, 0.7, n))
    return (0.2, 0.7)


def _rules(rng: np.random.Generator, features: dict[str, np.ndarray], n: int) -> tuple[Rule, ...]:
    style = rng.integers(10)
    tolerance = lambda: float(rng.choice([0.0, 1e-9, 0.01, 0.05, 0.2]))  # noqa: E731
    if style == 0:
        rules = [Rule("DemographicParity", ("a",), tolerance())]
    elif style == 1:
        rules = [Rule("DemographicParity", ("c",), tolerance())]
    elif style == 2:  # marginals and their intersections
        rules = [Rule("DemographicParity", on, tolerance()) for on in (("b",), ("c",), ("b", "c"))]
    elif style == 3:
        rules = [Rule("EqualizedOdds", ("b",), tolerance()), Rule("DemographicParity", ("b",), tolerance())]
    elif style == 4:  # the same rule twice, and once looser
        rules = [Rule("DemographicParity", ("b",), t) for t in (0.02, 0.02, 0.1)]
    elif style == 5:
        rules = [Rule("EqualizedOdds", ("b", "c"), tolerance()), Rule("DemographicParity", ("a",), tolerance())]
    else:
        count = int(rng.integers(1, 5))
        rules = [_any_rule(rng, features, n, tolerance) for _ in range(count)]
    if "p" in features and rng.random() < 0.6:
        rules.append(Rule("DemographicParity", ("p",), max(tolerance(), 1e-3)))
    if "s" in features and rng.random() < 0.15:
        rules.append(Rule("CovarianceBound", ("s",), tolerance()))
    return tuple(rules)


def _any_rule(
    rng: np.random.Generator, features: dict[str, np.ndarray], n: int, tolerance: Callable[[], float]
) -> Rule:
    kinds = [k for k in SOLO_KINDS if k != "CovarianceBound" or "s" in features]
    return random_rule(str(rng.choice(kinds)), rng, features, n, tolerance())


def random_rule(  # noqa: PLR0911
    kind: str, rng: np.random.Generator, features: dict[str, np.ndarray], n: int, tolerance: float
) -> Rule:
    """A rule of one kind; limits that an arbitrary batch could not meet are set by `made_feasible`."""
    on = [("a",), ("b",), ("c",), ("b", "c")][rng.integers(4)]
    if kind == "ConditionalParity":
        return Rule(kind, ("c",), tolerance, {"given": "b" if rng.random() < 0.7 else ("b", "a")})
    if kind == "GroupCalibration":
        return Rule(kind, on, tolerance, {"bins": int(rng.integers(1, 6))})
    if kind == "DisparateImpactRatio":
        return Rule(kind, on, float(rng.choice([0.8, 0.5, 1.0])))
    if kind == "CovarianceBound":
        return Rule(kind, ("s",), tolerance)
    if kind == "AffineGroups" and (features["b"] >= 0).any():
        groups = len(set(features["b"].tolist()) - {-1})
        rows = rng.normal(size=(int(rng.integers(1, 4)), groups)).round(2)
        return Rule(kind, ("b",), tolerance, {"rows": rows, "lower": None, "upper": None})
    if kind in ("AffineGroups", "AffineSamples"):
        kind, on = "AffineSamples", ()
        rows = rng.normal(size=(int(rng.integers(1, 3)), n)) * (rng.random(n) < 0.7) / max(1, n)
        return Rule(kind, on, tolerance, {"rows": rows, "lower": None, "upper": None})
    return Rule(kind, on, tolerance)


def made_feasible(problem: Problem, rng: np.random.Generator) -> Problem:
    """Loosen limits until a hidden point within the bounds meets every rule with some room."""
    lower, upper = problem.bounds or (None, None)
    level = rng.uniform(0.25, 0.65)
    hidden = np.full(problem.n, level)
    if rng.random() < 0.3:
        hidden = hidden + 0.1 * rng.random(problem.n)
    hidden = np.clip(hidden, 0.0 if lower is None else lower, 1.0 if upper is None else upper)
    return replace(problem, rules=tuple(loosened(problem, rule, hidden) for rule in problem.rules))


def loosened(problem: Problem, rule: Rule, hidden: np.ndarray) -> Rule:
    """The rule with its limit moved, where that is needed, until a hidden point meets it with some room."""
    if rule.kind in ("AffineGroups", "AffineSamples"):
        value = truth.affine_values(problem, rule, hidden)
        return replace(rule, more={**rule.more, "lower": value - rule.limit, "upper": value + 0.5 * rule.limit})
    if rule.kind == "DisparateImpactRatio":
        means = truth.group_means(problem, rule.on, hidden)
        ratio = min(means) / max(means) if len(means) and max(means) > 0 else 1.0
        return replace(rule, limit=max(1e-3, min(rule.limit, 0.98 * ratio if ratio < 1 - 1e-12 else 1.0)))
    number = truth.number(problem, rule, hidden)
    if not np.isfinite(number):  # no group has a member
        number = 0.5
    if rule.kind == "MinimumRate":
        return replace(rule, limit=number - 0.01 - rule.limit)
    if rule.kind.startswith("BoundedGroupLoss"):
        return replace(rule, limit=number + 0.01 + rule.limit)
    return replace(rule, limit=rule.limit if number <= max(rule.limit, 1e-13) else 1.02 * number + 1e-3)


def scaled(problem: Problem, scale: float) -> Problem:
    """The same problem in another unit of the predictions, where its rules allow that."""
    if scale == 1.0 or problem.estimates is not None:
        return problem
    tied = {"ErrorRateParity", "BoundedGroupLoss", "BoundedGroupLossCustom", "GroupCalibration"}
    tied |= {"MeanResidualParity", "ResidualBetweenGroups"}  # speak of labels, whose unit is fixed
    if any(rule.kind in tied for rule in problem.rules):
        return problem
    bounds = problem.bounds and tuple(None if b is None else b * scale for b in problem.bounds)
    rules = tuple(_scaled_rule(rule, scale) for rule in problem.rules)
    return replace(problem, scores=problem.scores * scale, bounds=bounds, rules=rules)  # type: ignore[arg-type]


def _scaled_rule(rule: Rule, scale: float) -> Rule:
    if rule.kind == "DisparateImpactRatio":
        return rule
    more = dict(rule.more)
    if "rows" in more:
        more |= {"lower": more["lower"] * scale, "upper": more["upper"] * scale}
    return replace(rule, limit=rule.limit * scale, more=more)


def solo_problem(kind: str, seed: int, *, bounded: bool | None = None, n: int | None = None) -> Problem:
    """A problem with one rule of this kind that the raw scores (usually) break."""
    rng = np.random.default_rng(seed)
    return made_feasible(raw_solo_problem(rng, kind, f"{kind} {seed}", bounded=bounded, n=n), rng)


def raw_solo_problem(
    rng: np.random.Generator, kind: str, name: str, *, bounded: bool | None = None, n: int | None = None
) -> Problem:
    """The same before `made_feasible`."""
    n = int(rng.integers(1, 60)) if n is None else n
    features = {"a": _codes(rng, n, 7), "b": _codes(rng, n, 3), "c": _codes(rng, n, 2)}
    if kind == "CovarianceBound":
        features["s"] = rng.normal(size=n) * 3
    z = _scores(rng, n, np.maximum(features["a"], 0))
    labels = (rng.random(n) < 0.5).astype(np.float64)
    bounds = {True: (0.0, 1.0), False: None, None: _bounds(rng, n)}[bounded]
    rule = random_rule(kind, rng, features, n, float(rng.choice([0.0, 0.01, 0.05])))
    return Problem(name, z, features, (rule,), labels=labels, bounds=bounds)


def hard_problem(seed: int) -> Problem:
    """Soft groups and covariances at tiny tolerances beside saturated cells, repeated rules, features of any unit."""
    rng = np.random.default_rng(seed + 10**6)
    n = int(rng.choice([1, 2, 3, 4, 6, 10, 20, 50, 150, 400]))
    features = {
        "a": _codes(rng, n, int(rng.integers(2, 41))),
        "b": _codes(rng, n, int(rng.integers(2, 5))),
        "c": _codes(rng, n, 2),
        "s": rng.normal(size=n) * 10.0 ** rng.integers(-4, 7),
    }
    if rng.random() < 0.3:  # ties, perhaps all the same
        features["s"] = np.round(rng.normal(size=n))
    concentration = np.full(int(rng.integers(2, 6)), float(rng.choice([0.05, 0.5, 5.0])))
    features["p"] = rng.dirichlet(concentration, size=n)
    style = rng.integers(5)
    z = _scores(rng, n, np.maximum(features["a"], 0))
    if style == 1:
        z = z * 10.0 ** rng.integers(1, 4)
    elif style == 2:  # at the bounds exactly
        z = np.where(rng.random(n) < 0.5, rng.choice([0.0, 1.0], n), z)
    elif style == 3:
        z = np.full(n, 0.5) + 1e-9 * rng.normal(size=n)
    labels = (rng.random(n) < rng.choice([0.05, 0.5, 0.95])).astype(float)
    estimated = rng.random() < 0.4
    bounds = _bounds(rng, n)
    if rng.random() < 0.2:
        bounds = (0.0, 1.0)
    rules = tuple(_hard_rule(rng, features, n) for _ in range(rng.integers(1, 7)))
    problem = Problem(
        f"hard {seed}",
        z,
        features,
        rules + rules if rng.random() < 0.2 else rules,
        labels=None if estimated else labels,
        estimates=np.where(rng.random(n) < 0.3, labels, rng.random(n)) if estimated else None,
        bounds=bounds,
    )
    return made_feasible(problem, rng)


def _hard_rule(rng: np.random.Generator, features: dict[str, np.ndarray], n: int) -> Rule:
    tolerance = float(rng.choice([0.0, 1e-12, 1e-9, 1e-6, 0.01, 0.1]))
    common = [
        Rule("DemographicParity", ("p",), tolerance),
        Rule("CovarianceBound", ("s",), tolerance * float(np.std(features["s"]) + 1e-30)),
        Rule("EqualizedOdds", ("p",), tolerance),
        Rule("DemographicParity", ("p", "c"), tolerance),
        Rule("EqualizedOdds", ("b", "c"), tolerance),
        Rule("DemographicParity", ("a",), tolerance),
        Rule("DemographicParity", ("a", "b", "c"), tolerance),
        Rule("ErrorRateParity", ("p",), tolerance),
        Rule("MeanResidualParity", ("p",), tolerance),
        Rule("ConditionalParity", ("c",), tolerance, {"given": ("b", "a")}),
        random_rule(str(rng.choice(SOLO_KINDS)), rng, features, n, tolerance),
    ]
    return common[rng.integers(len(common))]


seeds = st.integers(0, 2**31 - 1)


def problems(**kwargs: Any) -> st.SearchStrategy[Problem]:
    """Hypothesis strategy over random problems."""
    return seeds.map(lambda seed: random_problem(seed, **kwargs))


def solo_problems(kinds: Sequence[str] = SOLO_KINDS, **kwargs: Any) -> st.SearchStrategy[Problem]:
    """Hypothesis strategy over problems with a single rule."""
    return st.builds(lambda kind, seed: solo_problem(kind, seed, **kwargs), st.sampled_from(kinds), seeds)
