"""Candidates and steps -> routes, each measured on validation and on test rows, and the best of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from fairlayer._notebook import table_html
from fairlayer._typing import FloatArray, IntArray
from fairlayer.calibration import GroupCalibrator
from fairlayer.constraints import Constraint
from fairlayer.decisions import DecisionRule, ExpectedGap
from fairlayer.decisions.inputs import ACCURACY
from fairlayer.edge import Stated, as_constraints, feature_names
from fairlayer.errors import FairlayerError
from fairlayer.projection import project
from fairlayer.routes.candidates import Candidate
from fairlayer.routes.criterion import Criterion, default_criterion
from fairlayer.routes.errors import RouteError
from fairlayer.routes.numbers import MEASURES, RouteNumbers, furthest, numbers_of
from fairlayer.routes.rules import fit_rule
from fairlayer.training.config import Task
from fairlayer.training.kept import Step
from fairlayer.training.observed import Observed
from fairlayer.training.quality import THRESHOLD

__all__ = ["Route", "Routes", "compare_routes"]


@dataclass(frozen=True)
class Route:
    """One way to predictions.

    Args:
        name: as tables show it.
        candidate: the name of the model whose scores it takes.
        step: what is done to them.
        valid: numbers on the validation rows, by which it is chosen; of a rule, those of folds that it has not seen.
        test: numbers on the test rows.
        seconds: the seconds that it took to train and to apply.
        rule: the thresholds of a decision rule.
        expected: the gap that the rule is expected to show on new rows, as many as the test rows, and in the long run.
        calibrator: what makes label estimates of the scores, where a constraint reads labels.
        scores: (rows,) that the route emits for the test rows.
        decisions: (rows,) 0 or 1, of the test rows; None for a regression.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> sex = random.integers(0, 2, 400)
        >>> scores = np.clip(random.normal(0.4 + 0.2 * sex, 0.15), 0.01, 0.99)
        >>> rows = Observed({"sex": sex}, random.uniform(size=400) < scores)
        >>> mine, limit = [Candidate("mine", scores, scores)], "demographic_parity(sex, 0.02)"
        >>> projected = compare_routes(mine, limit, valid=rows, test=rows).named("mine, projected")
        >>> projected.step, projected.decisions.shape
        ('projected', (400,))
    """

    name: str
    candidate: str
    step: Step
    valid: RouteNumbers
    test: RouteNumbers
    seconds: float
    rule: DecisionRule | None = field(default=None, repr=False)
    expected: ExpectedGap | None = None
    calibrator: GroupCalibrator | None = field(default=None, repr=False)
    scores: FloatArray | None = field(default=None, repr=False)
    decisions: IntArray | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "candidate": self.candidate,
            "step": self.step,
            "seconds": self.seconds,
            "expected_gap": None if self.expected is None else asdict(self.expected),
            "valid": self.valid.to_dict(),
            "test": self.test.to_dict(),
        }


@dataclass(frozen=True)
class Routes:
    """Every route, and the one that a criterion chooses on the validation rows.

    Args:
        routes: the routes, in the order of the candidates.
        criterion: the criterion by which one is chosen.
        left_out: routes that could not be made, with the reason.
        rows: numbers of validation and of test rows.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> sex = random.integers(0, 2, 400)
        >>> scores = np.clip(random.normal(0.4 + 0.2 * sex, 0.15), 0.01, 0.99)
        >>> rows = Observed({"sex": sex}, random.uniform(size=400) < scores)
        >>> mine, limit = [Candidate("mine", scores, scores)], "demographic_parity(sex, 0.02)"
        >>> found = compare_routes(mine, limit, valid=rows, test=rows)
        >>> str(found.criterion), found.rows
        ('log_loss at score gap', {'valid': 400, 'test': 400})
    """

    routes: tuple[Route, ...]
    criterion: Criterion
    left_out: tuple[tuple[str, str], ...]
    rows: dict[str, int]

    @property
    def best(self) -> Route:
        """The route that the criterion chooses."""
        return self.routes[self.criterion.best([route.valid for route in self.routes])]

    @property
    def kept(self) -> bool:
        """Whether the best route keeps the gap on the validation rows; otherwise it is the one nearest to it."""
        return self.criterion.keeps(self.best.valid)

    def chosen_by(self, criterion: Criterion) -> Route:
        """Return the route that another criterion would choose."""
        return self.routes[criterion.best([route.valid for route in self.routes])]

    def _repr_html_(self) -> str:
        tests = [route.test for route in self.routes]
        measures = [name for name in MEASURES if any(test.measures.get(name) is not None for test in tests)]
        head = ("route", *(name.replace("_", " ") for name in measures), "score gap", "decision gap", "seconds")
        rows = [
            (
                f"{'* ' if route is self.best else ''}{route.name}",
                *(route.test.measures.get(name) for name in measures),
                furthest(route.test.score_gaps),
                furthest(route.test.decision_gaps),
                f"{route.seconds:.0f}",
            )
            for route in self.routes
        ]
        note = f"*: the best by {self.criterion}, on the validation rows. Gaps are those of the worst constraint."
        return table_html(f"Routes on {self.rows['test']} test rows", head, rows, note=note)

    def named(self, name: str) -> Route:
        """Return a route by its name.

        Raises:
            RouteError: there is none.
        """
        for route in self.routes:
            if route.name == name:
                return route
        raise RouteError(f"there is no route '{name}', only {', '.join(route.name for route in self.routes)}.")

    def among(self, names: Sequence[str]) -> Routes:
        """Return the comparison of some of the routes.

        Raises:
            RouteError: none of them is there.
        """
        some = tuple(route for route in self.routes if route.name in names)
        if not some:
            raise RouteError(f"none of {', '.join(names)} is a route here.")
        return Routes(some, self.criterion, self.left_out, self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "criterion": str(self.criterion),
            "best": self.best.name,
            "keeps_the_gap": self.kept,
            "rows": dict(self.rows),
            "routes": [route.to_dict() for route in self.routes],
            "left_out": [list(each) for each in self.left_out],
        }


def compare_routes(
    candidates: Sequence[Candidate],
    constraints: Stated,
    *,
    valid: Observed,
    test: Observed,
    task: Task = "classification",
    geometry: str | None = None,
    bounds: Any = (0.0, 1.0),
    margin: float = 0.0,
    on_infeasible: str = "raise",
    criterion: Criterion | None = None,
    utility: Any = ACCURACY,
) -> Routes:
    """Take each candidate's scores as they are, projected, and decided by a rule; measure all; choose one.

    The projection takes the validation rows, and the test rows, as one batch each, without labels: constraints on
    labels see estimates in their place, the raw scores calibrated per group on the validation rows. Rules of
    thresholds per group are fitted to the validation rows with their labels. A route that cannot be made (no
    thresholds meet the constraints, a cell has no validation row) is left out, and the reason told.

    Args:
        candidates: the models' scores.
        constraints: what must hold.
        valid: labels and groups of the validation rows.
        test: labels and groups of the test rows.
        task: classification or regression.
        geometry: the geometry of the projection; None for the one of the task, see `ModelConfig`.
        bounds: the bounds of the scores, see `project`; the probabilities' own in classification.
        margin: see `project`.
        on_infeasible: see `project`.
        criterion: None for the default of the task.
        utility: the utility of the rules, see `decide`.

    Raises:
        RouteError: there are no candidates, or two routes of one name.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> sex = random.integers(0, 2, 400)
        >>> scores = np.clip(random.normal(0.4 + 0.2 * sex, 0.15), 0.01, 0.99)
        >>> rows = Observed({"sex": sex}, random.uniform(size=400) < scores)
        >>> found = compare_routes([Candidate("mine", scores, scores)], "demographic_parity(sex, 0.02)",
        ...                        valid=rows, test=rows)
        >>> [route.name for route in found.routes], found.best.name
        (['mine', 'mine, projected', 'mine, rule'], 'mine, projected')
    """
    held = as_constraints(constraints)
    shape = _Shape(held, valid, test, task, geometry, bounds, margin, on_infeasible, utility)
    routes: list[Route] = []
    left_out: list[tuple[str, str]] = []
    for candidate in candidates:
        for step in candidate.steps:
            if step == "decision rule" and task == "regression":
                continue
            try:
                routes.append(shape.route(candidate, step))
            except FairlayerError as error:
                if step != "decision rule":
                    raise
                left_out.append((candidate.title(step), str(error)))
    names = [route.name for route in routes]
    if not routes or len(set(names)) < len(names):
        raise RouteError(f"routes need names of their own, and at least one candidate; got {names}.")
    rows = {"valid": len(valid), "test": len(test)}
    return Routes(tuple(routes), criterion or default_criterion(task), tuple(left_out), rows)


@dataclass(frozen=True)
class _Shape:
    """What all routes have in common."""

    constraints: tuple[Constraint, ...]
    valid: Observed
    test: Observed
    task: Task
    geometry: str | None
    bounds: Any
    margin: float
    on_infeasible: str
    utility: Any

    def route(self, candidate: Candidate, step: Step) -> Route:
        start = time.perf_counter()
        rule, decisions, crossed = None, None, None
        expected: dict[str, ExpectedGap] = {}
        raw, calibrator = (candidate.valid, candidate.test), self._calibrator(candidate)
        scores = raw
        if step == "projected":
            valid, test = (self._projected(each, rows, calibrator) for each, rows in zip(raw, self._parts, strict=True))
            scores = valid, test
        if step == "decision rule":
            fitted = fit_rule(candidate.valid, self.constraints, self.valid, utility=self.utility)
            rule = fitted.rule
            expected = {c.name: rule.expected_gap(c, sizes=len(self.test)) for c in self.constraints}
            sensitive = {name: self.test.sensitive[name] for name in feature_names(self.constraints)}
            decided = rule.apply(candidate.test, sensitive_features=sensitive, seed=0).numpy()
            decisions, crossed = (fitted.decisions, decided), fitted.crossed
        elif self.task == "classification":
            decisions = (_at_threshold(scores[0]), _at_threshold(scores[1]))
        valid_numbers = self._numbers(0, raw, scores, decisions, step, crossed)
        return Route(
            candidate.title(step),
            candidate.name,
            step,
            _with_expected(valid_numbers, expected),
            self._numbers(1, raw, scores, decisions, step),
            candidate.seconds + time.perf_counter() - start,
            rule,
            max(expected.values(), key=lambda found: found.long_run.mean, default=None),
            calibrator,
            scores[1],
            None if decisions is None else decisions[1],
        )

    @property
    def _parts(self) -> tuple[Observed, Observed]:
        return self.valid, self.test

    def _projected(self, scores: FloatArray, rows: Observed, calibrator: GroupCalibrator | None) -> FloatArray:
        found = project(
            scores,
            self.constraints,
            sensitive_features={name: rows.sensitive[name] for name in feature_names(self.constraints)},
            label_probabilities=self._estimates(scores, rows, calibrator),
            geometry=self.geometry or ("entropic" if self.task == "classification" else "euclidean"),
            bounds=self.bounds,
            margin=self.margin,
            on_infeasible=self.on_infeasible,
        )
        return np.asarray(found.value.numpy(), dtype=np.float64)

    @property
    def _labelled(self) -> bool:
        return any(constraint.needs_labels for constraint in self.constraints)

    def _calibrator(self, candidate: Candidate) -> GroupCalibrator | None:
        """Return what makes label estimates of the scores, where a constraint reads labels."""
        if not self._labelled or self.task == "regression":
            return None
        assert self.valid.labels is not None
        names = [name for name in feature_names(self.constraints) if self.valid.sensitive[name].dtype.kind != "f"]
        return GroupCalibrator.fit(
            candidate.valid, self.valid.labels, sensitive_features=dict(self.valid.sensitive), on=names
        )

    def _estimates(self, scores: FloatArray, rows: Observed, calibrator: GroupCalibrator | None) -> FloatArray | None:
        if not self._labelled:
            return None
        if calibrator is not None:
            return np.asarray(calibrator.apply(scores, sensitive_features=dict(rows.sensitive)).numpy())
        low, high = self.bounds if self.bounds is not None else (None, None)
        return scores if low is None and high is None else np.clip(scores, low, high)

    def _numbers(  # noqa: PLR0917 - a route, and on which rows
        self,
        part: int,
        raw: Any,
        scores: Any,
        decisions: tuple[IntArray, IntArray] | None,
        step: Step,
        crossed: IntArray | None = None,
    ) -> RouteNumbers:
        rows = self._parts[part]
        before = None if decisions is None else _at_threshold(raw[part])
        held = {"projected": "" if self._labelled else "scores", "decision rule": "" if part else "decisions"}.get(
            step, ""
        )

        def measured(chosen: IntArray | None) -> RouteNumbers:
            return numbers_of(
                scores[part],
                chosen,
                before,
                rows,
                self.constraints,
                task=self.task,
                held=held,
                utility=None if self.utility is ACCURACY else self.utility,
            )

        found = measured(None if decisions is None else decisions[part])
        if crossed is None:
            return found
        unseen = measured(crossed)  # of rows that the thresholds were not fitted to
        honest = {name: unseen.measures[name] for name in ("accuracy", "utility") if name in unseen.measures}
        return replace(found, measures={**found.measures, **honest}, each=unseen.each)


def _with_expected(numbers: RouteNumbers, expected: Mapping[str, ExpectedGap]) -> RouteNumbers:
    """Return the numbers with the gaps of decisions that thresholds are expected to have in the long run."""
    gaps = {
        name: replace(gap, expected=expected[name].long_run.mean) if name in expected else gap
        for name, gap in numbers.decision_gaps.items()
    }
    return replace(numbers, decision_gaps=gaps)


def _at_threshold(scores: FloatArray) -> IntArray:
    return np.asarray(scores >= THRESHOLD, dtype=np.int64)
