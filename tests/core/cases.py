"""The random problems in every geometry and on every domain: numbers on a line or in a box, rows on a simplex.

A `Case` holds the problem as each class sees it (one view outside the simplex), so that `tests.core.truth` states its
rules class by class. What a geometry means is written here once more, from its formula, without fairlayer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax, logit, softmax, xlogy

import fairlayer as fl
from tests.core import problems, truth
from tests.core.problems import Problem, Rule


@dataclass(frozen=True)
class Domain:
    """A geometry, and where the predictions live."""

    geometry: str
    simplex: bool = False
    bounded: bool = True

    def __str__(self) -> str:
        return f"{self.geometry}, {'simplex' if self.simplex else 'box' if self.bounded else 'line'}"

    @property
    def plain(self) -> bool:
        """Whether scores are projected as they are, and need be no probabilities."""
        return self.geometry == "euclidean" and not self.simplex

    def divergence(self, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """d(y, z) of each entry: of the row it is the sum over the last axis."""
        if self.geometry == "euclidean":
            return 0.5 * (y - z) ** 2
        if self.geometry == "likelihood":
            y, z = z, y
        one = xlogy(y, y) - xlogy(y, z)
        return one if self.simplex else one + xlogy(1 - y, 1 - y) - xlogy(1 - y, 1 - z)

    def slope(self, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """d'(y, z) by y."""
        if self.geometry == "euclidean":
            return y - z
        if self.geometry == "likelihood":
            return (y - z) / (y * (1 - y))
        return np.log(y) - np.log(z) if self.simplex else logit(y) - logit(z)


LINE, BOX = Domain("euclidean", bounded=False), Domain("euclidean")
ENTROPIC, LIKELIHOOD = Domain("entropic"), Domain("likelihood")
EUCLIDEAN_SIMPLEX, ENTROPIC_SIMPLEX = Domain("euclidean", simplex=True), Domain("entropic", simplex=True)
DOMAINS = (LINE, BOX, ENTROPIC, LIKELIHOOD, EUCLIDEAN_SIMPLEX, ENTROPIC_SIMPLEX)


