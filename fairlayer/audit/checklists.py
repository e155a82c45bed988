"""Two checklists and a map to Annex IV of the EU AI Act, filled from an audit as far as an audit can fill them.

Each entry has a state: "done" (the document holds it), "not supplied" (a person has to say it, and did not), or "not
done" (it can be computed, and was not asked for). Nothing is counted as done that is not in the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["annex_iv", "audit_list", "record", "validation_list"]

MODEL = "The model, and what is done to its scores"  # the part of the document

DONE, NOT_SUPPLIED, NOT_DONE = "done", "not supplied", "not done"


def audit_list(document: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the list of an audit: what was compared and why, and whether the record is kept."""
    told, groupings = document["supplied"], document["groupings"]
    before = any(one["before"] for one in document["cost"])
    return [
        _entry("The metric was chosen for the harm, with the reason", told["metric_reason"], told["metric_reason"]),
        _computed("Groups and their counts are shown, small and unknown ones among them", bool(groupings), "Groups"),
        _computed("A limit was set beforehand, and judged with its interval", bool(document["verdicts"]), "Verdicts"),
        _computed("The gap is shown before and after the correction", before, "Distances between groups"),
        _computed("What the correction cost is shown", before, "Cost"),
        _computed("A trade-off of alternatives is shown", bool(document["alternatives"]), "Alternatives"),
        _computed("The record names data, versions and command", _recorded(document), "Provenance"),
    ]


def validation_list(document: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the list of the validation of a correction, from the model to its documentation."""
    told, run = document["supplied"], document["run"] or {}
    before = any(one["before"] for one in document["cost"])
    crossed = any(len(one["by"]) > 1 for one in document["groupings"])
    checks = {one["kind"] for one in document["checks"]}
    return [
        _entry("The model was analysed, and is described", told["system"] or run.get("description"), "Supplied"),
        _entry("The technique was chosen, with the reason", told["technique_reason"], told["technique_reason"]),
        _computed("The technique was implemented, and what it bounds is certified", bool(run), MODEL),
        _computed("The baseline without it is measured", before, "Cost"),
        _computed("The corrected model is measured on the same rows", before, "Groups"),
        _computed("Both are compared, with the direction of the gap", before, "Who is worse off"),
        _computed("Single groups are shown", bool(document["groupings"]), "Groups"),
        _computed("Intersections are shown", crossed, "Groups"),
        _computed("Sensitivity to the tolerance was tried", "tolerance" in checks, "Checks"),
        _computed("Drift of the people or of the labels was tried", bool(checks & {"shift", "reweighted"}), "Checks"),
        _computed("Several seeds were tried", "seeds" in checks, "Checks"),
        _computed("It is documented: data, versions, command", _recorded(document), "Provenance"),
    ]


def annex_iv(document: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return where a document speaks of what Annex IV of Regulation (EU) 2024/1689 lists, by fixed keys.

    It is a map for a reader who assembles technical documentation, and no statement that anything is complied with.
    """
    told = document["supplied"]
    before = any(one["before"] for one in document["cost"])
    return {
        "1_general_description": _point("Intended purpose and description of the system", told["purpose"]),
        "2d_data": _point(
            "Data: provenance, scope and selection", told["data_source"] or document["provenance"]["data"]
        ),
        "2e_human_oversight": _point("Human oversight measures", told["human_review"]),
        "2f_predetermined_changes": _point(
            "Changes determined beforehand, such as a schedule of limits", told["changes"]
        ),
        "2g_tests": _point(
            "Tests and metrics, potentially discriminatory impacts, dated and signed", "Verdicts; Sign-off"
        ),
        "3_accuracy_per_group": _point(
            "Accuracy for the persons or groups on which the system is to be used",
            "Groups: errors" if document["cost"] else None,
        ),
        "4_why_these_metrics": _point("Why these performance metrics are appropriate", told["metric_reason"]),
        "5_risk_management": _point("Risk management", told["residual_risk"]),
        "6_lifecycle_changes": _point(
            "Changes through the lifecycle: the predictions before and after",
            "Distances between groups; Cost" if before else None,
        ),
        "9_monitoring": _point("Plan for monitoring after placing on the market", told["monitoring"]),
    }


def record(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of an audit: groups, metric and reason, rejected criteria, timing, cost, limits."""
    told = document["supplied"]
    asked = [one for one in document["groupings"] if one["asked"]]
    return {
        "groups": {" x ".join(one["by"]): {group["name"]: group["rows"] for group in one["groups"]} for one in asked},
        "limits": [_judged(one) for one in document["verdicts"]],
        "metric_reason": told["metric_reason"] or NOT_SUPPLIED,
        "rejected_criteria": told["rejected_criteria"] or NOT_SUPPLIED,
        "technique": told["technique"] or NOT_SUPPLIED,
        "date": document["provenance"]["date"] or NOT_SUPPLIED,
        "seconds": (document["run"] or {}).get("seconds"),
        "cost": {one["name"]: one["lost"] for one in document["cost"]},
    }


def _judged(verdict: Mapping[str, Any]) -> str:
    by = f" by {' x '.join(verdict['by'])}" if verdict["by"] else ""
    return f"{verdict['limit']}{by}: {verdict['outcome']}"


def _recorded(document: Mapping[str, Any]) -> bool:
    origin = document["provenance"]
    return bool(origin["date"] and origin["data_sha256"])


def _entry(what: str, given: Any, where: Any) -> dict[str, str]:
    return {"what": what, "state": DONE if given else NOT_SUPPLIED, "where": str(where) if given else ""}


def _computed(what: str, there: bool, where: str) -> dict[str, str]:
    return {"what": what, "state": DONE if there else NOT_DONE, "where": where if there else ""}


def _point(what: str, where: str | None) -> dict[str, str]:
    return {"what": what, "where": where or NOT_SUPPLIED}
