"""Regression: no group is over- or underestimated on average, although its feature misleads the model."""

import os

import torch
from torch import Tensor, nn

import fairlayer as fl

STEPS = 100 if os.environ.get("FAIRLAYER_EXAMPLE_FAST") else 600
SHARES = torch.tensor([0.6, 0.3, 0.1])


def people(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is measured (n, 2), the target (n,) and the region; in region 2 the instrument reads low."""
    region = torch.multinomial(SHARES, n, replacement=True)
    need = 3.0 + torch.randn(n)
    measured = torch.stack([need - 0.8 * (region == 2) + 0.5 * torch.randn(n), torch.randn(n)], dim=1)
    return measured, need, region


def train(constraints: list[fl.Constraint]) -> fl.FairModel:
    torch.manual_seed(0)
    x, target, region = people(4000)
    net = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))
    model = fl.FairModel(net, constraints)  # no bounds: any number may be predicted
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(STEPS):
        predicted = model(x, sensitive_features={"region": region}, y=target)
        optimiser.zero_grad()
        nn.functional.mse_loss(predicted, target).backward()
        optimiser.step()
    return model


torch.manual_seed(1)
x, target, region = people(4000)
print(f"{'residual of':<30}{'region 0':>9}{'region 1':>9}{'region 2':>9}{'R2':>7}")
for name, constraints in {
    "no constraint": [],
    "each within 0.05 of zero": [fl.MeanResidualParity("region", tolerance=0.05)],
    "each within 0.3 of the others": [fl.MeanResidualParity("region", tolerance=0.3, between_groups=True)],
}.items():
    model = train(constraints)
    with torch.no_grad():
        predicted = model(x, sensitive_features={"region": region}, y=target)  # audit: labels are known here
    residual = target - predicted
    means = "".join(f"{residual[region == g].mean():>9.3f}" for g in range(3))
    print(f"{name:<30}{means}{1 - residual.var() / target.var():>7.3f}")

shift = model.last_projection
print("moved by:", {cell: round(s, 3) for cell, s in zip(shift.cells, shift.shift.tolist(), strict=True)})
