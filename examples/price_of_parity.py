"""What parity costs: distance, multiplier and shifts for one batch of scores, over a range of tolerances."""

import os

import numpy as np
import torch

import fairlayer as fl
from fairlayer.data import LendingPopulation

ROWS = 2_000 if os.environ.get("FAIRLAYER_EXAMPLE_FAST") else 50_000

population = LendingPopulation()
columns = population.sample(ROWS, seed=0)
income = np.log(np.nan_to_num(columns["monthly_income"], nan=3_000.0))
logit = 1.5 * (income - income.mean()) - 2.0 * (columns["debt_ratio"] - 0.33)
scores = torch.sigmoid(torch.tensor(logit))
features = {"sex": columns["sex"], "region": columns["region"]}

raw = [scores[torch.tensor(columns["sex"] == sex)].mean() for sex in ("female", "male")]
print(f"{ROWS} applicants, score gap {raw[1] - raw[0]:.4f} without the layer")
print(f"{'tolerance':>9}{'rms move':>10}{'multiplier / n':>16}{'female':>10}{'male':>10}{'status':>12}")

for tolerance in (0.10, 0.08, 0.06, 0.04, 0.02, 0.0):
    parity = fl.DemographicParity("sex", tolerance)
    result = fl.project(scores, [parity], sensitive_features=features, bounds=(0.0, 1.0))
    rms = result.certificate.distance / ROWS**0.5
    price = float(result.multipliers[parity.name]) / ROWS
    women, men = result.shift.tolist()
    print(f"{tolerance:>9.2f}{rms:>10.4f}{price:>16.5f}{women:>10.4f}{men:>10.4f}{result.status:>12}")

# The multiplier is minus the slope of 1/2 distance^2: the same number from autograd, through the tolerance.
tolerance = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
parity = fl.DemographicParity("sex", tolerance)
value = fl.project(scores, [parity], sensitive_features=features, bounds=(0.0, 1.0)).value
(0.5 * ((value - scores) ** 2).sum()).backward()
print(f"slope at 0.05 from autograd, per applicant: {tolerance.grad / ROWS:.5f}")

both = [fl.DemographicParity("sex", 0.05), fl.DemographicParity("region", 0.01)]
result = fl.project(scores, both, sensitive_features=features, bounds=(0.0, 1.0))
print("two constraints:", {name: round(float(m) / ROWS, 5) for name, m in result.multipliers.items()})
