"""What is asked of fixed shifts, checked, and answered by one exact projection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from fairlayer.constraints import Batch, Constraint, GroupMeans, without_convex
from fairlayer.distillation.cells import CellMap
from fairlayer.distillation.errors import NoFixedShiftError
from fairlayer.distillation.parts import Samples, ShiftTable, shift_table
from fairlayer.edge import Bounds, as_columns, as_constraints, plain_bounds, read_per_sample
from fairlayer.errors import MissingLabelsError
from fairlayer.groups import Groups, Vocabulary
from fairlayer.projection import project

__all__ = ["Fitted", "fit_shifts"]


class Fitted(NamedTuple):
    """Cells, their shifts, and the bounds of the predictions."""

    cells: CellMap
    table: ShiftTable
    bounds: tuple[float | None, float | None]


def fit_shifts(
    scores: Tensor,
    constraints: Sequence[Constraint],
    *,
    sensitive_features: Any,
    y: Any,
    label_probabilities: Any,
    bounds: Bounds,
    margin: float,
    on_infeasible: str,
    vocabulary: Vocabulary | None,
) -> Fitted:
    """Project the scores and keep the shift of each cell; arguments as for `project`."""
    stated = as_constraints(constraints)
    _refuse_convex(stated)
    box = plain_bounds(bounds, margin)
    plain, shape = scores.detach(), tuple(scores.shape)
    result = project(  # checks everything, and learns the categories
        plain,
        stated,
        sensitive_features=sensitive_features,
        y=y,
        bounds=bounds,
        margin=margin,
        label_probabilities=label_probabilities,
        on_infeasible=on_infeasible,
        vocabulary=vocabulary,
    )
    labels = read_per_sample("y", y, shape)
    estimates = read_per_sample("label_probabilities", label_probabilities, shape)
    samples = Samples(as_columns(plain), result.groups, labels, estimates, box, on_infeasible == "relax")
    by_label = _cells_by_label(stated, samples.batch(0))
    if by_label and estimates is None:
        raise _need_estimates(stated)
    if by_label:
        samples = samples._replace(labels=None)
    cells = _cells_of(stated, result.groups)
    return Fitted(cells, shift_table(samples, stated, cells, by_label=by_label), box)


def _refuse_convex(constraints: Sequence[Constraint]) -> None:
    others = [c.name for c in constraints if c not in without_convex(constraints)]
    if others:
        raise NoFixedShiftError(f"{others[0]} is a Convex constraint, which has no shift per cell. Leave it out.")


def _cells_by_label(constraints: Sequence[Constraint], batch: Batch) -> bool:
    by_label = False
    for constraint in constraints:
        for statement in constraint.statements(batch):
            kind = _kind(statement.means)
            if kind is None:
                raise NoFixedShiftError(
                    f"{constraint.name} moves each sample by more than its groups and label (by score bins, or by a "
                    "weight of its own), so a shift per group cannot stand for it. Use the layer itself, or leave "
                    "this constraint out."
                )
            by_label = by_label or kind == "label"
    return by_label


def _kind(means: GroupMeans) -> str | None:
    """Return what decides a sample's row in the measure: "groups", "given" or "label"; None for anything else."""
    match means.key:
        case ("groups", tuple()) | ("label", tuple()) | ("given", tuple(), tuple()):
            return str(means.key[0])
    return None


def _cells_of(constraints: Sequence[Constraint], groups: Groups) -> CellMap:
    features = tuple(dict.fromkeys(name for constraint in constraints for name in constraint.features))
    if not features:
        raise NoFixedShiftError(
            "no constraint here names a sensitive feature, so there is no group to shift. Give constraints that do, "
            "or use FairModel.without_layer()."
        )
    return CellMap.of(groups, features)


def _need_estimates(constraints: Sequence[Constraint]) -> MissingLabelsError:
    names = ", ".join(c.name for c in constraints if c.needs_labels)
    return MissingLabelsError(
        f"{names}: the cells depend on the label, which nobody knows at inference. Give label_probabilities= here, "
        "estimates in [0, 1] of the kind that will be at hand at inference (for example the raw scores), and give "
        "them there, too."
    )
