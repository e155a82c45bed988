"""Loggers of Lightning, by name: one for each model of a run."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairlayer.errors import DataError, MissingExtraError, require

__all__ = ["Loggers"]

KNOWN = {
    "csv": "CSVLogger",
    "tensorboard": "TensorBoardLogger",
    "wandb": "WandbLogger",
    "mlflow": "MLFlowLogger",
    "comet": "CometLogger",
}


class Loggers:
    """Makes the loggers of one model after another; a service's run is ended before the next model begins its own.

    Args:
        names: those of `KNOWN`, or dotted names of classes.
        folder: where they write.

    Raises:
        DataError: there is no such logger.
    """

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self._kinds = [_kind(name) for name in names]
        self._folder = folder
        self._running: list[Any] = []

    def __call__(self, which: str) -> list[Any]:
        """Return loggers for the model of that name.

        Raises:
            MissingExtraError: the library of a logger is not installed.
            DataError: a logger could not be started.
        """
        self.end()
        self._running = [_started(kind, self._folder, which) for kind in self._kinds]
        return self._running

    def end(self) -> None:
        """End the runs that services keep open; what a service finds open, it goes on with."""
        for logger in self._running:
            run = getattr(logger, "experiment", None)
            for name in ("finish", "end"):  # of Weights & Biases, of Comet
                getattr(run, name, lambda: None)()
        self._running = []


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


def _started(kind: Any, folder: Path, which: str) -> Any:
    """Return a logger that is known to work: services ask for a key only when their run begins."""
    try:
        logger = kind(**_options(kind, folder, which))
        _ = getattr(logger, "experiment", None)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the logger {kind.__name__} needs a library that is not installed: {error}") from error
    except Exception as error:  # services have errors of their own
        raise DataError(
            f"the logger {kind.__name__} could not be started ({type(error).__name__}: {error}). Set it up as its own "
            "documentation says, or choose another one."
        ) from error
    return logger


def _options(kind: Any, folder: Path, which: str) -> dict[str, str]:
    """Loggers of files keep one folder per model; those of services name the run after the run folder and the model."""
    run = f"{folder.resolve().parent.name} {which}"
    if kind.__name__ == "MLFlowLogger":  # its default, a folder of files, is refused by MLflow 3
        folder.mkdir(parents=True, exist_ok=True)
        store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve()}/mlflow.db"
        return {"tracking_uri": store, "run_name": run}
    if kind.__name__ == "CometLogger":
        return {"offline_directory": str(folder), "name": run}
    if kind.__name__ == "WandbLogger":
        return {"save_dir": str(folder), "name": run}
    takes = inspect.signature(kind).parameters
    said = {"save_dir": str(folder), "root_dir": str(folder), "name": which}
    return {name: value for name, value in said.items() if name in takes}
