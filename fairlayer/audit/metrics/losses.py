"""Losses: how far predictions are from labels, per row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fairlayer.audit.grouped import Grouped
from fairlayer.audit.means import Means, mean_of_sum
from fairlayer.audit.metrics.base import Metric, register
from fairlayer.audit.slots import CLASSES, LABELLED

__all__: list[str] = []

_PROBABILITIES = ("probabilities", "classes")
_ANY = ("scores", "labels")


def _mean_squared_error(grouped: Grouped) -> Means:
    return mean_of_sum(grouped, "residual_squares", LABELLED, squares="residual_fourths")


def _root(grouped: Grouped) -> Means:
    mean = _mean_squared_error(grouped)
    return replace(mean, kind="root", value=np.sqrt(mean.value))


register(
    Metric(
        "log_loss",
        "mean of -log(the probability given to the label that came)",
        "nats",
        _PROBABILITIES,
        "higher",
        lambda g: mean_of_sum(g, "log_loss", CLASSES),
    )
)
register(
    Metric(
        "brier_score",
        "mean squared distance of the probability from the label",
        "share",
        _PROBABILITIES,
        "higher",
        lambda g: mean_of_sum(g, "residual_squares", CLASSES, squares="residual_fourths"),
    )
)
register(
    Metric(
        "mean_residual",
        "mean of label minus score: above 0, the group is scored too low",
        "label",
        _ANY,
        "more_favour",
        lambda g: mean_of_sum(g, "residual", LABELLED),
    )
)
register(
    Metric(
        "mean_absolute_error",
        "mean distance of the score from the label",
        "label",
        _ANY,
        "higher",
        lambda g: mean_of_sum(g, "residual_size", LABELLED, squares="residual_squares"),
    )
)
register(
    Metric(
        "mean_squared_error",
        "mean squared distance of the score from the label",
        "label squared",
        _ANY,
        "higher",
        _mean_squared_error,
    )
)
register(
    Metric(
        "root_mean_squared_error",
        "root of the mean squared distance of the score from the label",
        "label",
        _ANY,
        "higher",
        _root,
    )
)
