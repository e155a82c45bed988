"""What `fairlayer predict` writes for each row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fairlayer.edge import feature_names
from fairlayer.errors import require
from fairlayer.training import Run
from fairlayer.training.run import Prediction

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["predictions"]


def predictions(run: Run, prediction: Prediction, kept: pd.DataFrame) -> pd.DataFrame:
    """Return the columns kept, raw_score, score, decision, group, moved_by, covered.

    Decisions are those of the route that the run keeps, or those asked for; a regression has none. The group holds the
    features of all constraints. A row is covered where each constraint knows its group; one of unknown group is left as
    it is by the constraints that compare that group.
    """
    raw, score = prediction.raw.reshape(-1), prediction.scores.reshape(-1)
    columns: dict[str, NDArray[Any]] = {"raw_score": raw, "score": score}
    if prediction.decisions is not None:
        columns["decision"] = prediction.decisions
    moved = (score.astype(np.float64) - raw.astype(np.float64)).round(7)
    columns |= {"group": _groups(run, prediction), "moved_by": moved, "covered": _covered(run, prediction)}
    pandas = require("pandas", "train")
    free = {name: column for name, column in columns.items() if name not in kept.columns}
    clash = {f"{name}_predicted": column for name, column in columns.items() if name in kept.columns}
    found: pd.DataFrame = kept.reset_index(drop=True).assign(**{**free, **clash})
    return pandas.DataFrame(found)


def _groups(run: Run, prediction: Prediction) -> NDArray[np.object_]:
    """Return one name per row, as `sex=female & region=rural`, or `sex unknown`."""
    names = feature_names(run.recipe.config.parsed())
    columns = [prediction.sample.sensitive[name].tolist() for name in names]
    said = [
        " & ".join(f"{name} unknown" if _is_unknown(v) else f"{name}={v}" for name, v in zip(names, row, strict=True))
        for row in zip(*columns, strict=True)
    ]
    return np.array(said or [""] * len(prediction.sample), dtype=object)


def _is_unknown(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _covered(run: Run, prediction: Prediction) -> NDArray[np.bool_]:
    """Return whether all constraints know the group of each row."""
    known = np.ones(len(prediction.sample), dtype=bool)
    for constraint in run.recipe.config.parsed():
        for name in constraint.features:
            column = prediction.sample.sensitive[name]
            missing = np.isnan(column) if column.dtype.kind == "f" else np.array([value is None for value in column])
            known &= ~missing
    return known
