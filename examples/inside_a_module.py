"""FairProjection in the middle of a module: triage levels feed a second head, and both learn through the layer."""

import os

import torch
from torch import Tensor, nn

import fairlayer as fl

STEPS = 60 if os.environ.get("FAIRLAYER_EXAMPLE_FAST") else 300


class Triage(nn.Module):
    """Urgency, with group means within a tolerance, and the waiting time predicted from it."""

    def __init__(self, tolerance: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.ReLU())
        self.urgency = nn.Linear(16, 1)
        self.level = fl.FairProjection([fl.DemographicParity(("sex", "language"), tolerance)], bounds=(0.0, 1.0))
        self.wait = nn.Linear(17, 1)

    def forward(self, x: Tensor, groups: dict[str, list[str]]) -> tuple[Tensor, Tensor]:
        hidden = self.body(x)
        urgency = self.level(torch.sigmoid(self.urgency(hidden)), sensitive_features=groups)
        return urgency, self.wait(torch.cat([hidden, urgency], dim=1))


torch.manual_seed(0)
n = 2000
female, foreign = torch.rand(n) < 0.5, torch.rand(n) < 0.2
groups = {
    "sex": ["female" if f else "male" for f in female],
    "language": ["other" if f else None if i % 50 == 0 else "local" for i, f in enumerate(foreign)],  # 1 in 50 unknown
}
x = torch.randn(n, 6) + 0.4 * female[:, None] - 0.5 * foreign[:, None]
urgent = torch.sigmoid(x.sum(1, keepdim=True))
minutes = 60 - 40 * urgent + torch.randn(n, 1)

triage = Triage(tolerance=0.05)
optimiser = torch.optim.Adam(triage.parameters(), lr=0.01)
for _ in range(STEPS):
    urgency, wait = triage(x, groups)
    loss = nn.functional.mse_loss(urgency, urgent) + 1e-3 * nn.functional.mse_loss(wait, minutes)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

last = triage.level.last
print(f"{'group':<32}{'people':>7}{'moved by':>10}")
for cell, shift in zip(last.cells, last.shift.tolist(), strict=True):
    print(f"{cell:<32}{last.counts[cell]:>7}{shift:>10.4f}")
print("unknown:", last.unknown)
print(f"largest violation {last.certificate.violation:.1e}, certificate holds: {last.certificate.holds}")
