"""The limit of a constraint that does not say it: read off its statements about two made-up batches."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fairlayer.constraints.batch import Batch
from fairlayer.constraints.statements import RATIO
from fairlayer.groups import read_sensitive_features

if TYPE_CHECKING:
    from fairlayer.constraints.base import Constraint

__all__ = ["ProbedLimit", "limit_of", "probed_limit"]

SIZES = (8, 24)  # two batches of different sizes, so that a limit that depends on the batch is found out
DIFFERENCES = ("largest difference", "largest distance from the target")


class ProbedLimit(NamedTuple):
    """A limit that all statements of a constraint share.

    Args:
        limit: what the number is held to; None where the rows have limits of their own.
        at_least: whether it is a lower limit.
        unit: what the number is, in words.

    Example:
        >>> ProbedLimit(0.8, True, RATIO).is_ratio
        True
    """

    limit: float | None
    at_least: bool
    unit: str

    @property
    def is_ratio(self) -> bool:
        """Whether the limit is a ratio, which has another unit than the excess."""
        return self.unit == RATIO

    @property
    def of_difference(self) -> bool:
        """Whether the number is a difference, which nothing but equality makes 0."""
        return self.unit in DIFFERENCES


def limit_of(constraint: Constraint) -> float | None:
    """Return the limit that all statements about either batch share; None where there is none such.

    A constraint that cannot state anything about these batches (it knows its own categories, or its own number of
    samples) has no limit that can be read without a batch.
    """
    found = {each.limit for each in _probed(constraint)}
    return found.pop() if len(found) == 1 else None


def probed_limit(constraint: Constraint) -> ProbedLimit | None:
    """Return the limit that all statements about either batch share, with its direction; None where there is none.

    Example:
        >>> import fairlayer as fl
        >>> found = probed_limit(fl.MinimumRate("sex", 0.2))
        >>> found.limit, found.at_least, found.unit
        (0.2, True, 'lowest value')
    """
    found = _probed(constraint)
    return found.pop() if len(found) == 1 else None


def _probed(constraint: Constraint) -> set[ProbedLimit]:
    try:
        return {each for n in SIZES for each in _limits(constraint, n)}
    except Exception:
        return set()


def _limits(constraint: Constraint, n: int) -> set[ProbedLimit]:
    stated = constraint.statements(_batch(tuple(constraint.features), n))
    return {ProbedLimit(each.limit, each.at_least, each.unit) for each in stated}


@lru_cache(maxsize=64)
def _batch(features: tuple[str, ...], n: int) -> Batch:
    """Return a batch of two groups of each feature, with both labels in each."""
    groups = read_sensitive_features(dict.fromkeys(features, np.arange(n) % 2))
    scores = (np.arange(n) + 0.5) / n
    return Batch(groups, n, labels=(np.arange(n) // 2 % 2).astype(np.float64), raw_scores=lambda: scores)
