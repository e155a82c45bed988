"""FairnessCallback on a LightningModule that knows nothing of fairlayer; then the same module with a layer inside."""

import logging
import os
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fairlayer as fl
from fairlayer.integrations.lightning import FairnessCallback

EPOCHS = 2 if os.environ.get("FAIRLAYER_EXAMPLE_FAST") else 8
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning.*")


def loader(n: int, seed: int) -> DataLoader:
    random = torch.Generator().manual_seed(seed)
    sex = torch.randint(0, 2, (n,), generator=random)
    x = torch.randn(n, 5, generator=random) + 0.7 * sex[:, None]
    y = (x.sum(dim=1) + torch.randn(n, generator=random) > 2.0).float()
    return DataLoader(TensorDataset(x, y, sex), batch_size=256)


class Lender(LightningModule):
    def __init__(self, model: nn.Module, layered: bool) -> None:
        super().__init__()
        self.model, self.layered = model, layered

    def scores(self, batch):
        return self.model(batch[0], **({"sensitive_features": {"sex": batch[2]}} if self.layered else {}))

    def training_step(self, batch, batch_idx):
        return nn.functional.binary_cross_entropy(self.scores(batch), batch[1])

    def validation_step(self, batch, batch_idx):
        self.scores(batch)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


print(f"{'':<14}{'score gap':>11}{'decision gap':>14}{'multiplier':>12}")
for layered in (False, True):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0), nn.Sigmoid())
    parity = fl.DemographicParity("sex", tolerance=0.02)
    model = fl.FairModel(net, [parity], bounds=(0, 1), margin=1e-4) if layered else net
    best = ModelCheckpoint("checkpoints", monitor="val/score_gap")  # the keys are there in every epoch
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=EPOCHS, callbacks=[FairnessCallback(sensitive_features=["sex"]), best], **quiet)
    trainer.fit(Lender(model, layered), loader(4000, 0), loader(2000, 1))
    found = trainer.callback_metrics
    price = float(found.get("val/multiplier/demographic_parity_sex", torch.nan))
    name, decided = "with layer" if layered else "without", found["val/demographic_parity_difference"]
    print(f"{name:<14}{found['val/score_gap']:>11.3f}{decided:>14.3f}{price:>12.4f}")
