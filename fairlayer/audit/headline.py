"""The first screen: what was asked, whether it held, on whom, who is worse off, what grew, who was moved, the cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlayer.audit.cost import Cost
from fairlayer.audit.criteria import CRITERIA, metrics_of
from fairlayer.audit.disparities import Disparity
from fairlayer.audit.grouping import Grouping
from fairlayer.audit.metrics import metric
from fairlayer.audit.outcome import Outcome
from fairlayer.audit.plainly import outcome_sentence
from fairlayer.audit.statement import Statement
from fairlayer.audit.strata import Stratified
from fairlayer.audit.table import AuditTable

__all__ = ["headline"]

_USUAL = ("selection_rate", "mean_score")

# The distances of which a reader must know if they grew, each of a single metric.
_WATCHED = (*(name for name in CRITERIA if len(metrics_of(name)) == 1), "accuracy")


def headline(
    outcome: Outcome,
    statements: Sequence[Statement],
    groupings: Sequence[Grouping],
    *,
    shown: Mapping[tuple[str, ...], Sequence[str]],
    costs: Sequence[Cost],
    table: AuditTable,
    before: AuditTable | None,
    strata: Sequence[Stratified],
    left_out: Sequence[tuple[str, int]],
) -> dict[str, Any]:
    """Return the sentences of the first screen."""
    asked = [one for one in groupings if one.asked]
    return {
        "outcome": outcome_sentence(outcome, len(statements)),
        "asked": [
            {"question": said.question, "answer": said.answer, "outcome": str(said.outcome)} for said in statements
        ],
        "reversals": _reversals(asked, strata),
        "on_whom": _on_whom(table, left_out),
        "worse_off": [sentence for one in asked for sentence in _worse_off(one, shown.get(one.by, ()))],
        "grew": [] if before is None else [sentence for one in asked for sentence in _grew(one, shown.get(one.by, ()))],
        "moved": _moved(asked, before),
        "cost": _cost(costs, before),
    }


def _reversals(groupings: Sequence[Grouping], strata: Sequence[Stratified]) -> list[str]:
    found = [side.headline for one in groupings for side in one.sides if side.reversed and side.certain]
    return found + [one.headline for one in strata if one.reversal]


def _on_whom(table: AuditTable, left_out: Sequence[tuple[str, int]]) -> list[str]:
    labelled = float(table.sums["rows"][:, :3].sum())
    said = [f"{table.rows:,.0f} {'person was' if table.rows == 1 else 'people were'} counted."]
    if labelled == 0:
        said.append("Their outcomes were not given, so that nothing can be said about errors.")
    elif labelled < table.rows:
        said.append(f"The outcome is known for {labelled:,.0f} of them; errors are measured on those.")
    said += [
        f"{count:,} {'row was' if count == 1 else 'rows were'} left out: {why}." for why, count in left_out if count
    ]
    if "decisions" in table.holds:
        how = "as they were given" if table.threshold is None else f"positive from a score of {table.threshold:g} on"
        said.append(f"Decisions are {how}.")
    elif "scores" in table.holds:
        better = "higher" if table.favourable == 1 else "lower"
        said.append(f"There are no decisions; a {better} score is taken to be the better one for a person.")
    return said


def _worse_off(one: Grouping, names: Sequence[str]) -> list[str]:
    """Return who is worse off in what was asked about, or, where nothing of that was measured, in the usual number."""
    asked = _keys(one, names)
    return [sentence for key in asked or _keys(one, _USUAL)[:1] for sentence in _sides_of(one, key)]


def _keys(one: Grouping, names: Sequence[str]) -> list[str]:
    keys = (name if name in one.disparities else _criterion(one, name) for name in dict.fromkeys(names))
    return [key for key in keys if key is not None]


def _criterion(one: Grouping, name: str) -> str | None:
    """Return the criterion of a grouping that speaks of a metric alone."""
    return next((key for key in one.disparities if metrics_of(key) == (name,)), None)


def _sides_of(one: Grouping, key: str) -> list[str]:
    now = _ends(one.disparities[key], key)
    old = _ends(one.before[key], key) if key in one.before else None
    if now is None:
        return []
    if old is None:
        return [now]
    return [f"Before: {old}", f"After: {now}"]


def _ends(found: Any, key: str) -> str | None:
    part = found.worst
    if not part.worse_off:
        return None
    value = {group.name: group.value for group in part.groups}
    worse, better = (f"{name} ({_shown(value[name], part.metric)})" for name in (part.worse_off, part.better_off))
    return f"{worse} is worse off than {better} in the {metric(part.metric).words}."


def _shown(number: float, name: str) -> str:
    return f"{100 * number:.1f} of 100" if metric(name).unit == "share" else f"{number:.3f}"


def _grew(one: Grouping, names: Sequence[str]) -> list[str]:
    """Return which distances that nobody asked about a correction made larger, by more than chance explains."""
    told = {metric_name for name in names for metric_name in metrics_of(name)}
    said = []
    for name in _WATCHED:
        now, old = one.disparities.get(name), one.before.get(name)
        if now is None or old is None or now.worst.metric in told or not now.worst.worse_off:
            continue
        if _counted(now) != _counted(old):  # such as a group that had no positive decision, of which a share is known
            continue
        if now.difference.known and now.difference.low > old.difference.measured:
            said.append(_grown(now, old))
    return said


def _counted(found: Disparity) -> set[str]:
    """Return the groups between which a distance was measured."""
    return {group.name for group in found.worst.groups if group.standing == "counted"}


def _grown(now: Disparity, old: Disparity) -> str:
    part = now.worst
    known = metric(part.metric)
    value, earlier = ({group.name: group.value for group in found.worst.groups} for found in (now, old))
    scale, unit = (100.0, " points") if known.unit == "share" else (1.0, "")
    digits = 1 if known.unit == "share" else 3
    before, after, low, high = (
        f"{scale * number:.{digits}f}"
        for number in (old.difference.measured, now.difference.measured, now.difference.low, now.difference.high)
    )
    return (
        f"In the {known.words}, the groups were {before}{unit} apart, and are {after} now ({low} to {high}). Worst off "
        f"is {part.worse_off}: {_shown(value[part.worse_off], part.metric)}, before "
        f"{_shown(earlier[part.worse_off], part.metric)}."
    )


def _moved(groupings: Sequence[Grouping], before: AuditTable | None) -> list[str]:
    if before is None:
        return ["Who was moved is not known: one set of predictions was given, and nothing to compare it with."]
    found = next((one.movement for one in groupings if one.movement is not None), None)
    if found is None:
        return ["Who was moved cannot be told: the groups were given as probabilities."]
    far = found.small_and_far
    warned = [f"{group.name} has only {group.rows} people, and was moved far." for group in far]
    return [*found.sentences(), *warned]


def _cost(costs: Sequence[Cost], before: AuditTable | None) -> list[str]:
    if not costs:
        return ["It cannot be told: accuracy needs outcomes, and none were given."]
    if before is None:
        return ["Not measured: no predictions from before were given.", *(one.sentence() for one in costs[:2])]
    return [one.sentence() for one in costs]
