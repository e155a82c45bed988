"""Gradient boosted trees of scikit-learn as a model of this package: fitted, applied, and kept without pickled code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fairlayer._typing import FloatArray
from fairlayer.data import TensorTable
from fairlayer.errors import DataError, FairlayerError, require
from fairlayer.training.config import Task

__all__ = ["TREES_FILE", "Trees", "TreesNotServedError", "fit_trees", "load_trees", "save_trees"]

TREES_FILE = "trees.skops"
# what scikit-learn's boosted trees are made of, besides what skops trusts by itself
_MADE_OF = ("sklearn.", "numpy.", "builtins.", "_loss.")


class TreesNotServedError(FairlayerError, RuntimeError):
    """A run that keeps boosted trees was asked to stream or to serve, which needs a network."""


class Trees(nn.Module):
    """Fitted trees as a module without parameters: features (n, width) -> scores (n,), probabilities or amounts.

    Example:
        >>> rows = TensorTable(torch.rand(200, 2), torch.rand(200).round(), {})
        >>> trees = fit_trees(rows)
        >>> bool((trees(rows.x) >= 0).all() and (trees(rows.x) <= 1).all())
        True
    """

    def __init__(self, estimator: Any, task: Task = "classification") -> None:
        super().__init__()
        self.estimator, self.task = estimator, task

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores, which take no gradient."""
        return torch.from_numpy(self.scores(x)).float()

    def scores(self, x: torch.Tensor) -> FloatArray:
        """Return the scores in float64."""
        rows = x.detach().numpy()
        found = (
            self.estimator.predict_proba(rows)[:, 1] if self.task == "classification" else self.estimator.predict(rows)
        )
        return np.asarray(found, dtype=np.float64)


def fit_trees(train: TensorTable, *, task: Task = "classification", seed: int = 0) -> Trees:
    """Fit histogram gradient boosting with early stopping on a tenth of the rows.

    Args:
        train: the training rows.
        task: classification or regression.
        seed: the seed of the boosting.

    Raises:
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> rows = TensorTable(torch.rand(200, 2), torch.rand(200).round(), {})
        >>> fit_trees(rows)(rows.x).shape
        torch.Size([200])
    """
    ensemble = require("sklearn.ensemble", "train")
    kind = (
        ensemble.HistGradientBoostingClassifier if task == "classification" else ensemble.HistGradientBoostingRegressor
    )
    estimator = kind(learning_rate=0.06, max_iter=400, early_stopping=True, n_iter_no_change=10, random_state=seed)
    return Trees(estimator.fit(train.x.numpy(), train.y.numpy()), task)


def save_trees(folder: Path, trees: Trees) -> Path:
    """Write the trees by skops, which keeps values and no code.

    Raises:
        MissingExtraError: skops is not installed.
    """
    path = folder / TREES_FILE
    require("skops.io", "trees").dump(trees.estimator, path)
    return path


def load_trees(folder: Path, task: Task) -> Trees:
    """Read what `save_trees` wrote.

    Raises:
        MissingExtraError: skops is not installed.
        DataError: the file is not there, or holds anything that boosted trees are not made of.
    """
    path = folder / TREES_FILE
    if not path.is_file():
        raise DataError(
            f"the run keeps boosted trees, but there is no '{path}'. Copy the whole folder, or train again."
        )
    skops = require("skops.io", "trees")
    unknown = skops.get_untrusted_types(file=path)
    foreign = [name for name in unknown if not name.startswith(_MADE_OF)]
    if foreign:
        raise DataError(f"'{path}' holds {', '.join(foreign[:3])}, which boosted trees are not made of. Train again.")
    return Trees(skops.load(path, trusted=unknown), task)
