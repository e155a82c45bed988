"""What a label is taken to be until it comes: P(label 1 | cell, raw score), learnt from the labels so far.

Counts by cell and bin of the score are smoothed over bins, shrunk to the curve of all cells, which is shrunk to the
score itself, and made monotone in the score (isotonic regression by pooling adjacent violators). Between the centres
of bins the curve is linear.
"""

from __future__ import annotations

import numpy as np

from fairlayer._typing import FloatArray, IntArray

__all__ = ["BINS", "LabelScale", "curves"]

BINS = 32
_KERNEL = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 3.0
_PRIOR = 3.0  # labels that the curve of all cells counts for, per bin


class LabelScale:
    """Positions of raw scores on [0, 1], even in `asin(sqrt(.))` between two bounds.

    Args:
        bounds: the bounds of every prediction; without both, scores are squashed by `atan`.
    """

    def __init__(self, bounds: tuple[float | None, float | None]) -> None:
        low, high = bounds
        self.low = low
        self.width = None if low is None or high is None or high <= low else high - low
        self.centres = np.sin(0.5 * np.pi * (np.arange(BINS) + 0.5) / BINS) ** 2

    def positions(self, raw: FloatArray) -> FloatArray:
        """Return the position of each score, in bins."""
        if self.width is None or self.low is None:
            return np.asarray((0.5 + np.arctan(raw) / np.pi) * BINS)
        share = np.clip((raw - self.low) / self.width, 0.0, 1.0)
        return np.asarray(np.arcsin(np.sqrt(share)) * (2.0 / np.pi * BINS))

    def bins(self, raw: FloatArray) -> IntArray:
        """Return the bin of each score."""
        return np.minimum(self.positions(raw), BINS - 1.0).astype(np.int64)

    def read(self, curve: FloatArray, cells: IntArray, raw: FloatArray) -> FloatArray:
        """Return the estimates (n,) from curves (cells, bins)."""
        at = np.clip(self.positions(raw) - 0.5, 0.0, BINS - 1.0)
        left = np.minimum(at.astype(np.int64), BINS - 2)
        start = curve[cells, left]
        return np.asarray(start + (at - left) * (curve[cells, left + 1] - start))


def curves(counts: FloatArray, scale: LabelScale) -> FloatArray:
    """Return the estimate in each cell and bin, (cells, bins), from counts of labels and of labels 1 (2, cells, bins).

    Example:
        >>> found = curves(np.zeros((2, 1, BINS)), LabelScale((0.0, 1.0)))
        >>> bool((np.diff(found) > 0).all())
        True
    """
    smooth = np.apply_along_axis(np.convolve, 2, counts, _KERNEL, "same") if counts.size else counts
    total = smooth.sum(axis=1)
    base = (total[1] + _PRIOR * scale.centres) / (total[0] + _PRIOR)
    weights = smooth[0] + _PRIOR
    means = (smooth[1] + _PRIOR * base) / weights
    return np.array([_rising(m, w) for m, w in zip(means, weights, strict=True)]).reshape(means.shape)


def _rising(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the nearest rising values, by pooling adjacent violators."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (v1, w1, n1), (v2, w2, n2) = blocks[-2:]
            blocks[-2:] = [((v1 * w1 + v2 * w2) / (w1 + w2), w1 + w2, n1 + n2)]
    return np.repeat([v for v, _, _ in blocks], [n for _, _, n in blocks])
