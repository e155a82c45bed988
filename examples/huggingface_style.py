"""Batches as dicts, outputs with `.logits`, as in Hugging Face models; the library itself is not needed here."""

import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import fairlayer as fl

STEPS = 40 if os.environ.get("FAIRLAYER_EXAMPLE_FAST") else 200


@dataclass
class Output:
    logits: Tensor


class Classifier(nn.Module):
    """Stands for a pretrained text classifier with one output."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(50, 16), nn.Linear(16, 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Output:
        mask = attention_mask[..., None]
        hidden = (self.words(input_ids) * mask).sum(1) / mask.sum(1)
        return Output(logits=self.head(hidden))


class Probabilities(fl.FairModel):
    """The tolerance is meant in probabilities, so the layer gets probabilities, not logits."""

    def scores(self, **batch: Tensor) -> Tensor:
        return torch.sigmoid(self.backbone(**batch).logits.squeeze(-1))


torch.manual_seed(0)
dialect = torch.randint(0, 3, (900,))
ids = (torch.randint(0, 40, (900, 12)) + 4 * dialect[:, None]).clamp(max=49)
batch = {"input_ids": ids, "attention_mask": (torch.rand(900, 12) < 0.9).long().index_fill(1, torch.tensor(0), 1)}
toxic = ((ids > 30).float().mean(1) + 0.1 * torch.randn(900) > 0.35).float()
features = {"dialect": [("north", "south", "east")[d] for d in dialect]}

print(f"{'tolerance':<12}{'loss':>8}{'east':>8}{'north':>8}{'south':>8}   certificate")
for tolerance in (1.0, 0.1, 0.02):
    torch.manual_seed(1)
    model = Probabilities(Classifier(), [fl.DemographicParity("dialect", tolerance)], bounds=(0, 1), margin=1e-4)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(STEPS):
        scores = model(**batch, sensitive_features=features)
        loss = nn.functional.binary_cross_entropy(scores, toxic)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    row = "".join(f"{scores[dialect == d].mean():>8.3f}" for d in (2, 0, 1))
    print(f"{tolerance:<12}{loss:>8.3f}{row}   holds: {model.last_projection.certificate.holds}")
