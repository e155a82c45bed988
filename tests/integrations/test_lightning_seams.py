"""Where the callback asks instead of guessing, penalties of every kind in the module, and several callbacks."""

from __future__ import annotations

import contextlib
import copy
import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("lightning")
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI

import fairlayer as fl
from fairlayer.adversarial import linear
from fairlayer.errors import ConstraintDefinitionError, LabelValueError, MissingSensitiveFeatureError
from fairlayer.integrations.lightning import BatchReadingError, FairDataModule, FairLightningModule, FairnessCallback
from fairlayer.penalties import LossTerm

pytestmark = pytest.mark.filterwarnings("ignore:.*(many workers|LeafSpec|log_every_n_steps|Checkpoint directory).*")

N, BATCH = 400, 64
BATCHES = 7


def columns() -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    sex = torch.randint(0, 2, (N,), generator=random)
    x = torch.randn(N, 3, generator=random) + sex[:, None]
    return x, (x.sum(1) > 1.5).float(), sex


def loader(y: Tensor | None = None, other: Tensor | None = None) -> DataLoader[Any]:
    x, labels, sex = columns()
    return DataLoader(TensorDataset(x, labels if y is None else y, sex if other is None else other), batch_size=BATCH)


def dicts(n: int = N, size: int = BATCH) -> DataLoader[Any]:
    rows = [{"x": a, "y": b, "sensitive_features": {"sex": c}} for a, b, c in zip(*columns(), strict=True)]
    return DataLoader(rows[:n], batch_size=size)  # type: ignore[arg-type]


def trainer(*callbacks: Any, **more: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    return Trainer(**{"max_epochs": 2, "enable_checkpointing": False, **quiet, "callbacks": list(callbacks), **more})


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0), nn.Sigmoid())


