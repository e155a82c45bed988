"""Pictures of a comparison as inline SVG."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

from fairlayer.errors import require
from fairlayer.streaming import InferenceState
from fairlayer.training import Comparison, GroupResult

__all__ = ["gap_picture", "score_pictures", "stream_picture"]

BEFORE, AFTER, LIMIT = "#8a8a8a", "#1f5fa8", "#b3261e"
ACROSS = 3


def score_pictures(comparison: Comparison) -> str:
    """Distribution of the scores of each group, before and after."""
    groups = comparison.groups
    down = -(-len(groups) // ACROSS)

    def draw(figure: Any) -> None:
        axes = list(figure.subplots(down, ACROSS, sharex=True, squeeze=False).flat)
        for axis, group in zip(axes, groups, strict=False):
            _draw_scores(axis, group, comparison.bins)
        for axis in axes[len(groups) :]:
            axis.set_axis_off()
        entries = axes[0].get_legend_handles_labels()
        figure.legend(*entries, loc="outside upper center", ncols=2, frameon=False, fontsize=8)

    return _svg(draw, 8.4, 0.6 + 1.7 * down)


def _draw_scores(axis: Any, group: GroupResult, bins: tuple[float, ...]) -> None:
    axis.stairs(group.histogram.unconstrained, bins, color=BEFORE, fill=True, alpha=0.45, label="unconstrained")
    axis.stairs(group.histogram.constrained, bins, color=AFTER, linewidth=1.4, label="constrained")
    axis.set_title(f"{group.name} ({group.count} rows)", fontsize=8)
    axis.tick_params(labelsize=7)


def gap_picture(comparison: Comparison) -> str:
    """Each constraint's gap of scores and of decisions, before and after, with its limit."""
    rows = [
        (f"{result.name}, {what}", beside, result.scores.constrained.limit if what == "scores" else None)
        for result in comparison.constraints
        for what, beside in (("scores", result.scores), ("decisions", result.decisions))
        if beside is not None
    ]

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for place, (_, beside, limit) in enumerate(rows):
            _draw_gap(axis, place - 0.16, beside.unconstrained, BEFORE)
            _draw_gap(axis, place + 0.16, beside.constrained, AFTER)
            if limit is not None:
                axis.plot([limit, limit], [place - 0.4, place + 0.4], color=LIMIT, linewidth=1.6)
        axis.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=8)
        axis.invert_yaxis()
        axis.tick_params(axis="x", labelsize=8)
        axis.set_xlabel("grey: unconstrained; blue: constrained, with 95 % intervals; red: limit on scores", fontsize=8)

    return _svg(draw, 8.4, 0.9 + 0.55 * len(rows))


def _draw_gap(axis: Any, place: float, gap: Any, color: str) -> None:
    if gap.value is None:
        return
    axis.plot([gap.value], [place], "o", color=color, markersize=5)
    if gap.low is not None:
        axis.plot([gap.low, gap.high], [place, place], color=color, linewidth=1.2)


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
