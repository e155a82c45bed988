"""Candidates and steps -> routes, each measured on validation and on test rows, and the best of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.calibration import GroupCalibrator
from fairlayer.constraints import Constraint
from fairlayer.decisions import DecisionRule, ExpectedGap
from fairlayer.decisions.inputs import ACCURACY
from fairlayer.edge import Stated, as_constraints, feature_names
from fairlayer.errors import FairlayerError
from fairlayer.projection import project
from fairlayer.routes.candidates import DECIDING, Candidate
from fairlayer.routes.criterion import Criterion, default_criterion
from fairlayer.routes.errors import RouteError
from fairlayer.routes.numbers import RouteNumbers, numbers_of
from fairlayer.routes.route import Route, Routes
from fairlayer.routes.rules import FittedRule, expected_gaps, fit_rule
from fairlayer.training.batches import decide_batch
from fairlayer.training.config import Task
from fairlayer.training.kept import Step
from fairlayer.training.observed import Observed
from fairlayer.training.quality import THRESHOLD

__all__ = ["compare_routes"]


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
    """Take each candidate's scores as they are, projected, decided by a rule and by batch; measure all; choose one.

    The projection takes the validation rows, and the test rows, as one batch each, without labels, and so do decisions
    by batch. Constraints on labels see estimates in their place: the raw scores, calibrated per group. Calibrations,
    and rules of thresholds per group, are fitted to the validation rows with their labels. A route that cannot be made
    (no thresholds meet the constraints, a cell has no validation row) is left out, and the reason told.

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
        (['mine', 'mine, projected', 'mine, rule', 'mine, batch'], 'mine, projected')
    """
    held = as_constraints(constraints)
    shape = _Shape(held, valid, test, task, geometry, bounds, margin, on_infeasible, utility)
    routes: list[Route] = []
    left_out: list[tuple[str, str]] = []
    for candidate in candidates:
        for step in candidate.steps:
            if step in DECIDING and task == "regression":
                continue
            try:
                routes.append(shape.route(candidate, step))
            except FairlayerError as error:
                if step not in DECIDING:
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
        fitted: FittedRule | None = None
        rule: DecisionRule | None = None
        decisions: tuple[IntArray, IntArray] | None = None
        raw, calibrator = (candidate.valid, candidate.test), self._calibrator(candidate, step)
        scores = raw
        if step == "projected":
            valid, test = (self._projected(each, rows, calibrator) for each, rows in zip(raw, self._parts, strict=True))
            scores = valid, test
        if step == "decision rule":
            fitted = fit_rule(candidate.valid, self.constraints, self.valid, utility=self.utility)
            rule = fitted.rule
            sensitive = {name: self.test.sensitive[name] for name in feature_names(self.constraints)}
            decided = rule.apply(candidate.test, sensitive_features=sensitive, seed=0).numpy()
            decisions = fitted.decisions, decided
        elif step == "batch decisions":
            known, new = (self._decided(each, rows, calibrator) for each, rows in zip(raw, self._parts, strict=True))
            decisions = known, new
        elif self.task == "classification":
            decisions = (_at_threshold(scores[0]), _at_threshold(scores[1]))
        expected = self._expected(step, rule, decisions)
        valid_numbers = self._numbers(0, raw, scores, decisions, step, fitted)
        return Route(
            candidate.title(step),
            candidate.name,
            step,
            replace(_with_expected(valid_numbers, expected), models=candidate.models),
            replace(self._numbers(1, raw, scores, decisions, step), models=candidate.models),
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

    def _expected(
        self, step: Step, rule: DecisionRule | None, decisions: tuple[IntArray, IntArray] | None
    ) -> dict[str, ExpectedGap]:
        """Return the gaps of decisions to be expected on new rows; none of what keeps its limit in each batch anew."""
        if decisions is None or (step == "batch decisions" and not self._labelled):
            return {}
        return expected_gaps(rule or decisions[0], self.constraints, self.valid, sizes=len(self.test))

    def _decided(self, scores: FloatArray, rows: Observed, calibrator: GroupCalibrator | None) -> IntArray:
        return decide_batch(scores, self.constraints, rows.sensitive, calibrator=calibrator, utility=self.utility)

    def _calibrator(self, candidate: Candidate, step: Step) -> GroupCalibrator | None:
        """Return what makes label estimates of the scores, where a constraint reads labels or batches are decided."""
        if self.task == "regression":
            return None
        scores, rows = candidate.valid, self.valid
        assert rows.labels is not None
        if not self._labelled:
            return GroupCalibrator.fit(scores, rows.labels) if step == "batch decisions" else None
        names = [name for name in feature_names(self.constraints) if rows.sensitive[name].dtype.kind != "f"]
        return GroupCalibrator.fit(scores, rows.labels, sensitive_features=dict(rows.sensitive), on=names)

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
        fitted: FittedRule | None = None,
    ) -> RouteNumbers:
        rows = self._parts[part]
        before = None if decisions is None else _at_threshold(raw[part])
        held = {
            "projected": "" if self._labelled else "scores",
            "decision rule": "" if part else "decisions",
            "batch decisions": "" if self._labelled else "decisions",
        }.get(step, "")

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
        if fitted is None:
            return found
        unseen = measured(fitted.crossed)  # of rows that the thresholds were not fitted to
        honest = {name: unseen.measures[name] for name in ("accuracy", "utility") if name in unseen.measures}
        return replace(found, measures={**found.measures, **honest}, each=unseen.each)


def _with_expected(numbers: RouteNumbers, expected: Mapping[str, ExpectedGap]) -> RouteNumbers:
    """Return the numbers with the gaps of decisions that are to be expected in the long run."""
    gaps = {
        name: replace(gap, expected=expected[name].long_run.mean) if name in expected else gap
        for name, gap in numbers.decision_gaps.items()
    }
    return replace(numbers, decision_gaps=gaps)


def _at_threshold(scores: FloatArray) -> IntArray:
    return np.asarray(scores >= THRESHOLD, dtype=np.int64)
