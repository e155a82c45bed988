"""Any predictions -> an audit: one function, one value, from which the page, the JSON and the console are made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fairlayer._notebook import table_html
from fairlayer.audit.asked import Asked, read_groupings, read_limits
from fairlayer.audit.checklists import annex_iv, audit_list, record, validation_list
from fairlayer.audit.compatible import Compatibility, compatibility
from fairlayer.audit.cost import Cost, cost_of
from fairlayer.audit.errors import MetricError
from fairlayer.audit.grouping import Grouping, grouping_of, plain
from fairlayer.audit.headline import headline
from fairlayer.audit.judging import judged, metrics_asked, people_of
from fairlayer.audit.leakage import score_warnings
from fairlayer.audit.outcome import EXIT_CODES, Limit, Outcome, gravest
from fairlayer.audit.people import movement
from fairlayer.audit.provenance import Provenance
from fairlayer.audit.reading import Task
from fairlayer.audit.statement import Statement
from fairlayer.audit.strata import Stratified, stratify
from fairlayer.audit.supplied import Supplied
from fairlayer.audit.table import AuditTable, names_of
from fairlayer.errors import ParameterError

__all__ = ["Audit", "audit"]

FORMAT = 2

_COMPARED_TOGETHER = ("demographic_parity", "equalized_odds", "predictive_parity")
_MOST_TOGETHER = 6  # groups of which it is computed which criteria can hold together; more take long, and say less
_MOST_CROSSED = 3  # features of which all intersections are shown although nobody asked for them


@dataclass(frozen=True)
class Audit:
    """Everything that is said about a set of predictions.

    Args:
        asked: the question.
        table: what was counted.
        before: the same people's predictions before; None where none were given.
        statements: every limit with its outcome.
        groupings: the groups of every grouping, first those that were asked for.
        costs: the quality of the predictions, before and after.
        strata: groups compared within strata.
        together: grouping -> which criteria can hold together on these base rates.
        warnings: what a reader must know before using the numbers.
        left_out: (reason, rows) of rows that were not counted.
        provenance: where the numbers come from.
        supplied: what only people can say.
        sections: further parts of the document, by name: "run", "alternatives", "checks", "impact", "lending",
            "proxies", "coverage", "individual", "stream".

    Example:
        >>> decided, sex = [1] * 30 + [0] * 170 + [1] * 120 + [0] * 80, ["F"] * 200 + ["M"] * 200
        >>> found = audit(decisions=decided, sensitive_features={"sex": sex}, limits=["selection_rate_ratio < 0.8"])
        >>> [str(statement.outcome) for statement in found.statements], found.exit_code
        (['FAIL'], 1)
    """

    asked: Asked
    table: AuditTable
    before: AuditTable | None
    statements: tuple[Statement, ...]
    groupings: tuple[Grouping, ...]
    costs: tuple[Cost, ...]
    strata: tuple[Stratified, ...]
    together: Mapping[str, Compatibility]
    warnings: tuple[str, ...]
    left_out: tuple[tuple[str, int], ...]
    provenance: Provenance
    supplied: Supplied
    sections: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """The gravest of the verdicts; NOT EVALUATED where no limit was asked for."""
        return gravest(said.outcome for said in self.statements)

    @property
    def exit_code(self) -> int:
        """0 PASS, 1 FAIL, 3 INCONCLUSIVE, 4 NOT EVALUATED."""
        return EXIT_CODES[self.outcome]

    def _repr_html_(self) -> str:
        rows = [(said.limit, str(said.outcome), said.answer) for said in self.statements]
        return table_html(f"Audit: {self.outcome}", ("limit", "outcome", "answer"), rows, note=" ".join(self.warnings))

    def to_dict(self) -> dict[str, Any]:
        """Return the document: plain containers, as `fairlayer/audit/schema.json` describes them.

        It holds counts, rates and names of groups; no row of the table, and no value of a person.
        """
        document: dict[str, Any] = {
            "format": FORMAT,
            "kind": "fairlayer audit",
            "title": self.supplied.text("title") or "Audit of decisions by group",
            "outcome": str(self.outcome),
            "exit_code": self.exit_code,
            "headline": headline(
                self.outcome,
                self.statements,
                self.groupings,
                shown=metrics_asked(self.asked.limits),
                costs=self.costs,
                table=self.table,
                before=self.before,
                strata=self.strata,
                left_out=self.left_out,
            ),
            "asked": self.asked.to_dict(self.table),
            "rows": self._rows(),
            "verdicts": [said.to_dict() for said in self.statements],
            "groupings": [one.to_dict() for one in self.groupings],
            "cost": [one.to_dict() for one in self.costs],
            "strata": [_plain_strata(one) for one in self.strata],
            "compatibility": [_plain_together(by, found) for by, found in self.together.items()],
            "warnings": list(self.warnings),
            "run": None,
            "stream": None,
            "alternatives": [],
            "checks": [],
            "impact": None,
            "lending": [],
            "proxies": [],
            "coverage": [],
            "individual": None,
            "supplied": self.supplied.to_dict(),
            "provenance": self.provenance.to_dict(),
            **self.sections,
        }
        lists = {"audit": audit_list(document), "validation": validation_list(document)}
        return {**document, "checklists": lists, "annex_iv": annex_iv(document), "record": record(document)}

    def to_json(self) -> str:
        """Return the document as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    def write_json(self, path: str | Path) -> Path:
        """Write the document; return its path."""
        path = Path(path)
        path.write_text(self.to_json(), encoding="utf-8")
        return path

    def _rows(self) -> dict[str, Any]:
        rows = self.table.sums["rows"]
        return {
            "counted": self.table.rows,
            "labelled": float(rows[:, :3].sum()),
            "decided": float(rows[:, :, :2].sum()),
            "left_out": [{"why": why, "rows": count} for why, count in self.left_out],
        }


