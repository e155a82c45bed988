"""Pictures of the site as small SVG files: bars, lines, the scores of the home page, the gap of a stream.

`python -m website.pictures` draws the last two, from numbers that it computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

__all__ = ["bars", "home", "lines", "save", "stream"]

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"

COLOURS = ("#3f51b5", "#e07b39", "#2e8b57", "#8e6bbf")
STYLE = {
    "svg.hashsalt": "fairlayer",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "legend.frameon": False,
}
mpl.rcParams.update(STYLE)


def save(figure: Any, path: Path) -> None:
    """Write a picture without a date, so that the same numbers give the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def bars(names: Sequence[str], series: Mapping[str, Sequence[float]], title: str, unit: str) -> Any:
    """Return horizontal bars: one group for each name, one bar for each series."""
    figure, axes = plt.subplots(figsize=(7, 0.7 + 0.28 * len(names) * len(series) + 0.2 * len(names)))
    width = 0.8 / len(series)
    for k, (label, values) in enumerate(series.items()):
        places = [i + (k - (len(series) - 1) / 2) * width for i in range(len(names))]
        drawn = axes.barh(places, values, width * 0.92, label=label, color=COLOURS[k])
        axes.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(unit)
    axes.set_title(title, fontsize=11, loc="left")
    if len(series) > 1:
        axes.legend(fontsize=9)
    return figure


def lines(at: Sequence[float], series: Mapping[str, Sequence[float]], title: str, unit: str) -> Any:
    """Return one line for each series."""
    figure, axes = plt.subplots(figsize=(7, 3))
    for label, values in series.items():
        axes.plot(at, values, marker="o", label=label)
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.set_xlabel(unit)
    axes.set_title(title, fontsize=11, loc="left")
    axes.legend(fontsize=9)
    return figure


def home() -> Any:
    """Return the scores of two groups before and after the layer, with their means."""
    import torch

    import fairlayer as fl

    torch.manual_seed(0)
    man = torch.arange(3000) % 2
    raw = torch.sigmoid(torch.randn(3000) * 0.9 + torch.where(man == 1, 0.45, -0.45))
    parity = fl.DemographicParity("sex", tolerance=0.02)
    kept = fl.project(raw, [parity], sensitive_features={"sex": man}, geometry="entropic").value
    figure, both = plt.subplots(1, 2, figsize=(8, 2.9), sharey=True)
    for axes, scores, title in zip(both, (raw, kept), ("before the layer", "behind the layer"), strict=True):
        for k, name in enumerate(("women", "men")):
            own = scores[man == k]
            axes.hist(own.numpy(), bins=30, range=(0, 1), alpha=0.45, color=COLOURS[k], label=name)
            axes.axvline(float(own.mean()), color=COLOURS[k], linewidth=2)
        gap = float(scores[man == 1].mean() - scores[man == 0].mean())
        axes.set_title(f"{title}: the means differ by {gap:.2f}", fontsize=10, loc="left")
        axes.set_xlabel("score")
    both[0].set_ylabel("people")
    both[0].legend(fontsize=9)
    figure.tight_layout()
    return figure


def stream() -> Any:
    """Return the raw and the answered gap of the last 1,000 requests, over a stream whose scores change half-way."""
    import numpy as np
    import torch

    import fairlayer as fl

    rng = np.random.default_rng(0)
    state = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0), window=1000)
    at, raw, answered = [], [], []
    for number in range(1, 4001):
        man = rng.random() < 0.6
        level = (0.60 if man else 0.45) - (0.12 if number > 2000 and not man else 0.0)
        score = float(np.clip(rng.normal(level, 0.15), 0.01, 0.99))
        state.emit(torch.tensor([score], dtype=torch.float64), {"sex": ["M" if man else "F"]})
        if number % 50 == 0 and number >= 100:
            gaps = state.report().window.gaps["DemographicParity('sex')"]
            at.append(number)
            raw.append(gaps.raw.value)
            answered.append(gaps.emitted.value)
    figure, axes = plt.subplots(figsize=(8, 2.9))
    axes.plot(at, raw, label="raw scores", color=COLOURS[1])
    axes.plot(at, answered, label="answers", color=COLOURS[0])
    axes.axhspan(0, 0.02, color="#2e8b57", alpha=0.2, label="tolerance")
    axes.set_xlabel("requests")
    axes.set_ylabel("gap of the last 1,000")
    axes.set_ylim(0)
    axes.legend(fontsize=9)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    save(home(), FOLDER / "home.svg")
    save(stream(), FOLDER / "stream.svg")
