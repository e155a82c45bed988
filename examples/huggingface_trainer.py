"""A Hugging Face model with one score per text, trained by transformers.Trainer through the layer.

The model is tiny and randomly initialised: nothing is downloaded.
"""

import os
import warnings

import numpy as np
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

import fairlayer as fl

warnings.filterwarnings("ignore")
ROWS, EPOCHS = (1500, 3) if os.environ.get("FAIRLAYER_EXAMPLE_FAST") else (4000, 8)


class FairClassifier(fl.FairModel):
    """The tolerance is meant in probabilities, so the layer gets probabilities, not logits."""

    def scores(self, **batch):
        return torch.sigmoid(self.backbone(**batch).logits.squeeze(-1))

    def forward(self, labels=None, dialect=None, **batch):
        """What the Trainer expects: the columns of the data set in, a loss and predictions out."""
        scores = super().forward(**batch, sensitive_features={"dialect": dialect}, y=labels)
        loss = None if labels is None else nn.functional.binary_cross_entropy(scores, labels.float())
        return {"loss": loss, "logits": scores}


def gaps(prediction):
    """`compute_metrics`: the Trainer hands over all predictions of the evaluation, and the columns in `label_names`."""
    scores, (labels, dialect) = prediction.predictions, prediction.label_ids
    means = [scores[dialect == d].mean() for d in np.unique(dialect)]
    decided = [(scores[dialect == d] >= 0.5).mean() for d in np.unique(dialect)]
    accuracy = ((scores >= 0.5) == (labels == 1)).mean()
    return {"accuracy": accuracy, "score_gap": np.ptp(means), "decision_gap": np.ptp(decided)}


def texts(n, seed):
    random = torch.Generator().manual_seed(seed)
    dialect = torch.randint(0, 2, (n,), generator=random)
    ids = (torch.randint(0, 40, (n, 12), generator=random) + 8 * dialect[:, None]).clamp(max=49)
    toxic = (ids > 30).float().mean(1) + 0.1 * torch.randn(n, generator=random) > 0.35  # more often in dialect 1
    return [{"input_ids": i, "labels": y, "dialect": d} for i, y, d in zip(ids, toxic.long(), dialect, strict=True)]


size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
config = BertConfig(vocab_size=50, num_labels=1, **size)
options = {"per_device_train_batch_size": 64, "per_device_eval_batch_size": 256, "learning_rate": 2e-3}
quiet = {
    "report_to": [],
    "save_strategy": "epoch",
    "save_total_limit": 1,
    "logging_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
}

print(f"{'tolerance':<12}{'accuracy':>10}{'score gap':>11}{'decision gap':>14}")
for tolerance in (1.0, 0.02):
    set_seed(0)
    parity = fl.DemographicParity("dialect", tolerance)
    model = FairClassifier(BertForSequenceClassification(config), [parity], bounds=(0, 1), margin=1e-4)
    arguments = TrainingArguments(
        output_dir="hf",
        num_train_epochs=EPOCHS,
        remove_unused_columns=False,  # or the Trainer drops `dialect`, which the backbone does not take
        label_names=["labels", "dialect"],  # so that compute_metrics sees both
        **options,
        **quiet,
    )
    trainer = Trainer(model, arguments, train_dataset=texts(ROWS, 0), eval_dataset=texts(1000, 1), compute_metrics=gaps)
    trainer.remove_callback(PrinterCallback)  # this script prints its own table
    trainer.train()
    found = trainer.evaluate()
    numbers = [found[f"eval_{name}"] for name in ("accuracy", "score_gap", "decision_gap")]
    print(f"{tolerance:<12}{numbers[0]:>10.3f}{numbers[1]:>11.3f}{numbers[2]:>14.3f}")
    assert model.last_projection.certificate.holds
