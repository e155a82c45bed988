"""Ray Data: a data set spread over a cluster, projected as it would be in memory.

Each task sums up its block (`fairlayer.scoring.sketch`), the driver adds the sums and solves, and a last pass shifts
each block where it lies. Only sums and shifts travel.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fairlayer._keywords import explain_public
from fairlayer.constraints import Constraint
from fairlayer.edge import as_constraints, feature_names
from fairlayer.errors import DataError, require
from fairlayer.groups import Vocabulary
from fairlayer.scoring.chunk import Chunk, read_chunk
from fairlayer.scoring.project import Mover, TableProjection, project_source
from fairlayer.scoring.signatures import Signatures, View, view_of
from fairlayer.scoring.sketch import Grid, TableSketch, together
from fairlayer.scoring.source import sketch_of
from fairlayer.scoring.table import coded, numbers

if TYPE_CHECKING:
    from ray.data import Dataset

__all__ = ["project_dataset"]


def project_dataset(
    dataset: Dataset,
    constraints: Sequence[Constraint],
    *,
    scores: str = "score",
    y: str | None = None,
    bounds: tuple[float | None, float | None] | None = None,
    margin: float = 0.0,
    on_empty: str = "skip",
    on_infeasible: str = "raise",
    vocabulary: Vocabulary | None = None,
    accuracy: float | None = None,
) -> tuple[Dataset, TableProjection]:
    """Project the scores of a Ray data set; see `fairlayer.scoring.project_chunks`.

    Args:
        dataset: a data set with a column of scores, and one for each sensitive feature that the constraints name. It is
            executed once per sweep: `materialize()` it, or read it from files, if what comes before is dear.
        constraints: what must hold for the means over the whole data set.
        scores: the column of scores.
        y: the column of labels, for constraints that look at labels.
        bounds: see `project_chunks`.
        margin: see `project`.
        on_empty: see `project`.
        on_infeasible: see `project`.
        vocabulary: see `project_chunks`.
        accuracy: see `project_chunks`.

    Returns:
        The data set with the columns `value` (projected scores) and `shift` added, not yet executed; and the result.

    Raises:
        FairlayerError: as `project_chunks`; what a task meets arrives inside Ray's own error.

    Source: the design of this package.
    """
    require("ray.data", "ray")
    stated = as_constraints(constraints)
    labelled = any(constraint.needs_labels for constraint in stated)
    columns = _Columns(feature_names(stated), scores, y if labelled else None)
    source = _Blocks(dataset, columns)
    words = vocabulary or Vocabulary()
    solved, sweeps = project_source(source, stated, bounds, margin, on_empty, on_infeasible, words, accuracy)
    table = TableProjection(solved, sweeps, None, None)
    move: Any = partial(_move, columns=columns, mover=table.mover)
    return dataset.map_batches(move, batch_format="pyarrow", batch_size=None), table


class _Columns(NamedTuple):
    """Which columns are read."""

    features: tuple[str, ...]
    scores: str
    y: str | None

    def chunk(self, block: Any) -> Chunk:
        """Read an Arrow table."""
        missing = [c for c in (*self.features, self.scores, self.y) if c is not None and c not in block.column_names]
        if missing:
            raise DataError(f"the data set has no column {missing}; its columns are {block.column_names}.")
        whole = block.combine_chunks()
        features = {name: coded(_array(whole, name)) for name in self.features}
        labels = None if self.y is None else numbers(_array(whole, self.y))
        return read_chunk((numbers(_array(whole, self.scores)), features, labels), 0, labelled=self.y is not None)


def _array(table: Any, name: str) -> Any:
    column = table.column(name)
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


class _Blocks:
    """The blocks of a data set, as a `Source`."""

    def __init__(self, dataset: Dataset, columns: _Columns) -> None:
        self.dataset, self.columns = dataset, columns

    def view(self, constraints: Sequence[Constraint], words: Vocabulary) -> tuple[View, int]:
        """See `Source.view`."""
        chunk = self.columns.chunk(self.dataset.take_batch(10_000, batch_format="pyarrow"))
        view = view_of(constraints, chunk, words)
        signatures = Signatures(view, words)
        signatures.place(chunk)
        return view, len(signatures)

    def sweep(self, signatures: Signatures, grid: Grid) -> TableSketch:
        """See `Source.sweep`."""
        words, whole = signatures.words, None
        sum_up: Any = partial(_summarise, columns=self.columns, signatures=signatures, grid=grid)
        sketches = self.dataset.map_batches(sum_up, batch_format="pyarrow", batch_size=None)
        for row in sketches.iter_rows():
            sketch = pickle.loads(row["sketch"])
            whole = together([sketch] if whole is None else [whole, sketch], words)
        if whole is None:
            raise DataError("the data set has no rows.")
        return whole


def _summarise(block: Any, columns: _Columns, signatures: Signatures, grid: Grid) -> dict[str, Any]:
    sketch = sketch_of([columns.chunk(block)], signatures, grid)
    return {"sketch": np.array([pickle.dumps(sketch)], dtype=object)}


def _move(block: Any, columns: _Columns, mover: Mover) -> Any:
    pyarrow = require("pyarrow", "ray")
    value, places = mover.move(columns.chunk(block))
    shift = mover.shifts[places].astype(value.dtype)
    return block.append_column("value", pyarrow.array(value)).append_column("shift", pyarrow.array(shift))


explain_public(__name__)
