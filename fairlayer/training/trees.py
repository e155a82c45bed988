"""Gradient boosted trees of scikit-learn as a model of this package: fitted, applied, and kept without pickled code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fairlayer._typing import FloatArray
from fairlayer.data import TensorTable
from fairlayer.errors import DataError, FairlayerError, require
from fairlayer.training.config import Task

__all__ = [
    "FITS",
    "TREES_FILE",
    "NetworkAndTrees",
    "Trees",
    "TreesNotServedError",
    "fit_trees",
    "load_trees",
    "save_trees",
    "share_of_network",
]

TREES_FILE = "trees.skops"
# what scikit-learn's boosted trees are made of, besides what skops trusts by itself
_MADE_OF = ("sklearn.", "numpy.", "builtins.", "_loss.")

FITS = 5
_APART = 1_000_003  # between the seeds of fits, so that those of neighbouring seeds share none
_BOOSTING = {
    "learning_rate": 0.1,
    "max_iter": 400,
    "max_leaf_nodes": 8,
    "l2_regularization": 1.0,
    "early_stopping": True,
    "n_iter_no_change": 10,
}
_EDGE = 1e-7  # from which log-odds are taken


class TreesNotServedError(FairlayerError, RuntimeError):
    """A run that keeps boosted trees was asked to stream or to serve, which needs a network."""


class Trees(nn.Module):
    """Fitted trees as a module without parameters: features (n, width) -> scores (n,), probabilities or amounts.

    Args:
        estimators: fitted several times; their mean counts, in log-odds for probabilities.
        task: classification or regression.

    Example:
        >>> rows = TensorTable(torch.rand(200, 2), torch.rand(200).round(), {})
        >>> trees = fit_trees(rows)
        >>> bool((trees(rows.x) >= 0).all() and (trees(rows.x) <= 1).all())
        True
    """

    def __init__(self, estimators: Sequence[Any], task: Task = "classification") -> None:
        super().__init__()
        self.estimators, self.task = tuple(estimators), task

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores, which take no gradient."""
        return torch.from_numpy(self.scores(x)).float()

    def scores(self, x: torch.Tensor) -> FloatArray:
        """Return the scores in float64."""
        rows = x.detach().numpy()
        probable = self.task == "classification"
        each = [fitted.decision_function(rows) if probable else fitted.predict(rows) for fitted in self.estimators]
        mean = np.asarray(np.mean(each, axis=0), dtype=np.float64)
        return np.asarray(1 / (1 + np.exp(-mean))) if probable else mean


class NetworkAndTrees(nn.Module):
    """The mean of a network's scores and of trees' scores: of their log-odds for probabilities, else of the amounts.

        share * network + (1 - share) * trees

    The two err in different ways, so that their mean is mostly better than either.

    Args:
        network: the network, which emits scores.
        trees: the trees.
        share: the weight of the network in the mean, see `share_of_network`.

    Example:
        >>> rows = TensorTable(torch.rand(200, 2), torch.rand(200).round(), {})
        >>> network = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0), nn.Sigmoid())
        >>> NetworkAndTrees(network, fit_trees(rows))(rows.x).shape
        torch.Size([200])
    """

    def __init__(self, network: nn.Module, trees: Trees, share: float = 0.5) -> None:
        super().__init__()
        self.network, self.trees, self.share = network, trees, share

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores, which take no gradient."""
        one, other = self.network(x).double(), torch.from_numpy(self.trees.scores(x))
        if self.trees.task == "regression":
            return torch.lerp(other, one, self.share).float()
        return torch.sigmoid(torch.lerp(torch.logit(other, _EDGE), torch.logit(one, _EDGE), self.share)).float()


def share_of_network(network: FloatArray, trees: FloatArray, labels: FloatArray, task: Task) -> float:
    """Return the weight of the network in its mean with trees, from rows that neither was fitted to.

    It lies half-way between one half and the weight of the lowest loss on these rows, which follows their accidents.

    Args:
        network: (n,) scores of the network.
        trees: (n,) scores of the trees.
        labels: (n,) labels, or amounts.
        task: classification or regression.

    Example:
        >>> labels = np.array([0.0, 1.0, 0.0, 1.0])
        >>> share_of_network(np.array([0.1, 0.9, 0.2, 0.8]), np.full(4, 0.5), labels, "classification")
        0.75
    """

    def loss(share: float) -> float:
        if task == "regression":
            return float(np.square(share * network + (1 - share) * trees - labels).mean())
        z = share * _log_odds(network) + (1 - share) * _log_odds(trees)
        return float(np.mean(np.logaddexp(0.0, np.where(labels == 1, -z, z))))

    best = float(min(np.linspace(0.0, 1.0, 21).tolist(), key=loss))
    return (best + 0.5) / 2


def _log_odds(scores: FloatArray) -> FloatArray:
    inside = np.clip(scores, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside / (1 - inside)))


def fit_trees(train: TensorTable, *, task: Task = "classification", seed: int = 0, fits: int = FITS) -> Trees:
    """Fit histogram gradient boosting several times, each with early stopping on another tenth of the rows.

    Small trees, and the mean of several fits, lose less to the accidents of a few thousand rows than one fit of large
    trees does.

    Args:
        train: the training rows.
        task: classification or regression.
        seed: the seed of the boosting.
        fits: how often it is fitted; the mean counts.

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
    x, y = train.x.numpy(), train.y.numpy()
    return Trees([kind(**_BOOSTING, random_state=(seed + _APART * fit) % 2**32).fit(x, y) for fit in range(fits)], task)


def save_trees(folder: Path, trees: Trees) -> Path:
    """Write the trees by skops, which keeps values and no code.

    Raises:
        MissingExtraError: skops is not installed.
    """
    path = folder / TREES_FILE
    require("skops.io", "trees").dump(list(trees.estimators), path)
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
