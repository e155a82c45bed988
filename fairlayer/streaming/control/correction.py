"""The general step: the core's projection of new samples, with the history folded in.

Each cell's past joins the batch as one row that stands for all its samples and whose bounds are its running mean: it
weighs in every pooled mean and cannot move. So the hard step is the projection of the new samples onto what the past
leaves open, the soft step its elastic sibling, and the feed-forward the projection of the sketch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Batch, Constraint, Measured
from fairlayer.constraints.measure import measure
from fairlayer.errors import SolverError
from fairlayer.groups import Vocabulary
from fairlayer.passes import NumpyPasses
from fairlayer.projection.assembly import Assembly, assemble
from fairlayer.solve import ClashingFaces, RowSlabs, SlabSystem, SpreadSlabs, solve
from fairlayer.solve.elastic import solve_elastic
from fairlayer.solve.quadratic import solve_quadratic
from fairlayer.streaming.counts.history import Counted, History, batch_of

__all__ = [
    "Frame",
    "excess",
    "feed_forward",
    "feedback",
    "hard_step",
    "large_step",
    "measure_past",
    "soft_step",
]

Bounds = tuple[float | None, float | None]
_HARD_RATE = 1e6  # at which the soft step is as good as hard where it can be


class Frame:
    """What a step reads beside the samples.

    Args:
        history: the past.
        constraints: what must hold; those that look at labels are held by `feedback`, not by a step.
        vocabulary: the categories.
        bounds: the bounds of every prediction.
    """

    def __init__(
        self, history: History, constraints: Sequence[Constraint], vocabulary: Vocabulary, bounds: Bounds
    ) -> None:
        self.history, self.vocabulary, self.bounds = history, vocabulary, bounds
        self.constraints = tuple(constraints)
        self.unlabelled = tuple(c for c in constraints if not c.needs_labels)
        self.labelled = tuple(c for c in constraints if c.needs_labels)


def hard_step(frame: Frame, cells: IntArray, target: FloatArray, slack: float) -> tuple[FloatArray, float]:
    """Return the predictions nearest to the target whose pooled means hold, and 0.

    Where none do, return those under which each slab gives way only as far as it must, and the largest violation left.
    """
    passes, assembly, past = _joined(frame, cells, target)
    slabs = assembly.slabs.widened(slack)
    try:
        return np.asarray(solve(passes, slabs).solution.value)[past:], 0.0
    except (ClashingFaces, SolverError):
        counts = assembly.cells.counts
        solution = solve_elastic(passes, slabs, 1.0 / (_HARD_RATE * counts.sum() * counts))
    emitted = np.asarray(solution.value)[past:]
    return emitted, max(slabs.worst(passes.measure(solution.value))[0], 0.0)


def large_step(frame: Frame, cells: IntArray, target: FloatArray, slack: float) -> tuple[FloatArray, float]:
    """Return the nearest predictions under which the batch by itself and the pool both hold; else the pool alone.

    With s the pooled and m the batch's cell means, `s = (count m + past) / (count + past count)`: so the slabs of the
    batch are slabs on s, too.
    """
    passes, assembly, past = _joined(frame, cells, target)
    rows, new = np.asarray(passes.cells.codes), len(cells)
    weights = np.concatenate([np.zeros(past), np.ones(new)])
    alone = assemble(frame.unlabelled, _batch(frame, cells, weights), on_empty="skip")
    k = len(assembly.cells.counts)
    if alone.cells.codes is None or not np.array_equal(alone.cells.codes, rows):
        return hard_step(frame, cells, target, slack)  # the batch alone compares nothing of some constraint
    count = np.bincount(rows, weights=weights, minlength=k + 1)[:k]
    _, means, counts, _ = _past(frame.history, labelled=False)
    past_sums = np.bincount(rows[:past], weights=means * counts, minlength=k + 1)[:k]
    scale = np.divide(assembly.cells.counts, count, out=np.zeros(k), where=count > 0)
    offset = np.divide(past_sums, count, out=np.zeros(k), where=count > 0)
    own = [_of_pool(block, scale, offset) for block in alone.slabs.blocks]
    both = SlabSystem([*assembly.slabs.widened(slack).blocks, *own])
    try:
        solved = solve(passes, both)
    except (ClashingFaces, SolverError):
        return hard_step(frame, cells, target, slack)
    return np.asarray(solved.solution.value)[past:], 0.0


def excess(frame: Frame, cells: IntArray, values: FloatArray) -> float:
    """Return by how much the pooled means would violate the slabs after these predictions."""
    passes, assembly, past = _joined(frame, cells, values)
    means = passes.scores.copy()
    means[:past] = passes.lower[:past]
    return assembly.slabs.worst(passes.measure(means))[0]


def _of_pool(block: RowSlabs | SpreadSlabs, scale: FloatArray, offset: FloatArray) -> RowSlabs | SpreadSlabs:
    """Return slabs on `m = scale * s - offset` as slabs on s."""
    moved = block.matrix @ offset
    if isinstance(block, RowSlabs):
        return block._replace(matrix=block.matrix * scale, lower=block.lower + moved, upper=block.upper + moved)
    base = 0.0 if block.offset is None else block.offset
    return block._replace(matrix=block.matrix * scale, offset=base - moved)


def soft_step(frame: Frame, cells: IntArray, target: FloatArray, slack: float, rate: float) -> FloatArray:
    """Return `clip(target - shift)` where the shift is `rate * excess / share` of the pooled means after this step.

    A cell's excess is count * (its pooled mean - the nearest statistics within the slabs), so a statistic gives way
    by nu / (rate * samples * count).
    """
    passes, assembly, past = _joined(frame, cells, target)
    counts = assembly.cells.counts
    softness = 1.0 / (rate * counts.sum() * counts)
    return np.asarray(solve_elastic(passes, assembly.slabs.widened(slack), softness).value)[past:]


def feed_forward(frame: Frame, inset: float) -> tuple[FloatArray, dict[str, float]]:
    """Project the sketch of raw scores a little inside the slabs; return each cell's shift, each constraint's price.

    A price is per sample: the derivative of the mean `1/2 (y - z)^2` by the tolerance. Label-based constraints take
    no part.
    """
    shifts = np.zeros(len(frame.history.cells))
    prices = {constraint.name: 0.0 for constraint in frame.unlabelled}
    rows, scores, weights = frame.history.sketch.points()
    if not len(rows) or not frame.unlabelled:
        return shifts, prices
    batch = batch_of(frame.history, frame.vocabulary, rows, weights=weights)
    assembly = assemble(frame.unlabelled, batch, on_empty="skip")
    if not assembly.slabs.blocks:
        return shifts, prices
    passes = NumpyPasses(scores, assembly.cells, *frame.bounds)
    solution = solve(passes, assembly.slabs.widened(-inset), relax=True).solution
    shifts[rows] = np.broadcast_to(passes.pull(solution.nu), len(rows))
    for face, multiplier in zip(solution.faces, solution.multipliers, strict=True):
        owner = frame.unlabelled[assembly.owners[face.key[0]]]
        prices[owner.name] += float(multiplier) / face.scale / float(weights.sum())
    return shifts, prices


def feedback(frame: Frame, rate: float, slack: float, *, labelled: bool) -> FloatArray:
    """Return the shift of each cell from the excess so far: explicit feedback, and all there is for labels.

    The excess of the pooled statistics is their distance to the slabs in the metric of counts, a tiny program. A cell
    moves by `rate * samples / count` times its share of it; over labels, in proportion to the labels it had.
    """
    history, constraints = frame.history, frame.labelled if labelled else frame.unlabelled
    rows, values, weights, labels = _past(history, labelled=labelled)
    shifts = np.zeros(len(history.cells))
    if not constraints or not len(rows):
        return shifts
    batch = batch_of(history, frame.vocabulary, rows, weights=weights, labels=labels)
    assembly = assemble(constraints, batch, on_empty="skip")
    passes = NumpyPasses(values, assembly.cells, None, None)
    counts = assembly.cells.counts
    nearest = solve_quadratic(passes.measure(values), 1.0 / counts, assembly.slabs.widened(slack), atol=1e-12)
    faces = zip(nearest.multipliers, nearest.faces, strict=True)
    nu = sum((m * np.asarray(f.normal) for m, f in faces), np.zeros(len(counts)))
    pull = np.broadcast_to(passes.pull(rate * weights.sum() * nu), len(rows))
    totals = np.bincount(rows, weights=weights, minlength=len(shifts))
    share = np.bincount(rows, weights=weights * pull, minlength=len(shifts))
    return np.asarray(np.divide(share, totals, out=shifts, where=totals > 0))


def measure_past(
    past: History | Counted, vocabulary: Vocabulary, constraints: Sequence[Constraint]
) -> dict[str, Measured | None]:
    """Return what each constraint says about the pooled means of everything emitted; None before there is anything."""
    found: dict[str, Measured | None] = {}
    for constraint in constraints:
        rows, values, weights, labels = _past(past, labelled=constraint.needs_labels)
        if not len(rows):
            found[constraint.name] = None
            continue
        batch = batch_of(past, vocabulary, rows, weights=weights, labels=labels)
        found[constraint.name] = measure(constraint, batch, values)
    return found


def _joined(frame: Frame, cells: IntArray, target: FloatArray) -> tuple[NumpyPasses, Assembly, int]:
    past, means, counts, _ = _past(frame.history, labelled=False)
    batch = _batch(frame, cells, np.concatenate([counts, np.ones(len(cells))]))
    assembly = assemble(frame.unlabelled, batch, on_empty="skip")
    low, high = (_bound(bound, means, len(cells), sign) for bound, sign in zip(frame.bounds, (-1.0, 1.0), strict=True))
    # A row of the past sits well outside its own bounds, so that no solver takes it for one that could move.
    outside = means + 1.0 + 2.0 * float(np.abs(means).max(initial=0.0))
    return NumpyPasses(np.concatenate([outside, target]), assembly.cells, low, high), assembly, len(past)


def _batch(frame: Frame, cells: IntArray, weights: FloatArray) -> Batch:
    """The rows of the past, then the new samples."""
    past = _past(frame.history, labelled=False)[0]
    return batch_of(frame.history, frame.vocabulary, np.concatenate([past, cells]), weights=weights)


def _bound(bound: float | None, means: FloatArray, new: int, sign: float) -> FloatArray:
    return np.concatenate([means, np.full(new, sign * np.inf if bound is None else bound)])


def _past(history: History | Counted, *, labelled: bool) -> tuple[IntArray, FloatArray, FloatArray, FloatArray | None]:
    """Return (cell, mean prediction, count, label) of each row of the past that holds samples."""
    sums = history.sums
    if not labelled:
        rows = np.flatnonzero(sums["count"])
        return rows, sums["emitted"][rows] / sums["count"][rows], sums["count"][rows], None
    k = len(history.cells)
    counts = np.concatenate([sums["count0"], sums["count1"]])
    emitted = np.concatenate([sums["emitted0"], sums["emitted1"]])
    other = np.divide(sums["labels"] - sums["count1"], sums["count0"], out=np.zeros(k), where=sums["count0"] > 0)
    labels = np.concatenate([other, np.ones(k)])
    held = np.flatnonzero(counts)
    return held % k if k else held, emitted[held] / counts[held], counts[held], labels[held]
