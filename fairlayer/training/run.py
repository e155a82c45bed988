"""A run folder: config.json, checkpoint.pt (loads with `weights_only=True`), metrics.json, and the history of both fits
as history.json, history.csv and history.svg."""

from __future__ import annotations

import copy
import json
import pickle
import zipfile
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fairlayer.data import TensorTable
from fairlayer.errors import DataError, SmallBatchError, require
from fairlayer.model import FairModel
from fairlayer.training.emission import Emission, emit_in_batches
from fairlayer.training.history import write_history_csv
from fairlayer.training.kept import THROUGH, KeptRoute
from fairlayer.training.quality import THRESHOLD
from fairlayer.training.recipe import Recipe
from fairlayer.training.session import Trained
from fairlayer.training.trees import NetworkAndTrees, Trees, TreesNotServedError, load_trees, save_trees

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NoDecisionsError", "Prediction", "Run", "around", "finite", "load_run", "save_run", "write_json"]

FORMAT = 4
# what torch.load raises for a damaged archive
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError)


class NoDecisionsError(DataError):
    """Decisions were asked of a run that cannot make them in that way."""


@dataclass(frozen=True)
class Prediction:
    """Scores of new rows before and after the layer, with the sensitive features that were read.

    Args:
        sample: the rows.
        emission: raw scores, and what the layer makes of them.
        route: the route that the run keeps.
        decisions: 0 or 1 per row; None for regression.
        decided_by: what, in words, made the decisions.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, prepare, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> found = load_run(save_run("run-used", trained)).predict(read_lending(n=100, seed=1).frame)
        >>> found.raw.shape, found.decisions.shape, sorted(found.sample.sensitive)
        ((100,), (100,), ['sex'])
    """

    sample: TensorTable
    emission: Emission
    route: KeptRoute = THROUGH
    decisions: NDArray[np.int64] | None = None
    decided_by: str = ""

    @property
    def raw(self) -> NDArray[np.float32]:
        """The scores of the model by itself."""
        return self.emission.raw

    @property
    def scores(self) -> NDArray[np.float32]:
        """The scores that the route emits: those of the layer where it projects, else those of the model by itself."""
        return self.emission.scores if self.route.step == "projected" else self.emission.raw


@dataclass(frozen=True)
class Run:
    """A trained model that knows how to read a table, and the unconstrained one that was trained beside it.

    Args:
        layered: the model whose scores count, in its layer.
        recipe: how rows become model input.
        route: what is done to the scores.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, prepare, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> run = load_run(save_run("run-kept", trained))
        >>> run.predict(read_lending(n=100, seed=1).frame).scores.shape
        (100,)
    """

    layered: FairModel
    recipe: Recipe
    plain: nn.Module
    route: KeptRoute = THROUGH

    @cached_property
    def model(self) -> FairModel:
        """The network in a layer of the euclidean geometry, the one in which streams and services move scores.

        Raises:
            TreesNotServedError: the run keeps boosted trees.
        """
        if self.route.trees:
            raise TreesNotServedError(
                f"this run keeps '{self.route.name}', and boosted trees are neither streamed nor served. Use "
                "`fairlayer predict`, or train with --no-trees."
            )
        known = self.layered.projection
        if not known.options.rule.bounded:
            return self.layered
        assert self.layered.backbone is not None
        model = replace(self.recipe.config, geometry="euclidean").around(self.layered.backbone)
        model.b_tau, model.projection.vocabulary = self.layered.b_tau, known.vocabulary
        return model.eval()

    def predict(
        self,
        frame: pd.DataFrame,
        *,
        inference: bool = True,
        decisions: str | None = None,
        capacity: int | None = None,
        utility: Any = None,
    ) -> Prediction:
        """Project the whole frame as one batch; labels are neither needed nor read.

        Args:
            frame: the rows.
            inference: refuse a frame smaller than `b_tau` where the frame counts as a batch: where its scores are
                projected, or it is decided as a whole. Thresholds decide each row by itself.
            decisions: "rule" decides by the thresholds fitted in training, "batch" by `decide` on this frame, None by
                the route that was kept: its rule, the batch, or 0.5.
            capacity: the most rows to select with "batch".
            utility: the utility with "batch", see `decide`; None for the one of the training.

        Raises:
            SmallBatchError: the frame counts as a batch, and has fewer than `b_tau` rows.
            CategoryError: a sensitive feature holds a category that was not in the training table.
            MissingColumnError: a column that the model reads is missing.
            NoDecisionsError: decisions were asked of a run that has none.
        """
        sample = self.recipe.sample(frame)
        how = decisions or {"decision rule": "rule", "batch decisions": "batch"}.get(self.route.step, "threshold")
        whole = self.route.step == "projected" or how == "batch"  # else each row is scored and decided by itself
        if inference and whole and 0 < len(sample) < self.layered.b_tau:
            raise SmallBatchError(_too_few(self, len(sample)))
        emission = emit_in_batches(self.layered, sample, len(sample), calibrator=self.route.calibrator)
        prediction = Prediction(sample, emission, self.route)
        if self.recipe.config.task == "regression":
            if decisions is not None:
                raise NoDecisionsError(
                    "decisions were asked for, but this run predicts amounts. Leave --decisions out."
                )
            return prediction
        if how != "batch" and (capacity is not None or utility is not None):
            raise NoDecisionsError(
                "a capacity or a utility was given, which only decisions on this very batch can keep. Use "
                "--decisions batch; the utility of a rule is given to `train`."
            )
        return _decided(self, prediction, how, capacity, utility)


