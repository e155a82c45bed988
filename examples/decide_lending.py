"""Who gets a loan: decisions under parity, a capacity and a profit, then thresholds for applicants to come."""

import os

import numpy as np
import torch

import fairlayer as fl
from fairlayer.data import LendingPopulation
from fairlayer.decisions import DecisionRule, DecisionStream, decide

ROWS = 4_000 if os.environ.get("FAIRLAYER_EXAMPLE_FAST") else 20_000

columns = LendingPopulation().sample(3 * ROWS, seed=0)
income = np.log(np.nan_to_num(columns["monthly_income"], nan=3_000.0))
x = np.stack([income - income.mean(), columns["debt_ratio"] - 0.33, columns["age_band"] == "under 30"], axis=1)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(columns["label"].astype(np.float32))
train, valid, later = slice(ROWS), slice(ROWS, 2 * ROWS), slice(2 * ROWS, None)

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
optimiser = torch.optim.Adam(net.parameters(), 0.02)
for _ in range(150):
    optimiser.zero_grad()
    torch.nn.functional.binary_cross_entropy_with_logits(net(x[train])[:, 0], y[train]).backward()
    optimiser.step()
scores = torch.sigmoid(net(x)[:, 0]).detach()
sex = columns["sex"]


def show(name: str, part: slice, decisions: torch.Tensor) -> None:
    d, groups = decisions.numpy(), sex[part]
    women, men = (d[groups == g].mean() for g in ("female", "male"))
    right = (d == y[part].numpy()).mean()
    print(f"{name:<34}{100 * right:>9.2f}{100 * women:>9.2f}{100 * men:>9.2f}{int(d.sum()):>10}")


print(f"{'validation':<34}{'accuracy':>9}{'women':>9}{'men':>9}{'granted':>10}   (percent)")
features = {"sex": sex[valid]}
parity = fl.DemographicParity("sex", tolerance=0.02)
show("no constraint", valid, decide(scores[valid], []).decisions)
result = decide(scores[valid], [parity], sensitive_features=features)
show("parity within 2 points", valid, result.decisions)
four_fifths = decide(scores[valid], [fl.DisparateImpactRatio("sex", 0.8)], sensitive_features=features)
show("four-fifths rule", valid, four_fifths.decisions)
limited = decide(scores[valid], [parity], sensitive_features=features, capacity=500)
show("parity, 500 places", valid, limited.decisions)
costly = [[0.0, -1.0], [0.0, 0.5]]  # a default costs twice what a repaid loan earns
profit = decide(scores[valid], [parity], sensitive_features=features, utility=costly)
show("parity, for profit", valid, profit.decisions)
print(f"one more point of tolerance is worth {result.multipliers[parity.name]:.3f} points of accuracy")

print("\napplicants to come, thresholds fitted with the labels of the validation part")
rule = DecisionRule.fit(scores[valid], [parity], sensitive_features=features, y=y[valid])
show("fitted rule", later, rule.apply(scores[later], sensitive_features={"sex": sex[later]}))
few = slice(2 * ROWS, 2 * ROWS + 1000)
stream = DecisionStream(rule, [parity])
said = [stream.decide(scores[i : i + 1], {"sex": sex[i : i + 1]}) for i in range(few.start, few.stop)]
show("first 1,000, one by one, held", few, torch.cat(said))
