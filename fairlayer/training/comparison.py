"""The result of a comparison, as values: what tables, JSON and the report show. Nothing here computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from fairlayer.training.gaps import Gap

__all__ = ["Beside", "Comparison", "ConstraintResult", "GroupResult"]

T = TypeVar("T")


@dataclass(frozen=True)
class Beside(Generic[T]):
    """The same quantity for the unconstrained and for the constrained model.

    Example:
        >>> auc = Beside(unconstrained=0.86, constrained=0.85)
        >>> round(auc.unconstrained - auc.constrained, 3)
        0.01
    """

    unconstrained: T
    constrained: T


@dataclass(frozen=True)
class ConstraintResult:
    """One constraint on the test rows, all batches pooled.

    Args:
        scores: the gap of scores. This is what the layer bounds, batch by batch.
        decisions: the gap of the decisions `score >= threshold`. Nothing bounds it; None for regression.
        worst_batch: the gap of scores in the worst single batch.
        multiplier: half the squared move per prediction that one more unit of tolerance would save, mean over
            batches.
        bounded_by: "groups", or "label estimates" where labels are read and were not shown to the model.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, prepare, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> [parity] = trained.comparison.constraints
        >>> parity.name, parity.scores.constrained.kept, parity.bounded_by
        ("DemographicParity('sex')", True, 'groups')
    """

    name: str
    scores: Beside[Gap]
    decisions: Beside[Gap] | None
    worst_batch: float | None
    multiplier: float
    bounded_by: str


@dataclass(frozen=True)
class GroupResult:
    """One group of the test rows; `histogram` is the share of its scores in each bin of `Comparison.bins`.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, prepare, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> [group.name for group in trained.comparison.groups]
        ['sex=female', 'sex=male', 'region=rural', 'region=urban', 'age_band=18-29', 'age_band=30-59', 'age_band=60+']
    """

    name: str
    count: int
    mean_label: float
    mean_score: Beside[float]
    decision_rate: Beside[float] | None
    histogram: Beside[tuple[float, ...]]
    supported: bool


@dataclass(frozen=True)
class Comparison:
    """An unconstrained model beside a constrained one: same rows, same architecture, same seed.

    Args:
        quality: accuracy, f1, auc; or r2, mae for regression.
        cost: what the constraint costs: accuracy points (percent), or points of r2 times 100.
        violation: largest violation of a test batch, from the certificates (below 0: slack).
        widening: largest widening of the limits of a test batch (0 unless infeasible limits were relaxed).
        notes: what a reader must know before using the numbers.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, prepare, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> trained.comparison.task, sorted(trained.comparison.quality), trained.comparison.rows["test"]
        ('classification', ['accuracy', 'auc', 'f1'], 90)
    """

    data: str
    task: str
    rows: Mapping[str, int]
    split: str
    batches: int
    batch_size: int
    threshold: float
    quality: Mapping[str, Beside[float | None]]
    cost: float
    constraints: tuple[ConstraintResult, ...]
    groups: tuple[GroupResult, ...]
    bins: tuple[float, ...]
    violation: float
    duality_gap: float
    widening: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)
