"""The picture of the frontier: accuracy against the decision gap, test rows, means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frontier_numbers import Question
from frontier_table import Finished, answer

BUDGETS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.5, 8.0, 10.0)
OURS = {
    "trees + DecisionRule": "#1b7837",
    "plain + DecisionRule": "#1f5fa8",
    "trained through layer": "#7fb2e5",
    "Penalty on soft decisions": "#b3261e",
    "layer dropped at test": "#e08214",
}
OTHERS = {
    "trees + ThresholdOptimizer": "#1b7837",
    "ExponentiatedGradient, trees": "#9970ab",
    "plain + ThresholdOptimizer": "#1f5fa8",
    "fairret norm": "#b3261e",
    "Adversary": "#e08214",
}


def draw(runs: Sequence[Finished], path: Path) -> None:
    """Write the picture as SVG or PNG, by the name of the file."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "frontier"  # the same numbers give the same file
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7.6, 5.0), layout="constrained")
    lines, known = frontiers(runs), {p.method: p.known for run in runs for p in run.points}
    styled = [*((*each, "o-") for each in OURS.items()), *((*each, "^:") for each in OTHERS.items())]
    for name, colour, style in styled:
        label = f"{name} ({'known' if known.get(name) else 'hidden'})"
        _line(axis, lines.get(name, []), label, colour=colour, style=style)
    axis.set(xlabel="decision gap on test rows, %", ylabel="accuracy on test rows, %")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, frameon=False, title="method (group known or hidden)", title_fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def frontiers(runs: Sequence[Finished]) -> dict[str, list[tuple[float, float]]]:
    """Return (decision gap, accuracy) of each method at each budget that it meets."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for budget in BUDGETS:
        for row in answer(Question("", "decision_gap", budget), runs):
            gap, right = row.means["decision_gap"], row.means["accuracy"]
            if gap is not None and right is not None:
                lines.setdefault(row.method, []).append((gap, right))
    return lines


def _line(axis: Any, points: Sequence[tuple[float, float]], name: str, *, colour: str, style: str) -> None:
    if points:
        axis.plot(*zip(*points, strict=True), style, color=colour, label=name, markersize=4, linewidth=1.3)
