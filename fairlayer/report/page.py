"""An audit's document -> one self-contained page: no script, no file from elsewhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fairlayer.audit import Audit
from fairlayer.audit.law import cited
from fairlayer.errors import DataError, ParameterError, require
from fairlayer.report.reading import Reader

__all__ = ["FORMATS", "Format", "document_text", "environment", "read_document", "render_page", "write_page"]

Format: TypeAlias = Literal["audit", "brief", "ll144", "lending"]
FORMATS = ("audit", "brief", "ll144", "lending")

_CONTENTS = (
    ("verdicts", "Verdicts", ""),
    ("groups", "Groups", ""),
    ("distances", "Distances between groups", ""),
    ("ratios", "Decisions beside a reference group", "decided"),
    ("direction", "Who is worse off, and who was moved", ""),
    ("cost", "Cost", ""),
    ("strata", "Within strata", "strata"),
    ("together", "What can hold together", "compatibility"),
    ("layer", "The model, and what is done to its scores", "run"),
    ("stream", "Stream", "stream"),
    ("alternatives", "Less discriminatory alternatives", "alternatives"),
    ("checks", "Checks", "checks"),
    ("proxies", "What the other columns tell", "proxies"),
    ("coverage", "Intervals and sets that were given", "coverage"),
    ("individual", "Single people", "individual"),
    ("lending", "Adverse impact ratio", "lending"),
    ("impact", "Rates and impact ratios", "impact"),
    ("supplied", "What only people can say", ""),
    ("record", "Record", ""),
    ("checklists", "Checklists", ""),
    ("annex-iv", "Map to Annex IV", ""),
    ("provenance", "Where the numbers come from", ""),
    ("glossary", "Glossary", ""),
    ("limits", "What this document does not say", ""),
    ("sign-off", "Sign-off", ""),
)


def render_page(found: Audit | Mapping[str, Any], *, format: Format = "audit") -> str:
    """Return the page as text.

    Args:
        found: an audit, or the document that its `to_dict` returned.
        format: "audit" for everything; "brief" for a few pages to be signed: the first screen, verdicts, variables and
            pathways, record, checklists; "ll144" for the tables of New York City's rule alone, "lending" for those of
            lending practice with the first screen.

    Raises:
        ParameterError: there is no such format, or the document lacks what it shows.
        MissingExtraError: Jinja2 is not installed.

    Example:
        >>> from fairlayer.audit import audit
        >>> page = render_page(audit(decisions=[1, 0] * 50, sensitive_features={"sex": ["F", "M"] * 50}))
        >>> "<script" in page, page.startswith("<!doctype html>")
        (False, True)
    """
    document = found.to_dict() if isinstance(found, Audit) else found
    _check(document, format)
    page = (
        environment()
        .get_template(f"{format}.html")
        .render(
            document=document,
            document_sha256=hashlib.sha256(document_text(document).encode()).hexdigest(),
            compared=any(one["before"] is not None for one in document["cost"])
            or any(one["movement"] for one in document["groupings"]),
            law=cited,
            contents=[(id, name) for id, name, needs in _CONTENTS if _there(document, needs)],
            f=Reader(),
        )
    )
    return str(page)


def environment() -> Any:
    """Return what the templates of all pages are read by.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
    jinja2 = require("jinja2", "train")
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_page(path: str | Path, found: Audit | Mapping[str, Any], *, format: Format = "audit") -> Path:
    """Write the page; return its path. See `render_page`.

    Args:
        found: an audit, or its document.
        format: the form of the page.

    Example:
        >>> from fairlayer.audit import audit
        >>> write_page("audit.html", audit(decisions=[1, 0] * 50, sensitive_features={"sex": ["F", "M"] * 50})).name
        'audit.html'
    """
    path = Path(path)
    path.write_text(render_page(found, format=format), encoding="utf-8")
    return path


def document_text(document: Mapping[str, Any]) -> str:
    """Return a document as JSON, in the form of which the page has the hash.

    Example:
        >>> from fairlayer.audit import audit
        >>> found = audit(decisions=[1, 0] * 50, sensitive_features={"sex": ["F", "M"] * 50})
        >>> document_text(found.to_dict()).startswith("{")
        True
    """
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def read_document(path: str | Path) -> dict[str, Any]:
    """Read a document that `fairlayer audit --json` or `fairlayer train` wrote.

    Args:
        path: the path of the JSON file.

    Raises:
        DataError: it is no such document, or one of another version.

    Example:
        >>> from fairlayer.audit import audit
        >>> found = audit(decisions=[1, 0] * 50, sensitive_features={"sex": ["F", "M"] * 50})
        >>> _ = found.write_json("audit.json")
        >>> read_document("audit.json")["headline"]["worse_off"]
        ['sex=M (0.0 of 100) is worse off than sex=F (100.0 of 100) in the share of people with a positive decision.']
    """
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"'{path}' could not be read as the document of an audit ({error}).") from error
    schema = json.loads((files("fairlayer.audit") / "schema.json").read_text(encoding="utf-8"))
    missing = [name for name in schema["required"] if not isinstance(document, dict) or name not in document]
    if missing or document["format"] != schema["properties"]["format"]["const"]:
        raise DataError(
            f"'{path}' is not a document of an audit, or one of another version of fairlayer: it lacks "
            f"{', '.join(missing) or 'the format of this version'}. Make it again with this version."
        )
    found: dict[str, Any] = document
    return found


def _check(document: Mapping[str, Any], format: str) -> None:
    if format not in FORMATS:
        raise ParameterError(f"a page has one of the formats {', '.join(FORMATS)}, not '{format}'.")
    if format in ("ll144", "lending") and document.get("public"):
        raise ParameterError(
            f"the format {format} shows every group with its number of people, and the version for the public leaves "
            "small groups out. Write the one or the other: without --public, or with another --format."
        )
    if format == "ll144" and document["impact"] is None:
        raise ParameterError(
            "the format ll144 shows rates by sex and race, which this document does not hold. Make it with "
            "--format ll144 --sex COLUMN --race COLUMN."
        )
    if format == "lending" and not document["lending"]:
        raise ParameterError(
            "the format lending compares with a named reference group, which this document does not do. Make it with "
            "--format lending --reference COLUMN=GROUP."
        )


def _there(document: Mapping[str, Any], needs: str) -> bool:
    if needs == "decided":
        return any(one["asked"] and one["decisions"] for one in document["groupings"])
    return not needs or bool(document[needs])
