"""Several runs of one configuration, one per seed, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fairlayer.training.comparison import Beside, Comparison
from fairlayer.training.gaps import Gap

__all__ = ["aggregate", "numbers_of"]


def numbers_of(comparison: Comparison) -> dict[str, Beside[float | None]]:
    """Return the quality, and the gaps of scores and of decisions, flat and by name."""
    found = dict(comparison.quality)
    for result in comparison.constraints:
        found[f"score gap, {result.name}"] = _values(result.scores)
        if result.decisions is not None:
            found[f"decision gap, {result.name}"] = _values(result.decisions)
    return found


def aggregate(runs: Mapping[int, Comparison]) -> dict[str, Any]:
    """Return the mean and the standard deviation (n - 1) over the seeds, and each seed's numbers; plain JSON values.

    Args:
        runs: the comparison of each seed.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, prepare, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> found = aggregate({0: trained.comparison, 1: trained.comparison})
        >>> found["seeds"]
        [0, 1]
    """
    each = {seed: numbers_of(comparison) for seed, comparison in runs.items()}
    names = next(iter(each.values()))
    return {
        "seeds": list(runs),
        "numbers": {
            name: {
                which: _summary([getattr(numbers[name], which) for numbers in each.values()])
                for which in ("unconstrained", "constrained")
            }
            for name in names
        },
        "violation": max(comparison.violation for comparison in runs.values()),
    }


def _values(gaps: Beside[Gap]) -> Beside[float | None]:
    return Beside(gaps.unconstrained.value, gaps.constrained.value)


def _summary(values: list[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "deviation": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "values": values,
    }
