"""Pictures of a stream as inline SVG."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

from fairlayer.errors import require
from fairlayer.streaming import InferenceState

__all__ = ["stream_picture"]


def stream_picture(state: InferenceState) -> str:
    """Pooled gaps against their limits, shifts and phases over a stream."""
    return _svg(lambda figure: state.plot(figure.subplots(2, 1, sharex=True)), 8.4, 5.2)


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
