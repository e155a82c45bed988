"""A version for the public: no group of fewer than k people is shown, and none can be computed from what is shown.

Counts of groups are sums of counts of cells. A small group that is left out can be computed where its count is a sum of
published ones with signs (all people less the other groups). So groups are left out, the smallest first, until no small
group lies in the linear span of the published ones:

    hidden(g)   unless   1_g = sum_p a_p 1_p   for the indicators 1_p (over cells) of the published groups p

The same argument serves sums of decisions, since they are sums over the same cells. Numbers on errors stand on fewer
people than the group has; they are published in all groupings, or in none, where one stands on fewer than k.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.audit.checklists import record
from fairlayer.audit.grouped import UNKNOWN
from fairlayer.errors import ParameterError

__all__ = ["public_document"]

_MOST_CELLS = 20_000
_KEPT = ("format", "kind", "title", "outcome", "exit_code", "asked", "annex_iv", "checklists", "supplied")


def public_document(document: Mapping[str, Any], *, smallest: int = 10) -> dict[str, Any]:
    """Return a document without small groups, without single movements, and without what could give them away.

    Args:
        document: what `Audit.to_dict` returned.
        smallest: groups of fewer people are left out.

    Raises:
        ParameterError: `smallest` is below 1, or the document is a public one already.

    Example:
        >>> from fairlayer.audit import audit
        >>> found = audit(decisions=[1, 0] * 54, sensitive_features={"sex": ["F"] * 50 + ["M"] * 53 + ["X"] * 5})
        >>> public = public_document(found.to_dict(), smallest=10)
        >>> [(g["name"], g["rows"]) for g in public["groupings"][0]["groups"]]
        [('sex=M', 53.0)]
    """
    if smallest < 1:
        raise ParameterError(f"groups of fewer than k people are left out, where k is 1 or more, not {smallest}.")
    if document.get("public") is not None:
        raise ParameterError("this document is a public one already. Make it from the full one.")
    shown = published(document, smallest)
    metrics = _safe_metrics(document, shown, smallest)
    groupings = [_grouping(one, shown[_key(one)], metrics) for one in document["groupings"]]
    left_out = sum(len(one["groups"]) for one in document["groupings"]) - sum(len(one["groups"]) for one in groupings)
    told = {name: document[name] for name in _KEPT}
    public = {
        **told,
        "public": {"smallest": smallest, "left_out": left_out},
        "headline": {
            **document["headline"],
            "reversals": [],
            "worse_off": ["The tables of the groups show it."],
            "moved": ["Who was moved is not part of the public version."],
            "on_whom": [f"{document['rows']['counted']:,.0f} people were counted."],
        },
        "rows": {**document["rows"], "labelled": None, "decided": None, "left_out": []},
        "verdicts": [{**one, "reason": "", "beyond": [], "rows_needed": None} for one in document["verdicts"]],
        "groupings": groupings,
        "cost": document["cost"] if "base_rate" in metrics or not document["rows"]["labelled"] else [],
        "strata": [],
        "compatibility": [],
        "warnings": [
            f"This is the version for the public: {left_out} groups are left out, since they, or others that could be "
            f"computed from them, have fewer than {smallest} people."
        ],
        "run": None,
        "stream": None,
        "alternatives": document["alternatives"],
        "checks": [],
        "impact": None,
        "lending": [],
        "proxies": [],
        "coverage": [],
        "individual": None,
        "provenance": {**document["provenance"], "command": None},
    }
    return {**public, "record": record(public)}


def published(document: Mapping[str, Any], smallest: int) -> dict[str, set[str]]:
    """Return the groups of every grouping that can be shown."""
    indicators, sizes = _indicators(document)
    shown = {key for key, size in sizes.items() if size >= smallest}
    hidden = [key for key, size in sizes.items() if 0 < size < smallest]
    everybody = np.ones(len(next(iter(indicators.values()), np.zeros(0))))
    while shown and any(
        _spanned(indicators[key], [everybody, *(indicators[s] for s in sorted(shown))]) for key in hidden
    ):
        shown.remove(min(shown, key=lambda key: (-len(key[0].split("+")), sizes[key], key)))
    found: dict[str, set[str]] = {_key(one): set() for one in document["groupings"]}
    for grouping, name in shown:
        found[grouping].add(name)
    return found


def _indicators(document: Mapping[str, Any]) -> tuple[dict[tuple[str, str], FloatArray], dict[tuple[str, str], float]]:
    """Return, for every group of every grouping, which cells of the finest grouping it is made of, and its size.

    Where no grouping crosses all features, the cells are all combinations that the groups could have.
    """
    sizes = {
        (_key(one), group["name"]): float(group["rows"]) for one in document["groupings"] for group in one["groups"]
    }
    features = list(dict.fromkeys(name for one in document["groupings"] for name in one["by"]))
    values: dict[str, list[str]] = {name: [] for name in features}
    for one in document["groupings"]:
        for group in one["groups"]:
            for feature, value in _parts(group["name"], one["by"]).items():
                if value not in values[feature]:
                    values[feature].append(value)
    size = math.prod(len(known) + 1 for known in values.values())
    if size > _MOST_CELLS:
        raise ParameterError(
            f"the groups of {', '.join(features)} make {size:,} combinations, of which it would have to be checked "
            f"what can be computed from what; at most {_MOST_CELLS:,} are. Audit fewer features, or coarser groups."
        )
    cells: list[dict[str, str]] = [{}]
    for name in features:
        cells = [{**cell, name: value} for cell in cells for value in (*values[name], UNKNOWN)]
    cells = _occupied(cells, document)
    found = {}
    for one in document["groupings"]:
        for group in one["groups"]:
            wanted = _parts(group["name"], one["by"])
            inside = [
                all(cell[name] == value for name, value in wanted.items())
                if wanted
                else any(cell[name] == UNKNOWN for name in one["by"])
                for cell in cells
            ]
            found[_key(one), group["name"]] = np.array(inside, dtype=np.float64)
    return found, sizes


def _occupied(cells: list[dict[str, str]], document: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the cells that somebody may be in: a grouping that lists its groups says which known ones are empty."""
    kept = cells
    for one in document["groupings"]:
        names = [group["name"] for group in one["groups"]]
        there = [_parts(name, one["by"]) for name in names]
        unknown = UNKNOWN in names
        kept = [
            cell
            for cell in kept
            if {name: cell[name] for name in one["by"]} in there
            or (unknown and any(cell[name] == UNKNOWN for name in one["by"]))
        ]
    return kept


