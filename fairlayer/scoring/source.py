"""Where the rows of a table come from, chunk after chunk, as often as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from fairlayer.collective import Ranks, RanksDifferError
from fairlayer.constraints import Constraint
from fairlayer.errors import EmptyBatchError
from fairlayer.groups import Vocabulary
from fairlayer.scoring.chunk import Chunk, read_chunk
from fairlayer.scoring.signatures import Signatures, View, view_of
from fairlayer.scoring.sketch import Grid, TableSketch, together

__all__ = ["Chunks", "ChunksOfRanks", "Source", "sketch_of"]


class Source(Protocol):
    """A table that can be swept."""

    def view(self, constraints: Sequence[Constraint], words: Vocabulary) -> tuple[View, int]:
        """Return what the constraints look at, and about how many signatures the rows have."""

    def sweep(self, signatures: Signatures, grid: Grid) -> TableSketch:
        """Return the sums of all rows."""


def sketch_of(chunks: Iterable[Chunk], signatures: Signatures, grid: Grid) -> TableSketch:
    """Sum up some chunks."""
    sketch = TableSketch(signatures, grid)
    for chunk in chunks:
        sketch.add(chunk)
    return sketch


class Chunks:
    """Chunks that a function gives anew each time.

    Args:
        given: a function that returns the chunks, the same each time it is called.
        labelled: whether labels are read.
    """

    def __init__(self, given: Callable[[], Iterable[Any]], *, labelled: bool) -> None:
        self.given, self.labelled = given, labelled

    def __iter__(self) -> Iterator[Chunk]:
        for number, chunk in enumerate(self.given()):
            read = read_chunk(chunk, number, labelled=self.labelled)
            if len(read.scores):
                yield read

    def view(self, constraints: Sequence[Constraint], words: Vocabulary) -> tuple[View, int]:
        """See `Source.view`; the first chunk is taken for typical."""
        found = self.view_if_any(constraints, words)
        if found is None:
            raise EmptyBatchError("the table is empty: no chunk has any rows.")
        return found

    def view_if_any(self, constraints: Sequence[Constraint], words: Vocabulary) -> tuple[View, int] | None:
        """Return the view, or None where there are no rows."""
        for chunk in self:
            view = view_of(constraints, chunk, words)
            signatures = Signatures(view, words)
            signatures.place(chunk)
            return view, len(signatures)
        return None

    def sweep(self, signatures: Signatures, grid: Grid) -> TableSketch:
        """See `Source.sweep`."""
        words = signatures.words
        return together([sketch_of(self, signatures, grid)], words)


class ChunksOfRanks:
    """Chunks of which every process of a group has its own."""

    def __init__(self, here: Chunks, ranks: Ranks) -> None:
        self.here, self.ranks = here, ranks

    def view(self, constraints: Sequence[Constraint], words: Vocabulary) -> tuple[View, int]:
        """See `Source.view`."""
        found = self.ranks.objects(self.here.view_if_any(constraints, words), "what constraints look at")
        views = [each for each in found if each is not None]
        if not views:
            raise EmptyBatchError("the table is empty: no chunk of any process has any rows.")
        first = views[0][0]
        if any(repr(view) != repr(first) for view, _ in views):
            raise RanksDifferError(
                "the processes must have the same constraints, and columns of the same kind, but found different ones: "
                f"{'; '.join(dict.fromkeys(repr(view) for view, _ in views))}."
            )
        return first, max(count for _, count in views)

    def sweep(self, signatures: Signatures, grid: Grid) -> TableSketch:
        """See `Source.sweep`; what travels are the bins that hold anything."""
        words = signatures.words
        return together(self.ranks.objects(sketch_of(self.here, signatures, grid), "a sketch"), words)
