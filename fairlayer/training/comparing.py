"""Measure an unconstrained model beside a constrained one, on the same test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fairlayer.calibration import GroupCalibrator
from fairlayer.constraints import Constraint, CovarianceBound, GroupCalibration
from fairlayer.constraints.measure import worst_of
from fairlayer.data import TensorTable
from fairlayer.model import FairModel
from fairlayer.training.comparison import Beside, Comparison, ConstraintResult, GroupResult
from fairlayer.training.config import Task
from fairlayer.training.emission import Emission, emit_in_batches
from fairlayer.training.gaps import measure
from fairlayer.training.notes import notes_on
from fairlayer.training.observed import Observed
from fairlayer.training.quality import THRESHOLD, cost_in_points, quality_beside

__all__ = ["compare"]

BINS = 20
SMALLEST_GROUP = 30  # rows; a smaller group's numbers are shown, and the group is named as unsupported

Array = NDArray[Any]


def compare(
    plain: nn.Module,
    model: FairModel,
    test: TensorTable,
    *,
    task: Task = "classification",
    batch_size: int = 1024,
    inference: bool = False,
    calibrator: GroupCalibrator | None = None,
    watched: Sequence[str] = (),
    data: str = "",
    split: str = "",
    rows: Mapping[str, int] | None = None,
) -> Comparison:
    """Apply both models to the test rows in batches, without labels, and measure.

    Args:
        plain: the model without a layer; called on the features.
        model: the model with a layer, whose constraints are measured.
        inference: use the layer's inference regime.
        calibrator: what makes label estimates of the raw scores; None takes the raw scores.
        watched: sensitive features whose groups are shown although no constraint compares them.
        data, split, rows: where the rows come from, for the reader.
        task: classification or regression.
        batch_size: rows of each batch that is projected.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, prepare, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> found = compare(trained.plain, trained.model, parts.test, batch_size=90)
        >>> found.batches, [parity.name for parity in found.constraints]
        (1, ["DemographicParity('sex')"])
    """
    emission = emit_in_batches(model, test, batch_size, inference=inference, calibrator=calibrator)
    tested = _Tested(test, Beside(_plain_scores(plain, test), emission.scores), emission, task)
    constraints = tuple(model.constraints)
    results = tuple(_constraint(tested, place, c) for place, c in enumerate(constraints))
    groups = _groups(tested, constraints, watched)
    quality = quality_beside(tested.labels, tested.scores, task)
    return Comparison(
        data=data,
        task=task,
        rows=rows or {"test": len(test)},
        split=split,
        batches=len(emission.batches),
        batch_size=batch_size,
        threshold=THRESHOLD,
        quality=quality,
        cost=cost_in_points(quality, task),
        constraints=results,
        groups=groups,
        bins=tuple(tested.bins.tolist()),
        violation=emission.violation,
        duality_gap=emission.duality_gap,
        widening=emission.widening,
        notes=notes_on(constraints, results, groups, test, widening=emission.widening),
    )


@dataclass(frozen=True)
class _Tested:
    """The test rows with the scores of both models."""

    test: TensorTable
    scores: Beside[Array]
    emission: Emission
    task: Task

    @property
    def labels(self) -> Array:
        return self.test.y.numpy()

    @cached_property
    def observed(self) -> Observed:
        return Observed(self.test.sensitive, self.labels, self.emission.raw)

    @cached_property
    def bins(self) -> Array:
        both = np.concatenate([self.scores.unconstrained, self.scores.constrained])
        return np.linspace(min(0.0, float(both.min())), max(1.0, float(both.max())), BINS + 1)

    def shares(self, scores: Array) -> tuple[float, ...]:
        """Return the share of these scores in each bin."""
        return tuple((np.histogram(scores, self.bins)[0] / max(1, len(scores))).tolist())


@torch.no_grad()
def _plain_scores(plain: nn.Module, test: TensorTable) -> Array:
    plain.eval()
    return np.asarray(plain(test.x).numpy())


def _constraint(tested: _Tested, place: int, constraint: Constraint) -> ConstraintResult:
    each = [tested.scores.unconstrained, tested.scores.constrained]
    # calibration bins speak of scores; a decision has no bin
    decide = tested.task == "classification" and not isinstance(constraint, GroupCalibration)
    if decide:
        each += [scores >= THRESHOLD for scores in tuple(each)]
    gaps = [measure(constraint, tested.observed, scores) for scores in each]
    return ConstraintResult(
        name=constraint.name,
        scores=Beside(gaps[0], gaps[1]),
        decisions=Beside(gaps[2], gaps[3]) if decide else None,
        worst_batch=_worst_batch(tested, constraint),
        multiplier=tested.emission.price(place),
        bounded_by="label estimates" if constraint.needs_labels else "groups",
    )


def _worst_batch(tested: _Tested, constraint: Constraint) -> float | None:
    parts = [batch.rows for batch in tested.emission.batches]
    return worst_of(measure(constraint, tested.observed.take(p), tested.emission.scores[p]) for p in parts).value


def _groups(tested: _Tested, constraints: Sequence[Constraint], watched: Sequence[str]) -> tuple[GroupResult, ...]:
    compared = [c.on for c in constraints if c.on and not isinstance(c, CovarianceBound)]
    shown = [(name,) for name in watched if tested.test.sensitive[name].dtype.kind != "f"]
    return tuple(result for on in dict.fromkeys([*compared, *shown]) for result in _groups_of(tested, on))


def _groups_of(tested: _Tested, on: tuple[str, ...]) -> list[GroupResult]:
    means = tested.observed.batch.means(on)
    assert means.codes is not None  # tables hold hard groups
    present = np.flatnonzero(means.counts)
    return [_group(tested, means.groups[k], means.codes == k) for k in present]


def _group(tested: _Tested, name: str, inside: NDArray[np.bool_]) -> GroupResult:
    before, after = tested.scores.unconstrained[inside], tested.scores.constrained[inside]
    rates = Beside(float((before >= THRESHOLD).mean()), float((after >= THRESHOLD).mean()))
    return GroupResult(
        name=name,
        count=int(inside.sum()),
        mean_label=float(tested.labels[inside].mean()),
        mean_score=Beside(float(before.mean()), float(after.mean())),
        decision_rate=rates if tested.task == "classification" else None,
        histogram=Beside(tested.shares(before), tested.shares(after)),
        supported=int(inside.sum()) >= SMALLEST_GROUP,
    )
