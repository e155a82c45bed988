"""The picture of docs/geometries.md: raw scores of two groups, and where each geometry takes them.

python benchmarks/geometries_plot.py docs/geometries.svg
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

import fairlayer as fl

GEOMETRIES = ("euclidean", "entropic", "likelihood")
COLOURS = {"group 0": "#1f5fa8", "group 1": "#b3261e"}
MEAN_LOGITS = (-1.6, 0.9)  # of the two groups; their deviation is 1.6
POINTS = 200


def main() -> int:
    """Write the picture, as SVG or PNG by the name of the file."""
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "geometries.svg"))
    return 0


def scores() -> tuple[torch.Tensor, torch.Tensor]:
    """Return raw scores, increasing in each of the two groups, and the groups."""
    spread = np.sqrt(2.0) * torch.erfinv(2.0 * (torch.arange(POINTS, dtype=torch.float64) + 0.5) / POINTS - 1.0)
    raw = torch.cat([torch.sigmoid(mean + 1.6 * spread) for mean in MEAN_LOGITS])
    return raw, torch.arange(2).repeat_interleave(POINTS)


def draw(path: Path) -> None:
    """Draw, for each geometry, emitted over raw scores."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "geometries"  # the same numbers give the same file
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    raw, group = scores()
    parity = fl.DemographicParity("group", tolerance=0.02)
    figure, axes = pyplot.subplots(1, 3, figsize=(8.4, 3.1), layout="constrained", sharey=True)
    for axis, geometry in zip(axes, GEOMETRIES, strict=True):
        result = fl.project(raw, [parity], sensitive_features={"group": group}, bounds=(0, 1), geometry=geometry)
        axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":", label="not moved")
        for number, (name, colour) in enumerate(COLOURS.items()):
            of = group == number
            axis.plot(raw[of], result.value[of], color=colour, label=name, linewidth=1.6)
        shares = float(((result.value == 0) | (result.value == 1)).double().mean())
        axis.set(title=f"{geometry}: {shares:.0%} at 0 or 1", xlabel="raw score", xlim=(-0.02, 1.02), aspect="equal")
        axis.grid(alpha=0.25)
    axes[0].set(ylabel="emitted score", ylim=(-0.02, 1.02))
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


if __name__ == "__main__":
    raise SystemExit(main())
