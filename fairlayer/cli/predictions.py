"""What `fairlayer predict` writes for each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fairlayer.errors import require
from fairlayer.training import Run
from fairlayer.training.quality import THRESHOLD
from fairlayer.training.run import Prediction

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["predictions"]


def predictions(run: Run, prediction: Prediction, kept: pd.DataFrame) -> pd.DataFrame:
    """Return the columns kept, raw_score, score, decision, group, moved_by, covered.

    A decision is 1 where the score is at least one half; a regression has none. The group holds the features of all
    constraints. A row is covered where each constraint knows its group; one of unknown group is left as it is by the
    constraints that compare that group.
    """
    raw, score = prediction.emission.raw.reshape(-1), prediction.emission.scores.reshape(-1)
    columns: dict[str, NDArray[Any]] = {"raw_score": raw, "score": score}
    if run.recipe.config.task == "classification":
        columns["decision"] = (score >= THRESHOLD).astype(np.int64)
    columns |= {"group": _groups(prediction), "moved_by": score - raw, "covered": _covered(run, prediction)}
    pandas = require("pandas", "train")
    free = {name: column for name, column in columns.items() if name not in kept.columns}
    clash = {f"{name}_predicted": column for name, column in columns.items() if name in kept.columns}
    found: pd.DataFrame = kept.reset_index(drop=True).assign(**{**free, **clash})
    return pandas.DataFrame(found)


def _groups(prediction: Prediction) -> NDArray[np.object_]:
    """Return one name per row, as `sex=female & region=rural`; unknown categories are empty."""
    named = [
        np.array([f"{name}={'' if value is None else value}" for value in column], dtype=object)
        for name, column in prediction.sample.sensitive.items()
    ]
    rows = len(prediction.sample)
    return np.array([" & ".join(parts) for parts in zip(*named, strict=True)] or [""] * rows, dtype=object)


def _covered(run: Run, prediction: Prediction) -> NDArray[np.bool_]:
    """Return whether all constraints know the group of each row."""
    known = np.ones(len(prediction.sample), dtype=bool)
    for constraint in run.recipe.config.parsed():
        for name in constraint.features:
            column = prediction.sample.sensitive[name]
            missing = np.isnan(column) if column.dtype.kind == "f" else np.array([value is None for value in column])
            known &= ~missing
    return known
