"""The projection of a table that is read chunk by chunk, never as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import FloatArray, IntArray
from fairlayer.collective import Ranks
from fairlayer.constraints import Constraint, Measured
from fairlayer.edge import Box, as_constraints, plain_bounds
from fairlayer.errors import DataError, SolverError
from fairlayer.groups import Vocabulary
from fairlayer.projection import Plan
from fairlayer.projection.options import Options
from fairlayer.projection.result import ActiveSlab
from fairlayer.scoring.chunk import Chunk, read_chunk
from fairlayer.scoring.signatures import Signatures
from fairlayer.scoring.sketch import TableSketch, first_grid
from fairlayer.scoring.solved import Settings, SolvedSketch
from fairlayer.scoring.source import Chunks, ChunksOfRanks, Source

__all__ = ["Mover", "TableProjection", "project_chunks", "project_source"]

_MOST_SWEEPS = 12

T = TypeVar("T")


def project_chunks(
    chunks: Callable[[], Iterable[Any]],
    constraints: Sequence[Constraint],
    *,
    bounds: tuple[float | None, float | None] | None = None,
    margin: float = 0.0,
    on_empty: str = "skip",
    on_infeasible: str = "raise",
    vocabulary: Vocabulary | None = None,
    accuracy: float | None = None,
    process_group: Any = None,
) -> TableProjection:
    """Project a table larger than memory, as `project` would project it whole.

        value = clip(score + shift[cell])        the shifts from sums over the chunks, a few numbers per cell

    The first sweep sums the scores up by group in narrow bins. Without bounds that is all there is to know. With
    bounds, further sweeps look more closely where a bound cuts through a bin, until the shifts are within `accuracy`
    of those of the whole table. One more sweep, `values()`, gives the projected chunks.

    Args:
        chunks: a function that returns the chunks, the same each time it is called: tuples (scores, sensitive_features)
            or (scores, sensitive_features, y), or dicts with these keys.
        constraints: what must hold for the means over the whole table.
        bounds: (lower, upper), each None or a number.
        margin: see `project`.
        on_empty: see `project`.
        on_infeasible: see `project`.
        vocabulary: known categories; without one, those of the table.
        accuracy: how far a shift may be from exact, in prediction units; by default 1e-10 for float64 scores and 1e-6
            for others, times max(1, largest score).
        process_group: None, "world" or a torch.distributed group, of which each process has its own chunks. Every
            process must then call this and, to the end, `values()`.

    Raises:
        BackendError: a constraint weighs each row by itself (soft groups, label estimates, covariance, `Convex`).
        DataError: chunks of another form, or not the same in each sweep.
        FairlayerError: as `project`.

    Source: the design of this package.

    Example:
        >>> import numpy as np, fairlayer as fl
        >>> def chunks():
        ...     for part in range(3):
        ...         yield np.linspace(0.1, 0.5, 4) + 0.1 * part, {"sex": ["F", "M", "M", "F"]}
        >>> table = project_chunks(chunks, [fl.MinimumRate("sex", floor=0.5)], bounds=(0.0, 1.0))
        >>> table.counts, [round(float(v.mean()), 3) for v in table.values()]
        ({'sex=F': 6, 'sex=M': 6}, [0.4, 0.5, 0.6])
    """
    stated = as_constraints(constraints)
    here = Chunks(chunks, labelled=any(constraint.needs_labels for constraint in stated))
    ranks = Ranks.of(process_group)
    with nullcontext() if ranks is None else ranks.together():
        source: Source = here if ranks is None else ChunksOfRanks(here, ranks)
        solved, sweeps = project_source(
            source, stated, bounds, margin, on_empty, on_infeasible, vocabulary or Vocabulary(), accuracy
        )
    return TableProjection(solved, sweeps, here, ranks)


def project_source(  # noqa: PLR0917 - as `project_chunks`
    source: Source,
    constraints: Sequence[Constraint],
    bounds: Any,
    margin: float,
    on_empty: str,
    on_infeasible: str,
    words: Vocabulary,
    accuracy: float | None,
) -> tuple[SolvedSketch, int]:
    """Sweep a source until the shifts are accurate; return them and the number of sweeps."""
    options = Options(bounds=bounds, margin=margin, on_empty=on_empty, on_infeasible=on_infeasible)
    plan = Plan(constraints, options)
    plain_bounds(bounds, margin)  # bounds per row are refused
    box = Box.read(bounds, margin, torch.empty(0))
    settings = Settings(plan.constraints, plan.names, box, on_empty=on_empty, relax=options.relax)
    view, count = source.view(plan.constraints, words)
    signatures, grid = Signatures(view, words), first_grid(settings.bounds, count)
    samples = None
    for sweep in range(1, _MOST_SWEEPS + 1):
        sketch = source.sweep(signatures, grid)
        samples = _same_samples(samples, sketch)
        solved = SolvedSketch(sketch, settings)
        wanted = accuracy if accuracy is not None else (1e-6 if view.single else 1e-10) * max(1.0, solved.size)
        if solved.accuracy <= wanted:
            return solved, sweep
        signatures, grid = sketch.signatures, solved.closer()
    raise SolverError(
        f"shifts were asked to within {wanted:.3g}, but after {sweep} sweeps {solved.accuracy:.3g} is left. "
        "Give a larger accuracy="
    )


def _same_samples(before: float | None, sketch: TableSketch) -> float:
    if before is not None and before != sketch.samples:
        raise DataError(
            f"the first sweep met {before:.0f} rows, a later one {sketch.samples:.0f}. A table must not change "
            "between sweeps: `chunks` must give the same chunks each time it is called."
        )
    return sketch.samples


class TableProjection:
    """A projected table: the shift of each cell, and what it takes to project any chunk.

    Args:
        solved: the last sketch and its shifts.
        sweeps: how often the table was read for it.
        chunks: the table, or the part of this process.
        ranks: the processes that hold the other parts.

    Example:
        >>> import numpy as np, fairlayer as fl
        >>> def chunks():
        ...     yield np.array([0.2, 0.8]), {"sex": ["F", "M"]}
        ...     yield np.array([0.4, 0.6]), {"sex": ["F", "M"]}
        >>> table = project_chunks(chunks, [fl.DemographicParity("sex", tolerance=0.1)], bounds=(0.0, 1.0))
        >>> table.samples, table.status, table.cells
        (4, 'projected', ('sex=F', 'sex=M'))
    """

    def __init__(self, solved: SolvedSketch, sweeps: int, chunks: Chunks | None, ranks: Ranks | None) -> None:
        self._solved, self.sweeps, self._chunks, self._ranks = solved, sweeps, chunks, ranks
        self._seen: FloatArray | None = None
        self._sums: FloatArray | None = None

    @property
    def samples(self) -> int:
        """Rows of the table."""
        return int(self._solved.sketch.samples)

    @property
    def accuracy(self) -> float:
        """How far, at most, any value is from that of the exact projection, rounding aside."""
        return self._solved.accuracy

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the cells."""
        return self._solved.projection.cells

    @property
    def shift(self) -> dict[str, float]:
        """How far each cell is moved, in prediction units: `value = clip(score + shift[cell])`."""
        return dict(zip(self.cells, self._solved.projection.shift.tolist(), strict=True))

    @property
    def counts(self) -> dict[str, int]:
        """Rows in each cell."""
        return self._solved.projection.counts

    @property
    def multipliers(self) -> dict[str, float]:
        """Price of each constraint, see `Projection.multipliers`."""
        return {name: float(price) for name, price in self._solved.projection.multipliers.items()}

    @property
    def active(self) -> tuple[ActiveSlab, ...]:
        """The statements that hold with equality."""
        return self._solved.projection.active

    @property
    def absent(self) -> tuple[tuple[str, str], ...]:
        """Groups that a constraint compares and the table lacks, as (constraint, group)."""
        return self._solved.projection.absent

    @property
    def status(self) -> str:
        """`unchanged`, `projected` or `relaxed`, see `Projection.status`."""
        return self._solved.projection.status

    @property
    def widening(self) -> float:
        """By how much every limit was widened."""
        return self._solved.projection.widening

    @property
    def violation(self) -> float:
        """Largest violation of any statement (<= 0: all hold), measured on the values that `values()` gave.

        Raises:
            DataError: `values()` has not been read to its end.
        """
        if self._sums is None:
            raise DataError("the violation is measured while values() is read; read it to its end first.")
        return self._solved.violation_of(self._sums)

    @property
    def measured(self) -> dict[str, Measured]:
        """The number that each constraint bounds, of the values that `values()` gave.

        Raises:
            DataError: `values()` has not been read to its end.
        """
        if self._seen is None or self._sums is None:
            raise DataError("the numbers are measured while values() is read; read it to its end first.")
        return dict(zip(self._solved.settings.names, self._solved.measure(self._seen, self._sums), strict=True))

    def apply(self, scores: Any, sensitive_features: Any, y: Any = None) -> Any:
        """Return the projected scores of any rows of the table; a tensor for a tensor, else an array.

        They have the shape of the scores; float64 stays, everything else becomes float32.
        """
        labelled = self._solved.sketch.signatures.view.labelled
        value, _ = self.mover.move(read_chunk((scores, sensitive_features, y), 0, labelled=labelled))
        shaped = value.reshape(np.shape(scores))
        return torch.from_numpy(shaped).to(scores.device) if isinstance(scores, Tensor) else shaped

    def values(self) -> Iterator[FloatArray]:
        """Sweep the table once more and give the projected scores of each chunk that has any rows, (n,) each.

        Raises:
            DataError: the table has changed.
        """
        if self._chunks is None:
            raise DataError("these rows are held elsewhere; project them there with `mover`.")
        for _, value, _ in self.carry((None, chunk) for chunk in self._chunks):
            yield value

    def carry(self, chunks: Iterable[tuple[T, Chunk]]) -> Iterator[tuple[T, FloatArray, FloatArray]]:
        """Give (what came with the chunk, values, shifts) for each chunk of a last sweep, and measure the violation."""
        mover, size = self.mover, len(self.mover.shifts)
        seen, sums = np.zeros(size), np.zeros(size)
        with nullcontext() if self._ranks is None else self._ranks.together():
            for luggage, chunk in chunks:
                value, numbers = mover.move(chunk)
                seen += np.bincount(numbers, minlength=size)
                sums += np.bincount(numbers, weights=value, minlength=size)
                yield luggage, value, mover.shifts[numbers]
            if self._ranks is not None:
                seen, sums = self._ranks.total(np.stack([seen, sums]), "emitted sums")
        if float(seen.sum()) != self._solved.sketch.samples:
            raise DataError(
                f"the shifts are those of {self.samples} rows, but the last sweep met {seen.sum():.0f}. A table must "
                "not change between sweeps."
            )
        self._seen, self._sums = seen, sums

    @property
    def mover(self) -> Mover:
        """What it takes to project any chunk, small enough to send to where the rows are."""
        settings, signatures = self._solved.settings, self._solved.sketch.signatures
        return Mover(signatures, self._solved.shifts, settings.box.lower, settings.box.upper)


class Mover(NamedTuple):
    """The shift of each signature, and the bounds."""

    signatures: Signatures
    shifts: FloatArray
    lower: float | None
    upper: float | None

    def move(self, chunk: Chunk) -> tuple[Any, IntArray]:
        """Return the projected scores of a chunk, and the number of each row's signature."""
        numbers = self.signatures.place(chunk)
        value = chunk.scores + self.shifts[numbers]
        if self.lower is not None or self.upper is not None:
            value = np.clip(value, self.lower, self.upper)
        return (value.astype(np.float32) if chunk.single else value), numbers
