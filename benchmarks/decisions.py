"""Thresholds per group on real scores, beside Fairlearn's ThresholdOptimizer: same scores, same rows, same tolerance.

    python benchmarks/decisions.py [--data FOLDER] [--seeds 3]

Rows are split 40/30/30 by seed. A model learns on the first part without the sensitive feature, every rule is fitted on
the second, and everything shown is measured on the third, which no rule has seen. The table gives means over the seeds:
accuracy, the largest difference between groups in selection rate, true positive and false positive rate, and the
seconds that fitting took. Where lots are drawn, these are expectations over the draw. `scores` marks rules that were
fitted without labels, from the scores read as probabilities.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import nn

import fairlayer as fl
from fairlayer.data import Encoder
from fairlayer.data.readers import read_acsincome, read_adult
from fairlayer.decisions import DecisionRule

TASKS = {
    "Adult / sex": (read_adult, "sex", "adult.csv.gz"),
    "ACSIncome / SEX": (read_acsincome, "SEX", "acsincome_ne.csv.gz"),
}
RULES: tuple[tuple[str, Callable[..., fl.Constraint], tuple[float, ...]], ...] = (
    ("demographic_parity", fl.DemographicParity, (0.0, 0.02, 0.05)),
    ("true_positive_rate_parity", fl.EqualOpportunity, (0.0, 0.02)),
    ("false_positive_rate_parity", fl.PredictiveEquality, (0.0, 0.02)),
    ("equalized_odds", fl.EqualizedOdds, (0.0, 0.02)),  # ThresholdOptimizer knows 0 only
)


@dataclass(frozen=True)
class Scored:
    """Scores, labels and groups of the rows that rules are fitted on, and of those they are judged on."""

    fit: tuple[np.ndarray, np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """One rule on one task; all but the seconds in percent."""

    rule: str
    tolerance: float
    method: str
    accuracy: float
    gaps: tuple[float, float, float]  # selection rate, true positive rate, false positive rate
    seconds: float


def score(task: str, model: str, seed: int, folder: Path | None) -> Scored:
    """Train a model and score the other rows."""
    read, group, file = TASKS[task]
    table = read(None if folder is None else folder / file)
    inputs = [name for name in table.features() if name != group]
    rows = np.random.default_rng(seed).permutation(len(table.frame))
    ends = [round(0.4 * len(rows)), round(0.7 * len(rows))]
    train, fit, test = np.split(rows, ends)
    encoder = Encoder.fit(table.frame.iloc[train], inputs, categorical=[c for c in table.categorical if c != group])
    x, y = encoder.encode(table.frame), table.labels().astype(int)
    s = (trees if model == "boosted trees" else mlp)(x, y, train, seed)
    groups = table.sensitive_features([group])[group].astype(str)
    return Scored(*((s[part], y[part], groups[part]) for part in (fit, test)))


def trees(x: np.ndarray, y: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    """Boosted trees at scikit-learn's defaults."""
    return HistGradientBoostingClassifier(random_state=seed).fit(x[rows], y[rows]).predict_proba(x)[:, 1]


def mlp(x: np.ndarray, y: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    """A network with layers of 128 and 64, ten epochs of batches of 256."""
    torch.manual_seed(seed)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y).float()
    net = nn.Sequential(
        nn.Linear(x.shape[1], 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1)
    )
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(10):
        for batch in torch.from_numpy(rows)[torch.randperm(len(rows))].split(256):
            optimiser.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(net(inputs[batch])[:, 0], labels[batch]).backward()
            optimiser.step()
    with torch.no_grad():
        return torch.sigmoid(net.eval()(inputs)[:, 0]).double().numpy()