def audit(
    *,
    scores: Any = None,
    decisions: Any = None,
    y: Any = None,
    sensitive_features: Any,
    by: Iterable[str | Sequence[str]] = (),
    limits: Iterable[str | Limit] = (),
    scores_before: Any = None,
    decisions_before: Any = None,
    threshold: float = 0.5,
    sample_weight: Any = None,
    strata: Any = None,
    values: Mapping[str, Any] | None = None,
    task: Task | None = None,
    favourable: int = 1,
    min_group_size: int = 30,
    level: float = 0.95,
    practical: float = 0.8,
    reference: Iterable[str] = (),
    words: Mapping[str, str] | None = None,
    statements: Iterable[Statement] = (),
    warnings: Iterable[str] = (),
    left_out: Iterable[tuple[str, int]] = (),
    provenance: Provenance | None = None,
    supplied: Supplied | None = None,
    sections: Mapping[str, Any] | None = None,
) -> Audit:
    """Audit any predictions: judge limits on intervals, compare groups, and say who was moved and what it cost.

    Args:
        scores: (n,) predictions; probabilities for log loss, Brier score and calibration.
        decisions: (n,) of 0 and 1; by default score >= threshold, and none for a regression.
        y: (n,) labels 0 and 1, or numbers of a regression; NaN or None where a label is not known.
        sensitive_features: a dict of name -> (n,) column, or a frame; what is missing is counted as unknown.
        by: the groupings, such as "sex" and "race+sex"; by default each feature alone, and all of them crossed.
        limits: conditions of failure, such as "demographic_parity_difference > 0.1" or "selection_rate_ratio < 0.8",
            each for all groupings, or for one: "... by race+sex"; and on a change: "accuracy_drop > 0.01",
            "log_loss_rise > 0.02", "demographic_parity_improvement < 0.05".
        scores_before: (n,) the same people's scores before a correction.
        decisions_before: (n,) their decisions before it.
        threshold: where the decision is made, in units of the score.
        sample_weight: (n,) weights, not negative.
        strata: columns within which the groups are compared too, such as a region.
        values: further numbers per row, by name, for metrics of one's own.
        task: "classification" or "regression"; read off the labels by default.
        favourable: the decision that is good for a person; 0 where a positive one is a burden.
        min_group_size: groups of fewer rows are named and shown, and take no part in headlines.
        level: the level of the intervals.
        practical: a ratio below this is called practically significant.
        reference: groups to compare with, such as "sex=M"; the best group where none is named.
        words: what a member of a group is called, such as {"sex=F": "woman"}.
        statements: limits that were judged elsewhere, such as by a certificate.
        warnings: what a reader must know, beside what is found here.
        left_out: (reason, rows) of rows that were left out before.
        provenance: where the numbers come from.
        supplied: what only people can say.
        sections: further parts of the document.

    Returns:
        The audit, with `outcome`, `exit_code`, `to_dict()` and `write_json(path)`; `fairlayer.report.write_page` makes
        the page.

    Raises:
        ParameterError, MetricError: a limit, a grouping or a reference names what does not exist.
        ShapeError, LabelValueError, NonFiniteScoresError, CategoryError: a column cannot be read.

    Example:
        >>> found = audit(
        ...     decisions=[1] * 30 + [0] * 170 + [1] * 120 + [0] * 80,
        ...     sensitive_features={"sex": ["F"] * 200 + ["M"] * 200},
        ...     limits=["demographic_parity_difference > 0.1"],
        ... )
        >>> print(found.outcome, found.exit_code)
        FAIL 1
        >>> found.to_dict()["headline"]["worse_off"]
        ['sex=F (15.0 of 100) is worse off than sex=M (60.0 of 100) in the share of people with a positive decision.']
    """
    if decisions is not None and decisions_before is None and scores_before is not None:
        decisions_before = np.asarray(scores_before, dtype=np.float64) >= threshold
    settings: dict[str, Any] = {
        "y": y,
        "sensitive_features": sensitive_features,
        "threshold": threshold,
        "sample_weight": sample_weight,
        "strata": strata,
        "task": task,
        "favourable": favourable,
        "min_group_size": min_group_size,
    }
    table = AuditTable.of(scores=scores, decisions=decisions, values=values, **settings)
    compared = scores_before is not None or decisions_before is not None
    before = AuditTable.of(scores=scores_before, decisions=decisions_before, **settings) if compared else None
    groupings = read_groupings(by, table.features)
    asked = Asked(
        groupings,
        read_limits(limits, groupings, table.features),
        level,
        practical,
        _references(reference, groupings, table),
    )

    def moved(features: tuple[str, ...]) -> Any:
        if before is None or table.estimated:
            return None
        return movement(
            before=scores_before,
            after=scores if scores_before is not None else None,
            decisions_before=decisions_before,
            decisions_after=decisions,
            sensitive_features=sensitive_features,
            by=features,
            threshold=threshold,
            bounds=(0.0, 1.0) if "probabilities" in table.holds else None,
            min_group_size=min_group_size,
            words=words,
            task=table.task,
        )

    people = people_of(
        y=y,
        scores=scores,
        scores_before=scores_before,
        decisions=decisions,
        decisions_before=decisions_before,
        sample_weight=sample_weight,
        threshold=threshold,
    )
    found = tuple(
        grouping_of(
            table,
            features,
            asked=features in groupings,
            before=before,
            movement=moved(features) if features in groupings else None,
            reference=asked.reference.get(features),
            level=level,
            practical=practical,
        )
        for features in _shown(groupings, asked, table)
    )
    return Audit(
        asked,
        table,
        before,
        (*statements, *(judged(one, people, before, table, level) for one in asked.limits)),
        found,
        cost_of(table, before),
        _stratified(table, found),
        _together(table, groupings),
        (*warnings, *score_warnings(table)),
        tuple(left_out),
        provenance or Provenance(),
        supplied or Supplied(),
        sections or {},
    )


