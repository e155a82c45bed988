"""A verdict as a question and its answer, for a reader without statistics."""

from __future__ import annotations

from fairlayer.audit.criteria import metrics_of
from fairlayer.audit.metrics import metric
from fairlayer.audit.outcome import Limit, Outcome, Verdict

__all__ = ["MEANINGS", "amount", "answer", "between", "outcome_sentence", "question"]

_OF_COLUMNS = ("score", "label", "label squared", "nats")

MEANINGS = {
    Outcome.PASS: "The limit that was asked for holds.",
    Outcome.FAIL: "The limit is broken, by more than chance can explain.",
    Outcome.INCONCLUSIVE: "It cannot be told: with these people, chance could put the number on either side.",
    Outcome.NOT_EVALUATED: "Nothing could be judged.",
}
_SEVERAL = {
    Outcome.PASS: "Every limit that was asked for holds.",
    Outcome.FAIL: "At least one limit is broken, by more than chance can explain.",
    Outcome.INCONCLUSIVE: "For at least one limit it cannot be told: with these people, chance could put the number on "
    "either side.",
    Outcome.NOT_EVALUATED: "At least one limit could not be judged, and none is known to be broken.",
}


def outcome_sentence(outcome: Outcome, verdicts: int) -> str:
    """Return what an outcome of so many verdicts means.

    Example:
        >>> outcome_sentence(Outcome.NOT_EVALUATED, 0)
        'No limit was asked for, so nothing was judged.'
    """
    if not verdicts:
        return "No limit was asked for, so nothing was judged."
    return (MEANINGS if verdicts == 1 else _SEVERAL)[outcome]


def question(limit: Limit, by: tuple[str, ...]) -> str:
    """Return what was asked.

    Example:
        >>> print(question(Limit("demographic_parity", 0.1), ("sex",)))
        Between the groups of sex, does the share of people with a positive decision differ by at most 10 points?
    """
    names = metrics_of(limit.name)
    words = " or the ".join(metric(name).words for name in names)
    if limit.kind == "ratio":
        return f"Between {between(by)}, is the smallest {words} at least {limit.bound:g} times the largest one?"
    return f"Between {between(by)}, does the {words} differ by at most {amount(limit.bound, names[0])}?"


def between(by: tuple[str, ...]) -> str:
    """Return what a grouping is called in a sentence."""
    return f"the groups of {by[0]}" if len(by) == 1 else f"the groups that {' and '.join(by)} make together"


def answer(verdict: Verdict) -> str:
    """Return whether it holds, with the number and what chance may do to it.

    Example:
        >>> from fairlayer.audit import Interval, Limit
        >>> found = Verdict(Limit("auc", 0.1), ("sex",), Outcome.FAIL, Interval(0.2, 0.2, 0.15, 0.25), "")
        >>> answer(found)
        'No. The largest difference is 20.0 points; allowing for chance, it lies between 15.0 and 25.0 points.'
    """
    if verdict.outcome is Outcome.NOT_EVALUATED:
        return f"Not evaluated. {verdict.reason}"
    limit, interval = verdict.limit, verdict.interval
    name = metrics_of(limit.name)[0]
    what = "largest difference" if limit.kind == "difference" else "smallest ratio"
    measured, low, high = (
        (f"{number:.2f}" for number in (interval.measured, interval.low, interval.high))
        if limit.kind == "ratio"
        else (amount(number, name, 1) for number in (interval.measured, interval.low, interval.high))
    )
    low = low.removesuffix(_unit(name))
    said = {Outcome.PASS: "Yes.", Outcome.FAIL: "No.", Outcome.INCONCLUSIVE: "It cannot be told."}[verdict.outcome]
    text = f"{said} The {what} is {measured}; allowing for chance, it lies between {low} and {high}."
    if verdict.beyond:
        text += f" {' and '.join(verdict.beyond)} has few people, and is certainly beyond the limit."
    if verdict.rows_needed:
        text += f" If nothing set the groups apart, about {verdict.rows_needed:,} people in each would be enough."
    return text


def amount(number: float, name: str, digits: int | None = None) -> str:
    """Return a difference of a metric: in points of a hundred for shares, in its own unit for everything else.

    Example:
        >>> amount(0.105, "selection_rate", 1), amount(0.1, "selection_rate"), amount(0.25, "log_loss")
        ('10.5 points', '10 points', '0.25')
    """
    if metric(name).unit == "share":
        told = f"{100 * number:g}" if digits is None else f"{100 * number:.{digits}f}"
    else:
        told = f"{number:g}" if digits is None else f"{number:.{digits + 2}f}"
    return told + _unit(name)


def _unit(name: str) -> str:
    """Return the unit of a difference with a space before it; nothing for what is in units of the caller's columns."""
    unit = metric(name).unit
    return " points" if unit == "share" else "" if unit in _OF_COLUMNS else f" {unit}"
