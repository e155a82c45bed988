"""A trained model applied to rows in batches, in their own order, as it would be in use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fairlayer.calibration import GroupCalibrator
from fairlayer.data import TensorTable, consecutive_batches
from fairlayer.errors import SmallBatchError
from fairlayer.model import FairModel

__all__ = ["Emission", "EmittedBatch", "emit_in_batches"]


@dataclass(frozen=True)
class EmittedBatch:
    """One batch: its rows, what its certificate says, and the price of each constraint (see `Epoch`).

    `widening` is by how much every limit was widened because no prediction could meet them all; usually 0.
    """

    rows: slice
    violation: float
    duality_gap: float
    widening: float
    prices: tuple[float, ...]

    @property
    def size(self) -> int:
        return int(self.rows.stop - self.rows.start)


@dataclass(frozen=True)
class Emission:
    """Scores of all rows before (`raw`) and after (`scores`) the layer.

    Example:
        >>> import fairlayer as fl
        >>> net = fl.mlp(2, hidden=())
        >>> model = fl.FairModel(net, [fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0)).eval()
        >>> rows = TensorTable(torch.rand(64, 2), torch.rand(64).round(), {"sex": np.array(["F", "M"] * 32)})
        >>> found = emit_in_batches(model, rows, 32)
        >>> found.raw.shape, len(found.batches), found.violation < 1e-6
        ((64,), 2, True)
    """

    raw: NDArray[np.float32]
    scores: NDArray[np.float32]
    batches: tuple[EmittedBatch, ...]

    @property
    def violation(self) -> float:
        """Largest violation over the batches, from their certificates."""
        return max(batch.violation for batch in self.batches)

    @property
    def duality_gap(self) -> float:
        """Largest duality gap over the batches."""
        return max(batch.duality_gap for batch in self.batches)

    @property
    def widening(self) -> float:
        """Largest widening of the limits."""
        return max(batch.widening for batch in self.batches)

    def price(self, place: int) -> float:
        """Return the mean over batches of the multiplier of constraint number `place`, per row of the batch."""
        return float(np.mean([batch.prices[place] / batch.size for batch in self.batches]))


@torch.no_grad()
def emit_in_batches(
    model: FairModel,
    sample: TensorTable,
    batch_size: int,
    *,
    inference: bool = False,
    calibrator: GroupCalibrator | None = None,
) -> Emission:
    """Apply the model without showing it the labels; a short tail joins the last batch.

    Args:
        calibrator: what makes the estimates that stand in for labels from the raw scores; None takes the raw scores.
        inference: refuse batches smaller than `b_tau`, which in use are streamed.
        sample: the rows.
        batch_size: rows of each batch that is projected.

    Example:
        >>> import fairlayer as fl
        >>> net = fl.mlp(2, hidden=())
        >>> model = fl.FairModel(net, [fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0)).eval()
        >>> rows = TensorTable(torch.rand(70, 2), torch.rand(70).round(), {"sex": np.array(["F", "M"] * 35)})
        >>> emit_in_batches(model, rows, 32).scores.shape
        (70,)
    """
    model.eval()
    if inference and len(sample) and min(batch_size, len(sample)) < model.b_tau:
        raise SmallBatchError(
            f"batches of {min(batch_size, len(sample))} rows were to be projected by themselves, but in use those "
            f"below b_tau={model.b_tau} are streamed. Gather larger batches, lower b_tau, or stream the rows."
        )
    parts = consecutive_batches(len(sample), batch_size)
    emitted = [_emit(model, sample.take(part), part, calibrator) for part in parts]
    raw, scores, batches = zip(*emitted, strict=True)
    return Emission(np.concatenate(raw), np.concatenate(scores), batches)


def _emit(
    model: FairModel, rows: TensorTable, part: slice, calibrator: GroupCalibrator | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], EmittedBatch]:
    raw = model.raw_scores(rows.x)
    estimates = _label_estimates(model, raw, rows, calibrator)
    scores = model(rows.x, sensitive_features=rows.sensitive, label_probabilities=estimates)
    projection = model.last_projection
    assert projection is not None  # the line above made it
    certificate = projection.certificate
    record = EmittedBatch(
        part,
        violation=float(certificate.violation),
        duality_gap=float(certificate.duality_gap),
        widening=float(projection.widening),
        prices=tuple(float(price) for price in projection.multipliers.values()),
    )
    return raw.numpy(), scores.numpy(), record


def _label_estimates(
    model: FairModel, raw: torch.Tensor, rows: TensorTable, calibrator: GroupCalibrator | None
) -> torch.Tensor | None:
    """Return calibrated or raw scores within the bounds, which stand in for labels where a constraint reads labels."""
    if model.projection.uses_running_shifts or not any(constraint.needs_labels for constraint in model.constraints):
        return None
    if calibrator is not None:
        return calibrator.apply(raw, sensitive_features=dict(rows.sensitive)).to(raw.dtype)
    lower, upper = model.projection.options.numeric_bounds or (None, None)
    raw = raw if lower is None else torch.maximum(raw, torch.as_tensor(lower, dtype=raw.dtype))
    return raw if upper is None else torch.minimum(raw, torch.as_tensor(upper, dtype=raw.dtype))
