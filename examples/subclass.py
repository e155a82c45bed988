"""Subclass FairModel: two inputs, and two constraints, one of which reads labels in training."""

import os

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy

import fairlayer as fl

STEPS = 60 if os.environ.get("FAIRLAYER_EXAMPLE_FAST") else 400


class TwoTowers(fl.FairModel):
    """Scores from a person and a job."""

    def __init__(self, constraints: list[fl.Constraint]) -> None:
        super().__init__(constraints=constraints, bounds=(0.0, 1.0), margin=1e-4)
        self.person = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 8))
        self.job = nn.Linear(3, 8)

    def scores(self, person: Tensor, *, job: Tensor) -> Tensor:
        return torch.sigmoid((self.person(person) * self.job(job)).sum(dim=1))


torch.manual_seed(0)
race = torch.randint(0, 4, (3000,))
person = torch.randn(3000, 5) + 0.3 * race[:, None]
job = torch.randn(3000, 3)
label = (person.sum(1) + job.sum(1) + torch.randn(3000) > 2.0).float()
groups = {"race": race}

model = TwoTowers(
    [
        fl.DemographicParity("race", tolerance=0.1),
        fl.EqualOpportunity("race", tolerance=0.05),
    ]
)
optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(STEPS):
    scores = model(person, job=job, sensitive_features=groups, y=label)
    optimiser.zero_grad()
    binary_cross_entropy(scores, label).backward()
    optimiser.step()

with torch.no_grad():
    raw = model.raw_scores(person, job=job)
    scores = model(person, job=job, sensitive_features=groups, y=label)
print(f"{'race':<6}{'people':>8}{'raw mean':>10}{'mean':>8}{'raw, label 1':>14}{'label 1':>9}")
for g in range(4):
    own, positive = race == g, (race == g) & (label == 1)
    means = [raw[own].mean(), scores[own].mean(), raw[positive].mean(), scores[positive].mean()]
    print(f"{g:<6}{int(own.sum()):>8}{means[0]:>10.3f}{means[1]:>8.3f}{means[2]:>14.3f}{means[3]:>9.3f}")
for name, price in model.last_projection.multipliers.items():
    print(f"{name}: multiplier per person {price / len(race):.4f}")

model.eval()  # in production there are no labels: the raw scores stand in as estimates
model(person, job=job, sensitive_features=groups)
print("without labels:", model.last_projection.status, "certificate holds:", model.last_projection.certificate.holds)
