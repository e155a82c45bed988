"""A Hugging Face model with one score per text, trained by transformers.Trainer; nothing is downloaded."""

import warnings

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

import fairlayer as fl

warnings.filterwarnings("ignore")


class FairClassifier(fl.FairModel):
    def scores(self, **batch):
        return torch.sigmoid(self.backbone(**batch).logits.squeeze(-1))

    def forward(self, labels=None, dialect=None, **batch):
        scores = super().forward(**batch, sensitive_features={"dialect": dialect}, y=labels)
        loss = None if labels is None else nn.functional.binary_cross_entropy(scores, labels.float())
        return {"loss": loss, "logits": scores}


def gaps(prediction):
    scores, (labels, dialect) = prediction.predictions, prediction.label_ids
    means = [scores[dialect == d].mean() for d in (0, 1)]
    decided = [(scores[dialect == d] >= 0.5).mean() for d in (0, 1)]
    accuracy = ((scores >= 0.5) == (labels == 1)).mean()
    return {"accuracy": accuracy, "score_gap": np.ptp(means), "decision_gap": np.ptp(decided)}


def texts(n, seed):
    random = torch.Generator().manual_seed(seed)
    dialect = torch.randint(0, 2, (n,), generator=random)
    ids = (torch.randint(0, 40, (n, 12), generator=random) + 8 * dialect[:, None]).clamp(max=49)
    toxic = (ids > 30).float().mean(1) + 0.1 * torch.randn(n, generator=random) > 0.35  # more often in dialect 1
    return [{"input_ids": i, "labels": y, "dialect": d} for i, y, d in zip(ids, toxic.long(), dialect, strict=True)]


config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_labels=1)
sizes = {"num_train_epochs": 3, "per_device_train_batch_size": 64, "learning_rate": 2e-3, "use_cpu": True}
quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
columns = {"remove_unused_columns": False, "label_names": ["labels", "dialect"]}  # `dialect` is no input of BERT

print(f"{'tolerance':<12}{'accuracy':>10}{'score gap':>11}{'decision gap':>14}")
for tolerance in (1.0, 0.02):
    set_seed(0)
    limit = fl.DemographicParity("dialect", tolerance)
    model = FairClassifier(BertForSequenceClassification(config), limit, bounds=(0, 1), margin=1e-4)
    arguments = TrainingArguments(output_dir="hf", **sizes, **quiet, **columns)
    trainer = Trainer(model, arguments, train_dataset=texts(1500, 0), eval_dataset=texts(1000, 1), compute_metrics=gaps)
    trainer.remove_callback(PrinterCallback)  # this script prints its own table
    trainer.train()
    found = trainer.evaluate()
    accuracy, score_gap, decision_gap = (found[f"eval_{name}"] for name in ("accuracy", "score_gap", "decision_gap"))
    print(f"{tolerance:<12}{accuracy:>10.3f}{score_gap:>11.3f}{decision_gap:>14.3f}")
    assert model.last_projection.certificate.holds
