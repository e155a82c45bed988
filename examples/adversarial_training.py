"""An adversary on an inner layer: what a probe reads there before and after; Adult, or generated lending data."""

import os

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from fairlayer.adversarial import Adversary, activations, dann, leakage
from fairlayer.data import Encoder, TensorTable, read_data_set, split_rows, tensor_table

STEPS = 400 if os.environ.get("FAIRLAYER_EXAMPLE_FAST") else 1500

table = read_data_set("adult" if os.environ.get("FAIRLAYER_DATA") else "lending")
split = split_rows(table)
encoder = Encoder.fit(table.frame.iloc[split.train], table.features(), categorical=table.categorical)
everyone = tensor_table(table, encoder, ["sex"])
train, test = everyone.take(split.train), everyone.take(split.test)


def fit(strength: float, *, given_label: bool = False) -> nn.Module:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(encoder.width, 64), nn.ReLU(), nn.Linear(64, 16), nn.Tanh())
    model = nn.Sequential(backbone, nn.Linear(16, 1), nn.Flatten(0))
    adversary = Adversary(
        model,
        at="0",  # what the backbone gives
        on="sex",
        sensitive_features=train.sensitive,
        example=train.x[:2],
        given_label=given_label,
        schedule=dann(strength),
    )
    heads = {"params": list(adversary.parameters()), "lr": 1e-2}  # the heads must keep up with the model
    optimiser = torch.optim.Adam([{"params": list(model.parameters()), "lr": 1e-3}, heads])
    for step in range(STEPS):
        batch = train.take(torch.randint(0, len(train), (512,)).numpy())
        adversary.advance(step / STEPS)
        task = binary_cross_entropy_with_logits(model(batch.x), batch.y)
        loss = task + adversary.loss(batch.sensitive, batch.y)  # reads what this forward gave
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def report(name: str, model: nn.Module, sample: TensorTable) -> None:
    accuracy = float(((model(sample.x) > 0) == sample.y.bool()).double().mean())
    inner = activations(model, sample.x, at="0")
    print(f"{name:<24}{accuracy:>9.3f}", end="")
    for found in (leakage(inner, sample.sensitive, on="sex", probe=probe) for probe in ("linear", "trees")):
        print(f"{found.auc:>8.3f} [{found.low:.3f}, {found.high:.3f}]", end="\n" if found.probe == "trees" else "")


print(f"{table.name.split()[0]:<24}{'accuracy':>9}{'AUC, linear probe':>24}{'AUC, trees probe':>24}")
report("before", fit(0.0), test)
report("after", fit(3.0), test)
report("after, given the label", fit(3.0, given_label=True), test)
