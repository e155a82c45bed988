"""Calibration error: how far the scores of a bin are from the share of label 1 in it.

    ECE = sum_b w_b |ybar_b - sbar_b|        ten bins of equal width, w_b the share of the rows

It is biased upwards, the more the fewer the rows: a perfectly calibrated group of 200 people has about 0.07. So two
groups of unlike sizes differ in it without any difference in calibration, and no interval is given. The difference of
`mean_residual` is a difference of means and has one. The second number takes the noise out,

    C = sum_b w_b [(ybar_b - sbar_b)^2 - ybar_b (1 - ybar_b) / (n_b - 1)],        sign(C) sqrt |C|

and is about 0, of either sign, for a calibrated group of any size.
"""

from __future__ import annotations

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.audit.counting import COARSE
from fairlayer.audit.grouped import Grouped, effective
from fairlayer.audit.means import Means, divided, without_interval
from fairlayer.audit.metrics.base import Metric, register
from fairlayer.audit.slots import CLASSES, NEGATIVE, POSITIVE

__all__: list[str] = []

_NEEDS = ("probabilities", "classes")


def _bins(grouped: Grouped) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return (share of the rows, share of label 1, mean score) of each bin, (groups, bins) each."""
    fine = grouped.bins()
    coarse = fine.reshape(len(fine), len(CLASSES), COARSE, -1, 2).sum(axis=3)
    weight = coarse[..., 0].sum(axis=1)
    share = divided(weight, np.repeat(weight.sum(axis=1, keepdims=True), COARSE, axis=1))
    return share, divided(coarse[:, POSITIVE, :, 0], weight), divided(coarse[..., 1].sum(axis=1), weight)


def _expected(grouped: Grouped) -> Means:
    share, label, score = _bins(grouped)
    error = np.nansum(share * np.abs(label - score), axis=1)
    return _measured(grouped, error)


def _debiased(grouped: Grouped) -> Means:
    share, label, score = _bins(grouped)
    rows = effective(grouped.total("weight", CLASSES), grouped.total("weight_squares", CLASSES))
    in_bin = share * rows[:, None]
    noise = np.where(in_bin > 1, label * (1 - label) / np.maximum(in_bin - 1, 1e-9), (label - score) ** 2)
    squared = np.nansum(share * ((label - score) ** 2 - noise), axis=1)
    return _measured(grouped, np.sign(squared) * np.sqrt(np.abs(squared)))


def _measured(grouped: Grouped, error: FloatArray) -> Means:
    rows = grouped.total("rows", (NEGATIVE, POSITIVE))
    weight = grouped.total("weight", (NEGATIVE, POSITIVE))
    return without_interval(np.where(weight > 0, error, np.nan), rows)


register(
    Metric(
        "calibration_error",
        "mean distance, over ten bins, of the mean score from the share of label 1",
        "share",
        _NEEDS,
        "higher",
        _expected,
    )
)
register(
    Metric(
        "calibration_error_debiased",
        "the same distance, squared, less what noise alone would make; its root, with its sign",
        "share",
        _NEEDS,
        "higher",
        _debiased,
    )
)
