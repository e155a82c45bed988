"""Pictures of a stream as inline SVG."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

from fairlayer.errors import require
from fairlayer.streaming import InferenceState, StreamReport
from fairlayer.streaming.reporting.plot import plot_report

__all__ = ["report_picture", "stream_picture"]


def stream_picture(state: InferenceState) -> str:
    """Draw the pooled gaps against their limits, shifts and phases over a stream."""
    return _svg(lambda figure: state.plot(figure.subplots(2, 1, sharex=True)), 8.4, 5.2)


def report_picture(report: StreamReport) -> str:
    """Draw the raw and the emitted gap of each bucket with the band that is held, who was moved, and phases."""
    panels = len(report.limits) + 1
    return _svg(
        lambda figure: plot_report(report, figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]),
        8.4,
        1.0 + 2.1 * panels,
    )


def _svg(draw: Callable[[Any], None], width: float, height: float) -> str:
    matplotlib = require("matplotlib", "train")
    figure = require("matplotlib.figure", "train").Figure(figsize=(width, height), layout="constrained")
    # text stays text, and equal input gives an equal file
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fairlayer", "font.family": "sans-serif"}):
        draw(figure)
        out = StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
