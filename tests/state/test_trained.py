"""What a Trainer keeps: resumed half-way, averaged by Lightning, and what its checkpoints must hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

pytest.importorskip("lightning")
from lightning.pytorch import Callback, Trainer
from lightning.pytorch import callbacks as of_lightning

import fairlayer as fl
from fairlayer.data import StratifiedBatchSampler
from fairlayer.errors import CheckpointError
from fairlayer.integrations.lightning import FairLightningModule, FairnessCallback
from fairlayer.penalties import AugmentedLagrangian, Penalty

pytestmark = pytest.mark.filterwarnings("ignore:.*(many workers|LeafSpec|log_every_n_steps|Checkpoint directory).*")

N = 64
GROUP = torch.arange(N) % 2
X = torch.rand(N, 3, generator=torch.Generator().manual_seed(0)) + 0.3 * GROUP[:, None]
Y = (X.sum(dim=1) > 2.0).float()
ROWS = [{"x": X[i], "y": Y[i], "sensitive_features": {"g": GROUP[i]}} for i in range(N)]


def loader() -> DataLoader[Any]:
    return DataLoader(ROWS, batch_size=16)  # type: ignore[arg-type]


def module() -> FairLightningModule:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0), nn.Sigmoid())
    terms = [AugmentedLagrangian(fl.DemographicParity("g", 0.0)), Penalty(fl.DemographicParity("g", 0.01))]
    return FairLightningModule(net, [fl.DemographicParity("g", 0.2)], penalties=terms, geometry="euclidean")


class Keep(Callback):
    """A checkpoint at the end of the second epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            trainer.save_checkpoint(self.path)


def fitted(epochs: int, *more: Callback, start: Path | None = None) -> tuple[dict[str, Tensor], Any]:
    model, measured = module(), FairnessCallback(["g"])
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", enable_checkpointing=False, callbacks=[measured, *more], **quiet
    )
    trainer.fit(model, loader(), loader(), ckpt_path=start, weights_only=True)
    return dict(model.state_dict()), measured


def averaging(**options: Any) -> Callable[[], list[Callback]]:
    if not hasattr(of_lightning, "EMAWeightAveraging"):
        pytest.skip("this Lightning has no EMAWeightAveraging")
    return lambda: [of_lightning.EMAWeightAveraging(decay=0.9, **options)]


WAYS: dict[str, Callable[[], Callable[[], list[Callback]]]] = {
    "plain": lambda: list,
    "averaged": lambda: averaging(use_buffers=False),
    "averaged with buffers": lambda: averaging(use_buffers=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_fit_that_is_resumed_ends_as_one_that_was_not_stopped(way: str, tmp_path: Path) -> None:
    more = WAYS[way]()
    whole, measured = fitted(4, *more(), Keep(tmp_path / "half.ckpt"))
    parts, again = fitted(4, *more(), start=tmp_path / "half.ckpt")
    assert whole.keys() == parts.keys()
    assert not [key for key in whole if not torch.equal(whole[key], parts[key])]
    assert measured.history == again.history
    assert len(again.history) == 4


@pytest.mark.parametrize("buffers", [False, True])
def test_averaging_leaves_what_was_learnt(buffers: bool) -> None:
    alone, _ = fitted(3)
    averaged, _ = fitted(3, *averaging(use_buffers=buffers)())
    kept = [key for key in alone if key.endswith("_extra_state")]
    assert len(kept) == 6
    assert all(torch.equal(alone[key], averaged[key]) for key in kept)
    assert not torch.equal(alone["model.backbone.0.weight"], averaged["model.backbone.0.weight"])
    model = module()
    model.load_state_dict(averaged)
    [lagrangian] = [part for part in model.modules() if isinstance(part, AugmentedLagrangian)]
    assert max(lagrangian.named_multipliers().values()) > 0.0
    assert model.model.projection.vocabulary.categories == {"g": (0, 1)}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "bad",
    [{}, {"history": 3, "stopped": None}, {"history": [{}]}, {"history": [3], "stopped": None}, {"entries": []}],
)
def test_a_foreign_state_of_the_callback_is_named(bad: dict[str, Any]) -> None:
    callback = FairnessCallback(["g"])
    callback.load_state_dict({"history": [{"epoch": 0}], "stopped": "limits clash"})
    with pytest.raises(CheckpointError, match=r"Resume without this callback, or take its entry out"):
        callback.load_state_dict(bad)
    assert (callback.history, callback.stopped) == ([{"epoch": 0}], "limits clash")


def test_a_foreign_state_of_a_sampler_is_named() -> None:
    sampler = StratifiedBatchSampler(GROUP.numpy(), 8)
    iterator = iter(sampler)
    next(iterator)
    before = sampler.state_dict()
    for bad in ({}, {**before, "random": "{}"}, {**before, "random": "text"}, {**before, "done": math.nan}):
        with pytest.raises(CheckpointError, match="not the state of a StratifiedBatchSampler"):
            sampler.load_state_dict(bad)
        assert sampler.state_dict() == before
