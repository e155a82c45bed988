"""Two processes train the ready module on the ready data module: run by test_lightning_ranks.py, once per process."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

import fairlayer as fl
from fairlayer.integrations.lightning import FairDataModule, FairLightningModule, FairnessCallback


def spoil(layer: nn.Module, inputs: Any, output: Tensor) -> None:
    output.data[:9] *= 0.3  # what is emitted is not what was solved for


def main() -> None:
    torch.manual_seed(0)
    data = FairDataModule(sys.argv[2], sensitive_features=["sex"], target="label", batch_size=100)
    module = FairLightningModule(constraints=[fl.DemographicParity("sex", 0.0)], width=data.width, hidden=(4,))
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo"),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[FairnessCallback("sex")],
    )
    if trainer.global_rank == 1:
        module.model.projection.register_forward_hook(spoil)
    trainer.fit(module, datamodule=data)
    found = {
        "metrics": {key: float(value) for key, value in trainer.callback_metrics.items()},
        "rows": {part: sum(len(batch["y"]) for batch in loader) for part, loader in loaders(data).items()},
        "all": {"train": len(data.split.train), "valid": len(data.split.valid)},
    }
    with open(f"{sys.argv[1]}.{trainer.global_rank}", "w", encoding="utf-8") as file:
        json.dump(found, file)


def loaders(data: FairDataModule) -> dict[str, Any]:
    return {"train": data.train_dataloader(), "valid": data.val_dataloader()}


if __name__ == "__main__":
    main()
