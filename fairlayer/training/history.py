"""How both models got there: loss, gaps and multipliers by epoch, as a table and as a picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from fairlayer.constraints import Constraint
from fairlayer.errors import require
from fairlayer.training.comparison import Beside
from fairlayer.training.fitting import Epoch, Fit

__all__ = ["history_rows", "history_svg", "write_history_csv"]

COLORS = {"unconstrained": "#8a8a8a", "constrained": "#1f5fa8"}
LIMIT = "#b3261e"
STYLES = ("-", "--", ":", "-.")


def history_rows(fits: Beside[Fit]) -> list[dict[str, Any]]:
    """Return one flat row per model and epoch.

    Args:
        fits: the fits of the unconstrained and of the constrained model.

    Example:
        >>> fit = Fit((Epoch(1, 0.52, 0.55),), best=1)
        >>> [row["model"] for row in history_rows(Beside(fit, fit))]
        ['unconstrained', 'constrained']
    """
    return [
        {"model": which, "best": epoch.number == fitted.best, **_flat(epoch)}
        for which, fitted in _by_name(fits).items()
        for epoch in fitted.history
    ]


def write_history_csv(path: Path, fits: Beside[Fit]) -> None:
    """Write the rows; a number that a model does not have is empty."""
    rows = history_rows(fits)
    names = dict.fromkeys(name for row in rows for name in row)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(names))
        writer.writeheader()
        writer.writerows(rows)


def history_svg(fits: Beside[Fit], constraints: Sequence[Constraint]) -> str:
    """Draw, by epoch, the loss of both models, the gap of each constraint before the layer, its limit and multiplier.

    Args:
        fits: the fits of the unconstrained and of the constrained model.
        constraints: the constraints whose limits are drawn.

    Example:
        >>> fit = Fit((Epoch(1, 0.52, 0.55), Epoch(2, 0.48, 0.5)), best=2)
        >>> history_svg(Beside(fit, fit), []).lstrip().startswith("<svg")
        True
    """
    matplotlib = require("matplotlib", "train")
    figure = require("matplotlib.figure", "train").Figure(figsize=(10.5, 3.4), layout="constrained")
    # text stays text, and equal input gives an equal file
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fairlayer", "font.family": "sans-serif"}):
        losses, gaps, prices = figure.subplots(1, 3)
        for which, fitted in _by_name(fits).items():
            _draw_losses(losses, which, fitted)
        _draw_gaps(gaps, fits, constraints)
        _draw_prices(prices, fits.constrained, constraints)
        for axis in (losses, gaps, prices):
            axis.set_xlabel("epoch", fontsize=8)
            axis.tick_params(labelsize=7)
            axis.legend(fontsize=6.5, frameon=False)
        out = StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _flat(epoch: Epoch) -> dict[str, Any]:
    gaps = {f"gap {name}": value for name, value in epoch.gap.items()}
    prices = {f"multiplier {name}": value for name, value in epoch.multiplier.items()}
    return {
        "epoch": epoch.number,
        "train_loss": epoch.train_loss,
        "valid_loss": epoch.valid_loss,
        **gaps,
        **prices,
    }


def _by_name(fits: Beside[Fit]) -> Mapping[str, Fit]:
    return {"unconstrained": fits.unconstrained, "constrained": fits.constrained}


def _draw_losses(axis: Any, which: str, fitted: Fit) -> None:
    epochs = [epoch.number for epoch in fitted.history]
    axis.plot(epochs, [epoch.train_loss for epoch in fitted.history], ":", color=COLORS[which], label=f"{which}, train")
    axis.plot(epochs, [epoch.valid_loss for epoch in fitted.history], color=COLORS[which], label=f"{which}, valid")
    axis.axvline(fitted.best, color=COLORS[which], linewidth=0.6, alpha=0.6)
    axis.set_title("loss (thin line: best epoch)", fontsize=9)


def _draw_gaps(axis: Any, fits: Beside[Fit], constraints: Sequence[Constraint]) -> None:
    for place, constraint in enumerate(constraints):
        style = STYLES[place % len(STYLES)]
        for which, fitted in _by_name(fits).items():
            points = [(e.number, e.gap[constraint.name]) for e in fitted.history if constraint.name in e.gap]
            axis.plot(
                [n for n, _ in points],
                [v for _, v in points],
                style,
                color=COLORS[which],
                label=f"{constraint.name}, {which}",
            )
        if constraint.limit is not None:
            axis.axhline(constraint.limit, linestyle=style, color=LIMIT, linewidth=0.9)
    axis.set_title("gap of scores before the layer (red: limit after it)", fontsize=9)


def _draw_prices(axis: Any, fitted: Fit, constraints: Sequence[Constraint]) -> None:
    for place, constraint in enumerate(constraints):
        points = [(e.number, e.multiplier[constraint.name]) for e in fitted.history if constraint.name in e.multiplier]
        style = STYLES[place % len(STYLES)]
        axis.plot(
            [n for n, _ in points], [v for _, v in points], style, color=COLORS["constrained"], label=constraint.name
        )
    axis.set_title("multiplier, per prediction", fontsize=9)
