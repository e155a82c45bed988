"""What a tolerance costs: a sweep over tolerances on generated lending data, its front, and rules to choose by."""

import os

import numpy as np
import torch
from torch import Tensor, nn

import fairlayer as fl
from fairlayer.data import LendingPopulation
from fairlayer.pareto import pareto_sweep

FAST = bool(os.environ.get("FAIRLAYER_EXAMPLE_FAST"))
ROWS, STEPS = (3_000, 40) if FAST else (12_000, 150)


def table(seed: int) -> tuple[Tensor, Tensor, np.ndarray]:
    columns = LendingPopulation().sample(ROWS, seed=seed)
    numbers = [columns[name] for name in ("monthly_income", "debt_ratio", "history_months", "amount")]
    logs = torch.tensor(np.log1p(np.nan_to_num(np.stack(numbers, axis=1), nan=3_000.0))).float()
    return (logs - logs.mean(0)) / logs.std(0), torch.tensor(columns["label"]).float(), columns["sex"]


def train(tolerance: float, seed: int) -> dict[str, float]:
    """Return measures of validation data, to choose by, and of test data, to report."""
    torch.manual_seed(seed)
    x, label, sex = table(seed=3 * seed)
    net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid(), nn.Flatten(0))
    model = fl.FairModel(net, [fl.DemographicParity("sex", tolerance)], bounds=(0.0, 1.0), margin=1e-4)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(STEPS):
        optimiser.zero_grad()
        nn.functional.binary_cross_entropy(model(x, sensitive_features={"sex": sex}), label).backward()
        optimiser.step()
    return {**measure(model, "val", 3 * seed + 1), **measure(model, "test", 3 * seed + 2)}


@torch.no_grad()
def measure(model: fl.FairModel, name: str, seed: int) -> dict[str, float]:
    x, label, sex = table(seed)
    scores = model.eval()(x, sensitive_features={"sex": sex})
    decided, woman = (scores > 0.5).double(), torch.tensor(sex == "female")
    gaps = [(v[woman].mean() - v[~woman].mean()).abs() for v in (scores, decided)]
    accuracy = (decided == label).double().mean()
    return {f"{name}_accuracy": accuracy, f"{name}_score_gap": gaps[0], f"{name}_decision_gap": gaps[1]}


if __name__ == "__main__":  # the sweep's processes import this file
    torch.set_num_threads(1)
    sweep = pareto_sweep(train, [0.0, 0.02, 0.05, 0.2], seeds=(0, 1), folder="lending_sweep")
    for row in sweep.to_dicts():
        each = [f"{m} {row[f'mean_val_{m}']:.4f} ± {row[f'sd_val_{m}']:.4f}" for m in ("accuracy", "decision_gap")]
        print(f"tolerance {row['value']:<5}", *each, sep="   ")
    front = sweep.front({"val_accuracy": "maximise", "val_decision_gap": "minimise"})
    print("not dominated:", [point.value for point in front.non_dominated()])
    rules = {"gap <= 0.06": front.most_accurate(gap_at_most=0.06), "knee": front.knee()}
    for rule, point in rules.items():
        tested = {name: round(number, 4) for name, number in point.mean.items() if name.startswith("test_")}
        print(f"{rule}: tolerance {point.value}, {tested}")
    front.plot(chosen=rules).savefig("lending_front.png", dpi=120)
