"""transformers.Trainer with a layer around a tiny, randomly initialised classifier: train, evaluate, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fairlayer as fl

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

BATCH = 50


class Classifier(fl.FairModel):
    def scores(self, **batch: Any) -> Tensor:
        return torch.sigmoid(self.backbone(**batch).logits.squeeze(-1))

    def forward(self, labels: Any = None, dialect: Any = None, **batch: Any) -> Any:  # type: ignore[override]
        scores = super().forward(**batch, sensitive_features={"dialect": dialect}, y=labels)
        loss = None if labels is None else nn.functional.binary_cross_entropy(scores, labels.float())
        return {"loss": loss, "logits": scores}


def model(tolerance: float) -> Classifier:
    transformers.set_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=50, num_labels=1, **size)
    backbone = transformers.BertForSequenceClassification(config)
    parity = fl.DemographicParity("dialect", tolerance)
    return Classifier(backbone, [parity], bounds=(0, 1), margin=1e-4)


def texts(n: int, seed: int) -> list[dict[str, Tensor]]:
    random = torch.Generator().manual_seed(seed)
    dialect = torch.arange(n) % 2
    ids = (torch.randint(0, 40, (n, 6), generator=random) + 9 * dialect[:, None]).clamp(max=49)
    labels = (ids > 30).float().mean(1).gt(0.35).long()
    return [{"input_ids": i, "labels": y, "dialect": d} for i, y, d in zip(ids, labels, dialect, strict=True)]


def trainer(folder: Path, fair: Classifier, epochs: int, **more: Any) -> Any:
    def gap(prediction: Any) -> dict[str, float]:
        _, dialect = prediction.label_ids
        means = [prediction.predictions[dialect == d].mean() for d in (0, 1)]
        return {"score_gap": abs(means[0] - means[1])}

    options = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        learning_rate=5e-3,
        lr_scheduler_type="constant",
        remove_unused_columns=False,
        label_names=["labels", "dialect"],
        save_strategy="epoch",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **more,
    )
    rows = {"train_dataset": texts(200, 0), "eval_dataset": texts(100, 1)}
    return transformers.Trainer(fair, options, compute_metrics=gap, **rows)


def test_the_trainer_trains_evaluates_and_resumes(tmp_path: Path) -> None:
    fair = model(0.0)
    fitted = trainer(tmp_path / "a", fair, epochs=2)
    before = [p.clone() for p in fair.parameters()]
    fitted.train()
    assert any(not torch.equal(a, b) for a, b in zip(before, fair.parameters(), strict=True))
    assert fitted.evaluate()["eval_score_gap"] <= 1e-6  # batches of equal shares: the pooled gap is that of each
    assert fair.last_projection is not None
    assert fair.last_projection.certificate.holds

    again = model(0.0)
    resumed = trainer(tmp_path / "a", again, epochs=2)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
    assert again.projection.vocabulary.categories == fair.projection.vocabulary.categories
    for a, b in zip(fair.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_without_the_layer_binding_the_gap_is_there(tmp_path: Path) -> None:
    """The rows have a gap to bound, or the test above could not fail."""
    fitted = trainer(tmp_path, model(1.0), epochs=6)
    fitted.train()
    assert fitted.evaluate()["eval_score_gap"] > 0.02
