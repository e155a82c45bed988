"""How a result shows itself in a notebook: a heading and one small table. Every word is escaped; nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["facts_html", "table_html"]


def table_html(title: str, head: Sequence[str], rows: Iterable[Sequence[object]], *, note: str = "") -> str:
    """Return a table as HTML; numbers get four digits, and None a dash.

    Args:
        title: the heading.
        head: the name of each column.
        rows: the cells of each row.
        note: a sentence below the table.

    Example:
        >>> table_html("Gaps", ["group", "mean"], [["<18", 0.123456]])
        '<strong>Gaps</strong><table><tr><th>group</th><th>mean</th></tr><tr><td>&lt;18</td><td>0.1235</td></tr></table>'
    """
    heads = _row("th", head)
    body = "".join(_row("td", [_shown(cell) for cell in row]) for row in rows)
    below = f"<small>{escape(note)}</small>" if note else ""
    return f"<strong>{escape(title)}</strong><table>{heads}{body}</table>{below}"


def facts_html(title: str, facts: Iterable[tuple[str, object]]) -> str:
    """Return facts as HTML, one in each row: what it is, and what is said of it."""
    body = "".join(f"<tr><th>{escape(what)}</th><td>{escape(_shown(said))}</td></tr>" for what, said in facts)
    return f"<strong>{escape(title)}</strong><table>{body}</table>"


def _row(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _shown(cell: object) -> str:
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
