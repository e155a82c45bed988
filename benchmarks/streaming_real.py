"""Test rows of real data, served in small batches through a trained network, under each policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import fairlayer as fl
from fairlayer.data import Sample
from fairlayer.data.readers import read_acsincome, read_adult
from fairlayer.data.table import Table
from fairlayer.streaming.policy import Policy
from fairlayer.training import FitOptions, fit, prepare

TOLERANCE, THRESHOLD, EPOCHS, BATCH = 0.02, 0.5, 8, 1024
Array = NDArray[Any]
DATA: dict[str, tuple[Callable[..., Table], str]] = {
    "Adult": (read_adult, "sex"),
    "ACSIncome": (read_acsincome, "SEX"),
}
POLICIES: dict[str, Policy] = {
    "tracking": fl.Tracking(),
    "anytime": fl.Anytime(),
    "per_batch": fl.PerBatch(),
}


@dataclass(frozen=True)
class Scored:
    """A trained network and the test rows, in a random order."""

    data: str
    attribute: str
    network: torch.nn.Module
    test: Sample

    @property
    def groups(self) -> Array:
        """The group of each row."""
        return self.test.sensitive[self.attribute]


def train(name: str, folder: Path | None) -> Scored:
    """Train an unconstrained MLP for a few epochs."""
    read, attribute = DATA[name]
    parts = prepare(read(folder), [f"demographic_parity({attribute}, {TOLERANCE})"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = parts.recipe.config.network()
        fit(network, parts.train, parts.valid, options=FitOptions(epochs=EPOCHS, batch_size=BATCH))
    order = np.random.default_rng(0).permutation(len(parts.test))
    return Scored(name, attribute, network.eval(), parts.test.take(order))


def run_real(name: str, folder: Path | None, batches: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return one record for each way to serve the test rows."""
    scored = train(name, folder)
    with torch.no_grad():
        raw = scored.network(scored.test.x).reshape(-1).double()
    parity = fl.DemographicParity(scored.attribute, TOLERANCE)
    features = {scored.attribute: scored.groups}
    offline = fl.project(raw, [parity], sensitive_features=features, bounds=(0.0, 1.0)).value
    records = [
        {"way": "nothing", "batch": None, **_numbers(scored, raw.numpy(), raw.numpy())},
        {"way": "offline projection", "batch": None, **_numbers(scored, offline.numpy(), raw.numpy())},
    ]
    for way, policy in POLICIES.items():
        for batch in batches:
            values, reported = _serve(scored, parity, policy, batch)
            numbers = _numbers(scored, values, raw.numpy())
            records.append({"way": way, "batch": batch, "reported": reported, **numbers})
    return [{"data": name, "rows": len(scored.test), **record} for record in records]


@torch.no_grad()
def _serve(scored: Scored, parity: fl.Constraint, policy: Policy, batch: int) -> tuple[Array, float | None]:
    """Return the predictions, and the average per-batch gap where the policy keeps one."""
    model = fl.FairModel(scored.network, [parity], bounds=(0.0, 1.0), policy=policy)
    emitted = []
    for start in range(0, len(scored.test), batch):
        rows = slice(start, start + batch)
        features = {scored.attribute: scored.groups[rows]}
        emitted.append(model(scored.test.x[rows], sensitive_features=features, inference=True).reshape(-1))
    reported = model.inference_state.per_batch_gap if isinstance(policy, fl.PerBatch) else None
    return torch.cat(emitted).double().numpy(), reported


def _numbers(scored: Scored, values: Array, raw: Array) -> dict[str, float]:
    labels = scored.test.y.numpy() == 1
    decided = values >= THRESHOLD
    return {
        "pooled_gap": _gap(values, scored.groups),
        "decision_gap": _gap(decided.astype(float), scored.groups),
        "accuracy": float((decided == labels).mean()),
        "auc": float(roc_auc_score(labels, values)),
        "mean_change": float(np.abs(values - raw).mean()),
    }


def _gap(values: Array, groups: Array) -> float:
    means = [float(values[groups == group].mean()) for group in sorted(set(groups))]
    return max(means) - min(means)
