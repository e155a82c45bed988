"""Loggers of Lightning, by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fairlayer.errors import DataError, require

__all__ = ["logger_maker"]

KNOWN = {
    "csv": "CSVLogger",
    "tensorboard": "TensorBoardLogger",
    "wandb": "WandbLogger",
    "mlflow": "MLFlowLogger",
    "comet": "CometLogger",
    "neptune": "NeptuneLogger",
}


def logger_maker(names: Sequence[str], folder: Path) -> Callable[[str], list[Any]] | None:
    """Return what makes the loggers of a model; None where none is asked for.

    Raises:
        DataError: there is no such logger.
    """
    if not names:
        return None
    kinds = [_kind(name) for name in names]
    return lambda which: [_made(kind, folder, which) for kind in kinds]


def _kind(name: str) -> Any:
    if name in KNOWN:
        return getattr(require("lightning.pytorch.loggers", "train"), KNOWN[name])
    module, _, kind = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError, ValueError) as error:
        raise DataError(
            f"the logger '{name}' was asked for, but there is none ({error}). Known: {', '.join(KNOWN)}; or give the "
            "dotted name of a class, such as lightning.pytorch.loggers.CSVLogger."
        ) from error


def _made(kind: Any, folder: Path, which: str) -> Any:
    """Loggers of files keep one folder per model; those of services name the run after it."""
    try:
        return kind(save_dir=str(folder), name=which)
    except TypeError:
        return kind(save_dir=str(folder))
    except ModuleNotFoundError as error:
        raise DataError(f"the logger {kind.__name__} needs a library that is not installed: {error}") from error
