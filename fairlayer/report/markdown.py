"""An audit's document in Markdown, and as the model card that Hugging Face reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairlayer.audit import Audit
from fairlayer.report.figures import count, named, number, percent
from fairlayer.report.reading import Reader

__all__ = ["render_card", "render_markdown", "write_card", "write_markdown"]

NOT_SUPPLIED = "not supplied"


def render_markdown(found: Audit | Mapping[str, Any]) -> str:
    """Return the first screen, the verdicts, the groups, the cost and the provenance in Markdown.

    Args:
        found: an audit, or its document.

    Example:
        >>> from fairlayer.audit import audit
        >>> text = render_markdown(audit(decisions=[1, 0] * 50, sensitive_features={"sex": ["F", "M"] * 50}))
        >>> text.splitlines()[2]
        '**NOT EVALUATED.** No limit was asked for, so nothing was judged.'
    """
    document = found.to_dict() if isinstance(found, Audit) else found
    parts = [f"# {document['title']}", *_summary(document), *_groups(document), *_cost(document), *_origin(document)]
    return "\n\n".join(parts) + "\n"


def write_markdown(path: str | Path, found: Audit | Mapping[str, Any]) -> Path:
    """Write the Markdown; return its path.

    Args:
        found: an audit, or its document.

    Example:
        >>> from fairlayer.audit import audit
        >>> write_markdown("audit.md", audit(decisions=[1, 0] * 50, sensitive_features={"sex": ["F", "M"] * 50})).name
        'audit.md'
    """
    path = Path(path)
    path.write_text(render_markdown(found), encoding="utf-8")
    return path


def render_card(found: Audit | Mapping[str, Any]) -> str:
    """Return a model card: the metadata that Hugging Face reads in front, then the sections of its template.

    The metrics in front are those of all rows together, with the worst difference between groups beside them.

    Args:
        found: an audit, or its document.

    Example:
        >>> from fairlayer.audit import audit
        >>> text = render_card(audit(decisions=[1, 0] * 50, sensitive_features={"sex": ["F", "M"] * 50}))
        >>> text.startswith("---")
        True
    """
    document = found.to_dict() if isinstance(found, Audit) else found
    told = document["supplied"]
    sections = [
        f"# {document['title']}",
        "## Uses",
        f"Intended: {_said(told['purpose'])}.",
        f"Out of scope: {_said(told['limits_of_use'])}.",
        "## Bias, risks, and limitations",
        *_summary(document),
        f"Feared harm: {_said(told['harm'])}. Review by people: {_said(told['human_review'])}.",
        "## Evaluation",
        *_groups(document),
        *_cost(document),
        *_origin(document),
    ]
    return _front(document) + "\n\n".join(sections) + "\n"


def write_card(path: str | Path, found: Audit | Mapping[str, Any]) -> Path:
    """Write the model card; return its path.

    Args:
        found: an audit, or its document.

    Example:
        >>> from fairlayer.audit import audit
        >>> write_card("README.md", audit(decisions=[1, 0] * 50, sensitive_features={"sex": ["F", "M"] * 50})).name
        'README.md'
    """
    path = Path(path)
    path.write_text(render_card(found), encoding="utf-8")
    return path


def _front(document: Mapping[str, Any]) -> str:
    lines = ["---", "library_name: fairlayer", "tags:", "- fairness", "- tabular", "model-index:"]
    measured = [(one["metric"], one["now"]) for one in document["cost"] if one["now"] is not None]
    for grouping in document["groupings"]:
        for one in grouping["disparities"] if grouping["asked"] else ():
            value = one["difference"]["measured"]
            if value is not None and one["name"] in ("demographic_parity", "equalized_odds"):
                measured.append((f"{one['name']}_difference by {' x '.join(grouping['by'])}", value))
    if not measured:
        return "\n".join([*lines[:-1], "---", "", ""])
    lines += [f"- name: {_quoted(document['title'])}", "  results:", "  - task:", "      type: tabular-classification"]
    lines += [
        "    dataset:",
        f"      name: {_quoted(document['provenance']['data'] or NOT_SUPPLIED)}",
        "      type: tabular",
    ]
    lines += ["    metrics:"]
    for name, value in measured:
        lines += [f"    - type: {_quoted(name)}", f"      value: {value:.6g}"]
    return "\n".join([*lines, "---", "", ""])


def _summary(document: Mapping[str, Any]) -> list[str]:
    head = document["headline"]
    parts = [f"**{document['outcome']}.** {head['outcome']}"]
    parts += [f"**{sentence}**" for sentence in head["reversals"]]
    parts += [f"{one['question']} {one['outcome']}: **{one['answer']}**" for one in head["asked"]]
    for title, name in (
        ("On whom", "on_whom"),
        ("Who is worse off", "worse_off"),
        ("Which other distances grew", "grew"),
        ("Who was moved", "moved"),
        ("What it cost", "cost"),
    ):
        said = [Reader.readable(sentence) for sentence in head[name]]
        if not said and name == "grew":
            continue
        parts.append(f"*{title}.* " + (" ".join(said) or "Nothing can be said."))
    parts += [f"> {sentence}" for sentence in document["warnings"]]
    return parts


def _groups(document: Mapping[str, Any]) -> list[str]:
    parts = []
    for grouping in document["groupings"]:
        if not grouping["asked"]:
            continue
        parts.append(f"### By {' x '.join(grouping['by'])}")
        rows = []
        for group in grouping["groups"]:
            numbers = group["numbers"]
            rate, right = (numbers.get(name) or {} for name in ("selection_rate", "accuracy"))
            mark = "" if group["standing"] == "counted" else f" ({group['standing']})"
            rows.append(
                [
                    named(group["name"]) + mark,
                    count(group["rows"]),
                    percent(rate.get("value")),
                    percent(right.get("value")),
                ]
            )
        parts.append(_table(["Group", "People", "Positive decisions", "Accuracy"], rows))
    return parts


def _cost(document: Mapping[str, Any]) -> list[str]:
    if not document["cost"]:
        return []
    rows = [[one["name"], number(one["before"], 4), number(one["now"], 4)] for one in document["cost"]]
    return ["### Cost", _table(["Measure", "Before", "Now"], rows)]


def _origin(document: Mapping[str, Any]) -> list[str]:
    origin = document["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    rows = [
        ["Date", _said(origin["date"])],
        ["Data", f"{_said(origin['data'])} (SHA-256 {_said(origin['data_sha256'])})"],
        ["Command", f"`{_said(origin['command'])}`"],
        ["Versions", versions],
    ]
    return ["### Where the numbers come from", _table(["What", "Recorded"], rows)]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _said(value: Any) -> str:
    return str(value) if value else NOT_SUPPLIED


def _quoted(text: str) -> str:
    """Return a text as a YAML string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