def _too_few(run: Run, rows: int) -> str:
    """Return what to do where a frame that counts as a batch is smaller than the smallest one."""
    projected, alone = run.route.step == "projected", run.route.rule is not None
    done = "projected" if projected else "decided on"
    ways = ["gather more rows", "accept smaller files (--b-tau N)"]
    if projected and not run.route.trees:
        ways.append("stream the rows (`fairlayer stream`)")
    elif not projected and alone:
        ways.insert(0, "decide each row by itself, by the thresholds that were fitted in training (--decisions rule)")
    return (
        f"a batch of {rows} {'row' if rows == 1 else 'rows'} was to be {done} as a whole, but this run takes none of "
        f"fewer than b_tau={run.layered.b_tau}. You can {', or '.join(ways)}."
    )


def _decided(run: Run, prediction: Prediction, how: str, capacity: int | None, utility: Any) -> Prediction:
    raw, sensitive, rule = prediction.raw.astype(np.float64), prediction.sample.sensitive, run.route.rule
    chosen: NDArray[Any]
    if how == "threshold":
        chosen, words = prediction.scores >= THRESHOLD, f"score at least {THRESHOLD}"
    elif how == "batch":
        constraints = run.recipe.config.parsed()
        chosen = run.route.decide(raw, constraints, sensitive, capacity=capacity, utility=utility)
        words = "decide on this batch"
    elif rule is None:
        raise NoDecisionsError(
            f"this run keeps '{run.route.name}' and no decision rule. Train with --decisions, or decide on this very "
            "batch with --decisions batch."
        )
    else:
        chosen = rule.apply(raw, sensitive_features=sensitive).numpy()
        words = f"thresholds per group, fitted to {run.route.fitted}"
    return replace(prediction, decisions=np.asarray(chosen, dtype=np.int64), decided_by=words)


def save_run(folder: str | Path, trained: Trained, route: KeptRoute | None = None, trees: Trees | None = None) -> Path:
    """Write the run folder; returns it.

    Args:
        folder: the folder, which is made where it is not there.
        trained: the networks.
        route: what the run keeps; the network trained through its layer where none is given.
        trees: the trees of a route that keeps some.

    Raises:
        MissingExtraError: the route keeps trees, and skops is not installed; nothing was written.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, prepare, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> sorted(path.name for path in save_run("run-saved", trained).iterdir())
        ['checkpoint.pt', 'config.json', 'history.csv', 'history.json', 'history.svg', 'metrics.json']
    """
    folder, route = Path(folder), route or THROUGH
    if route.trees:
        require("skops.io", "trees")
    folder.mkdir(parents=True, exist_ok=True)
    if trees is not None and route.trees:
        save_trees(folder, trees)
    recipe = trained.recipe.to_dict()
    layered = trained.model if route.name == THROUGH.name else around(trained.model, trained.plain)
    state = {
        "format": FORMAT,
        "model": layered.state_dict(),
        "recipe": recipe,
        "plain": trained.plain.state_dict(),
        "route": route.to_dict(),
    }
    torch.save(state, folder / "checkpoint.pt")
    write_json(folder / "config.json", {**recipe, "fit": asdict(trained.options)})
    write_json(folder / "metrics.json", trained.comparison.to_dict())
    fits = {"unconstrained": trained.fits.unconstrained, "constrained": trained.fits.constrained}
    history = {which: {"best": f.best, "epochs": [e.to_dict() for e in f.history]} for which, f in fits.items()}
    write_json(folder / "history.json", history)
    write_history_csv(folder / "history.csv", trained.fits)
    (folder / "history.svg").write_text(trained.history_svg(), encoding="utf-8")
    return folder


def around(model: FairModel, backbone: nn.Module) -> FairModel:
    """Return a copy of a model's layer, with what it knows, after another backbone of the same shape."""
    other = copy.deepcopy(model)
    other.backbone = backbone
    return other


def load_run(folder: str | Path) -> Run:
    """Read the checkpoint of a run folder; no code is unpickled.

    Raises:
        DataError: the folder holds no checkpoint of this format.
        MissingExtraError: the run keeps boosted trees, and skops is not installed.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, prepare, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> run = load_run(save_run("run-read", trained))
        >>> run.route.name
        'trained through'
    """
    state = _checkpoint(Path(folder) / "checkpoint.pt")
    recipe, route = Recipe.from_dict(state["recipe"]), KeptRoute.from_dict(state["route"])
    model = recipe.config.model()
    model.load_state_dict(state["model"])
    plain = recipe.config.network()
    plain.load_state_dict(state["plain"])
    plain.eval()
    if route.trees:
        trees = load_trees(Path(folder), recipe.config.task)
        model = around(model, trees if route.scored_by == "trees" else NetworkAndTrees(plain, trees, route.share))
    return Run(model.eval(), recipe, plain, route)


def _checkpoint(path: Path) -> dict[str, Any]:
    if not zipfile.is_zipfile(path):
        raise DataError(f"no checkpoint at '{path}'. Give the folder that `fairlayer train ... --out FOLDER` wrote.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise DataError(f"'{path}' could not be read as a checkpoint ({error}). Train again.") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise DataError(f"'{path}' is not a fairlayer checkpoint of format {FORMAT}. Train again with this version.")
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
