"""Any predictions -> an audit: one function, one value, from which the page, the JSON and the console are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fairlayer._keywords import explained
from fairlayer.audit.compatible import Compatibility, compatibility
from fairlayer.audit.cost import cost_of
from fairlayer.audit.document import Audit
from fairlayer.audit.errors import MetricError
from fairlayer.audit.grouping import Grouping, grouping_of
from fairlayer.audit.judging import judged, people_of
from fairlayer.audit.leakage import score_warnings
from fairlayer.audit.outcome import Limit
from fairlayer.audit.people import movement
from fairlayer.audit.plan import AuditPlan, read_groupings, read_limits
from fairlayer.audit.provenance import Provenance
from fairlayer.audit.reading import Task
from fairlayer.audit.statement import Statement
from fairlayer.audit.strata import Stratified, stratify
from fairlayer.audit.supplied import Supplied
from fairlayer.audit.table import AuditTable, names_of
from fairlayer.errors import ParameterError

__all__ = ["audit"]

_COMPARED_TOGETHER = ("demographic_parity", "equalized_odds", "predictive_parity")
_MOST_TOGETHER = 6  # groups of which it is computed which criteria can hold together; more take long, and say less
_MOST_CROSSED = 3  # features of which all intersections are shown although nobody asked for them


@explained
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
    asked = AuditPlan(
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


def _shown(groupings: Sequence[tuple[str, ...]], asked: AuditPlan, table: AuditTable) -> tuple[tuple[str, ...], ...]:
    """Return the groupings asked for, then those of the limits, then every intersection of a few features."""
    limits = [one.by for one in asked.limits]
    crossed = table.groupings() if len(table.features) <= _MOST_CROSSED else ()
    known = {frozenset(one) for one in (*groupings, *limits)}
    more = [one for one in crossed if frozenset(one) not in known and not _repeats(one)]
    return tuple(dict.fromkeys((*groupings, *limits, *more)))


def _repeats(crossed: Sequence[str]) -> bool:
    """Return whether a feature is an intersection that has another one in it: sex x race+sex is race+sex again."""
    parts = [frozenset(part.strip() for part in name.split("+")) for name in crossed]
    return any(one < other for one in parts for other in parts)


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