class Plain(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return nn.functional.mse_loss(self.net(batch[0]), (batch[1] > 0).float())

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.net(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-2)

    def gap(self) -> float:
        x, _, sex = columns()
        with torch.no_grad():
            scores = self.eval().net(x)
        return float((scores[sex == 1].mean() - scores[sex == 0].mean()).abs())


# ---- which numbers are meant


class Losses(Plain):
    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.binary_cross_entropy(self.net(batch[0]), batch[1], reduction="none")


class Twice(Plain):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.net(batch[0])
        self.net(batch[0] + 1.0)


class OnlyLosses(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.criterion = nn.BCELoss(reduction="none")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.criterion(torch.sigmoid(batch[0].sum(1)), batch[1])


@pytest.mark.parametrize(
    ("module", "said"),
    [(Losses, "may be predictions or losses"), (Twice, "self.net ran 2 times"), (OnlyLosses, "no predictions for")],
)
def test_it_asks_where_several_numbers_could_be_meant(module: type[Plain], said: str) -> None:
    with pytest.raises(BatchReadingError, match=said):
        trainer(FairnessCallback("sex")).fit(module(), loader(), loader())


class Returned(Plain):
    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.net(batch[0])
        return self.net(batch[0])


class Named(Losses):
    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.net(batch[0] + 1.0)
        return {"loss": super().validation_step(batch, batch_idx), "preds": self.net(batch[0])}


@pytest.mark.parametrize("module", [Returned, Named])
def test_it_does_not_ask_where_only_one_can_be_meant(module: type[Plain]) -> None:
    fitted, made = trainer(FairnessCallback("sex")), module()
    fitted.fit(made, loader(), loader())
    assert float(fitted.callback_metrics["val/score_gap"]) == pytest.approx(made.gap(), abs=1e-6)


@pytest.mark.parametrize("reentrant", [True, False])
def test_forwards_that_checkpointing_repeats_do_not_count(reentrant: bool) -> None:
    class Checkpointed(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(*network(), nn.Dropout(0.5))

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x = batch[0].requires_grad_()
            scores = checkpoint(self.net, x, use_reentrant=reentrant, preserve_rng_state=False)
            return nn.functional.mse_loss(scores, batch[1])

    trainer(FairnessCallback("sex", stages=("train",)), max_epochs=1).fit(Checkpointed(), loader())


def test_labels_that_are_no_labels_are_named() -> None:
    signs = 2.0 * columns()[1] - 1.0
    with pytest.raises(LabelValueError, match="labels -1 and \\+1"):
        trainer(FairnessCallback("sex")).fit(Plain(), loader(signs), loader(signs))
    fitted = trainer(FairnessCallback("sex", batch_adapter=lambda b: (b[0], (b[1] > 0).float(), b[2])))
    fitted.fit(Plain(), loader(signs), loader(signs))
    assert torch.isfinite(fitted.callback_metrics["val/equalized_odds_difference"])
    fitted = trainer(FairnessCallback("sex", threshold=None))
    fitted.fit(Plain(), loader(signs), loader(signs))
    assert torch.isfinite(fitted.callback_metrics["val/score_gap"])


# ---- schedules


class TwoOptimisers(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.penalty_weight = 1.0
        self.seen: list[float] = []

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), 1e-3) for _ in range(2)]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(self.penalty_weight)
        for optimiser in self.optimizers():
            optimiser.zero_grad()
            self.manual_backward(nn.functional.mse_loss(self.net(batch[0]), batch[1]))
            optimiser.step()


@pytest.mark.parametrize("more", [{"max_epochs": 2}, {"max_epochs": -1, "max_steps": 4 * BATCHES}], ids=str)
def test_schedules_count_batches_and_not_the_steps_of_two_optimisers(more: dict[str, int]) -> None:
    module = TwoOptimisers()
    trainer(FairnessCallback("sex", penalty_weight=lambda p: p), **more).fit(module, loader(), loader())
    assert module.seen == pytest.approx([k / (2 * BATCHES) for k in range(2 * BATCHES)])
    assert module.penalty_weight == 1.0


def test_a_resumed_schedule_goes_on(tmp_path: Path) -> None:
    first, second = TwoOptimisers(), TwoOptimisers()
    weight = FairnessCallback("sex", penalty_weight=lambda p: p)
    begun = trainer(weight, max_epochs=1)
    begun.fit(first, loader())
    begun.save_checkpoint(tmp_path / "a.ckpt")
    more = trainer(FairnessCallback("sex", penalty_weight=lambda p: p), max_epochs=2)
    more.fit(second, loader(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert second.seen[0] == pytest.approx(0.5)


def test_a_weight_that_is_not_there_cannot_be_scheduled() -> None:
    with pytest.raises(ConstraintDefinitionError, match=r"Plain has no number of this name.*self\.penalty_weight"):
        trainer(FairnessCallback("sex", penalty_weight=linear(0.0, 1.0))).fit(Plain(), loader())


# ---- several callbacks


def test_two_callbacks_measure_each_under_its_name() -> None:
    band = torch.arange(N) % 3
    read = {"batch_adapter": lambda b: (b[0], b[1], b[0].new_tensor(range(len(b[1]))).long() % 3)}
    fitted = trainer(FairnessCallback("sex"), FairnessCallback("band", name="bands", threshold=0.3, **read))
    fitted.fit(Plain(), loader(), loader())
    found = fitted.callback_metrics
    assert {"val/score_gap", "val/bands/score_gap"} <= set(found)
    assert found["val/bands/smallest_group"] == min(int((band[:BATCH] == k).sum()) for k in range(3)) * 6 + 5


def test_streams_survive_two_callbacks_and_layers_are_told_once() -> None:
    class Layered(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.net = fl.FairModel(network(), [fl.DemographicParity("sex", 0.05)], bounds=(0.0, 1.0))  # type: ignore[assignment]

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.net(batch[0], sensitive_features={"sex": batch[2]}).square().mean()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.net(batch[0], sensitive_features={"sex": batch[2]}, inference=True)

    module = Layered()
    x, _, sex = columns()
    module.eval().net(x[:10], sensitive_features={"sex": sex[:10]}, inference=True)
    fitted = trainer(FairnessCallback("sex"), FairnessCallback("sex", name="low", threshold=0.2))
    fitted.fit(module.train(), loader(), loader())
    assert module.net.inference_state.samples == 10
    keys = set(fitted.callback_metrics)
    assert "val/widening" in keys
    assert not any(key.startswith(("val/low/multiplier", "val/low/violation", "val/low/widening")) for key in keys)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (FairnessCallback("sex", threshold=0.3, stages=("val",)), "same keys in val"),
        (FairnessCallback("sex", name="b", penalty_weight=linear(0.0, 1.0)), "second would undo the first"),
    ],
)
def test_callbacks_that_would_undo_each_other_are_refused(second: FairnessCallback, said: str) -> None:
    first = FairnessCallback("sex", penalty_weight=linear(0.0, 1.0))
    with pytest.raises(ConstraintDefinitionError, match=said):
        trainer(first, second).fit(TwoOptimisers(), loader())


def test_each_callback_finds_its_own_state_in_a_checkpoint(tmp_path: Path) -> None:
    def both() -> list[FairnessCallback]:
        return [FairnessCallback("sex"), FairnessCallback("sex", name="low", threshold=0.2)]

    first, again = both(), both()
    fitted = trainer(*first)
    fitted.fit(Plain(), loader(), loader())
    fitted.save_checkpoint(tmp_path / "a.ckpt")
    trainer(*again, num_sanity_val_steps=0).fit(
        Plain(), loader(), loader(), ckpt_path=tmp_path / "a.ckpt", weights_only=True
    )
    assert [each.history for each in again] == [each.history for each in first]


# ---- penalties of every kind


PARITY = fl.DemographicParity("sex", 0.02)
KINDS: dict[str, Any] = {
    "Penalty": lambda: fl.Penalty([PARITY]),
    "HSIC": lambda: fl.HSIC("sex"),
    "MMD": lambda: fl.MMD("sex", given_label=True),
    "AugmentedLagrangian": lambda: fl.AugmentedLagrangian([PARITY]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [{}, {"accumulate_grad_batches": 3}, {"precision": "bf16-mixed"}], ids=str)
def test_every_penalty_is_trained_with(kind: str, more: dict[str, Any]) -> None:
    penalty = KINDS[kind]()
    module = FairLightningModule(network(), penalties=[penalty], penalty_weight=2.0)
    fitted = trainer(FairnessCallback("sex", penalty_weight=linear(0.0, 2.0)), **more)
    fitted.fit(module, dicts())
    assert torch.isfinite(fitted.callback_metrics["train/loss"])
    assert fitted.callback_metrics["train/penalty_weight"] > 1.7
    if kind == "AugmentedLagrangian":
        assert float(penalty.multipliers.abs().sum()) > 0


def test_multipliers_move_once_after_each_step_of_the_optimiser() -> None:
    told: list[tuple[str, int]] = []

    class Noting(LossTerm):
        def forward(self, scores: Tensor, *, sensitive_features: Any = None, y: Any = None) -> Tensor:
            told.append(("loss", module.global_step))
            return scores.square().mean()

        def after_step(self) -> None:
            told.append(("step", module.global_step))

    module = FairLightningModule(network(), penalties=[Noting()])
    trainer(max_epochs=1, accumulate_grad_batches=2).fit(module, dicts())
    assert [what for what, _ in told] == ["loss", "loss", "step"] * 3 + ["loss", "step"]


def test_a_module_of_ones_own_may_be_a_penalty() -> None:
    class Mine(nn.Module):
        def forward(self, scores: Tensor, *, sensitive_features: Any, y: Any) -> Tensor:
            return scores.var()

    trainer(max_epochs=1).fit(FairLightningModule(network(), penalties=[Mine()]), dicts())


def test_tolerances_of_a_lagrangian_are_scheduled() -> None:
    penalty = fl.AugmentedLagrangian([fl.DemographicParity("sex", 0.02)])
    module = FairLightningModule(network(), penalties=[penalty])
    fitted = trainer(FairnessCallback("sex", tolerance=linear(0.5, 0.02)))
    fitted.fit(module, dicts())
    assert 0.02 < float(fitted.callback_metrics["train/tolerance/demographic_parity_sex"]) < 0.1
    assert penalty.constraints[0].tolerance == 0.02  # type: ignore[attr-defined]


def test_penalties_know_their_columns_before_training() -> None:
    data = FairDataModule("lending", sensitive_features=["sex"], batch_size=2000)
    module = FairLightningModule(width=data.width, penalties=[fl.HSIC("colour")])
    with pytest.raises(MissingSensitiveFeatureError, match="colour"):
        trainer(fast_dev_run=True).fit(module, datamodule=data)
    lagrangian = fl.AugmentedLagrangian([PARITY])
    module = FairLightningModule(width=data.width, penalties=[lagrangian])
    trainer(fast_dev_run=True).fit(module, datamodule=data)
    assert lagrangian.reader.vocabulary.categories["sex"] == ("female", "male")
    assert not lagrangian.reader.vocabulary.open


@pytest.mark.skipif(find_spec("docstring_parser") is None, reason="LightningCLI needs jsonargparse[signatures]")
@pytest.mark.parametrize("name", KINDS)
def test_lightning_cli_takes_every_penalty(name: str) -> None:
    parity = [{"class_path": "fairlayer.DemographicParity", "init_args": {"on": "sex", "tolerance": 0.02}}]
    init: dict[str, Any] = {"on": "sex"} if name in ("HSIC", "MMD") else {"constraints": parity}
    arguments = {
        "model": {"width": 17, "penalties": [{"class_path": f"fairlayer.{name}", "init_args": init}]},
        "data": {"data": "lending", "sensitive_features": ["sex"]},
        "trainer": {"accelerator": "cpu", "logger": False},
    }
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        made = LightningCLI(FairLightningModule, FairDataModule, run=False, args=arguments)
    assert type(made.model.penalties[0]).__name__ == name


@pytest.mark.parametrize("kind", KINDS)
def test_averaged_copies_are_unharmed(kind: str) -> None:
    module = FairLightningModule(network(), constraints=[PARITY], penalties=[KINDS[kind]()])
    averaged = AveragedModel(module, avg_fn=get_ema_avg_fn(0.9), use_buffers=True)
    for _ in range(2):
        trainer(max_epochs=1).fit(module, dicts())
        averaged.update_parameters(module)
    averaged.load_state_dict(copy.deepcopy(averaged.state_dict()))
    x, _, sex = columns()
    found = averaged.eval()(x, {"sex": sex})
    assert torch.isfinite(found).all()


def test_lightnings_own_averaging_keeps_the_layer() -> None:
    callbacks = pytest.importorskip("lightning.pytorch.callbacks")
    if not hasattr(callbacks, "EMAWeightAveraging"):
        pytest.skip("this Lightning has no EMAWeightAveraging")
    module = FairLightningModule(network(), constraints=[PARITY], penalties=[fl.AugmentedLagrangian([PARITY])])
    fitted = trainer(callbacks.EMAWeightAveraging(decay=0.9, use_buffers=True), FairnessCallback("sex"))
    fitted.fit(module, dicts(), dicts())
    assert torch.isfinite(fitted.callback_metrics["val/score_gap"])
