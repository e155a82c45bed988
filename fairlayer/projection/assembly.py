"""Statements of constraints -> cells and slabs: from what must hold to what a solver reads.

Every hard measure is a partition of the samples. The cells are their common refinement, and a group mean is
a count-weighted mean of cell means: mean_p = L_p @ mu with L_p[group, cell] = n_cell / n_group. Dense measures are
statistics of their own. So each statement becomes a block of slabs on s = (mu, dense). Of rows of class probabilities
every class has its statements about its own column; all of them share the cells.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from fairlayer._rows import reach_of, reads
from fairlayer._typing import FloatArray
from fairlayer.constraints import Batch, Constraint, GroupMeans, Rows, Spread, Statement
from fairlayer.constraints.statements import as_float
from fairlayer.edge import OnceWarner, warn_if_nothing_to_compare
from fairlayer.errors import BackendError, EmptyGroupError, ParameterError
from fairlayer.passes import Cells
from fairlayer.passes.pairs import Pairs
from fairlayer.projection.refinement import Refinement
from fairlayer.solve import Face, RowSlabs, SlabSystem, SpreadSlabs

__all__ = ["Assembly", "assemble", "present_part"]


@dataclass
class Assembly:
    """A batch of statements in numbers, and the way back to names.

    Args:
        batch: what the statements were made from.
        refinement: the cells, and their names.
        slabs: the feasible set; block b comes from statement b.
        stated: the statements that are not vacuous in this batch, each with the class that it speaks of.
        owners: for each block, the index of its constraint.
        absent: rows of statements that this batch says nothing about, as (constraint, row name).
        constraints: number of constraints.
        classes: columns that are solved together; 1 except on the simplex.

    Example:
        >>> import fairlayer as fl
        >>> from fairlayer.groups import read_sensitive_features
        >>> batch = Batch(read_sensitive_features({"sex": ["F", "F", "M"]}), 3)
        >>> assembly = assemble([fl.MinimumRate("sex", 0.2)], batch, on_empty="skip")
        >>> assembly.constraints, assembly.cell_names, assembly.absent
        (1, ('sex=F', 'sex=M'), ())
    """

    batch: Batch
    refinement: Refinement
    slabs: SlabSystem
    stated: tuple[tuple[Statement, int], ...]
    owners: tuple[int, ...]
    absent: tuple[tuple[str, str], ...]
    constraints: int
    classes: int = 1

    @property
    def statements(self) -> tuple[Statement, ...]:
        """The statements that are not vacuous in this batch."""
        return tuple(statement for statement, _ in self.stated)

    def statement_class(self, block: int) -> int:
        """Return the class that a block speaks of."""
        return self.stated[block][1]

    @cached_property
    def differentiable_blocks(self) -> tuple[int, ...]:
        """The blocks whose tolerance is a tensor: it may take a gradient, or carry a tangent that no flag shows."""
        return tuple(b for b, (each, _) in enumerate(self.stated) if isinstance(each.tolerance, torch.Tensor))

    @property
    def tolerances(self) -> tuple[torch.Tensor, ...]:
        """The tolerances of `differentiable_blocks`."""
        found = (self.stated[block][0].tolerance for block in self.differentiable_blocks)
        return tuple(tolerance for tolerance in found if isinstance(tolerance, torch.Tensor))

    @property
    def cells(self) -> Cells:
        """Statistics of the batch."""
        return self.refinement.cells

    @cached_property
    def pairs(self) -> Pairs | None:
        """The pairs of samples that must stay close, those of the first statement about pairs first."""
        stated = [statement for statement, _ in self.stated[len(self.slabs.blocks) :]]
        if not stated:
            return None
        ends = [each.means.weights.columns.reshape(-1, 2) for each in stated]
        limits = [as_float(each.tolerance) / each.means.weights.data[::2] for each in stated]
        first, second = np.concatenate(ends).T
        return Pairs(first, second, np.concatenate(limits), self.batch.n)

    def means_of(self, means: GroupMeans, statistics: FloatArray) -> FloatArray:
        """Return the means over each row of a measure that is stated, of predictions with such statistics, (t, s)."""
        if self.refinement.plain:
            return statistics
        return np.asarray((self.refinement.reader(means) @ statistics.T).T)

    def held_pairs(self, multipliers: FloatArray) -> list[tuple[int, int, int, float]]:
        """Return (statement, row, side, multiplier) of the pairs with a multiplier, in the unit of their rows."""
        found, start = [], 0
        for place in range(len(self.slabs.blocks), len(self.stated)):
            data = self.stated[place][0].means.weights.data[::2]
            here = multipliers[start : start + len(data)] / data
            for row in np.flatnonzero(here).tolist():
                found.append((place, row, 1 if here[row] > 0 else -1, abs(float(here[row]))))
            start += len(data)
        return found

    def describe_pair(self, place: int, row: int, side: int) -> str:
        """Return a pair in words."""
        statement, _ = self.stated[place]
        return f"{'upper' if side > 0 else 'lower'} limit on [{statement.names[row]}]"

    @property
    def samples(self) -> FloatArray:
        """Number of samples in each cell, wherever they are; 0 for an empty one."""
        hard = self.refinement.hard
        return hard[0].counts if len(hard) == 1 else self.cells.counts  # the joint cells are those that occur

    def sample_counts(self) -> dict[str, int]:
        """Return the samples of each cell, by name; weighted ones where there are sample weights."""
        return dict(zip(self.cell_names, (int(count) for count in self.samples), strict=False))

    @cached_property
    def cell_names(self) -> tuple[str, ...]:
        """One name per cell, then one per dense row."""
        return self.refinement.names()

    def describe(self, face: Face) -> str:
        """Return a face in words."""
        block, i, j = face.key
        statement, column = self.stated[block]
        where = f"class {column}: " if self.classes > 1 else ""
        if isinstance(statement, Spread):
            scale = "" if statement.scale == 1.0 else f"{statement.scale:g} * "
            high, low = statement.names[i], statement.names[j]
            return f"{where}{scale}mean[{high}] - mean[{low}] <= {as_float(statement.tolerance):g}"
        return f"{where}{'upper' if j > 0 else 'lower'} limit on [{statement.names[i]}]"


def assemble(
    constraints: Sequence[Constraint],
    batch: Batch,
    *,
    on_empty: str,
    classes: Sequence[Batch] = (),
    column: int | None = None,
    once: OnceWarner | None = None,
    like: Assembly | None = None,
) -> Assembly:
    """Gather the statements of all constraints for one batch.

    Args:
        constraints: what must hold.
        batch: groups, labels and scores of the samples.
        on_empty: "skip" or "raise".
        classes: the batch as each class sees it, in the order of the columns, on the simplex.
        column: where columns are independent, the one that the batch is about; a constraint that speaks of others
            only is left out. None where there is a single one.
        once: what tells the user, once, of a constraint that has nothing to compare; None for nobody.
        like: the same constraints at other limits about the same batch, whose cells and rows are taken over.

    Raises:
        EmptyGroupError: a compared group has no sample, and `on_empty` is "raise".

    Example:
        >>> import fairlayer as fl
        >>> from fairlayer.groups import read_sensitive_features
        >>> batch = Batch(read_sensitive_features({"sex": ["F", "F", "M"]}), 3)
        >>> assembly = assemble([fl.DemographicParity("sex", tolerance=0.1)], batch, on_empty="skip")
        >>> assembly.cell_names, assembly.sample_counts()
        (('sex=F', 'sex=M'), {'sex=F': 2, 'sex=M': 1})
    """
    kept: list[tuple[Statement, int]] = []
    owners: list[int] = []
    of_pairs: list[tuple[tuple[Statement, int], int]] = []  # with their owners
    absent: list[tuple[str, str]] = []
    seen = list(enumerate(classes)) if classes else [(0, batch)]
    for owner, constraint in enumerate(constraints):
        for of, view in seen:
            about = of if classes else column
            if about is not None and not constraint.applies_to(about):
                continue
            for statement in constraint.statements(view):
                if once is not None:
                    warn_if_nothing_to_compare(constraint, statement, once)
                present, missing = _without_vacuous(statement)
                absent += [(constraint.name, name) for name in missing]
                if missing and on_empty == "raise" and not statement.absence_expected:
                    _raise_empty(constraint, statement, missing)
                if present is not None and present.means.of_pairs:
                    _check_pairs(constraint, batch, classes)
                    of_pairs.append(((present, of), owner))
                elif present is not None:
                    kept.append((present, of))
                    owners.append(owner)
    if like is not None and _say_the_same(like.stated[: len(like.slabs.blocks)], kept):
        refinement = like.refinement
        blocks = [_at_other_limit(s, block, batch) for (s, _), block in zip(kept, like.slabs.blocks, strict=True)]
    else:
        measures = {_key(statement.means, column): (statement.means, column) for statement, column in kept}
        refinement = Refinement.of([*measures.values()], batch.ranks, batch.weights, max(1, len(classes)))
        blocks = [_block(s, refinement.apply(s.matrix, s.means, c), batch) for s, c in kept]
    slabs = SlabSystem(blocks)
    missed = tuple(dict.fromkeys(absent))
    stated = (*kept, *(statement for statement, _ in of_pairs))
    owned = (*owners, *(owner for _, owner in of_pairs))
    return Assembly(batch, refinement, slabs, stated, owned, missed, len(constraints), max(1, len(classes)))


def _check_pairs(constraint: Constraint, batch: Batch, classes: Sequence[Batch]) -> None:
    if classes:
        raise BackendError(
            f"{constraint.name} bounds single numbers, but bounds='simplex' projects rows of class probabilities as a "
            "whole. Project the columns by themselves, with bounds=(0, 1)."
        )
    if batch.weights is not None and not bool((batch.weights > 0).all()):
        raise ParameterError(
            f"{constraint.name} needs sample weights above 0, but {int((batch.weights <= 0).sum())} of {batch.n} are "
            "0: what such a sample pulls at would be undetermined. Leave those samples out."
        )


def _key(means: GroupMeans, column: int) -> Hashable:
    """Return what two measures must have in common to be one: hard ones the groups, dense ones the class too."""
    return means.key if means.codes is not None else (means.key, column)


def present_part(statement: Statement) -> Statement | None:
    """Return a statement about what the batch has; None where nothing is left to compare."""
    return _without_vacuous(statement)[0]


def _without_vacuous(statement: Statement) -> tuple[Statement | None, list[str]]:
    counts = statement.means.counts
    if counts.all() if len(counts) > 64 else 0.0 not in counts.tolist():  # the faster of the two
        return (statement if _compares(statement, len(statement.matrix)) else None), []
    keep = ~reads(statement.matrix, counts == 0)
    missing = [name for name, kept in zip(statement.names, keep, strict=True) if not kept]
    if not _compares(statement, int(keep.sum())):
        return None, missing
    return statement.keep(keep), missing


def _compares(statement: Statement, members: int) -> bool:
    return members > (1 if isinstance(statement, Spread) else 0)


def _raise_empty(constraint: Constraint, statement: Statement, missing: Sequence[str]) -> None:
    counts = ", ".join(f"{n} {int(c)}" for n, c in zip(statement.means.names, statement.means.counts, strict=True))
    raise EmptyGroupError(
        f"{constraint.name} compares groups {', '.join(map(repr, statement.names))}, but this batch has no "
        f"{', '.join(map(repr, missing))} (counts: {counts}). Use batches that hold every group, a larger batch, "
        'or on_empty="skip".'
    )


def _block(statement: Statement, matrix: Any, batch: Batch) -> RowSlabs | SpreadSlabs:
    if isinstance(statement, Rows):
        size = _row_sizes(statement, batch)
        return _row_slabs(statement, matrix / size[:, None], size)
    return SpreadSlabs(matrix, statement.offset, statement.scale, as_float(statement.tolerance))


def _row_slabs(statement: Rows, matrix: Any, size: FloatArray) -> RowSlabs:
    """Return rows whose matrix is divided by their sizes already."""
    tolerance = as_float(statement.tolerance)
    lower, upper = statement.lower_offset - tolerance, statement.upper_offset + tolerance
    return RowSlabs(matrix, lower / size, upper / size, size)


def _say_the_same(first: Sequence[tuple[Statement, int]], other: Sequence[tuple[Statement, int]]) -> bool:
    """Return whether statements read the same rows of the same measures."""
    return len(first) == len(other) and all(
        c == d and a.reads_like(b) for (a, c), (b, d) in zip(first, other, strict=True)
    )


def _at_other_limit(statement: Statement, block: RowSlabs | SpreadSlabs, batch: Batch) -> RowSlabs | SpreadSlabs:
    """Return the block of a statement, from that of the same statement at another limit."""
    if isinstance(block, RowSlabs):
        assert isinstance(statement, Rows)
        assert block.scale is not None
        return _row_slabs(statement, block.matrix, block.scale)
    return _block(statement, block.matrix, batch)


def _row_sizes(statement: Rows, batch: Batch) -> FloatArray:
    """Return how far each row moves per unit of prediction, so that rows of any scale are met equally well.

    A row that no prediction moves keeps its own unit; whether it holds is then a question of its limits alone.
    """
    weights = statement.means.weights
    reach = np.ones(len(statement.means))
    if weights is not None:
        each = np.ones(batch.n) if batch.weights is None else batch.weights
        reach = batch.total(reach_of(weights, each))
    size = np.abs(statement.matrix) @ reach
    return np.asarray(np.where(size > 0, size, 1.0))
