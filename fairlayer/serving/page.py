"""The page at /docs: plain HTML of our own, which loads nothing from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

__all__ = ["page_of"]

_MOST_LISTED = 50
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
pre { background: #f4f4f4; padding: .75rem; overflow-x: auto; }
table { border-collapse: collapse; } td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }
h2 { border-top: 1px solid #ccc; padding-top: 1rem; }
"""


def page_of(document: Mapping[str, Any]) -> str:
    """Return an OpenAPI document as one page of HTML."""
    schemas = document.get("components", {}).get("schemas", {})
    parts = [
        _endpoint(path, method, operation, schemas)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        f"<meta name='viewport' content='width=device-width, initial-scale=1'><style>{_STYLE}</style></head><body>"
        f"<h1>{title}</h1><p>{escape(document['info'].get('description', ''))}</p>"
        "<p>For programs: <a href='openapi.json'>openapi.json</a>.</p>"
        f"{''.join(parts)}</body></html>"
    )


def _endpoint(path: str, method: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    parts = [f"<h2>{escape(method.upper())} {escape(path)}</h2><p>{escape(operation.get('description', ''))}</p>"]
    body = _schema(operation.get("requestBody", {}), schemas)
    if body:
        parts.append(f"<h3>Body</h3>{_fields(body, schemas)}")
        if "example" in body:
            shown = json.dumps(body["example"])
            call = f"curl -X POST localhost:8000{path} -H 'Content-Type: application/json' -d '{shown}'"
            parts.append(f"<pre>{escape(call)}</pre>")
    answer = _schema(operation.get("responses", {}).get("200", {}), schemas)
    if answer and "properties" in answer:
        parts.append(f"<h3>Answer</h3>{_fields(answer, schemas)}")
    return "".join(parts)


def _fields(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    rows = []
    for name, field in schema.get("properties", {}).items():
        needed = "" if name in schema.get("required", ()) else " (may be absent)"
        rows.append(
            f"<tr><td><code>{escape(name)}</code></td><td>{escape(_kind(field))}{needed}</td>"
            f"<td>{escape(field.get('description', ''))}</td></tr>"
        )
        inner = _resolved(field.get("items", {}), schemas)
        if "properties" in inner:
            rows.append(f"<tr><td></td><td colspan='2'>each with{_fields(inner, schemas)}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _kind(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return f"one of {', '.join(json.dumps(each) for each in field['enum'][:_MOST_LISTED])}"
    if "anyOf" in field:
        return " or ".join(_kind(each) for each in field["anyOf"])
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items', {}))}"
    return str(field.get("type", "object"))


def _schema(holder: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    return _resolved(holder.get("content", {}).get("application/json", {}).get("schema", {}), schemas)


def _resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    found: Mapping[str, Any] = schemas.get(name, schema)
    return found
