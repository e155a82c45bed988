"""The picture of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairlayer.constraints import Constraint
from fairlayer.errors import require
from fairlayer.streaming.phases import Phase
from fairlayer.streaming.policies import Policy
from fairlayer.streaming.reporting.report import StreamReport
from fairlayer.streaming.reporting.trace import TracePoint

__all__ = ["plot_report", "plot_trace"]

_COLORS = {
    Phase.CHANGING: "tab:purple",
    Phase.COLD: "tab:blue",
    Phase.WARMING: "tab:cyan",
    Phase.STEADY: "tab:green",
    Phase.SATURATED: "tab:red",
    Phase.DRIFTING: "tab:orange",
}
_NAMES_A_ROW = 5
_FIRST_TENTH = 10  # the vertical scale leaves out the first points, which are noise


def plot_trace(
    points: Sequence[TracePoint], constraints: Sequence[Constraint], policy: Policy, axes: Any = None
) -> Any:
    """Draw pooled gaps with their limits (dashed), shifts per cell, and phases; return the figure.

    Args:
        points: what to draw.
        constraints: the constraints whose numbers, which the points hold with their limits.
        policy: the policy, which tells the slack of the first samples.
        axes: two matplotlib axes, or None for a new figure.
    """
    if axes is None:
        figure = require("matplotlib.figure", "train").Figure(figsize=(10, 6), layout="constrained")
        axes = figure.subplots(2, 1, sharex=True)
    gaps, shifts = axes
    samples = [point.samples for point in points]
    for constraint in constraints:
        _draw_gap(gaps, points, samples, constraint.name, policy)
    for name in sorted({name for point in points for name in point.shifts}):
        shifts.plot(samples, [point.shifts.get(name) for point in points], label=name, linewidth=1.2)
    shifts.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    _shade(gaps, points)
    _scale(gaps, points)
    gaps.set(ylabel="pooled gap of mean predictions")
    shifts.set(ylabel="feed-forward shift", xlabel="predictions emitted", xlim=(0, max(samples, default=1.0)))
    for axis in axes:
        if not axis.get_legend_handles_labels()[0]:
            continue  # nothing has been emitted
        axis.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, frameon=False)
    return gaps.figure


def _draw_gap(axis: Any, points: Sequence[TracePoint], samples: list[float], name: str, policy: Policy) -> None:
    [line] = axis.plot(samples, [_or_nan(point.gaps.get(name)) for point in points], label=name)
    known = [found for point in points if (found := point.measured.get(name)) is not None]
    if not known:
        return
    limits = [_limit(point, name, policy) for point in points]
    axis.plot(samples, limits, "--", linewidth=1, color=line.get_color(), label=f"limit {known[-1].limit:g}")


def _limit(point: TracePoint, name: str, policy: Policy) -> float:
    """Return the limit with the slack of the first samples, in prediction units, as a difference or a floor is."""
    found = point.measured.get(name)
    if found is None:
        return float("nan")
    slack = 0.0 if found.is_ratio else policy.room(point.samples)
    return found.limit - slack if found.at_least else found.limit + slack


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _scale(axis: Any, points: Sequence[TracePoint]) -> None:
    """Fit the gaps after the first tenth, and twice the largest limit; below zero only what is negative."""
    later = points[len(points) // _FIRST_TENTH :]
    gaps = [gap for point in later for gap in point.gaps.values() if gap is not None]
    limits = [2.0 * found.limit for point in later for found in point.measured.values() if found is not None]
    top, bottom = max([*gaps, *limits], default=1.0), min([0.0, *gaps])
    axis.set_ylim(1.1 * bottom, 1.1 * top if top > bottom else bottom + 1.0)


def _shade(axis: Any, points: Sequence[TracePoint]) -> None:
    """Colour the background by phase, a phase that returns under one name."""
    ends = [point.samples for point in points[1:]] + [points[-1].samples] if points else []
    named: set[Phase] = set()
    for point, end in zip(points, ends, strict=True):
        label = None if point.phase in named else point.phase.value
        axis.axvspan(point.samples, end, color=_COLORS[point.phase], alpha=0.15, linewidth=0, label=label)
        named.add(point.phase)


def plot_report(report: StreamReport, axes: Any = None) -> Any:
    """Draw a report: raw and emitted number of each constraint per bucket, its band, phases, and who was moved.

    Args:
        report: what to draw.
        axes: as many matplotlib axes as there are constraints, and one more for the shares; None for a new figure.
    """
    names = list(report.limits)
    if axes is None:
        size = (7.5, 2.7 * (len(names) + 1))  # readable at the width of a telephone too
        figure = require("matplotlib.figure", "train").Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(names) + 1, 1, sharex=True, squeeze=False)[:, 0]
    *gaps, shares = axes
    starts = [float(bucket.start) for bucket in report.buckets]
    edges = [*starts, starts[-1] + report.buckets[-1].samples] if starts else [0.0, 1.0]
    for axis, name in zip(gaps, names, strict=True):
        for what, color in (("raw", "0.55"), ("emitted", "tab:blue")):
            found = [getattr(bucket.gaps[name], what) for bucket in report.buckets]
            values = [float("nan") if each is None else float(each) for each in found]
            axis.stairs(values or [float("nan")], edges, baseline=None, color=color, linewidth=1.6, label=what)
        limit = report.limits[name]
        if limit is not None:
            floor = any(g.emitted is not None and g.emitted.at_least for b in report.buckets for g in [b.gaps[name]])
            band = (limit, 1.0) if floor else (0.0, limit)
            axis.axhspan(*band, color="tab:green", alpha=0.12, linewidth=0, label="held")
        axis.set(ylabel=name)
    for what, label in (("moved", "moved"), ("at_bound", "at a bound"), ("flips", "decision changed")):
        values = [getattr(bucket, what) for bucket in report.buckets]
        shares.stairs(values or [float("nan")], edges, baseline=None, label=label)
    named: set[Phase] = set()
    for bucket in report.buckets:
        if bucket.phase is not None:
            text = None if bucket.phase in named else bucket.phase.value
            ends = (float(bucket.start), float(bucket.start + bucket.samples))
            shares.axvspan(*ends, color=_COLORS[bucket.phase], alpha=0.15, linewidth=0, label=text)
            named.add(bucket.phase)
    shares.set(
        ylabel="share of predictions", xlabel="predictions emitted", ylim=(0.0, 1.05), xlim=(edges[0], edges[-1])
    )
    for axis in (*gaps, shares):
        _name_above(axis)
    return shares.figure


def _name_above(axis: Any) -> None:
    """Put the legend in rows above the axes, which keep the whole width."""
    if axis.get_legend_handles_labels()[0]:
        place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.1}
        axis.legend(fontsize="small", ncols=_NAMES_A_ROW, columnspacing=1.2, frameon=False, **place)
