"""A comparison as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

from fairlayer.errors import require
from fairlayer.report import words
from fairlayer.report.pictures import gap_picture, score_pictures
from fairlayer.report.stream import StreamSection
from fairlayer.training import Comparison

__all__ = ["render_html", "write_html"]


def render_html(
    comparison: Comparison,
    *,
    title: str = "fairlayer report",
    history: str | None = None,
    stream: StreamSection | None = None,
) -> str:
    """The page as text: no script, no external file.

    Args:
        history: picture of the training as inline SVG, see `history_svg`.
        stream: the unconstrained scores of the test rows through a stream, see `stream_section`.
    """
    jinja2 = require("jinja2", "train")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        title=title,
        comparison=comparison,
        words=words,
        stream=stream,
        pictures={"scores": score_pictures(comparison), "gaps": gap_picture(comparison), "history": history},
    )
    return str(page)


def write_html(
    path: str | Path,
    comparison: Comparison,
    *,
    title: str = "fairlayer report",
    history: str | None = None,
    stream: StreamSection | None = None,
) -> Path:
    """Write the page; returns its path."""
    path = Path(path)
    path.write_text(render_html(comparison, title=title, history=history, stream=stream), encoding="utf-8")
    return path
