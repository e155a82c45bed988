"""The picture of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairlayer.constraints import Constraint
from fairlayer.errors import require
from fairlayer.streaming.phases import Phase
from fairlayer.streaming.policy import PerBatch, Policy
from fairlayer.streaming.trace import Trace

__all__ = ["plot_trace"]

_COLORS = {
    Phase.COLD: "tab:blue",
    Phase.WARMING: "tab:cyan",
    Phase.STEADY: "tab:green",
    Phase.SATURATED: "tab:red",
    Phase.DRIFTING: "tab:orange",
}


def plot_trace(trace: Trace, constraints: Sequence[Constraint], policy: Policy, axes: Any = None) -> Any:
    """Draw pooled gaps with their tolerances, shifts per cell, and phases; return the figure.

    Args:
        trace: what to draw.
        constraints: for the tolerances.
        policy: for the slack of the first samples.
        axes: two matplotlib axes, or None for a new figure.
    """
    if axes is None:
        axes = (
            require("matplotlib.figure", "train")
            .Figure(figsize=(9, 5.5), layout="constrained")
            .subplots(2, 1, sharex=True)
        )
    gaps, shifts = axes
    samples = [point.samples for point in trace.points]
    for constraint in constraints:
        line = gaps.plot(samples, [point.gaps.get(constraint.name) for point in trace.points], label=constraint.name)
        tolerance = getattr(constraint, "tolerance", None)
        if tolerance is not None:
            slack = [0.0 if isinstance(policy, PerBatch) else max(policy.slack(n), 0.0) for n in samples]
            limits = [float(tolerance) + extra for extra in slack]
            gaps.plot(samples, limits, linestyle="--", linewidth=1, color=line[0].get_color())
    for name in sorted({name for point in trace.points for name in point.shifts}):
        shifts.plot(samples, [point.shifts.get(name) for point in trace.points], label=name)
    _shade(gaps, trace)
    gaps.set(ylabel="pooled gap of mean predictions", ylim=(0, None))
    shifts.set(ylabel="feed-forward shift", xlabel="predictions emitted")
    for axis in axes:
        axis.legend(fontsize="small", loc="best")
    return gaps.figure


def _shade(axis: Any, trace: Trace) -> None:
    """Colour the background by phase."""
    ends = [point.samples for point in trace.points[1:]] + [trace.points[-1].samples] if trace.points else []
    for point, end in zip(trace.points, ends, strict=True):
        axis.axvspan(point.samples, end, color=_COLORS[point.phase], alpha=0.12, linewidth=0)
