"""Decisions on whole batches of raw scores, weighed by what the scores were worth on validation rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.calibration import GroupCalibrator
from fairlayer.constraints import Constraint
from fairlayer.decisions import decide
from fairlayer.decisions.inputs import ACCURACY
from fairlayer.edge import feature_names

__all__ = ["decide_batch"]


def decide_batch(
    scores: FloatArray,
    constraints: Sequence[Constraint],
    sensitive: Mapping[str, Any],
    *,
    calibrator: GroupCalibrator | None = None,
    utility: Any = ACCURACY,
    capacity: int | None = None,
) -> IntArray:
    """Return the best decisions (n,) on one batch that keep the constraints there, see `fairlayer.decisions.decide`.

    Args:
        scores: (n,) raw scores.
        constraints: what must hold.
        sensitive: the sensitive columns of the batch.
        calibrator: what makes probabilities of the scores; None takes the scores for them.
        utility: see `decide`.
        capacity: see `decide`.

    Raises:
        FairlayerError: no such decisions exist, or a constraint cannot be asked of decisions.

    Example:
        >>> import fairlayer as fl
        >>> scores, sex = np.array([0.9, 0.4, 0.3, 0.2]), {"sex": np.array(["F", "F", "M", "M"])}
        >>> decide_batch(scores, [fl.DemographicParity("sex", tolerance=0.0)], sex).tolist()
        [1, 0, 1, 0]
    """
    columns = {name: sensitive[name] for name in feature_names(constraints)}
    estimates = None if calibrator is None else calibrator.apply(scores, sensitive_features=dict(sensitive))
    found = decide(
        scores,
        constraints,
        sensitive_features=columns,
        label_probabilities=estimates,
        utility=utility,
        capacity=capacity,
    )
    return np.asarray(found.decisions.numpy(), dtype=np.int64)
