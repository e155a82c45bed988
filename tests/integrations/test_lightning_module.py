"""FairLightningModule and FairDataModule, alone, together, and from LightningCLI."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

pytest.importorskip("lightning")
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI

import fairlayer as fl
from fairlayer.adversarial import Adversary
from fairlayer.data import LendingPopulation
from fairlayer.errors import ConstraintDefinitionError, DataError, EmptyBatchError, NonFiniteScoresError
from fairlayer.integrations.lightning import FairDataModule, FairLightningModule, FairnessCallback, NotKeptError
from fairlayer.penalties import Penalty

pytestmark = pytest.mark.filterwarnings("ignore:.*(many workers|LeafSpec|log_every_n_steps|Checkpoint directory).*")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "loans.csv"
    pd.DataFrame(LendingPopulation().sample(900, seed=1)).drop(columns="repays").to_csv(path, index=False)
    return path


def rows(table: Path, **more: Any) -> FairDataModule:
    return FairDataModule(str(table), sensitive_features=["sex", "region"], target="label", batch_size=128, **more)


def trainer(**more: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    return Trainer(**{"max_epochs": 2, "enable_checkpointing": False, **quiet, **more})


def module(data: FairDataModule, *constraints: Any, **more: Any) -> FairLightningModule:
    chosen = constraints or (fl.DemographicParity("sex", 0.02),)
    return FairLightningModule(constraints=chosen, width=data.width, hidden=(8,), **more)


def test_both_together_train_validate_test_and_predict(table: Path) -> None:
    data = rows(table)
    fitted, model = trainer(callbacks=[FairnessCallback(["sex", "region"])]), module(data)
    fitted.fit(model, datamodule=data)
    assert fitted.callback_metrics["val/violation"] <= 1e-6
    [tested] = fitted.test(model, datamodule=data, verbose=False)
    assert {"test/loss", "test/score_gap/region"} <= set(tested)
    scores = torch.cat(fitted.predict(model, datamodule=data))  # type: ignore[arg-type]
    assert len(scores) == len(data.split.test)


def test_the_parts_are_those_of_the_split_and_batches_hold_every_stratum(table: Path) -> None:
    data = rows(table)
    train = list(data.train_dataloader())
    assert sum(len(batch["y"]) for batch in train) == len(data.split.train)
    for batch in train:
        groups = zip(batch["sensitive_features"]["sex"], batch["y"].tolist(), strict=True)
        assert len(set(groups)) == 4
    valid = torch.cat([batch["y"] for batch in data.val_dataloader()])
    assert torch.equal(valid, torch.from_numpy(data.table.labels()[data.split.valid]))


def test_categories_are_known_from_the_start(table: Path) -> None:
    data = rows(table)
    model = module(data)
    trainer(fast_dev_run=True).fit(model, datamodule=data)
    assert set(model.model.projection.vocabulary.categories["sex"]) == {"female", "male"}
    assert not model.model.projection.vocabulary.open


def test_known_data_sets_are_read_by_name() -> None:
    data = FairDataModule("lending", batch_size=512)
    assert set(next(iter(data.train_dataloader()))["sensitive_features"]) == {"sex", "region", "age_band"}


def test_a_table_needs_a_target(table: Path) -> None:
    with pytest.raises(DataError, match="Pass target="):
        _ = FairDataModule(str(table)).table


def test_label_based_constraints_never_see_labels_in_test_and_prediction(table: Path) -> None:
    data = rows(table)
    model = module(data, fl.EqualizedOdds("sex", 0.02)).eval()
    batch = next(iter(data.val_dataloader()))
    blind = {**batch, "y": torch.full_like(batch["y"], float("nan"))}
    assert torch.equal(model.predict_step(batch, 0), model.predict_step(blind, 0))
    assert torch.equal(model.test_step(batch, 0)["preds"], model.predict_step(blind, 0))


def test_penalties_and_adversary_are_added_to_the_loss(table: Path) -> None:
    data = rows(table)
    batch = next(iter(data.train_dataloader()))
    net = nn.Sequential(nn.Linear(data.width, 8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0), nn.Sigmoid())
    penalty = Penalty(fl.DemographicParity("sex", 0.0))
    adversary = Adversary(net, on="sex", sensitive_features=data.all_groups, example=batch["x"], at="1")
    plain = FairLightningModule(net).training_step(batch, 0)["loss"]
    both = FairLightningModule(net, penalties=[penalty], penalty_weight=3.0, adversary=adversary)
    found = both.training_step(batch, 0)["loss"]
    emitted = net(batch["x"])
    extra = 3.0 * penalty(emitted, sensitive_features=batch["sensitive_features"])
    extra = extra + adversary.loss(batch["sensitive_features"])
    torch.testing.assert_close(found, plain + extra)
    assert len(both.configure_optimizers().param_groups[0]["params"]) > len(list(net.parameters()))


def test_mixed_precision_trains(table: Path) -> None:
    data = rows(table)
    fitted = trainer(precision="bf16-mixed", callbacks=[FairnessCallback("sex")])
    fitted.fit(module(data), datamodule=data)
    assert np.isfinite(fitted.callback_metrics["train/loss"])


def test_a_loss_that_is_not_finite_ends_training(table: Path) -> None:
    data = rows(table)
    broken = FairLightningModule(nn.Sequential(nn.Linear(data.width, 1), nn.Flatten(0)), task="regression")
    nn.init.constant_(broken.model[0].weight, float("nan"))
    with pytest.raises(NonFiniteScoresError, match="loss became nan"):
        trainer().fit(broken, datamodule=data)


def test_a_batch_without_rows_is_refused_by_a_plain_module_too() -> None:
    plain = FairLightningModule(width=3)
    empty = {"x": torch.zeros(0, 3), "y": torch.zeros(0), "sensitive_features": {"sex": torch.zeros(0)}}
    for step in (plain.training_step, plain.validation_step, plain.test_step):
        with pytest.raises(EmptyBatchError, match="batch without rows"):
            step(empty, 0)


def test_something_must_be_trained() -> None:
    with pytest.raises(ConstraintDefinitionError, match="width="):
        FairLightningModule(constraints=[fl.DemographicParity("sex", 0.1)])


def test_a_fit_resumed_with_the_data_module_sees_the_batches_it_would_have_seen(table: Path, tmp_path: Path) -> None:
    def weights(*stops: int) -> torch.Tensor:
        path = None
        for stop in stops:
            torch.manual_seed(0)
            data = rows(table)
            model, fitted = module(data), trainer(max_epochs=stop)
            fitted.fit(model, datamodule=data, ckpt_path=path, weights_only=True)
            path = tmp_path / f"{stop}.ckpt"
            fitted.save_checkpoint(path)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(weights(4), weights(2, 4))


def saved(table: Path, path: Path, *constraints: Any, **more: Any) -> tuple[FairLightningModule, Any]:
    data = rows(table)
    options = {"width": data.width, "geometry": "euclidean", **more}  # the geometry of streams
    fitted, model = trainer(max_epochs=1), FairLightningModule(constraints=constraints, **options)
    fitted.fit(model, datamodule=data)
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():  # a stream, which a checkpoint keeps
        few = {name: column[:9] for name, column in batch["sensitive_features"].items()}
        model.eval().model(batch["x"][:9], sensitive_features=few, inference=True)
    fitted.save_checkpoint(path)
    return model, batch


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("rule", [fl.DemographicParity("sex", 0.02), "demographic_parity(sex+region, 0.1)"])
def test_a_checkpoint_is_enough_to_build_the_module_again(
    table: Path, tmp_path: Path, rule: Any, weights_only: bool
) -> None:
    options = {"hidden": (8, 4), "margin": np.float64(0.01), "b_tau": np.int64(99), "learning_rate": 0.01}
    model, batch = saved(table, tmp_path / "a.ckpt", rule, **options)
    again = FairLightningModule.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=weights_only)
    assert torch.equal(again.eval().predict_step(batch, 0), model.eval().predict_step(batch, 0))
    assert again.model.constraints[0].name == model.model.constraints[0].name
    assert again.model.projection.vocabulary.categories == model.model.projection.vocabulary.categories
    few = {name: column[9:20] for name, column in batch["sensitive_features"].items()}
    streamed = [each.model(batch["x"][9:20], sensitive_features=few, inference=True) for each in (again, model)]
    assert torch.equal(*streamed)
    other = FairLightningModule.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True, learning_rate=0.5)
    assert (other.learning_rate, again.learning_rate) == (0.5, 0.01)


class OfMyOwn(fl.DemographicParity):
    pass


def test_what_a_checkpoint_does_not_hold_is_named(table: Path, tmp_path: Path) -> None:
    width = rows(table).width

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(width, 1), nn.Flatten(0), nn.Sigmoid())

    penalty = Penalty(fl.DemographicParity("region", 0.0))
    saved(table, tmp_path / "a.ckpt", fl.DemographicParity("sex", 0.02), backbone=net(), penalties=[penalty])
    load = FairLightningModule.load_from_checkpoint
    with pytest.raises(NotKeptError, match=r"backbone \(Sequential\), penalties \(Penalty\).*\(path, backbone=\.\.\."):
        load(tmp_path / "a.ckpt", weights_only=True)
    given = {"backbone": net(), "penalties": [Penalty(fl.DemographicParity("region", 0.0))]}
    assert isinstance(load(tmp_path / "a.ckpt", weights_only=True, **given), FairLightningModule)
    saved(table, tmp_path / "b.ckpt", OfMyOwn("sex", 0.02))
    with pytest.raises(NotKeptError, match="constraints"):
        load(tmp_path / "b.ckpt", weights_only=True)


class WithItsOwnArguments(FairLightningModule):
    def __init__(self, size: int) -> None:
        super().__init__(constraints=["demographic_parity(sex, 0.1)"], width=3, hidden=(size,))
        self.save_hyperparameters()


def test_a_subclass_keeps_its_own_arguments_as_everywhere_in_lightning() -> None:
    assert dict(WithItsOwnArguments(4).hparams) == {"size": 4}


CONFIG = """
model:
  constraints:
    - class_path: fairlayer.DemographicParity
      init_args: {"on": sex, tolerance: 0.02}
    - demographic_parity(region, 0.5)
  penalties:
    - class_path: fairlayer.penalties.Penalty
      init_args:
        constraints:
          class_path: fairlayer.DemographicParity
          init_args: {"on": region, tolerance: 0.0}
  hidden: [8]
