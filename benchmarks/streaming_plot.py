"""The picture of docs/streaming.md: a stream whose gap turns, and whose limit is tightened.

python benchmarks/streaming_plot.py docs/streaming.svg
"""

from __future__ import annotations

import sys

import matplotlib as mpl
import numpy as np
import torch

import fairlayer as fl

REQUESTS, SEED = 8_000, 0


def main(path: str) -> None:
    """Stream, and draw the report."""
    random = np.random.default_rng(SEED)
    group = (random.random(REQUESTS) < 0.4).astype(int)
    gap = np.where(np.arange(REQUESTS) < 3_000, 0.2, -0.1)
    raw = np.clip(random.beta(2.0, 4.0, REQUESTS) + 0.12 + gap * group, 0.0, 1.0)
    stream = fl.InferenceState([fl.DemographicParity("group", 0.06)], bounds=(0.0, 1.0), window=2_000)
    for i, (score, code) in enumerate(zip(raw.tolist(), group.tolist(), strict=True)):
        if i == 5_500:
            stream.change_constraints([fl.DemographicParity("group", 0.02)], over=1_000)
        stream.emit(torch.tensor([score], dtype=torch.float64), {"group": [code]})
    mpl.rcParams["svg.hashsalt"] = "fairlayer"
    stream.plot_report().savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1])
