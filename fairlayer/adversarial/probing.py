"""Leakage: how well a fresh probe, trained for that alone, reads a sensitive feature off a representation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.adversarial.auc import AUC, area_under_curve, mean_auc
from fairlayer.adversarial.building import as_targets
from fairlayer.adversarial.errors import LeakageError
from fairlayer.adversarial.heads import Target
from fairlayer.constraints import Batch
from fairlayer.edge import as_numbers
from fairlayer.errors import NonFiniteScoresError, ShapeError, require
from fairlayer.groups import read_sensitive_features

__all__ = ["GroupLeakage", "Leakage", "leakage"]

PROBES = ("linear", "trees", "network")
FEWEST = 20  # known samples of a group, below which it is left out and named


@dataclass(frozen=True)
class GroupLeakage:
    """How well one group is told from all others: AUC on held-out samples, with its 95 % interval."""

    name: str
    auc: float
    low: float
    high: float
    count: int  # held-out samples of the group


@dataclass(frozen=True)
class Leakage:
    """What a probe could read: 0.5 is nothing, 1 everything.

    Args:
        on: the feature read.
        probe: the kind of probe.
        auc: mean over the groups of one-vs-rest AUC; with two groups, the AUC.
        low: lower end of the 95 % interval, over held-out samples with the probe as it is (DeLong).
        high: its upper end.
        samples: held-out samples.
        fitted: samples the probe was trained on.
        groups: each group against the rest.
        unsupported: groups left out for want of samples, with their counts.

    Example:
        >>> import torch
        >>> sex = ["F", "M"] * 200
        >>> told = torch.arange(400).remainder(2).float()[:, None]
        >>> found = leakage(told, {"sex": sex}, on="sex")
        >>> found.on, found.auc > 0.99, found.samples + found.fitted
        ('sex', True, 400)
    """

    on: str
    probe: str
    auc: float
    low: float
    high: float
    samples: int
    fitted: int
    groups: tuple[GroupLeakage, ...]
    unsupported: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.on}: AUC {self.auc:.3f} [{self.low:.3f}, {self.high:.3f}] "
            f"({self.probe} probe, {self.samples:,} held-out samples)"
        )


def leakage(
    representation: Any,
    sensitive_features: Any,
    *,
    on: str | tuple[str, ...],
    probe: str = "trees",
    held_out: float = 0.5,
    seed: int = 0,
) -> Leakage:
    """Train a fresh probe on one part of the samples, and return its AUC on the rest.

        AUC = P(the probe ranks a member of the group above a non-member), ties counting half

    Args:
        representation: (n,) or (n, width): scores, or what `activations` returned.
        sensitive_features: the sensitive features of the same samples; see `project`. Unknown ones are left out.
        on: the feature, or a tuple of features for their intersections.
        probe: "linear" (logistic regression), "trees" (gradient boosting) or "network" (one hidden layer).
        held_out: share of the samples that the AUC is measured on; every group has its part in both.
        seed: the seed of the split and the probe.

    Raises:
        LeakageError: fewer than two groups with enough samples, soft groups, or an unknown probe.
        ShapeError: the lengths differ.
        NonFiniteScoresError: the representation holds NaN or infinity.
        MissingExtraError: scikit-learn is not installed.

    Limits: it is a lower bound on what can be read; another probe or more samples may read more. The interval does not
        cover the choice of the split and the training of the probe.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> sex = random.integers(0, 2, 400)
        >>> result = leakage(np.c_[sex + random.normal(size=400)], {"sex": sex}, on="sex", probe="linear")
        >>> 0.65 < result.auc < 0.85, result.samples
        (True, 200)
    """
    features = _as_features(representation)
    codes, names = _as_codes(sensitive_features, on, len(features))
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    kept = np.flatnonzero(counts >= FEWEST)
    target = Target(as_targets([on])[0]).name
    if len(kept) < 2:
        shown = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True)) or "none"
        raise LeakageError(
            f"leakage of '{target}' needs two groups of at least {FEWEST} samples, but the counts are: {shown}. "
            "Give more samples, or coarser groups."
        )
    rows = np.flatnonzero(np.isin(codes, kept))
    train, test = _split(rows, codes[rows], held_out, seed)
    chances = _fit(probe, seed, features[train], codes[train]).predict_proba(features[test])
    parts = _one_vs_rest(codes[test], kept, chances)
    groups = tuple(
        GroupLeakage(names[code], part.value, part.low, part.high, int((codes[test] == code).sum()))
        for code, part in zip(kept, parts, strict=True)
    )
    whole = mean_auc(parts)
    left_out = tuple((name, int(c)) for name, c in zip(names, counts, strict=True) if c < FEWEST)
    return Leakage(target, probe, whole.value, whole.low, whole.high, len(test), len(train), groups, left_out)


def _as_features(representation: Any) -> FloatArray:
    try:
        array = as_numbers(representation).astype(np.float64)
    except TypeError as error:
        raise ShapeError(f"a representation must be numbers, (n,) or (n, width), but is not ({error}).") from error
    if array.ndim not in (1, 2) or 0 in array.shape:
        raise ShapeError(f"a representation must have shape (n,) or (n, width), not empty, but has {array.shape}.")
    if not np.isfinite(array).all():
        raise NonFiniteScoresError("the representation holds NaN or infinite values; drop those samples.")
    return array.reshape(len(array), -1)


def _as_codes(sensitive_features: Any, on: str | tuple[str, ...], n: int) -> tuple[IntArray, tuple[str, ...]]:
    names = as_targets([on])[0]
    groups = read_sensitive_features(sensitive_features, names)
    if groups.n != n:
        raise ShapeError(f"the representation has {n} rows, but the sensitive features have {groups.n} entries.")
    means = Batch(groups, n).means(names)
    if means.codes is None:
        raise LeakageError(
            f"leakage of {list(names)} needs one group per sample, but the membership given is soft. Give the groups "
            "themselves, or the most likely one of each sample."
        )
    return means.codes, means.groups


def _split(rows: IntArray, codes: IntArray, held_out: float, seed: int) -> tuple[IntArray, IntArray]:
    if not 0.0 < held_out < 1.0:
        raise LeakageError(f"held_out={held_out!r} was asked for; it is a share between 0 and 1, such as 0.5.")
    selection = require("sklearn.model_selection", "methods")
    train, test = selection.train_test_split(rows, test_size=held_out, stratify=codes, random_state=seed)
    fewest = min(len(train), len(test), *np.unique(codes, return_counts=True)[1] * min(held_out, 1 - held_out))
    if fewest < 2:
        raise LeakageError(f"held_out={held_out:g} leaves a group fewer than two samples. Use a share nearer to 0.5.")
    return train, test


def _fit(probe: str, seed: int, features: FloatArray, codes: IntArray) -> Any:
    scale = require("sklearn.preprocessing", "methods").StandardScaler()
    pipeline = require("sklearn.pipeline", "methods").make_pipeline
    if probe == "linear":
        model = require("sklearn.linear_model", "methods").LogisticRegression(max_iter=1000)
    elif probe == "trees":
        model = require("sklearn.ensemble", "methods").HistGradientBoostingClassifier(random_state=seed)
    elif probe == "network":
        network = require("sklearn.neural_network", "methods").MLPClassifier
        model = network((64,), early_stopping=len(codes) >= 200, max_iter=500, random_state=seed)
    else:
        raise LeakageError(f"probe={probe!r} was asked for; it is one of {', '.join(map(repr, PROBES))}.")
    return pipeline(scale, model).fit(features, codes)


def _one_vs_rest(codes: IntArray, kept: IntArray, chances: FloatArray) -> Sequence[AUC]:
    return [area_under_curve(codes == code, chances[:, column]) for column, code in enumerate(kept)]
