"""The limit of a constraint that does not say it: read off its statements about two made-up batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fairlayer.constraints.batch import Batch
from fairlayer.groups import read_sensitive_features

if TYPE_CHECKING:
    from fairlayer.constraints.base import Constraint

__all__ = ["limit_of"]

SIZES = (8, 24)  # two batches of different sizes, so that a limit that depends on the batch is found out


def limit_of(constraint: Constraint) -> float | None:
    """Return the limit that all statements about either batch share; None where there is none such.

    A constraint that cannot state anything about these batches (it knows its own categories, or its own number of
    samples) has no limit that can be read without a batch.
    """
    try:
        found = {limit for n in SIZES for limit in _limits(constraint, n)}
    except Exception:
        return None
    return found.pop() if len(found) == 1 else None


def _limits(constraint: Constraint, n: int) -> set[float | None]:
    half = np.arange(n) % 2  # two groups of each feature, and both labels in each
    features = read_sensitive_features(dict.fromkeys(constraint.features, half))
    scores = (np.arange(n) + 0.5) / n
    batch = Batch(features, n, labels=(np.arange(n) // 2 % 2).astype(np.float64), raw_scores=lambda: scores)
    return {statement.limit for statement in constraint.statements(batch)}
