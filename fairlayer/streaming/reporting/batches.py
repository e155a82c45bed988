"""The gaps of a stream, batch by batch, beside the pooled one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fairlayer._arrays import host_float64
from fairlayer._typing import FloatArray
from fairlayer.constraints import Batch, Constraint
from fairlayer.constraints.measure import headline, measure
from fairlayer.edge import read_groups, read_per_sample
from fairlayer.groups import Groups, Vocabulary
from fairlayer.streaming.state import InferenceState

__all__ = ["StreamGaps"]


class StreamGaps:
    """Gaps of a stream, batch by batch and pooled, of emitted predictions and of raw scores."""

    def __init__(self, constraints: Sequence[Constraint]) -> None:
        self.constraints = tuple(constraints)
        self.sizes: list[int] = []
        self.gaps: list[float] = []
        self._raw: list[FloatArray] = []
        self._labels: list[FloatArray] = []
        self._codes: dict[str, list[Any]] = {}
        self._words = Vocabulary()

    def add(self, emitted: Tensor, raw: Tensor, features: Any, y: Any) -> None:
        """Count one batch."""
        n = len(raw)
        groups = read_groups(features, self.constraints, n, Vocabulary(self._words.categories, open=True))
        labels = read_per_sample("y", y, tuple(raw.shape))
        each = self._largest(groups, host_float64(emitted).reshape(-1), None if labels is None else labels[:, 0])
        self.sizes.append(n)
        self.gaps.append(0.0 if each is None else each)
        self._raw.append(host_float64(raw).reshape(-1))
        if labels is not None:
            self._labels.append(labels[:, 0])
        for constraint in self.constraints:
            for name in constraint.features:
                self._codes.setdefault(name, [])
        for name, parts in self._codes.items():
            parts.append(groups.column(name).codes)
        self._words = groups.vocabulary

    def stats(self, state: InferenceState) -> dict[str, float]:
        """Return the numbers, under fixed keys."""
        pooled, raw = headline(each for each in state.measured().values() if each is not None), self._raw_gap()
        return {
            "weighted_avg_fairness_gap": float(np.average(self.gaps, weights=self.sizes)) if self.sizes else 0.0,
            "pooled_aggregate_gap": 0.0 if pooled is None else pooled,
            "raw_pooled_aggregate_gap": 0.0 if raw is None else raw,
            "mean_squared_change": state.mean_squared_change(),
            "samples": float(sum(self.sizes)),
            "batches": float(len(self.sizes)),
        }

    def _raw_gap(self) -> float | None:
        if not self.sizes:
            return None
        codes = {name: np.concatenate(parts) for name, parts in self._codes.items()}
        complete = sum(map(len, self._labels)) == sum(self.sizes)
        labels = np.concatenate(self._labels) if complete and self._labels else None
        return self._largest(Groups.from_codes(codes, self._words), np.concatenate(self._raw), labels)

    def _largest(self, groups: Groups, values: FloatArray, labels: FloatArray | None) -> float | None:
        served = [c for c in self.constraints if labels is not None or not c.needs_labels]
        batch = Batch(groups, len(values), labels=labels)
        return headline(measure(constraint, batch, values) for constraint in served)