def _spanned(target: FloatArray, published: list[FloatArray]) -> bool:
    matrix = np.stack(published, axis=1)
    solution, *_ = np.linalg.lstsq(matrix, target, rcond=None)
    return bool(np.abs(matrix @ solution - target).max(initial=0.0) < 1e-8)


def _parts(name: str, by: list[str]) -> dict[str, str]:
    """Return feature -> category of a group's name; {} for the unknown group."""
    if name == UNKNOWN:
        return {}
    if any(name.count(f" & {feature}=") > 1 for feature in by[1:]):
        raise ParameterError(
            f"the group '{name}' cannot be taken apart into {', '.join(by)}, since a category holds ' & ' and the name "
            "of a column. Rename the category, and make the document again."
        )
    found, rest = {}, name
    for place, feature in enumerate(by):
        rest = rest.removeprefix(f"{feature}=")
        following = f" & {by[place + 1]}=" if place + 1 < len(by) else None
        value, rest = (rest, "") if following is None else (rest.split(following, 1)[0], rest.split(following, 1)[-1])
        found[feature] = value
    return found


def _safe_metrics(document: Mapping[str, Any], shown: Mapping[str, set[str]], smallest: int) -> set[str]:
    """Return the metrics that stand on enough people in every group, shown or not, of every grouping."""
    unsafe: set[str] = set()
    everything: set[str] = set()
    for one in document["groupings"]:
        for group in one["groups"]:
            for name, held in group["numbers"].items():
                everything.add(name)
                if held is None or name in ("selection_rate", "mean_score"):
                    continue
                others = group["rows"] - held["rows"]
                if group["name"] in shown[_key(one)] and (held["rows"] < smallest or 0 < others < smallest):
                    unsafe.add(name)
    if unsafe & {"true_positive_rate", "false_positive_rate", "base_rate"}:  # one gives the other away
        unsafe |= everything - {"selection_rate", "mean_score"}
    return everything - unsafe


def _grouping(one: Mapping[str, Any], shown: set[str], metrics: set[str]) -> dict[str, Any]:
    names = [group["name"] for group in one["groups"]]
    whole = all(name in shown for name in names)
    return {
        **one,
        "groups": [
            {
                **group,
                "numbers": {name: held for name, held in group["numbers"].items() if name in metrics},
                "before": {},
            }
            for group in one["groups"]
            if group["name"] in shown
        ],
        "overall": {name: value for name, value in one["overall"].items() if name in metrics},
        "overall_before": {},
        "disparities": [
            {**each, "left_out": [], "with_small": None}
            for each in one["disparities"]
            if set(each["metrics"]) <= metrics
        ]
        if whole
        else [],
        "decisions": None,
        "sides": [],
        "movement": None,
        "unseen": [],
    }


def _key(grouping: Mapping[str, Any]) -> str:
    return "+".join(grouping["by"])