class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier whose one input is its score."""

    classes_ = np.array([0, 1])

    def fit(self, x: Any, y: Any) -> Given:
        """Do nothing."""
        return self

    def predict_proba(self, x: Any) -> np.ndarray:
        """Return the input as the probability of class 1."""
        s = np.asarray(x).reshape(-1)
        return np.stack([1 - s, s], axis=1)

    def __sklearn_is_fitted__(self) -> bool:
        return True


def outcomes(scored: Scored) -> Iterator[Outcome]:
    """Every rule, by both packages."""
    yield judge(scored, "none", 1.0, "threshold 0.5", (scored.test[0] >= 0.5).astype(float), 0.0)
    for name, constraint, tolerances in RULES:
        for tolerance in tolerances:
            if name != "equalized_odds" or tolerance == 0.0:
                yield theirs(scored, name, tolerance)
            held = [constraint("group", tolerance)]
            yield ours(scored, name, tolerance, "DecisionRule", held, y=scored.fit[1])
            yield ours(scored, name, tolerance, "DecisionRule, randomised", held, y=scored.fit[1], randomised=True)
            yield ours(scored, name, tolerance, "DecisionRule, scores", held)


def theirs(scored: Scored, name: str, tolerance: float) -> Outcome:
    """Fairlearn's rule."""
    (s, y, group), (fresh, _, groups) = scored.fit, scored.test
    relaxed = {} if name == "equalized_odds" else {"tol": tolerance}
    rule = ThresholdOptimizer(
        estimator=Given(), constraints=name, prefit=True, predict_method="predict_proba", **relaxed
    )
    start = time.perf_counter()
    rule.fit(s[:, None], y, sensitive_features=group)
    seconds = time.perf_counter() - start
    p = rule._pmf_predict(fresh[:, None], sensitive_features=groups)[:, 1]
    return judge(scored, name, tolerance, "ThresholdOptimizer", p, seconds)


def ours(scored: Scored, name: str, tolerance: float, method: str, held: list[fl.Constraint], **more: Any) -> Outcome:
    """This package's rule."""
    (s, _, group), (fresh, _, groups) = scored.fit, scored.test
    start = time.perf_counter()
    rule = DecisionRule.fit(s, held, sensitive_features={"group": group}, **more)
    seconds = time.perf_counter() - start
    p = rule.probabilities(fresh, sensitive_features={"group": groups}).numpy()
    return judge(scored, name, tolerance, method, p, seconds)


def judge(  # noqa: PLR0917
    scored: Scored, name: str, tolerance: float, method: str, p: np.ndarray, seconds: float
) -> Outcome:
    """Measure decisions on the test rows, each made with probability p."""
    _, y, group = scored.test
    rates = [[p[(group == g) & of].mean() for of in (y >= 0, y == 1, y == 0)] for g in np.unique(group)]
    gaps = 100 * np.ptp(np.array(rates), axis=0)
    return Outcome(
        name, tolerance, method, 100 * float(np.where(y == 1, p, 1 - p).mean()), tuple(gaps.tolist()), seconds
    )


def averaged(runs: list[list[Outcome]]) -> list[Outcome]:
    """The mean of each row over the seeds."""
    rows = []
    for row in zip(*runs, strict=True):
        first = row[0]
        gaps = tuple(np.mean([o.gaps for o in row], axis=0).tolist())
        accuracy, seconds = (float(np.mean([getattr(o, f) for o in row])) for f in ("accuracy", "seconds"))
        rows.append(Outcome(first.rule, first.tolerance, first.method, accuracy, gaps, seconds))
    return rows


def main() -> None:
    """Print one table per task and model."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=None, help="folder with the data files")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    for task in TASKS:
        for model in ("boosted trees", "MLP"):
            runs = [list(outcomes(score(task, model, seed, arguments.data))) for seed in range(arguments.seeds)]
            print(f"\n{task}, {model}, {arguments.seeds} seeds")
            columns = f"{'acc':>7}{'rate gap':>10}{'TPR gap':>9}{'FPR gap':>9}{'fit s':>8}"
            print(f"{'rule':<28}{'tol':>5}  {'method':<26}{columns}")
            for o in averaged(runs):
                gaps = "".join(f"{gap:>9.2f}" for gap in o.gaps)
                print(f"{o.rule:<28}{o.tolerance:>5.2f}  {o.method:<26}{o.accuracy:>7.2f} {gaps}{o.seconds:>8.3f}")


if __name__ == "__main__":
    main()