@dataclass(frozen=True)
class Case:
    """One batch and its rules, in a geometry."""

    domain: Domain
    views: tuple[Problem, ...]
    from_logits: bool = False

    @property
    def name(self) -> str:
        return f"{self.views[0].name}, {self.domain}{', from logits' if self.from_logits else ''}"

    @property
    def n(self) -> int:
        return self.views[0].n

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self.views[0].rules

    @property
    def weights(self) -> np.ndarray:
        """How many samples each entry stands for, of the shape of the scores."""
        each = truth.counted(self.views[0])
        return np.repeat(each[:, None], len(self.views), axis=1) if self.domain.simplex else each

    @property
    def raw(self) -> np.ndarray:
        """Raw scores (n,), or (n, k) on the simplex; probabilities where the geometry asks for them."""
        columns = [view.scores for view in self.views]
        return np.stack(columns, axis=1) if self.domain.simplex else columns[0]

    @property
    def size(self) -> float:
        return max(1.0, float(np.abs(self.raw).max()))

    def given(self, raw: np.ndarray | None = None) -> np.ndarray:
        """What is handed to `project` for raw scores."""
        raw = self.raw if raw is None else raw
        if not self.from_logits:
            return raw
        return np.log(raw) if self.domain.simplex else logit(raw)

    def seen(self, dtype: torch.dtype) -> Case:
        """The same case with the raw scores that a dtype leaves."""
        given = torch.tensor(self.given()).to(dtype).double().numpy()
        if not self.from_logits:
            return self.at(given)
        return self.at(softmax(given, axis=1) if self.domain.simplex else 1.0 / (1.0 + np.exp(-given)))

    def at(self, raw: np.ndarray) -> Case:
        """The same rules for other raw scores."""
        columns = raw.T if self.domain.simplex else [raw]
        views = tuple(replace(view, scores=column) for view, column in zip(self.views, columns, strict=True))
        return replace(self, views=views)

    def edited(self, **changes: Any) -> Case:
        """The same case with other rules, features or weights."""
        return replace(self, views=tuple(replace(view, **changes) for view in self.views))

    def take(self, order: np.ndarray) -> Case:
        """The same case with samples taken (permuted, or repeated) in this order."""
        return replace(self, views=tuple(view.take(order) for view in self.views))

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `fl.project`."""
        arguments = self.views[0].arguments() | {"geometry": self.domain.geometry, "from_logits": self.from_logits}
        if self.domain.simplex:
            for name, found in (("y", "labels"), ("label_probabilities", "estimates")):
                columns = [getattr(view, found) for view in self.views]
                arguments[name] = None if columns[0] is None else np.stack(columns, axis=1)
            if arguments["y"] is not None:
                arguments["y"] = arguments["y"].argmax(axis=1)
            arguments["bounds"] = "simplex"
        elif not self.domain.plain:
            arguments["bounds"] = None
        return arguments

    def project(self, raw: np.ndarray | None = None, dtype: torch.dtype = torch.float64, **more: Any) -> fl.Projection:
        """Project these raw scores (default: the case's own)."""
        given = torch.tensor(self.given(raw)).to(dtype)
        return fl.project(given, self.views[0].constraints(), **{**self.arguments(), **more})

    def columns(self, y: np.ndarray) -> list[tuple[Problem, np.ndarray]]:
        """Each view with its column of predictions."""
        return list(zip(self.views, y.T if self.domain.simplex else [y], strict=True))

    def violation(self, rule: Rule, y: np.ndarray) -> float:
        """By how much y breaks a rule, in the worst class."""
        return max(truth.violation(view, rule, column) for view, column in self.columns(y))

    def reach(self, rule: Rule, y: np.ndarray) -> float:
        """The size of the numbers that a rule adds up at y."""
        return max(truth.reach(replace(view, scores=column), rule) for view, column in self.columns(y))

    def divergence(self, y: np.ndarray) -> float:
        """sum_i weight_i d(y_i, z_i)."""
        return float((self.weights * self.domain.divergence(y, self.raw)).sum())

    def slope(self, y: np.ndarray) -> np.ndarray:
        """weight_i d'(y_i, z_i)."""
        return self.weights * self.domain.slope(y, self.raw)


# --- making them


Weigher = Callable[[np.random.Generator, Problem], np.ndarray | None]


def random_case(seed: int, domain: Domain, *, most: int = 100, weigh: Weigher | None = None) -> Case:
    """A feasible case with a mix of rules, 2 to about 40 cells, at most `most` samples, and weights (default: any)."""
    rng = np.random.default_rng(seed)
    return _case(problems.raw_problem(rng, f"seed {seed}"), domain, rng, most, weigh or any_weights)


def solo_case(kind: str, seed: int, domain: Domain, *, most: int = 100, weigh: Weigher | None = None) -> Case:
    """A feasible case with one rule of this kind."""
    rng = np.random.default_rng(seed)
    problem = problems.raw_solo_problem(rng, kind, f"{kind} {seed}", bounded=domain.bounded)
    return _case(problem, domain, rng, most, weigh or any_weights)


def whole_weights(rng: np.random.Generator, problem: Problem) -> np.ndarray:
    """Whole numbers, with zeros."""
    weights = rng.integers(0, 4, problem.n).astype(float)
    weights[rng.integers(problem.n)] = 1.0
    return weights


def any_weights(rng: np.random.Generator, problem: Problem) -> np.ndarray | None:
    """None, whole numbers with zeros, numbers of any size, or none of a whole group."""
    if rng.random() < 0.5:
        return None
    style = rng.integers(3)
    weights = whole_weights(rng, problem) if style == 0 else rng.lognormal(0.0, 1.0, problem.n)
    if style == 2:
        weights = np.where(problem.features["b"] == 0, 0.0, weights)
    weights[rng.integers(problem.n)] = 1.0
    return weights


def _case(problem: Problem, domain: Domain, rng: np.random.Generator, most: int, weigh: Weigher) -> Case:
    problem = problem.take(np.arange(min(most, problem.n)))
    rules = tuple(filter(None, (_for_groups(rule, problem) for rule in problem.rules)))
    problem = replace(problem, weights=weigh(rng, problem), rules=rules)
    from_logits = domain.geometry != "euclidean" and rng.random() < 0.4
    if domain.simplex:
        return _loosened(Case(domain, _class_views(problem, domain, rng), from_logits), _hidden_rows)
    if not domain.plain:
        squashed = 1.0 / (1.0 + np.exp(-rng.uniform(1.0, 5.0) * (problem.scores - 0.5)))
        blurred = squashed + (1e-4 * rng.normal(size=problem.n) if from_logits else 0.0)  # off the edges of bins
        problem = replace(problem, scores=np.clip(blurred, 1e-4, 1 - 1e-4), bounds=None)
    elif not domain.bounded:
        problem = replace(problem, bounds=None)
    return Case(domain, (problems.made_feasible(problem, rng),), from_logits)


def _for_groups(rule: Rule, problem: Problem) -> Rule | None:
    """Rows about groups for those that there are, now that samples were left out."""
    if rule.kind != "AffineGroups":
        return rule
    groups = len(set(problem.features[rule.on[0]].tolist()) - {-1})
    return replace(rule, more={**rule.more, "rows": rule.more["rows"][:, :groups]}) if groups else None


def _class_views(problem: Problem, domain: Domain, rng: np.random.Generator) -> tuple[Problem, ...]:
    """The problem as each of 2 to 6 classes sees it."""
    n, k = problem.n, int(rng.integers(2, 7))
    effect = rng.normal(size=(64, k))[np.maximum(problem.features["a"], 0)]
    logits = rng.uniform(0.3, 1.5) * rng.normal(size=(n, k)) + rng.choice([0.0, 0.5, 1.5]) * effect
    if rng.random() < 0.2:  # ties
        logits = np.round(logits)
    rows = softmax(logits, axis=1)
    labels = np.array([rng.choice(k, p=row) for row in rows])
    if domain.geometry == "euclidean" and rng.random() < 0.3:  # raw class scores
        rows = 0.3 * log_softmax(logits, axis=1)
    estimates = rng.dirichlet(np.full(k, 0.7), size=n)
    return tuple(
        replace(
            problem,
            scores=rows[:, c],
            labels=None if problem.labels is None else (labels == c).astype(float),
            estimates=None if problem.estimates is None else estimates[:, c],
            bounds=(0.0, 1.0),
        )
        for c in range(k)
    )


def _hidden_rows(case: Case) -> np.ndarray:
    rng = np.random.default_rng(case.n)
    k = len(case.views)
    rows = np.tile(rng.dirichlet(np.full(k, 8.0)), (case.n, 1))
    return 0.9 * rows + 0.1 * rng.dirichlet(np.ones(k), size=case.n) if rng.random() < 0.3 else rows


def _loosened(case: Case, hidden_rows: Any) -> Case:
    """Every limit as loose as the class that needs it most asks for, at a hidden point of the simplex."""
    hidden = case.columns(hidden_rows(case))
    rules = []
    for rule in case.rules:
        each = [problems.loosened(view, rule, column) for view, column in hidden]
        if rule.kind in ("AffineGroups", "AffineSamples"):
            lower = np.min([r.more["lower"] for r in each], axis=0)
            upper = np.max([r.more["upper"] for r in each], axis=0)
            rules.append(replace(rule, more={**rule.more, "lower": lower, "upper": upper}))
            continue
        loosest = min if rule.kind in ("MinimumRate", "DisparateImpactRatio") else max
        rules.append(replace(rule, limit=loosest(r.limit for r in each)))
    return case.edited(rules=tuple(rules))
