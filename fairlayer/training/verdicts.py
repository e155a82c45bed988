"""What a training promised -> statements with an outcome, by its certificates and its clock; what it did not limit."""

from __future__ import annotations

import re

import numpy as np

from fairlayer.audit import (
    Audit,
    Interval,
    Outcome,
)
from fairlayer.audit.plainly import between
from fairlayer.audit.statement import Statement
from fairlayer.constraints import (
    Constraint,
    DemographicParity,
    DisparateImpactRatio,
    EqualizedOdds,
    EqualOpportunity,
    PredictiveEquality,
)
from fairlayer.training.comparison import Comparison, ConstraintResult

__all__ = ["SECONDS", "as_limit", "certified_statement", "in_time", "not_limited", "unbounded"]

SECONDS = re.compile(r"\s*seconds\s*>=?\s*(?P<bound>\d+(\.\d+)?)\s*")


KEPT = 1e-6  # how far a certificate may be from a limit in float32


# constraint -> the criterion that says the same of decisions, and of mean scores where one does
_ON_DECISIONS: dict[type[Constraint], str] = {
    DemographicParity: "demographic_parity_difference",
    EqualOpportunity: "equal_opportunity_difference",
    EqualizedOdds: "equalized_odds_difference",
    PredictiveEquality: "predictive_equality_difference",
}


def as_limit(constraint: Constraint, *, decided: bool) -> str | None:
    """Return the constraint as a limit on decisions or on mean scores; None where no criterion says the same."""
    if constraint.limit is None or not constraint.on:
        return None
    by = "+".join(constraint.on)
    if type(constraint) is DisparateImpactRatio and decided:
        return f"demographic_parity_ratio < {constraint.limit:g} by {by}"
    name = _ON_DECISIONS.get(type(constraint)) if decided else None
    if type(constraint) is DemographicParity and not decided:
        name = "mean_score_parity_difference"
    return None if name is None else f"{name} > {constraint.limit:g} by {by}"


def unbounded(name: str) -> Statement:
    """Return that a constraint was asked for, and that the route kept does not bound it."""
    reason = "The route that was kept does not bound it, and nothing here judges it on an interval."
    return Statement(name, Outcome.NOT_EVALUATED, f"Is what {name} bounds kept?", f"Not evaluated. {reason}", reason)


def not_limited(found: Audit) -> tuple[str, ...]:
    """Return that decisions were not limited, with how far they are apart, where nobody asked for a limit on them."""
    if found.asked.limits or not found.statements or "decisions" not in found.table.holds:
        return ()
    gaps = {
        between(one.by): one.disparities["demographic_parity"].difference.measured
        for one in found.groupings
        if one.asked
    }
    told = ", ".join(f"by {100 * gap:.1f} points between {groups}" for groups, gap in gaps.items() if not np.isnan(gap))
    if not told:
        return ()
    return (f"The limits speak of mean scores. Decisions were not limited: positive ones differ {told}.",)


def certified_statement(constraint: Constraint, result: ConstraintResult, comparison: Comparison) -> Statement:
    """Return what the certificates say of a constraint: it speaks of each batch, and needs no interval."""
    gap = result.scores.constrained
    limit = f"at {'least' if gap.at_least else 'most'} {gap.limit:g}"
    asked = f"In every batch, {_asked(constraint, result.name)} {limit}?"
    value = result.worst_batch
    worst = "Nothing was compared." if value is None else f"In the worst batch it is {value:.4f}."
    named = f"{result.name} {limit} in every batch"
    interval = Interval(np.nan if value is None else value, np.nan, np.nan, np.nan)
    if result.bounded_by != "groups":
        reason = "It was bounded on label estimates, since labels are not known when scores are made."
        answer = f"Not evaluated. {reason} With the true labels: {worst}"
        return Statement(named, Outcome.NOT_EVALUATED, asked, answer, reason, constraint.on, interval)
    kept = comparison.violation <= KEPT and comparison.widening <= 0
    batches = f"all {comparison.batches} batches" if comparison.batches > 1 else "the one batch"
    answer = f"Yes, in {batches}. {worst}" if kept else f"No. {worst}"
    violation = max(comparison.violation, 0.0)
    shown = f"a violation of at most {violation:.1e}" if violation else "no violation"
    reason = (
        f"The certificate of each batch, computed without the solver, shows {shown}. Decisions are not bounded by it."
    )
    if comparison.widening > 0:
        reason = f"No predictions could meet every limit, so that all were widened by up to {comparison.widening:.4f}."
    outcome = Outcome.PASS if kept else Outcome.FAIL
    return Statement(named, outcome, asked, answer, reason, constraint.on, interval)


def _asked(constraint: Constraint, name: str) -> str:
    """Return the question about a constraint, in words where there are some."""
    if type(constraint) is DemographicParity:
        return f"do the mean scores of {between(constraint.on)} differ by"
    if type(constraint) is EqualOpportunity:
        return f"do the mean scores of the people with outcome 1, of {between(constraint.on)}, differ by"
    return f"is what {name} bounds, for the scores,"


def in_time(text: str, seconds: float | None) -> Statement:
    """Return whether a training kept its limit of time."""
    found = SECONDS.fullmatch(text)
    assert found is not None
    bound = float(found["bound"])
    asked = f"Did the training take at most {bound:g} seconds?"
    limit = f"seconds <= {bound:g}"
    if seconds is None:
        reason = "The time of the training was not recorded."
        return Statement(limit, Outcome.NOT_EVALUATED, asked, f"Not evaluated. {reason}", reason)
    kept = seconds <= bound
    answer = f"{'Yes' if kept else 'No'}. It took {seconds:.1f} seconds."
    return Statement(limit, Outcome.PASS if kept else Outcome.FAIL, asked, answer, "Measured by the clock.")
