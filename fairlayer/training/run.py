"""A run folder: config.json, checkpoint.pt (loads with `weights_only=True`), metrics.json, and the history of both fits
as history.json, history.csv and history.svg."""

from __future__ import annotations

import json
import pickle
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from fairlayer.data import Sample
from fairlayer.errors import DataError
from fairlayer.model import FairModel
from fairlayer.training.emission import Emission, emit_in_batches
from fairlayer.training.history import write_history_csv
from fairlayer.training.recipe import Recipe
from fairlayer.training.session import Trained

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Prediction", "Run", "finite", "load_run", "save_run", "write_json"]

FORMAT = 3
# what torch.load raises for a damaged archive
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError)


@dataclass(frozen=True)
class Prediction:
    """Scores of new rows before and after the layer, with the sensitive features that were read."""

    sample: Sample
    emission: Emission


@dataclass(frozen=True)
class Run:
    """A trained model that knows how to read a table, and the unconstrained one that was trained beside it."""

    model: FairModel
    recipe: Recipe
    plain: nn.Module

    def predict(self, frame: pd.DataFrame, *, inference: bool = True) -> Prediction:
        """Project the whole frame as one batch; labels are neither needed nor read.

        Raises:
            SmallBatchError: the frame has fewer than `b_tau` rows.
            CategoryError: a sensitive feature holds a category that was not in the training table.
            MissingColumnError: a column that the model reads is missing.
        """
        sample = self.recipe.sample(frame)
        return Prediction(sample, emit_in_batches(self.model, sample, len(sample), inference=inference))


def save_run(folder: str | Path, trained: Trained) -> Path:
    """Write the run folder; returns it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = trained.recipe.to_dict()
    torch.save(
        {"format": FORMAT, "model": trained.model.state_dict(), "recipe": recipe, "plain": trained.plain.state_dict()},
        folder / "checkpoint.pt",
    )
    write_json(folder / "config.json", {**recipe, "fit": asdict(trained.options)})
    write_json(folder / "metrics.json", trained.comparison.to_dict())
    fits = {"unconstrained": trained.fits.unconstrained, "constrained": trained.fits.constrained}
    history = {which: {"best": f.best, "epochs": [e.to_dict() for e in f.history]} for which, f in fits.items()}
    write_json(folder / "history.json", history)
    write_history_csv(folder / "history.csv", trained.fits)
    (folder / "history.svg").write_text(trained.history_svg(), encoding="utf-8")
    return folder


def load_run(folder: str | Path) -> Run:
    """Read the checkpoint of a run folder; no code is unpickled.

    Raises:
        DataError: the folder holds no checkpoint of this format.
    """
    state = _checkpoint(Path(folder) / "checkpoint.pt")
    recipe = Recipe.from_dict(state["recipe"])
    model = recipe.config.model()
    model.load_state_dict(state["model"])
    model.eval()
    plain = recipe.config.network()
    plain.load_state_dict(state["plain"])
    return Run(model, recipe, plain.eval())


def _checkpoint(path: Path) -> dict[str, Any]:
    if not zipfile.is_zipfile(path):
        raise DataError(f"no checkpoint at '{path}'. Give the folder that `fairlayer train ... --out FOLDER` wrote.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise DataError(f"'{path}' could not be read as a checkpoint ({error}). Train again.") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise DataError(f"'{path}' is no fairlayer checkpoint of format {FORMAT}. Train again with this version.")
    return state


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON; NaN and infinity become null."""
    path.write_text(json.dumps(finite(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def finite(value: Any) -> Any:
    """Return nested values for JSON, with None for NaN and infinity."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
