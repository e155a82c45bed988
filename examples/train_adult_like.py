"""A plain PyTorch training script: the same network without and with the layer, on generated lending data."""

import os

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy

import fairlayer as fl
from fairlayer.data import LendingPopulation, StratifiedBatchSampler

FAST = bool(os.environ.get("FAIRLAYER_EXAMPLE_FAST"))
ROWS, EPOCHS = (4_000, 3) if FAST else (20_000, 15)


def table(seed: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Return features (n, d), labels (n,) and the sex of each applicant."""
    columns = LendingPopulation().sample(ROWS, seed=seed)
    numbers = [columns[name] for name in ("monthly_income", "debt_ratio", "history_months", "amount")]
    logs = np.log1p(np.nan_to_num(np.stack(numbers, axis=1), nan=3_000.0))
    jobs = columns["occupation"][:, None] == np.unique(columns["occupation"])
    x = np.concatenate([(logs - logs.mean(0)) / logs.std(0), jobs], axis=1)
    return torch.tensor(x).float(), torch.tensor(columns["label"]).float(), columns["sex"]


def train(constraints: list[fl.Constraint]) -> fl.FairModel:
    torch.manual_seed(0)
    x, label, sex = table(seed=1)
    net = nn.Sequential(nn.Linear(x.shape[1], 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid(), nn.Flatten(0))
    model = fl.FairModel(net, constraints, bounds=(0.0, 1.0), margin=1e-4)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    batches = StratifiedBatchSampler(np.unique(sex, return_inverse=True)[1], batch_size=256)
    for _ in range(EPOCHS):
        for rows in batches:
            scores = model(x[rows], sensitive_features={"sex": sex[rows]})
            optimiser.zero_grad()
            binary_cross_entropy(scores, label[rows]).backward()
            optimiser.step()
    return model.eval()


def report(name: str, model: fl.FairModel) -> None:
    x, label, sex = table(seed=2)
    with torch.no_grad():
        scores = model(x, sensitive_features={"sex": sex}, inference=True)
    decided, woman = scores > 0.5, torch.tensor(sex == "female")
    accuracy = (decided == label.bool()).double().mean()
    gaps = [v[~woman].double().mean() - v[woman].double().mean() for v in (scores, decided)]
    print(f"{name:<24}{accuracy:>9.3f}{gaps[0]:>11.4f}{gaps[1]:>14.4f}")


print(f"{'on new applicants':<24}{'accuracy':>9}{'score gap':>11}{'decision gap':>14}")
report("without constraint", train([]))
report("score gap at most 0.02", train([fl.DemographicParity("sex", tolerance=0.02)]))
print("The layer bounds the score gap of this batch. The decision gap is measured only.")
