"""Sentences that a reader needs beside the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from fairlayer.constraints import (
    Constraint,
    DemographicParity,
    DisparateImpactRatio,
    EqualizedOdds,
    EqualOpportunity,
    GroupCalibration,
    MeanResidualParity,
    PredictiveEquality,
)
from fairlayer.data import TensorTable
from fairlayer.training.comparison import ConstraintResult, GroupResult

__all__ = ["notes_on"]

_FAMILIES: dict[str, tuple[type[Constraint], ...]] = {
    "demographic parity": (DemographicParity, DisparateImpactRatio),
    "equalized odds": (EqualizedOdds, EqualOpportunity, PredictiveEquality),
    "calibration": (GroupCalibration, MeanResidualParity),
}
BASE_RATES_DIFFER = 0.05


def notes_on(
    constraints: Sequence[Constraint],
    results: Sequence[ConstraintResult],
    groups: Sequence[GroupResult],
    test: TensorTable,
    *,
    widening: float = 0.0,
) -> tuple[str, ...]:
    """Return all notes that apply, in the order in which they matter."""
    found = (
        _what_is_bounded(results),
        _widened(widening),
        _estimates(results),
        _small(groups),
        _unknown(test),
        _clash(constraints, groups),
    )
    return tuple(note for note in found if note)


def _what_is_bounded(results: Sequence[ConstraintResult]) -> str:
    note = (
        "The layer bounds mean predictions of each batch, within tolerance; the gap of all batches pooled may differ."
    )
    if any(result.decisions for result in results):
        note += " It bounds scores; the gap of decisions is measured, not bounded."
    return note


def _widened(widening: float) -> str:
    if widening <= 0:
        return ""
    return (
        "In some test batches no prediction could meet every limit; there all limits were widened, by up to "
        f"{widening:.4f} in prediction units, the least that made them meet."
    )


def _estimates(results: Sequence[ConstraintResult]) -> str:
    names = [result.name for result in results if result.bounded_by == "label estimates"]
    if not names:
        return ""
    return (
        f"{', '.join(names)} reads labels. The test batches were projected without them, on label estimates "
        "(the raw scores): the bound holds for the estimates, and the gap shown, measured with the true "
        "labels, may exceed it."
    )


def _small(groups: Sequence[GroupResult]) -> str:
    small = [f"{group.name} ({group.count})" for group in groups if not group.supported]
    return f"Too few test rows to support a statement: {_some(small)}." if small else ""


def _some(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _unknown(test: TensorTable) -> str:
    counts = {
        name: int(sum(value is None for value in column))
        for name, column in test.sensitive.items()
        if column.dtype.kind == "O"
    }
    unknown = [f"{name} {count}" for name, count in counts.items() if count]
    return f"Rows with an unknown group, which no constraint covers: {', '.join(unknown)}." if unknown else ""


def _clash(constraints: Sequence[Constraint], groups: Sequence[GroupResult]) -> str:
    """Say that demographic parity, equalized odds and calibration exclude each other where base rates differ."""
    rates = [group.mean_label for group in groups if group.supported]
    asked = [name for name, kinds in _FAMILIES.items() if any(isinstance(c, kinds) for c in constraints)]
    if len(asked) < 2 or not rates or max(rates) - min(rates) < BASE_RATES_DIFFER:
        return ""
    return (
        f"{' and '.join(asked)} are asked for together, but base rates differ between groups by "
        f"{max(rates) - min(rates):.3f}: they cannot all hold exactly, so tightening one loosens another."
    )
