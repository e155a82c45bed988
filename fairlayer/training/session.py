"""From a table to two trained models and their comparison."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fairlayer.audit.leakage import column_warnings
from fairlayer.constraints import Constraint, CovarianceBound
from fairlayer.data import DataSplit, Encoder, Table, TensorTable, split_rows
from fairlayer.data.errors import ColumnError
from fairlayer.errors import DataError
from fairlayer.model import FairModel
from fairlayer.training.comparing import SMALLEST_GROUP, compare
from fairlayer.training.comparison import Beside, Comparison
from fairlayer.training.config import FitOptions, ModelConfig
from fairlayer.training.fitting import Epoch, Fit, FitFolder, fit
from fairlayer.training.gaps import measure
from fairlayer.training.history import history_svg
from fairlayer.training.observed import Observed
from fairlayer.training.recipe import Recipe

__all__ = ["Parts", "Trained", "prepare", "train"]

OnEpoch = Callable[[str, Epoch], None]

_FINER = 4.0  # by which steps through the layer are smaller, as they improve on a network that is trained already


@dataclass(frozen=True)
class Parts:
    """A table made ready: the three samples, and how they were made."""

    recipe: Recipe
    train: TensorTable
    valid: TensorTable
    test: TensorTable
    split: DataSplit
    sensitive: tuple[str, ...]
    data: str
    warnings: tuple[str, ...] = ()

    @property
    def rows(self) -> dict[str, int]:
        return {"train": len(self.train), "valid": len(self.valid), "test": len(self.test)}


@dataclass(frozen=True)
class Trained:
    """Both models, how they got there, and what the test rows say.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> len(trained.fits.constrained.history), trained.recipe.config.constraints
        (1, ('demographic_parity(sex, 0.05)',))
    """

    recipe: Recipe
    options: FitOptions
    model: FairModel
    plain: nn.Module
    fits: Beside[Fit]
    comparison: Comparison

    def history_svg(self) -> str:
        """Draw loss, gaps and multipliers by epoch, as a picture."""
        return history_svg(self.fits, self.recipe.config.parsed())


def prepare(
    table: Table,
    constraints: Sequence[str],
    *,
    drop_sensitive: bool = False,
    seed: int = 0,
    **model: Any,
) -> Parts:
    """Split the rows, fit the encoder on the training ones, and check that the constraints compare something.

    Args:
        drop_sensitive: keep the sensitive columns out of the features.
        seed: the seed of a random split.
        **model: further fields of `ModelConfig` (hidden, bounds, margin, b_tau, on_infeasible, geometry).

    Raises:
        DataError: the table does not fit what is asked of it.
        InfeasibleConstraintsError: no predictions for the training rows meet the constraints, and `on_infeasible` is
            "raise".

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"age": range(100), "sex": ["F", "M"] * 50, "paid": [0, 1, 1, 0] * 25})
        >>> table = Table("people", frame, target="paid", positive="1", sensitive=("sex",))
        >>> parts = prepare(table, ["demographic_parity(sex, 0.05)"], hidden=(4,))
        >>> len(parts.train.y), len(parts.valid.y), len(parts.test.y)
        (52, 18, 30)
    """
    if not constraints:
        raise DataError("no constraint was given; name at least one, for example 'demographic_parity(sex, 0.02)'.")
    split = split_rows(table, seed=seed)
    names = table.features(drop_sensitive=drop_sensitive)
    encoder = Encoder.fit(table.frame.iloc[split.train], names, categorical=table.categorical)
    config = ModelConfig(
        encoder.width,
        tuple(constraints),
        task="regression" if table.positive is None else "classification",
        **_target_units(table, split),
        **model,
    )
    recipe = Recipe(config, encoder, table.cuts, table.target, table.positive)
    everything = recipe.sample(table.frame, table.labels(), watched=table.sensitive)
    _check_comparable(config.parsed(), everything)
    train, valid, test = (everything.take(rows) for rows in (split.train, split.valid, split.test))
    _check_feasible(config, train)
    warnings = column_warnings(
        {name: table.frame[name].to_numpy() for name in names},
        everything.y.numpy() if table.positive is not None else None,
        sensitive=table.sensitive,
        sources=[cut.source for cut in table.cuts],
    )
    told = (*warnings, *_small_groups(config.parsed(), everything, split))
    return Parts(recipe, train, valid, test, split, table.sensitive, table.description or table.name, told)


def train(
    parts: Parts,
    options: FitOptions | None = None,
    *,
    batch_size: int | None = None,
    inference: bool = False,
    on_epoch: OnEpoch | None = None,
    checkpoints: str | Path | None = None,
    resume: bool = False,
    logger: Callable[[str], Any] | None = None,
) -> Trained:
    """Train a network without constraints, then through the layer from there; compare on test rows.

    Geometry and loss are those of the recipe's configuration, the same loss for both. The unconstrained network with
    the layer after it competes, as epoch 0, for the epoch of the lowest validation loss. Training through the layer
    takes a quarter of the learning rate: it goes on from a network that is trained already, which steps of the full
    size would leave before they improve it.

    Args:
        batch_size: the size of the test batches; the training one where not given.
        inference: apply the constrained model to the test batches in its inference regime.
        on_epoch: a function that is told ("unconstrained" or "constrained", epoch) as training goes.
        checkpoints: folder that keeps a checkpoint of either model after each epoch.
        resume: go on from the checkpoints that are there.
        logger: a function that makes a logger of Lightning for the model of that name.
        parts: training, validation and test rows.
        options: the options of the fit.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"age": range(200), "sex": ["F", "M"] * 100, "paid": [0, 1, 1, 0] * 50})
        >>> table = Table("people", frame, target="paid", positive="1", sensitive=("sex",))
        >>> parts = prepare(table, ["demographic_parity(sex, 0.05)"], hidden=(4,))
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> [result.name for result in trained.comparison.constraints]
        ["DemographicParity('sex')"]
    """
    options = options or FitOptions()
    config = parts.recipe.config

    def fitted(model: nn.Module, which: str, options: FitOptions, *, start_competes: bool = False) -> Fit:
        return fit(
            model,
            parts.train,
            parts.valid,
            task=config.task,
            loss=config.loss,
            start_competes=start_competes,
            options=options,
            watched=config.parsed(),
            on_epoch=None if on_epoch is None else (lambda epoch: on_epoch(which, epoch)),
            folder=None if checkpoints is None else FitFolder(Path(checkpoints) / which, resume),
            logger=None if logger is None else logger(which),
        )

    with torch.random.fork_rng(devices=[]):  # the caller's random numbers are not ours to move
        torch.manual_seed(options.seed)
        plain = config.network()
        alone = fitted(plain, "unconstrained", options)
        model = config.around(copy.deepcopy(plain))
        model.fit_categories(_all_groups(parts))
        torch.manual_seed(options.seed)
        finer = replace(options, learning_rate=options.learning_rate / _FINER)
        through = fitted(model, "constrained", finer, start_competes=True)
        fits = Beside(alone, through)
    comparison = compare(
        plain,
        model,
        parts.test,
        task=config.task,
        batch_size=batch_size or options.batch_size,
        inference=inference,
        watched=parts.sensitive,
        data=parts.data,
        split=parts.split.origin,
        rows=parts.rows,
    )
    return Trained(parts.recipe, options, model, plain, fits, comparison)


def _target_units(table: Table, split: DataSplit) -> dict[str, Any]:
    if table.positive is not None:
        return {}
    labels = table.labels()[split.train]
    return {"centre": float(labels.mean()), "scale": float(labels.std()) or 1.0}


def _all_groups(parts: Parts) -> dict[str, np.ndarray]:
    """Every category of the table, so that a rare one seen only among the test rows is known too."""
    samples = (parts.train, parts.valid, parts.test)
    return {name: np.concatenate([s.sensitive[name] for s in samples]) for name in parts.train.sensitive}


def _check_comparable(constraints: Sequence[Constraint], sample: TensorTable) -> None:
    labels = sample.y.numpy()
    observed = Observed(sample.sensitive, labels, labels)
    for constraint in constraints:
        if measure(constraint, observed, labels).value is None:
            found = {name: sorted({str(value) for value in sample.sensitive[name]})[:5] for name in constraint.on}
            raise ColumnError(
                f"{constraint.name} compares groups, but the table gives it fewer than two: {found}. "
                "Name a column with at least two groups, or leave the constraint out."
            )


def _small_groups(constraints: Sequence[Constraint], sample: TensorTable, split: DataSplit) -> tuple[str, ...]:
    """Name the groups that are compared although nothing can be learnt or measured about them."""
    rows = Observed(sample.sensitive, sample.y.numpy())
    parts = {"training": split.train, "validation": split.valid, "test": split.test}
    found = []
    for on in dict.fromkeys(c.on for c in constraints if c.on and not isinstance(c, CovarianceBound)):
        means = rows.batch.means(on)
        assert means.codes is not None  # tables hold hard groups
        for k in np.flatnonzero((means.counts > 0) & (means.counts < SMALLEST_GROUP)):
            inside = means.codes == k
            counts = ", ".join(f"{int(inside[part].sum())} {name}" for name, part in parts.items())
            found.append(
                f"The group {means.groups[k]} has {inside.sum()} rows ({counts}). Limits compare it with the others, "
                "and nothing can be said about new people of it; join it with another group, or gather more."
            )
    return tuple(found)


def _check_feasible(config: ModelConfig, train: TensorTable) -> None:
    """Project the training rows once: limits that nothing can meet are told before anything is trained."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = config.model()
        model(train.x, sensitive_features=train.sensitive, y=train.y)
