"""FairnessCallback on LightningModules that know nothing of fairlayer, and on those that wrap its layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("lightning")
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

import fairlayer as fl
from fairlayer.adversarial import Adversary, linear
from fairlayer.errors import CategoryError, ConstraintDefinitionError, InfeasibleConstraintsError
from fairlayer.integrations.lightning import BatchReadingError, FairnessCallback, ScheduleLengthError

N, BATCH = 400, 64
KEYS = {"score_gap", "demographic_parity_difference", "equalized_odds_difference", "smallest_group"}

pytestmark = pytest.mark.filterwarnings("ignore:.*(many workers|LeafSpec|log_every_n_steps|Checkpoint directory).*")


def rows(seed: int = 0, n: int = N) -> TensorDataset:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=random)
    sex = (torch.rand(n, generator=random) < 0.4).long()
    y = (x[:, 0] + 0.8 * sex + 0.5 * torch.randn(n, generator=random) > 0.5).float()
    return TensorDataset(x + torch.tensor([0.0, 3.0, 0.0, 0.0]) * sex[:, None], y, sex)


def loader(data: Any = None, size: int = BATCH) -> DataLoader[Any]:
    return DataLoader(rows() if data is None else data, batch_size=size)


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0), nn.Sigmoid())


class Plain(LightningModule):
    """Knows nothing of fairlayer."""

    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        self.net = net or network()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.mse_loss(self(batch[0]).float(), batch[1])

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val/loss", nn.functional.mse_loss(self(batch[0]).float(), batch[1]))

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-2)


class Layered(Plain):
    """Wraps a FairModel; `stream` sends validation through it as in production."""

    def __init__(self, *constraints: fl.constraints.Constraint, stream: bool = False, **layer: Any) -> None:
        chosen = constraints or (fl.DemographicParity("sex", 0.05),)
        super().__init__(fl.FairModel(network(), chosen, bounds=(0.0, 1.0), margin=1e-4, **layer))
        self.stream = stream

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.mse_loss(self.net(batch[0], sensitive_features={"sex": batch[2]}, y=batch[1]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.net(batch[0], sensitive_features={"sex": batch[2]}, inference=self.stream)

    test_step = validation_step


def trainer(*callbacks: Any, **more: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    return Trainer(**{"max_epochs": 2, "enable_checkpointing": False, **quiet, "callbacks": list(callbacks), **more})


def expected(module: Plain, data: TensorDataset) -> dict[str, float]:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    x, y, sex = (t.numpy() for t in data.tensors)
    with torch.no_grad():
        scores = module.eval().net(torch.from_numpy(x)).numpy()
    given = {"sensitive_features": sex}
    return {
        "score_gap": abs(scores[sex == 1].mean() - scores[sex == 0].mean()),
        "demographic_parity_difference": fairlearn.demographic_parity_difference(y, scores >= 0.5, **given),
        "equalized_odds_difference": fairlearn.equalized_odds_difference(y, scores >= 0.5, **given),
        "smallest_group": min((sex == 0).sum(), (sex == 1).sum()),
    }


@pytest.mark.rival
@pytest.mark.parametrize("size", [1, 50, 128, N])
def test_the_numbers_are_those_of_fairlearn_however_rows_are_batched(size: int) -> None:
    fitted, module = trainer(FairnessCallback("sex"), max_epochs=1), Plain()
    fitted.fit(module, loader(), loader(size=size))
    for key, value in expected(module, rows()).items():
        assert fitted.callback_metrics[f"val/{key}"].item() == pytest.approx(value, abs=1e-6), key


def test_test_and_train_are_measured_on_request() -> None:
    callback, module = FairnessCallback(["sex"], stages=("train", "val", "test")), Plain()
    fitted = trainer(callback)
    fitted.fit(module, loader(), loader())
    assert {f"train/{key}" for key in KEYS} <= set(fitted.callback_metrics)
    fitted.test(module, loader(), verbose=False)
    assert fitted.callback_metrics["test/score_gap"].item() == pytest.approx(
        expected(module, rows())["score_gap"], abs=1e-6
    )


def test_keys_stay_the_same_and_serve_checkpoints_and_early_stopping(tmp_path: Path) -> None:
    callback = FairnessCallback(["sex"])
    best = ModelCheckpoint(tmp_path, monitor="val/score_gap", filename="best")
    stop = EarlyStopping("val/demographic_parity_difference", patience=1)
    fitted = trainer(stop, best, callback, max_epochs=6, enable_checkpointing=True)
    fitted.fit(Plain(), loader(), loader())
    assert len({frozenset(entry) for entry in callback.history}) == 1
    assert best.best_model_score == min(torch.tensor(entry["val/score_gap"]) for entry in callback.history)
    assert Path(best.best_model_path).is_file()


def test_a_wrapped_layer_tells_multipliers_violation_and_widening() -> None:
    fitted = trainer(FairnessCallback("sex"))
    fitted.fit(Layered(fl.DemographicParity("sex", 0.0)), loader(), loader())
    found = fitted.callback_metrics
    assert found["val/violation"] <= 1e-6
    assert found["val/widening"] == found["train/widening"] == 0
    assert found["val/multiplier/demographic_parity_sex"] > 0


def test_multipliers_are_per_row_and_means_over_batches() -> None:
    fitted, module = trainer(FairnessCallback("sex"), max_epochs=1), Layered()
    fitted.fit(module, loader(), loader())
    prices = []
    for x, _, sex in loader():
        module.eval().net(x, sensitive_features={"sex": sex})
        last = module.net.last_projection
        prices.append(float(last.multipliers["DemographicParity('sex')"]) / len(x))
    found = fitted.callback_metrics["val/multiplier/demographic_parity_sex"].item()
    assert found == pytest.approx(np.mean(prices), rel=1e-5)


def test_several_loaders_and_several_features() -> None:
    other = TensorDataset(*rows(1, 90).tensors[:2], torch.stack([rows(1, 90).tensors[2], torch.arange(90) % 3], dim=1))
    both = TensorDataset(*rows().tensors[:2], torch.stack([rows().tensors[2], torch.arange(N) % 3], dim=1))
    fitted = trainer(FairnessCallback(["sex", "band"]))
    fitted.fit(Plain(), loader(both), [loader(both), loader(other)])
    found = fitted.callback_metrics
    for place in (0, 1):
        each = [found[f"val/score_gap/{name}/dataloader_idx_{place}"] for name in ("sex", "band")]
        assert found[f"val/score_gap/dataloader_idx_{place}"] == max(each)
    assert found["val/smallest_group/band/dataloader_idx_1"] == 30


@pytest.mark.parametrize(
    "more",
    [
        {"accumulate_grad_batches": 3},
        {"precision": "bf16-mixed"},
        {"fast_dev_run": True},
        {"limit_val_batches": 2},
        {"num_sanity_val_steps": -1},
        {"check_val_every_n_epoch": 2},
        {"val_check_interval": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("module", [Plain, Layered])
def test_it_works_however_the_trainer_is_set_up(module: type[Plain], more: Mapping[str, Any]) -> None:
    callback = FairnessCallback("sex")
    fitted = trainer(callback, **more)
    fitted.fit(module(), loader(), loader())
    assert {f"val/{key}" for key in KEYS} <= set(fitted.callback_metrics)
    assert math.isfinite(fitted.callback_metrics["val/score_gap"])


def test_the_sanity_check_leaves_no_trace(tmp_path: Path) -> None:
    class Watching(Layered):
        def on_train_start(self) -> None:
            self.known = dict(self.net.projection.vocabulary.categories)

    module, callback = Watching(), FairnessCallback("sex")
    logger = CSVLogger(tmp_path)
    trainer(callback, logger=logger, num_sanity_val_steps=2, log_every_n_steps=1).fit(module, loader(), loader())
    assert module.known == {}
    assert len(callback.history) == 2
    text = (Path(logger.log_dir) / "metrics.csv").read_text()
    assert text.count("\n") >= 3
    assert "val/score_gap" in text.splitlines()[0]


def test_streams_begin_empty_in_validation_and_go_on_afterwards() -> None:
    seen: list[int] = []

    class Counting(Layered):
        def on_validation_epoch_end(self) -> None:
            seen.append(self.net.inference_state.samples)

    module = Counting(stream=True)
    x, _, sex = rows().tensors
    module.eval().net(x[:10], sensitive_features={"sex": sex[:10]}, inference=True)
    module.train()
    fitted = trainer(FairnessCallback("sex"), num_sanity_val_steps=0)
    fitted.fit(module, loader(), loader())
    assert seen == [N, N]
    assert module.net.inference_state.samples == 10
    fitted.test(module, loader(), verbose=False)
    assert module.net.inference_state.samples == 10


def test_dicts_names_and_missing_groups_are_read() -> None:
    x, y, sex = rows().tensors

    def collate(items: list[Any]) -> dict[str, Any]:
        at = torch.tensor(items)
        names = [[None, "female", "male"][code] for code in torch.where(at % 10 == 0, 0, sex[at] + 1).tolist()]
        return {"x": x[at], "y": y[at], "sensitive_features": {"sex": names}}

    class Dicts(Plain):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self(batch["x"])

    fitted, module = trainer(FairnessCallback("sex")), Dicts()
    fitted.fit(module, loader(), DataLoader(range(N), batch_size=BATCH, collate_fn=collate))  # type: ignore[arg-type]
    known = torch.arange(N) % 10 != 0
    with torch.no_grad():
        scores = module.eval().net(x)
    gap = (scores[known & (sex == 1)].mean() - scores[known & (sex == 0)].mean()).abs()
    assert fitted.callback_metrics["val/score_gap"].item() == pytest.approx(gap.item(), abs=1e-6)


def test_soft_groups_weigh_rows() -> None:
    x, y, _ = rows().tensors
    weights = torch.softmax(torch.randn(N, 3), dim=1)

    class Soft(Plain):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self(batch[0])

    def adapted(batch: Any) -> Any:
        return {"y": batch[1], "sensitive_features": {"race": batch[2]}}

    fitted, module = trainer(FairnessCallback("race", batch_adapter=adapted)), Soft()
    fitted.fit(module, loader(), loader(TensorDataset(x, y, weights)))
    with torch.no_grad():
        scores = module.eval().net(x)
    means = (weights.T.double() @ scores.double()) / weights.double().sum(0)
    gap = (means.max() - means.min()).item()
    assert fitted.callback_metrics["val/score_gap"].item() == pytest.approx(gap, abs=1e-6)


class Odd(Plain):
    """Batches, steps and outputs of its own kind: pairs of logits, computed outside any child."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.net[:3](batch[0]["features"]).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.net[:3](batch[0]["features"])