def _shown(groupings: Sequence[tuple[str, ...]], asked: Asked, table: AuditTable) -> tuple[tuple[str, ...], ...]:
    """Return the groupings asked for, then those of the limits, then every intersection of a few features."""
    limits = [one.by for one in asked.limits]
    crossed = table.groupings() if len(table.features) <= _MOST_CROSSED else ()
    known = {frozenset(one) for one in (*groupings, *limits)}
    more = [one for one in crossed if frozenset(one) not in known]
    return tuple(dict.fromkeys((*groupings, *limits, *more)))


def _references(
    reference: Iterable[str], groupings: Sequence[tuple[str, ...]], table: AuditTable
) -> dict[tuple[str, ...], str]:
    found: dict[tuple[str, ...], str] = {}
    for name in names_of(reference) if isinstance(reference, str) else reference:
        by = next((one for one in groupings if name in table.by(*one).names), None)
        if by is None:
            names = ", ".join(each for one in groupings for each in table.by(*one).names)
            raise ParameterError(f"there is no group '{name}' to compare with. The groups are: {names}.")
        found[by] = name
    return found


def _stratified(table: AuditTable, groupings: Sequence[Grouping]) -> tuple[Stratified, ...]:
    """Compare every group with the reference, pooled and within the strata."""
    if not table.strata:
        return ()
    pairs = [
        (one.by, group.name, one.comparison.reference)
        for one in groupings
        if one.asked and one.comparison is not None
        for group in one.comparison.groups
        if not group.small
    ]
    return tuple(
        stratify(table, "selection_rate", by, group=name, reference=reference) for by, name, reference in pairs
    )


def _together(table: AuditTable, groupings: Sequence[tuple[str, ...]]) -> dict[str, Compatibility]:
    if "classes" not in table.holds or not {"probabilities", "decisions"} & table.holds:
        return {}
    found = {}
    for by in groupings:
        if len(table.by(*by).names) > _MOST_TOGETHER:
            continue
        try:
            found[" x ".join(by)] = compatibility(table, by, _COMPARED_TOGETHER, tolerance=0.05)
        except MetricError:  # fewer than two groups with both labels: nothing can clash
            continue
    return found


def _plain_together(by: str, found: Compatibility) -> dict[str, Any]:
    return {
        "by": by,
        "tolerance": found.tolerance,
        "accuracy": plain(found.accuracy),
        "best": plain(found.best),
        "separation": plain(found.separation),
        "calibration_tolerance": plain(found.calibration_tolerance),
        "groups": [_plain_values(vars(group)) for group in found.groups],
        "sets": [
            {
                "criteria": list(one.criteria),
                "smallest_tolerance": plain(one.smallest_tolerance),
                "best_accuracy": plain(one.best_accuracy),
                "cost": plain(one.cost),
            }
            for one in found.sets
        ],
        "sentences": list(found.sentences()),
    }


def _plain_strata(found: Stratified) -> dict[str, Any]:
    numbers = ("pooled", "stratified", "odds_ratio", "p_cmh", "p_breslow_day")
    return {
        "metric": found.metric,
        "group": found.group,
        "reference": found.reference,
        **{name: plain(getattr(found, name)) for name in numbers},
        "reversal": found.reversal,
        "headline": found.headline,
        "strata": [_plain_values(vars(one)) for one in found.strata],
    }


def _plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(value) if isinstance(value, float) else value for name, value in values.items()}
