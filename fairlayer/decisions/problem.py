"""One batch of decisions as a small problem: the cells, their curves, and the slabs with what rounding may cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Batch, Constraint, Measured
from fairlayer.constraints.measure import measure
from fairlayer.constraints.weights import read_sample_weight
from fairlayer.decisions.curves import Curve, Partition, contributions_of, draw_curves
from fairlayer.decisions.inputs import read_labels, read_utility
from fairlayer.edge import (
    OnceWarner,
    Stated,
    as_constraints,
    feature_names,
    read_groups,
    warn_if_nothing_to_compare,
)
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.groups import Groups
from fairlayer.passes import Cells
from fairlayer.projection.assembly import Assembly, assemble
from fairlayer.solve import RowSlabs, SlabSystem, SpreadSlabs

__all__ = ["Block", "Problem"]

Block = RowSlabs | SpreadSlabs

_WORTH = 1e-3  # the share of all that decisions could gain or lose which is worth another search


@dataclass(frozen=True)
class Problem:
    """What is to be decided.

    Args:
        scores: (n,).
        constraints: what must hold for the decisions.
        groups: the sensitive features.
        batch: what the constraints read.
        partition: the cells.
        assembly: the statements of the constraints, on the statistics of the batch.
        curves: one per cell; after the statistics of the assembly comes the share selected, if there is a capacity.
        blocks: the slabs of the assembly, then the capacity.
        rounding: how far one sample per cell can move each row of each block; 0 for the capacity.
        gain: (n,) utility gained by selecting each sample, as its share of the batch.
        base: utility of selecting nobody, per sample.
    """

    scores: FloatArray
    constraints: tuple[Constraint, ...]
    groups: Groups
    batch: Batch
    partition: Partition
    assembly: Assembly
    curves: tuple[Curve, ...]
    blocks: tuple[Block, ...]
    rounding: tuple[FloatArray, ...]
    gain: FloatArray
    base: float

    @staticmethod
    def of(
        scores: FloatArray,
        constraints: Stated,
        *,
        sensitive_features: Any,
        y: Any,
        label_probabilities: Any,
        capacity: int | None,
        utility: Any,
        sample_weight: Any = None,
    ) -> Problem:
        """Read a batch; arguments as for `decide`."""
        n, held = len(scores), _check_constraints(constraints)
        labels, p = read_labels(scores, (n, 1), y, label_probabilities)
        table = read_utility(utility)
        weights = read_sample_weight(sample_weight, n)
        share = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
        gain = share * (p * (table[1, 1] - table[1, 0]) + (1.0 - p) * (table[0, 1] - table[0, 0]))
        base = float(share @ (p * table[1, 0] + (1.0 - p) * table[0, 0]))
        groups = read_groups(sensitive_features, held, n, None)
        partition = Partition.of(groups, feature_names(held), n)
        batch, once = Batch(groups, n, labels, p, weights=weights), OnceWarner()
        for constraint in held:
            for statement in constraint.statements(batch):
                warn_if_nothing_to_compare(constraint, statement, once)
        assembly = assemble(held, batch, on_empty="skip")
        measured, blocks = _with_capacity(assembly, capacity, share, n if weights is None else float(weights.sum()))
        curves = tuple(draw_curves(scores, partition, measured, gain, weights))
        rounding = [_rounding(block, curves, measured) for block in assembly.slabs.blocks]
        rounding += [np.zeros(1)] * (len(blocks) - len(rounding))
        return Problem(scores, held, groups, batch, partition, assembly, curves, blocks, tuple(rounding), gain, base)

    @property
    def statistics(self) -> int:
        """Number of statistics."""
        return self.assembly.cells.size + (len(self.blocks) > len(self.assembly.slabs.blocks))

    @property
    def slabs(self) -> SlabSystem:
        """Everything that must hold."""
        return SlabSystem(self.blocks)

    @property
    def worth(self) -> float:
        """A difference of gain below which two answers count as equally good."""
        return _WORTH * float(np.abs(self.gain).sum())

    def gain_of(self, counts: IntArray) -> float:
        """Return the gain of selecting the best k of each cell."""
        return float(sum(curve.at(counts[g : g + 1])[1][0] for g, curve in enumerate(self.curves)))

    def with_room(self, short: float) -> Problem:
        """Return the problem with differences within labels allowed to reach `short`, where their limit is less."""
        rounding = list(self.rounding)
        for number, (block, owner) in enumerate(zip(self.blocks, self.assembly.owners, strict=False)):
            if not isinstance(block, SpreadSlabs) or not self.constraints[owner].needs_labels:
                continue
            if block.scale == 1.0 and block.width < short:
                rounding[number] = rounding[number] + (short - block.width) / 2
        return replace(self, rounding=tuple(rounding))

    def utility_of(self, decisions: FloatArray) -> float:
        """Return the expected utility of decisions (n,), per sample."""
        return self.base + float(self.gain @ decisions)

    def measured_on(self, decisions: FloatArray) -> list[Measured]:
        """Return, per constraint, the number that it bounds, measured on decisions (n,)."""
        return [measure(constraint, self.batch, decisions) for constraint in self.constraints]

    def rounding_of(self, owner: int) -> float:
        """Return the most that rounding may add to the gap of one constraint."""
        owned = zip(self.blocks, self.rounding, self.assembly.owners, strict=False)  # the capacity has no owner
        return max((_largest(block, rows) for block, rows, of in owned if of == owner), default=0.0)


def _check_constraints(constraints: Stated) -> tuple[Constraint, ...]:
    held = as_constraints(constraints)
    unheld = [constraint.name for constraint in held if not constraint.streamable]
    if unheld:
        raise ConstraintDefinitionError(
            f"{', '.join(unheld)} cannot be asked of decisions, which know groups and labels only. Use constraints on "
            "groups; for a limit on the number selected use capacity=."
        )
    return held


def _with_capacity(
    assembly: Assembly, capacity: int | None, shares: FloatArray, total: float
) -> tuple[Cells, tuple[Block, ...]]:
    """Append the share selected as a last statistic, and its limit as a last block."""
    cells, blocks = assembly.cells, assembly.slabs.blocks
    if capacity is None:
        return cells, blocks
    dense = shares[None, :] if cells.dense is None else np.vstack([cells.dense, shares])
    unit = np.eye(cells.size + 1)[-1:]
    limit = RowSlabs(unit, np.array([-np.inf]), np.array([capacity / total]))
    wider = [block._replace(matrix=np.pad(block.matrix, ((0, 0), (0, 1)))) for block in blocks]
    return cells._replace(dense=dense), (*wider, limit)


def _rounding(block: Block, curves: Sequence[Curve], measured: Cells) -> FloatArray:
    """Bound the change of each row of the block when the count of each cell changes by at most one."""
    moved = np.zeros(len(block.matrix))
    for curve in curves:
        touched, contributions = contributions_of(curve.members, measured)
        inside = touched < block.matrix.shape[1]
        moved += np.abs(contributions[:, inside] @ block.matrix[:, touched[inside]].T).max(axis=0)
    return moved


def _largest(block: Block, rounding: FloatArray) -> float:
    """Return the most that any pair of a spread, or any row, can be off, in the units of the tolerance."""
    if isinstance(block, SpreadSlabs):
        return float(np.sort(rounding)[-2:].sum())
    return float((rounding if block.scale is None else rounding * block.scale).max(initial=0.0))