def odd_loader() -> DataLoader[Any]:
    return DataLoader(range(N), batch_size=BATCH, collate_fn=lambda at: ({"features": rows().tensors[0][at]}, at))  # type: ignore[arg-type]


def test_adapters_read_everything_else() -> None:
    _, y, sex = rows().tensors
    callback = FairnessCallback(
        "sex",
        logits=True,
        batch_adapter=lambda batch: (None, y[batch[1]], sex[batch[1]]),
        predict=lambda module, batch, outputs: module.net[:3](batch[0]["features"]),
    )
    fitted, module = trainer(callback), Odd()
    fitted.fit(module, odd_loader(), odd_loader())
    assert fitted.callback_metrics["val/score_gap"].item() == pytest.approx(
        expected(module, rows())["score_gap"], abs=1e-6
    )


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        (FairnessCallback("sex"), "batch_adapter="),
        (FairnessCallback("sex", batch_adapter=lambda b: (0, None, torch.zeros(len(b[1])))), "predict="),
        (FairnessCallback(["a", "b"], batch_adapter=lambda b: (0, 0, torch.zeros(len(b[1])))), r"\(n, 2\)"),
        (FairnessCallback("a", batch_adapter=lambda b: {"sensitive_features": {"b": [0]}}), r"holds \['b'\]"),
        (
            FairnessCallback(
                "sex",
                batch_adapter=lambda b: (0, None, torch.zeros(len(b[1]))),
                predict=lambda module, batch, outputs: torch.rand(len(batch[1]), 3),
            ),
            r"\(64, 3\)",
        ),
    ],
)
def test_what_cannot_be_read_is_an_error_that_says_what_to_pass(callback: FairnessCallback, said: str) -> None:
    with pytest.raises(BatchReadingError, match=said):
        trainer(callback).fit(Odd(), odd_loader(), odd_loader())


