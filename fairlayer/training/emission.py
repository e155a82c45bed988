"""A trained model applied to rows in batches, in their own order, as it would be in use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fairlayer.data import Sample, consecutive_batches
from fairlayer.model import FairModel

__all__ = ["Emission", "EmittedBatch", "emit_in_batches"]


@dataclass(frozen=True)
class EmittedBatch:
    """One batch: its rows, what its certificate says, and the price of each constraint (see `Epoch`)."""

    rows: slice
    violation: float
    duality_gap: float
    prices: tuple[float, ...]

    @property
    def size(self) -> int:
        return int(self.rows.stop - self.rows.start)


@dataclass(frozen=True)
class Emission:
    """Scores of all rows before (`raw`) and after (`scores`) the layer."""

    raw: NDArray[np.float32]
    scores: NDArray[np.float32]
    batches: tuple[EmittedBatch, ...]

    @property
    def violation(self) -> float:
        """Largest violation over the batches, from their certificates."""
        return max(batch.violation for batch in self.batches)

    @property
    def duality_gap(self) -> float:
        return max(batch.duality_gap for batch in self.batches)

    def price(self, place: int) -> float:
        """Mean over batches of the multiplier of constraint number `place`, per row of the batch."""
        return float(np.mean([batch.prices[place] / batch.size for batch in self.batches]))


@torch.no_grad()
def emit_in_batches(
    model: FairModel, sample: Sample, batch_size: int, *, inference: bool = False
) -> Emission:
    """Apply the model without showing it the labels; a short tail joins the last batch.

    Args:
        inference: use the inference regime (batches of at least `b_tau` rows), instead of projecting any
            batch.
    """
    model.eval()
    parts = consecutive_batches(len(sample), batch_size)
    emitted = [_emit(model, sample.take(part), part, inference) for part in parts]
    raw, scores, batches = zip(*emitted, strict=True)
    return Emission(np.concatenate(raw), np.concatenate(scores), batches)


def _emit(
    model: FairModel, rows: Sample, part: slice, inference: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32], EmittedBatch]:
    scores = model(rows.x, sensitive_features=rows.sensitive, inference=inference)
    projection = model.last_projection
    prices = tuple(float(price) for price in projection.multipliers.values())
    certificate = projection.certificate
    record = EmittedBatch(part, float(certificate.violation), float(certificate.duality_gap), prices)
    return model.raw_scores(rows.x).numpy(), scores.numpy(), record
