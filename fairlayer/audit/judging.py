"""Every limit that was asked for -> a statement: whichever kind it is of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.audit.changes import ChangeLimit, People, judge_change
from fairlayer.audit.criteria import metrics_of
from fairlayer.audit.outcome import judge
from fairlayer.audit.plainly import answer, question
from fairlayer.audit.plan import AskedLimit
from fairlayer.audit.reading import numbers
from fairlayer.audit.statement import Statement
from fairlayer.audit.table import AuditTable

__all__ = ["judged", "metrics_asked", "people_of"]


def judged(asked: AskedLimit, people: People, before: AuditTable | None, table: AuditTable, level: float) -> Statement:
    """Judge one limit on its interval."""
    limit, by = asked.limit, asked.by
    if isinstance(limit, ChangeLimit):
        return judge_change(limit, people, by=by, before=before, now=table, level=level)
    found = judge(table, limit, by, level=level)
    return Statement(
        str(limit),
        found.outcome,
        question(limit, by),
        answer(found),
        found.reason,
        by,
        found.interval,
        found.rows_needed,
        found.beyond,
    )


def metrics_asked(limits: Sequence[AskedLimit]) -> dict[tuple[str, ...], list[str]]:
    """Return grouping -> the first metric of each of its limits: what a reader wants to see the groups in."""
    found: dict[tuple[str, ...], list[str]] = {}
    for one in limits:
        if not isinstance(one.limit, ChangeLimit) or one.limit.improvement:
            found.setdefault(one.by, []).append(metrics_of(one.limit.name)[0])
    return found


def people_of(
    *,
    y: Any,
    scores: Any,
    scores_before: Any,
    decisions: Any,
    decisions_before: Any,
    sample_weight: Any,
    threshold: float,
) -> People:
    """Return the rows of a before and a now, for limits that compare each person with themselves."""
    return People(
        _array(y),
        _array(scores_before),
        _array(scores),
        _decided(decisions_before, scores_before, threshold),
        _decided(decisions, scores, threshold),
        _array(sample_weight),
    )


def _array(values: Any) -> FloatArray | None:
    return None if values is None else numbers("predictions", values, len(values))


def _decided(decisions: Any, scores: Any, threshold: float) -> FloatArray | None:
    if decisions is not None:
        return _array(decisions)
    read = _array(scores)
    return None if read is None else (read >= threshold).astype(np.float64)