data:
  data: TABLE
  target: label
  sensitive_features: [sex, region]
  batch_size: 256
trainer:
  max_epochs: 1
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  callbacks:
    - class_path: fairlayer.integrations.lightning.FairnessCallback
      init_args: {sensitive_features: [sex, region]}
"""


class Linked(LightningCLI):
    def add_arguments_to_parser(self, parser: Any) -> None:
        parser.link_arguments("data.width", "model.width", apply_on="instantiate")


@pytest.mark.skipif(find_spec("docstring_parser") is None, reason="LightningCLI needs jsonargparse[signatures]")
def test_lightning_cli_builds_everything_from_a_file(table: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG.replace("TABLE", str(table)))
    arguments = ["--config", str(tmp_path / "c.yaml"), "--model.learning_rate", "0.01"]
    made = Linked(FairLightningModule, FairDataModule, run=False, args=arguments, save_config_callback=None)
    made.trainer.fit(made.model, datamodule=made.datamodule)
    assert made.model.learning_rate == 0.01
    assert isinstance(made.model.model, fl.FairModel)
    assert len(made.model.penalties) == 1
    assert made.trainer.callback_metrics["val/score_gap/sex"] <= 0.1
    made.trainer.save_checkpoint(tmp_path / "cli.ckpt")
    again = FairLightningModule.load_from_checkpoint(tmp_path / "cli.ckpt", weights_only=True)
    batch = next(iter(made.datamodule.val_dataloader()))
    assert torch.equal(again.eval().predict_step(batch, 0), made.model.eval().predict_step(batch, 0))
    assert (len(again.penalties), again.learning_rate) == (1, 0.01)
