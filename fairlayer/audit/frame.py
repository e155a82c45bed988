"""A table of predictions, as a file has it -> an audit: columns by name, messy values counted and said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fairlayer._typing import BoolArray, FloatArray
from fairlayer.audit.coverage_part import coverage_section
from fairlayer.audit.document import Audit
from fairlayer.audit.errors import MetricError
from fairlayer.audit.examination import audit
from fairlayer.audit.impact import impact_audit
from fairlayer.audit.leakage import copy_warnings, identifies
from fairlayer.audit.lending import lending_table
from fairlayer.audit.likeness import alike, individual_section
from fairlayer.audit.proxy import proxies
from fairlayer.audit.reading import Task
from fairlayer.data.columns import Cut, as_numbers, as_text, column_of, sensitive_columns
from fairlayer.data.errors import ColumnError, listed
from fairlayer.errors import ParameterError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Columns", "Wanted", "audit_frame"]

USUAL = (("1", "0"), ("True", "False"))  # what counts as 1 when nobody says which, and what may stand beside it
USUAL_THRESHOLD = 0.5  # of probabilities; other scores have no usual one
UNKNOWN_WORDS = ("unknown", "not known", "not stated", "not disclosed", "prefer not to say", "n/a", "?")


@dataclass(frozen=True)
class Columns:
    """Which column of a table is what.

    Args:
        by: the groupings, such as "sex" and "race+sex".
        score: the prediction.
        decision: the decision that was taken; by default the score at or above the threshold.
        decision_positive: the value of the decision column that is a positive one; by default "1" beside "0", or
            "True" beside "False".
        target: the outcome.
        positive: the value of the target that counts as 1, with the same default.
        score_before: the prediction before a correction.
        decision_before: the decision before it.
        weight: how many people a row stands for.
        strata: columns within which the groups are compared too.
        cuts: groups cut from a number, such as an age.
        unknown: values of sensitive columns that mean that the group is not known.

    Example:
        >>> columns = Columns(["sex", "race+sex"], score="p", target="repaid", positive="yes")
        >>> columns.features()
        ('sex', 'race')
    """

    by: Sequence[str]
    score: str | None = None
    decision: str | None = None
    decision_positive: str | None = None
    target: str | None = None
    positive: str | None = None
    score_before: str | None = None
    decision_before: str | None = None
    weight: str | None = None
    strata: Sequence[str] = ()
    cuts: Sequence[Cut] = ()
    unknown: Sequence[str] = ()

    def features(self) -> tuple[str, ...]:
        """Return the names of all sensitive features, each once."""
        return tuple(dict.fromkeys(name.strip() for one in self.by for name in one.split("+")))

    def others(self, frame: pd.DataFrame) -> list[str]:
        """Return the columns that have no role here."""
        roles = {
            self.score,
            self.decision,
            self.target,
            self.score_before,
            self.decision_before,
            self.weight,
            *self.features(),
            *(cut.source for cut in self.cuts),
        }
        return [name for name in frame.columns if name not in roles]


@dataclass(frozen=True)
class Wanted:
    """Which further parts of the document are wanted.

    Args:
        impact: "selection" or "scoring" for the tables by sex and race, None for none.
        sex: the column of the sex, for these tables.
        race: the column of race or ethnicity.
        left_out_reason: the auditor's reason for leaving small categories out of the ratios.
        lending: whether the lending tables are wanted.
        proxies: whether to measure what the other columns tell about the groups.
        alike: the columns by which people are alike, of which it is measured whether they are treated alike.
        interval: the columns of the low and the high end of an interval for the outcome.
        label_set: one column per label, 0 first, that says whether the set of a person holds it.
        nominal: the share of intervals or sets that were to hold the truth.

    Example:
        >>> wanted = Wanted(impact="selection", sex="gender", race="ethnicity")
        >>> wanted.impact, wanted.lending, wanted.nominal
        ('selection', False, 0.9)
    """

    impact: str | None = None
    sex: str | None = None
    race: str | None = None
    left_out_reason: str | None = None
    lending: bool = False
    proxies: bool = False
    alike: Sequence[str] = ()
    interval: Sequence[str] = ()
    label_set: Sequence[str] = ()
    nominal: float = 0.9


@dataclass(frozen=True)
class _Read:
    """The columns as numbers and categories, of the rows that are counted."""

    numbers: dict[str, FloatArray]
    labels: FloatArray | None
    sensitive: dict[str, Any]
    strata: dict[str, Any]
    kept: BoolArray
    left_out: tuple[tuple[str, int], ...]


def audit_frame(
    frame: pd.DataFrame,
    columns: Columns,
    *,
    wanted: Wanted | None = None,
    task: Task | None = None,
    threshold: float | None = None,
    warnings: Sequence[str] = (),
    reference: Sequence[str] = (),
    **options: Any,
) -> Audit:
    """Audit a table of predictions.

    A row without a score, or without a decision, is left out and counted; one without an outcome, or without a group,
    is kept as unknown.

    Args:
        frame: the table.
        columns: which column is what.
        wanted: which further parts of the document are wanted.
        task: "classification" or "regression"; read off the target by default.
        threshold: the score from which on a decision is positive; 0.5 by default where scores lie in [0, 1].
        warnings: what a reader must know, beside what is found here.
        reference: groups to compare with, such as "sex=Male".
        **options: everything else that `audit` takes: limits, favourable, min_group_size, level, ...

    Raises:
        DataError: a column is missing, or cannot be read.
        ParameterError: neither a score nor a decision was named, a setting cannot be read, or scores that are no
            probabilities come without a threshold.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"sex": ["F", "M"] * 50, "p": [0.2, 0.7] * 50, "repaid": ["yes", "no"] * 50})
        >>> found = audit_frame(table, Columns(["sex"], score="p", target="repaid", positive="yes"))
        >>> found.table.values("selection_rate", "sex")
        {'sex=F': 0.0, 'sex=M': 1.0}
    """
    wanted = wanted or Wanted()
    if columns.score is None and columns.decision is None:
        raise ParameterError(
            "an audit needs predictions: name the column of the score (--score), or of the decision (--decision)."
        )
    read = _read(frame, columns, task)
    rows = read.kept
    number = {name: column[rows] for name, column in read.numbers.items()}
    sensitive = {name: column[rows] for name, column in read.sensitive.items()}
    found = audit(
        scores=number.get("score"),
        decisions=number.get("decision"),
        y=None if read.labels is None else read.labels[rows],
        sensitive_features=sensitive,
        by=list(columns.by),
        scores_before=number.get("score_before"),
        decisions_before=number.get("decision_before"),
        sample_weight=number.get("weight"),
        strata={name: column[rows] for name, column in read.strata.items()} or None,
        task=task,
        threshold=_threshold(threshold, columns, number, task),
        reference=reference,
        warnings=[*warnings, *copy_warnings(frame, columns.others(frame))],
        left_out=read.left_out,
        **options,
    )
    parts = {
        **({"impact": _impact(wanted, number, sensitive, found)} if wanted.impact else {}),
        **({"lending": _lending(found)} if wanted.lending else {}),
        **({"proxies": _proxies(frame[rows], columns, sensitive)} if wanted.proxies else {}),
        **({"coverage": _coverage(frame[rows], wanted, found, sensitive, read, rows)} if _covers(wanted) else {}),
        **({"individual": _individual(frame[rows], wanted, found, number)} if wanted.alike else {}),
    }
    return replace(found, sections={**found.sections, **parts})


def _read(frame: pd.DataFrame, columns: Columns, task: Task | None) -> _Read:
    numbers = {}
    for role in ("score", "score_before", "weight"):
        name = getattr(columns, role)
        if name is not None:
            numbers[role] = as_numbers(column_of(frame, name, role.replace("_", " ")))
    for role in ("decision", "decision_before"):
        name = getattr(columns, role)
        if name is not None:
            numbers[role] = _matches(column_of(frame, name, role), columns.decision_positive, "--decision-positive")
    kept = np.ones(len(frame), dtype=bool)
    left_out = []
    for role, column in numbers.items():
        missing = np.isnan(column) & kept
        left_out.append((f"the {role.replace('_', ' ')} is missing", int(missing.sum())))
        kept &= ~missing
    if not kept.any():
        raise ColumnError(
            f"no row of the table has a value in {listed([str(getattr(columns, role)) for role in numbers])}, so that "
            "nothing can be audited. Name other columns."
        )
    sensitive = {
        name: _without_unknown(column, columns.unknown)
        for name, column in sensitive_columns(frame, columns.features(), cuts=columns.cuts).items()
    }
    strata = sensitive_columns(frame, columns.strata, cuts=columns.cuts)
    return _Read(numbers, _labels(frame, columns, task), sensitive, strata, kept, tuple(x for x in left_out if x[1]))


def _threshold(given: float | None, columns: Columns, number: dict[str, FloatArray], task: Task | None) -> float:
    """Return where the decision is made; scores that are not probabilities have no usual place."""
    if given is not None:
        return given
    if columns.decision is None and task != "regression":
        lowest, highest = float(number["score"].min()), float(number["score"].max())
        if lowest < 0 or highest > 1:
            raise ParameterError(
                f"the scores in '{columns.score}' lie between {lowest:g} and {highest:g}, so they are not "
                "probabilities, and nobody said from which score on a decision is positive. Give it in units of the "
                "score (--threshold NUMBER), name the column of the decision (--decision COLUMN), or say "
                "--task regression."
            )
    return USUAL_THRESHOLD


def _labels(frame: pd.DataFrame, columns: Columns, task: Task | None) -> FloatArray | None:
    if columns.target is None:
        return None
    column = column_of(frame, columns.target, "target")
    return as_numbers(column) if task == "regression" else _matches(column, columns.positive, "--positive")


def _matches(column: pd.Series, positive: str | None, option: str) -> FloatArray:
    """Return 1 where a column has the positive value, 0 where it has another, NaN where it has none."""
    names = as_text(column)
    known = np.array([name is not None for name in names], dtype=bool)
    found = sorted({str(name) for name in names[known]})
    usual = next((one for one, zero in USUAL if set(found) <= {one, zero}), None)
    wanted = usual if positive is None else positive
    if wanted is None:
        raise ColumnError(
            f"'{column.name}' holds {listed(found, 6)}. Say which value counts as 1 ({option} VALUE)"
            + (", or use --task regression." if option == "--positive" else ".")
        )
    if wanted not in found and wanted != usual:
        raise ColumnError(
            f"'{column.name}' was to be 1 where it equals '{wanted}', but its values are: {listed(found)}. Name one of "
            f"them ({option})."
        )
    return np.where(known, (names == wanted).astype(np.float64), np.nan)


def _without_unknown(column: Any, unknown: Sequence[str]) -> Any:
    words = {word.casefold() for word in (*UNKNOWN_WORDS, *unknown)}
    if column.dtype.kind != "O":
        return column
    return np.array([None if v is None or str(v).strip().casefold() in words else v for v in column], dtype=object)


def _lending(found: Audit) -> list[dict[str, Any]]:
    asked = found.asked
    return [
        lending_table(found.table, by, asked.reference.get(by), level=asked.level, practical=asked.practical)
        for by in asked.groupings
    ]


def _impact(wanted: Wanted, number: dict[str, FloatArray], sensitive: dict[str, Any], found: Audit) -> dict[str, Any]:
    for role, name in (("--sex", wanted.sex), ("--race", wanted.race)):
        if name is None or name not in sensitive:
            raise ParameterError(
                f"the tables by sex and race need {role} with one of the sensitive columns: {', '.join(sensitive)}."
            )
    given: dict[str, Any]
    if wanted.impact == "scoring":
        if "score" not in number:
            raise ParameterError("scoring tables need the column of the score (--score).")
        given = {"scores": number["score"]}
    else:
        threshold = found.table.threshold
        given = {"selected": number["decision"] if "decision" in number else number["score"] >= (threshold or 0.0)}
    sex, race = sensitive[str(wanted.sex)], sensitive[str(wanted.race)]
    return impact_audit(sex=sex, race=race, left_out_reason=wanted.left_out_reason, **given).to_dict()


def _proxies(frame: pd.DataFrame, columns: Columns, sensitive: dict[str, Any]) -> list[dict[str, Any]]:
    others = {name: frame[name] for name in columns.others(frame) if not identifies(frame[name].to_numpy())}
    return [_plain_proxies(others, name, column) for name, column in sensitive.items()]


def _covers(wanted: Wanted) -> bool:
    return bool(wanted.interval or wanted.label_set)


def _coverage(  # noqa: PLR0917 - a table, and what was read of it
    frame: pd.DataFrame, wanted: Wanted, found: Audit, sensitive: dict[str, Any], read: _Read, rows: BoolArray
) -> list[dict[str, Any]]:
    if read.labels is None:
        raise ParameterError("intervals and sets are held against outcomes: name their column (--target).")
    if wanted.interval and len(wanted.interval) != 2:
        raise ParameterError(
            f"an interval has a column of low and one of high ends (--interval LOW,HIGH), not {list(wanted.interval)}."
        )
    names = [*wanted.interval, *wanted.label_set]
    columns = np.stack([as_numbers(column_of(frame, name, "interval or set")) for name in names], axis=1)
    labels = read.labels[rows]
    whole = ~np.isnan(labels) & ~np.isnan(columns).any(axis=1)
    given = columns[whole]
    return coverage_section(
        labels[whole],
        nominal=wanted.nominal,
        sensitive_features={name: column[whole] for name, column in sensitive.items()},
        groupings=found.asked.groupings,
        intervals=(given[:, 0], given[:, 1]) if wanted.interval else None,
        sets=None if wanted.interval else given != 0,
        min_group_size=found.table.min_group_size,
    )


def _individual(frame: pd.DataFrame, wanted: Wanted, found: Audit, number: dict[str, FloatArray]) -> dict[str, Any]:
    decisions, threshold = number.get("decision"), found.table.threshold
    if decisions is None and threshold is not None:
        decisions = (number["score"] >= threshold).astype(np.float64)
    return individual_section(alike(frame, wanted.alike, scores=number.get("score"), decisions=decisions))


def _plain_proxies(others: dict[str, Any], name: str, column: Any) -> dict[str, Any]:
    try:
        found = proxies(others, {name: column})
    except (MetricError, ParameterError) as error:  # too few rows of a group, or no other column: said, not left out
        return {"group": name, "auc": None, "rows": 0, "sentence": f"Not measured: {error}", "columns": []}
    return {
        "group": found.group,
        "auc": found.auc,
        "rows": found.rows,
        "sentence": found.sentence(),
        "columns": [dict(vars(one)) for one in found.columns],
    }
