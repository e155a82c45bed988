"""Audit scores of a model before and after a projection, hold them against limits, and write a page to sign."""

from __future__ import annotations

import os

import numpy as np
import torch

import fairlayer as fl
from fairlayer.audit import Supplied, audit
from fairlayer.data import LendingPopulation
from fairlayer.report import write_page

people = LendingPopulation().sample(2000 if os.environ.get("FAIRLAYER_EXAMPLE_FAST") else 20_000, seed=0)
rng = np.random.default_rng(0)

# a model of somebody else: all that is known of it are its scores
label = people["label"].astype(float)
women = people["sex"] == "female"
before = np.clip(0.25 + 0.4 * label - 0.12 * women + rng.normal(0, 0.12, len(label)), 0.01, 0.99)
after = fl.project(
    torch.from_numpy(before),
    fl.DemographicParity("sex", tolerance=0.02),
    sensitive_features={"sex": people["sex"]},
    bounds=(0, 1),
).value.numpy()

found = audit(
    scores=after,
    scores_before=before,
    y=label,
    sensitive_features={"sex": people["sex"], "region": people["region"]},
    by=["sex", "region+sex"],
    limits=["demographic_parity_difference > 0.1 by sex", "accuracy_drop > 0.05"],
    words={"sex=female": "woman", "sex=male": "man"},
    supplied=Supplied({"title": "Loans, October", "purpose": "Ranks applications for review by a clerk."}),
)
for said in found.statements:
    print(f"{said.outcome}: {said.question} {said.answer}")
for sentence in found.to_dict()["headline"]["moved"]:
    print(sentence)
print("exit code", found.exit_code, "page", write_page("report.html", found))
