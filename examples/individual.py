"""Alike people get alike scores: what it costs alone, with parity, and what parity alone does to alike people."""

import os

import numpy as np
import torch

import fairlayer as fl
from fairlayer.audit import consistency, lipschitz_violations
from fairlayer.data import LendingPopulation

ROWS = 300 if os.environ.get("FAIRLAYER_EXAMPLE_FAST") else 2_000

columns = LendingPopulation().sample(ROWS, seed=0)
income = np.log(np.nan_to_num(columns["monthly_income"], nan=3_000.0))
people = np.stack([income, columns["debt_ratio"]], axis=1)
people = (people - people.mean(axis=0)) / people.std(axis=0)
noise = np.random.default_rng(0).normal(size=ROWS)  # a model that is jumpier than people are
scores = torch.sigmoid(torch.tensor(people[:, 0] - people[:, 1] + 0.7 * noise))
table = {"x": people, "sex": columns["sex"]}

alike = fl.LipschitzFairness("x", constant=0.5, neighbours=10, standardise=False)
parity = fl.DemographicParity("sex", tolerance=0.01)
print(f"{ROWS} applicants, 10 neighbours each, at most 0.5 of the score per standard deviation")
print(f"{'held':<22}{'rms move':>9}{'violated':>10}{'steepest':>10}{'consistency':>13}{'gap':>8}")
for name, rules in {
    "nothing": [],
    "parity": [parity],
    "alike people": [alike],
    "alike people + parity": [alike, parity],
}.items():
    result = fl.project(scores, rules, sensitive_features=table, bounds=(0.0, 1.0)) if rules else None
    value = scores if result is None else result.value
    moved = float(((value - scores) ** 2).mean().sqrt())
    pairs = lipschitz_violations(people, value, constant=0.5, neighbours=10)
    gap = float(parity.measure(value, sensitive_features=table))
    row = f"{name:<22}{moved:>9.4f}{pairs.share:>10.1%}{pairs.largest:>10.2f}"
    print(f"{row}{consistency(people, value):>13.4f}{gap:>8.4f}")
    if result is not None:
        prices = {each: round(float(price) / ROWS, 5) for each, price in result.multipliers.items()}
        print(f"  certificate {'holds' if result.certificate.holds else 'FAILS'}, prices per applicant {prices}")
