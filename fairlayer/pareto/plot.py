"""The picture of a front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fairlayer.errors import require
from fairlayer.pareto.runs import FrontPoint

if TYPE_CHECKING:
    from fairlayer.pareto.front import Front

__all__ = ["plot_front"]

_LINE, _FADED = "tab:blue", "0.65"
_CHOSEN = (("s", "tab:orange"), ("D", "tab:green"), ("^", "tab:red"), ("v", "tab:purple"), ("P", "tab:brown"))


def plot_front(front: Front, axes: Any = None, *, chosen: Mapping[str, FrontPoint]) -> Any:
    """Draw the accuracy over the gap; return the figure.

    Non-dominated points are joined by the steps of what they reach, dominated ones are faded, bars are standard
    deviations over seeds, and each point says its swept value.

    Args:
        front: what to draw, by its first two measures.
        axes: matplotlib axes, or None for a new figure.
        chosen: points to mark, by the name of the rule that chose them.
    """
    if axes is None:
        axes = require("matplotlib.figure", "train").Figure(figsize=(7, 4.5), layout="constrained").subplots()
    best = front.non_dominated()
    others = [point for point in front.points if point not in best]
    _draw_points(axes, front, others, _FADED, "dominated")
    _draw_points(axes, front, best, _LINE, f"not dominated ({_seeds(front.points)})")
    _draw_steps(axes, front, best)
    for (name, point), (marker, color) in zip(chosen.items(), _cycle(len(chosen)), strict=True):
        x, y = point.mean[front.gap], point.mean[front.accuracy]
        style = {"s": 170, "facecolors": "none", "edgecolors": color, "linewidths": 1.8, "zorder": 4}
        axes.scatter([x], [y], marker=marker, label=name, **style)
    axes.set(xlabel=_title(front, front.gap), ylabel=_title(front, front.accuracy))
    axes.margins(0.08)
    axes.grid(color="0.92", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize="small", frameon=False, loc="best", markerscale=0.6)
    return axes.figure


def _draw_points(axes: Any, front: Front, points: Sequence[FrontPoint], color: str, label: str) -> None:
    if not points:
        return
    x, y = ([point.mean[name] for point in points] for name in (front.gap, front.accuracy))
    bars = {"xerr": _deviations(points, front.gap), "yerr": _deviations(points, front.accuracy)}
    style = {"color": color, "ecolor": color, "elinewidth": 0.8, "capsize": 0, "markersize": 5, "zorder": 3}
    axes.errorbar(x, y, **bars, fmt="o", label=label, **style)
    for point, px, py in zip(points, x, y, strict=True):
        offset = {"xytext": (10, 7), "textcoords": "offset points", "fontsize": "x-small", "color": "0.35"}
        axes.annotate(_short(point.value), (px, py), zorder=5, **offset)


def _draw_steps(axes: Any, front: Front, best: Sequence[FrontPoint]) -> None:
    """Draw the best point up to each gap, which says something only where two measures are compared."""
    if len(front.objectives) > 2:
        return
    rising = sorted(best, key=lambda point: point.mean[front.gap])
    x, y = ([point.mean[name] for point in rising] for name in (front.gap, front.accuracy))
    where = "post" if front.objectives[front.gap] == "minimise" else "pre"
    axes.step(x, y, where=where, color=_LINE, linewidth=3.5, alpha=0.2, zorder=1)


def _deviations(points: Sequence[FrontPoint], name: str) -> list[float]:
    return [point.sd.get(name) or 0.0 for point in points]


def _cycle(count: int) -> list[tuple[str, str]]:
    return [_CHOSEN[k % len(_CHOSEN)] for k in range(count)]


def _seeds(points: Sequence[FrontPoint]) -> str:
    counts = sorted({point.n for point in points})
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _title(front: Front, name: str) -> str:
    way = "higher" if front.objectives[name] == "maximise" else "lower"
    return f"{name} ({way} is better)"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_short(each)}" for name, each in value.items())
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
