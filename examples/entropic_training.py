"""Two ways to train through the layer: probabilities shifted and clipped, or log-odds shifted (nothing clipped)."""

import copy
import os

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits

import fairlayer as fl
from fairlayer.data import LendingPopulation

FAST = bool(os.environ.get("FAIRLAYER_EXAMPLE_FAST"))
ROWS, STEPS = (3_000, 60) if FAST else (20_000, 200)
PARITY = fl.DemographicParity("sex", tolerance=0.02)


def table(seed: int) -> tuple[Tensor, Tensor, dict[str, np.ndarray]]:
    """Return features, labels and the sex of applicants; the sex is no feature."""
    columns = LendingPopulation().sample(ROWS, seed=seed)
    numbers = [columns[name] for name in ("monthly_income", "debt_ratio", "history_months", "amount")]
    logs = np.log1p(np.nan_to_num(np.stack(numbers, axis=1), nan=3_000.0))
    jobs = columns["occupation"][:, None] == np.unique(columns["occupation"])
    x = np.concatenate([(logs - logs.mean(0)) / logs.std(0), jobs], axis=1)
    return torch.tensor(x).float(), torch.tensor(columns["label"]).float(), {"sex": columns["sex"]}


x, y, sex = table(seed=1)


def fit(model: nn.Module, loss: object) -> nn.Module:
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss(model).backward()
        optimiser.step()
    return model


torch.manual_seed(0)
net = nn.Sequential(nn.Linear(x.shape[1], 32), nn.ReLU(), nn.Linear(32, 1), nn.Flatten(0))
fit(net, lambda net: binary_cross_entropy_with_logits(net(x), y))  # the warm start: no constraint yet

squashed = nn.Sequential(copy.deepcopy(net), nn.Sigmoid())
models = {
    "euclidean, after a sigmoid": fl.FairModel(squashed, [PARITY], bounds=(0, 1), margin=1e-4),
    "entropic, from logits": fl.FairModel(copy.deepcopy(net), [PARITY], geometry="entropic", from_logits=True),
}
new_x, new_y, new_sex = table(seed=2)
print(f"{'on new applicants':<28}{'log loss':>10}{'score gap':>11}{'decision gap':>14}{'at the bounds':>15}")
for name, model in models.items():
    fit(model, lambda model: binary_cross_entropy(model(x, sensitive_features=sex), y)).eval()
    with torch.no_grad():
        scores, women = model(new_x, sensitive_features=new_sex), torch.tensor(new_sex["sex"] == "female")
    gaps = [abs(v[women].double().mean() - v[~women].double().mean()) for v in (scores, scores > 0.5)]
    clipped = model.last_projection.clipped
    print(f"{name:<28}{binary_cross_entropy(scores, new_y):>10.4f}{gaps[0]:>11.4f}{gaps[1]:>14.4f}{clipped:>14.1%}")
