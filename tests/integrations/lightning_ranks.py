"""Two processes, each with rows of its own: run by test_lightning_ranks.py, once per process."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

import fairlayer as fl
from fairlayer.integrations.lightning import FairnessCallback

N, CUT = 200, 150  # rows, and how many of them the first process has


def rows() -> tuple[Tensor, Tensor, list[str]]:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(N, 3, generator=random)
    first = (torch.rand(N, generator=random) < 0.6).long()
    first[0], first[CUT] = 0, 1  # the processes meet the names in different orders
    return x, (x[:, 0] > 0).float(), [("m", "f")[code] for code in first.tolist()]


def batches(rank: int) -> DataLoader[Any]:
    """Two batches on either process, of different sizes: both take the same number of steps."""
    x, y, sex = rows()
    mine = list(range(CUT)) if rank == 0 else list(range(CUT, N))
    parts = [mine[: len(mine) // 2], mine[len(mine) // 2 :]]
    made = [{"x": x[p], "y": y[p], "sensitive_features": {"sex": [sex[i] for i in p]}} for p in parts]
    return DataLoader(made, batch_size=None)  # type: ignore[arg-type]


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1), nn.Flatten(0), nn.Sigmoid())
        self.model = fl.FairModel(net, [fl.DemographicParity("sex", 0.0)], bounds=(0.0, 1.0))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        scores = self.model(batch["x"], sensitive_features=batch["sensitive_features"])
        return nn.functional.mse_loss(scores, batch["y"])

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        self.model(batch["x"], sensitive_features=batch["sensitive_features"])
        return {"preds": batch["x"][:, 0].sigmoid()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def main() -> None:
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo"),
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[FairnessCallback("sex")],
    )
    trainer.fit(Module(), batches(rank), batches(rank))
    with open(f"{sys.argv[1]}.{rank}", "w", encoding="utf-8") as file:
        json.dump({key: float(value) for key, value in trainer.callback_metrics.items()}, file)


if __name__ == "__main__":
    main()