def test_a_step_that_returns_predictions_is_believed() -> None:
    class Returning(Plain):
        def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
            return {"loss": self(batch[0]).mean(), "preds": batch[2].float()}

    fitted = trainer(FairnessCallback("sex"))
    fitted.fit(Returning(), loader(), loader())
    assert fitted.callback_metrics["val/score_gap"] == 1.0


def test_a_certificate_that_does_not_hold_is_told() -> None:
    def spoil(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        output.data[:9] += 0.4  # what is emitted is not what was solved for

    module, callback = Layered(fl.DemographicParity("sex", 0.0)), FairnessCallback("sex")
    module.net.projection.register_forward_hook(spoil)
    fitted = trainer(callback, max_epochs=1, num_sanity_val_steps=0)
    batches = math.ceil(N / BATCH)
    with pytest.warns(UserWarning, match=rf"{batches} certificates of val do not hold, first: .*violation"):
        fitted.fit(module, loader(), loader())
    assert fitted.callback_metrics["val/violation"] > 1e-3


def test_no_second_forward_is_made() -> None:
    calls: list[int] = []
    module = Plain()
    module.net.register_forward_hook(lambda *_: calls.append(1))
    trainer(FairnessCallback("sex"), max_epochs=1, num_sanity_val_steps=0).fit(module, loader(), loader())
    assert len(calls) == 2 * math.ceil(N / BATCH)


def test_hooks_are_taken_off() -> None:
    module = Layered()
    fitted = trainer(FairnessCallback("sex", stages=("train", "val", "test")))
    fitted.fit(module, loader(), loader())
    fitted.test(module, loader(), verbose=False)
    assert not any(part._forward_hooks for part in module.modules())


def test_a_lonely_group_is_not_observed_and_never_the_best() -> None:
    x, y, sex = rows().tensors
    alone = TensorDataset(x, y, torch.zeros_like(sex))
    callback = FairnessCallback("sex")
    lenient = EarlyStopping("val/score_gap", check_finite=False, patience=10)
    fitted = trainer(callback, lenient, max_epochs=2)
    with pytest.warns(UserWarning, match="fewer than two groups of 'sex'"):
        fitted.fit(Plain(), loader(), loader(alone))
    assert math.isnan(fitted.callback_metrics["val/score_gap"])
    assert fitted.current_epoch == 2
    assert fitted.callback_metrics["val/smallest_group"] == N


def test_logits_taken_for_probabilities_are_noticed() -> None:
    with pytest.warns(UserWarning, match="pass logits=True"):
        trainer(FairnessCallback("sex")).fit(Plain(network()[:4]), loader(), loader())


def test_numbers_that_are_no_groups_are_named() -> None:
    x, y, _ = rows().tensors
    with pytest.raises(CategoryError, match="'age' holds fractional numbers"):
        trainer(FairnessCallback("age")).fit(Plain(), loader(), loader(TensorDataset(x, y, torch.rand(N))))


def test_tolerances_are_scheduled_while_training_only() -> None:
    seen: dict[str, list[float]] = {"train": [], "val": []}

    class Noting(Layered):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            seen["train"].append(self.net.constraints[0].tolerance)
            super().training_step(batch, batch_idx)
            sex, scores = batch[2], self.net.last_projection.value
            gap = (scores[sex == 1].mean() - scores[sex == 0].mean()).abs().item()
            assert gap == pytest.approx(seen["train"][-1], abs=1e-5)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            seen["val"].append(self.net.constraints[0].tolerance)

    module = Noting()
    schedule = {"DemographicParity('sex')": linear(0.0, 0.05)}
    fitted = trainer(FairnessCallback("sex", tolerance=schedule, predict=lambda m, b, o: b[1]))
    fitted.fit(module, loader(), loader())
    steps = 2 * math.ceil(N / BATCH)
    assert seen["train"] == pytest.approx([0.05 * k / steps for k in range(steps)])
    assert set(seen["val"]) == {0.05}
    assert module.net.constraints[0].tolerance == 0.05
    assert fitted.callback_metrics["train/tolerance/demographic_parity_sex"].item() == pytest.approx(seen["train"][-1])


@pytest.mark.parametrize(
    ("module", "schedule", "said"),
    [
        (Plain, linear(0.1, 0.0), "are: none"),
        (Layered, {"EqualizedOdds('sex')": linear(0.1, 0.0)}, r"are: DemographicParity\('sex'\)"),
        (Layered, linear(-1.0, 0.0), "tolerance=-1"),
    ],
)
def test_schedules_that_fit_nothing_are_refused(module: type[Plain], schedule: Any, said: str) -> None:
    with pytest.raises(ConstraintDefinitionError, match=said):
        trainer(FairnessCallback("sex", tolerance=schedule)).fit(module(), loader(), loader())


def test_a_schedule_needs_an_end() -> None:
    callback = FairnessCallback("sex", tolerance=linear(0.1, 0.05))
    with pytest.raises(ScheduleLengthError, match="max_steps="):
        trainer(callback, max_epochs=-1).fit(Layered(), loader(), loader())


def test_adversaries_are_advanced() -> None:
    strengths: list[float] = []

    class Opposed(Plain):
        def __init__(self) -> None:
            super().__init__()
            sex = rows().tensors[2]
            self.adversary = Adversary(
                self.net, on="sex", sensitive_features={"sex": sex}, example=rows().tensors[0], at="1"
            )

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            strengths.append(self.adversary.strength)
            return super().training_step(batch, batch_idx) + self.adversary.loss({"sex": batch[2]})

    fitted = trainer(FairnessCallback("sex"))
    fitted.fit(Opposed(), loader(), loader())
    assert strengths[0] == pytest.approx(0.1)
    assert strengths == sorted(strengths)
    assert strengths[-1] > 0.9
    assert fitted.callback_metrics["train/adversary_strength"].item() == pytest.approx(strengths[-1])


CLASH = (fl.MinimumRate("sex", 0.9), fl.Affine([[1.0, 1.0]], upper=0.2, on="sex"))


def test_infeasible_limits_end_the_fit_in_order() -> None:
    callback, module = FairnessCallback("sex"), Layered(*CLASH)
    fitted = trainer(callback, max_epochs=5, num_sanity_val_steps=0)
    with pytest.warns(UserWarning, match="no predictions meet MinimumRate"):
        fitted.fit(module, loader(), loader())
    assert fitted.global_step == 1
    assert callback.stopped is not None
    assert "widened by" in callback.stopped
    trainer(callback).fit(Layered(), loader(), loader())
    assert callback.stopped is None  # another fit
    x, _, sex = rows().tensors
    with pytest.raises(InfeasibleConstraintsError):
        module.net(x, sensitive_features={"sex": sex})  # as the user made it


def test_infeasible_limits_raise_on_request_and_where_relaxing_was_asked_for_training_goes_on() -> None:
    with pytest.raises(InfeasibleConstraintsError):
        trainer(FairnessCallback("sex", stop_on_infeasible=False)).fit(Layered(*CLASH), loader(), loader())
    callback = FairnessCallback("sex")
    fitted = trainer(callback, max_epochs=1, limit_train_batches=2, limit_val_batches=1, num_sanity_val_steps=0)
    fitted.fit(Layered(*CLASH, on_infeasible="relax"), loader(), loader())
    assert callback.stopped is None
    assert fitted.global_step == 2
    assert fitted.callback_metrics["train/widening"] > 0.3


def test_an_error_in_training_leaves_the_model_as_it_was() -> None:
    class Failing(Layered):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            raise RuntimeError("on purpose")

    module = Failing()
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer(FairnessCallback("sex", tolerance=linear(0.9, 0.05))).fit(module, loader(), loader())
    assert module.net.constraints[0].tolerance == 0.05
    assert not module.net.projection.options.relax
    assert not any(part._forward_hooks for part in module.modules())


def test_the_history_travels_in_checkpoints(tmp_path: Path) -> None:
    first = FairnessCallback("sex")
    keep = ModelCheckpoint(tmp_path, filename="last", save_on_train_epoch_end=True)
    trainer(first, keep, enable_checkpointing=True).fit(Layered(), loader(), loader())
    second = FairnessCallback("sex")
    more = trainer(second, max_epochs=4, num_sanity_val_steps=0)
    more.fit(Layered(), loader(), loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert second.history[:2] == first.history
    assert [entry["epoch"] for entry in second.history] == [0, 1, 2, 3]


def test_a_checkpoint_holds_the_stream(tmp_path: Path) -> None:
    module = Layered()
    x, _, sex = rows().tensors
    module.eval().net(x[:10], sensitive_features={"sex": sex[:10]}, inference=True)
    module.train()
    fitted = trainer(FairnessCallback("sex"), max_epochs=1)
    fitted.fit(module, loader(), loader())
    fitted.save_checkpoint(tmp_path / "one.ckpt")
    again = Layered()
    trainer(FairnessCallback("sex")).fit(again, loader(), loader(), ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert again.net.inference_state.samples == 10
    assert again.net.inference_state.counts() == module.net.inference_state.counts()


def test_features_are_named_once_and_stages_are_known() -> None:
    with pytest.raises(ConstraintDefinitionError, match="distinct names"):
        FairnessCallback(["sex", "sex"])
    with pytest.raises(ValueError, match="stages"):
        FairnessCallback(["sex"], stages=("valid",))
