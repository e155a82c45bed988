"""The table of columns, through a Trainer as it runs: odd columns in the batches of a loader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader

import fairlayer as fl
from fairlayer import errors
from fairlayer.integrations.lightning import FairLightningModule, FairnessCallback
from tests.edge.test_columns import (
    ALL_KNOWN,
    COLUMNS,
    NO_COLUMNS,
    PARITY,
    SCORES,
    WITH_UNKNOWN,
    WITHOUT,
    Counts,
    N,
    _two,
)

Y = (torch.arange(N) % 3 == 0).double()
RUNS = ("fit", "validate", "test", "predict")

# Every pass of a Trainer reads a batch by the same lines: "fit" takes the whole table, and the others these.
COLUMNS_OF_EACH_LIBRARY = (
    "list of text",
    "array of objects",
    "masked array of codes",
    "tensor of floats",
    "pandas categorical",
    "pandas Int64",
    "polars text",
    "pyarrow chunks",
    "array of text",
)
REFUSED_IN_EACH_WAY = (
    "bare text",
    "None",
    "tensor without data",
    "frame in place of a column",
    "another length",
    "fractions",
    "infinity",
    "codes below -1",
    "dates",
    "NaN made into text",
)


def runs_of(names: Iterable[str], some: Sequence[str]) -> list[tuple[str, str]]:
    """Return every name for "fit", and some of them for each other pass."""
    return [("fit", name) for name in names] + [(verb, name) for verb in RUNS[1:] for name in some]


class Shifted(nn.Module):
    """The only feature is the score."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0] + self.shift


def run(verb: str, column: Any) -> tuple[Counts, dict[str, float]]:
    """What the layer compared in one pass of a Trainer, and what the callback logged."""
    batch = (SCORES[:, None], Y, {"g": column})
    loader = DataLoader([batch], batch_size=None, collate_fn=lambda given: given)  # type: ignore[arg-type]
    module = FairLightningModule(Shifted(), [PARITY], learning_rate=0.0, penalties=[fl.Penalty(PARITY)])
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[FairnessCallback("g", stages=("train", "val", "test"))],
    )
    getattr(trainer, verb)(module, loader)
    assert isinstance(module.model, fl.FairModel)
    last = module.model.last_projection
    assert last is not None
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return Counts(_two(last.counts.values()), last.unknown["g"]), logged


@pytest.mark.parametrize(("verb", "name"), runs_of(COLUMNS, COLUMNS_OF_EACH_LIBRARY))
def test_every_column_is_read_alike(name: str, verb: str) -> None:
    found, logged = run(verb, COLUMNS[name]())
    assert found == (WITHOUT if name in ALL_KNOWN else WITH_UNKNOWN)
    if verb != "predict":
        stage = {"fit": "train", "validate": "val", "test": "test"}[verb]
        assert logged[f"{stage}/score_gap"] == pytest.approx(0.05, abs=1e-6)
        assert logged[f"{stage}/smallest_group"] == found.groups[0]


@pytest.mark.parametrize(("verb", "name"), runs_of(NO_COLUMNS, REFUSED_IN_EACH_WAY))
def test_what_is_no_column_is_refused_alike(name: str, verb: str) -> None:
    make, kind, said = NO_COLUMNS[name]
    if name == "tensor without data":
        with pytest.raises(NotImplementedError, match="no data"):  # Lightning moves batches before they are read
            run(verb, make())
        return
    with pytest.raises(kind) as caught:
        run(verb, make())
    assert isinstance(caught.value, errors.FairlayerError)
    assert said in str(caught.value)
    assert "'g" in str(caught.value) or name == "another length"
