"""A version for the public: no group of fewer than k people is shown, and none can be computed from what is shown.

`suppression.py` chooses the groups. Gaps are not sums of theirs: one between a published group and one that is left out
gives the rate of the latter, and a rate of few people gives their number away, since it is a fraction. So a grouping
that lacks a group has no gaps, and its verdicts have an outcome and no numbers. Numbers on errors stand on fewer people
than the group has; they are published in all groupings, or in none, where one stands on fewer than k.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlayer.audit.checklists import record
from fairlayer.audit.suppression import key_of, published
from fairlayer.errors import ParameterError

__all__ = ["public_document"]

_KEPT = ("format", "kind", "title", "outcome", "exit_code", "asked", "annex_iv", "supplied")


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
    groupings = [_grouping(one, shown[key_of(one)], metrics) for one in document["groupings"]]
    whole = {key_of(one): len(shown[key_of(one)]) == len(one["groups"]) for one in document["groupings"]}
    verdicts = [_verdict(one, whole.get("+".join(one["by"]), not one["by"])) for one in document["verdicts"]]
    left_out = sum(len(one["groups"]) for one in document["groupings"]) - sum(len(one["groups"]) for one in groupings)
    told = {name: document[name] for name in _KEPT}
    public = {
        **told,
        "public": {"smallest": smallest, "left_out": left_out},
        "headline": {
            **document["headline"],
            "asked": [
                {**one, "answer": said["answer"]}
                for one, said in zip(document["headline"]["asked"], verdicts, strict=True)
            ],
            "reversals": [],
            "worse_off": ["The tables of the groups show it."],
            "grew": [],
            "moved": ["Who was moved is not part of the public version."],
            "on_whom": [f"{document['rows']['counted']:,.0f} people were counted."],
        },
        "rows": {**document["rows"], "labelled": None, "decided": None, "left_out": []},
        "verdicts": verdicts,
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
        "checklists": {name: [_entry(one) for one in entries] for name, entries in document["checklists"].items()},
        "alternatives": [] if left_out else document["alternatives"],
        "checks": [],
        "impact": None,
        "lending": [],
        "proxies": [],
        "coverage": [],
        "individual": None,
        "provenance": {**document["provenance"], "command": None},
    }
    return {**public, "record": record(public)}


def _verdict(one: Mapping[str, Any], whole: bool) -> dict[str, Any]:
    """Return a verdict without what is said of single groups; only its outcome, where its grouping lacks a group."""
    bare = {**one, "reason": "", "beyond": [], "rows_needed": None}
    if whole:
        return bare
    answer = "The numbers are left out, since groups are left out of the table."
    return {**bare, "answer": answer, **dict.fromkeys(("low", "estimate", "measured", "high"))}


def _entry(one: Mapping[str, str]) -> dict[str, str]:
    """Return an entry of a checklist; what it says of the groups holds for the full document."""
    return {**one, "where": "Groups (of the full document)"} if one["where"] == "Groups" else dict(one)


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
                if group["name"] in shown[key_of(one)] and (held["rows"] < smallest or 0 < others < smallest):
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
