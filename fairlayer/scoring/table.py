"""A table in files, projected chunk by chunk into a Parquet file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairlayer.constraints import Constraint
from fairlayer.edge import as_constraints, feature_names
from fairlayer.errors import DataError, require
from fairlayer.groups import Vocabulary
from fairlayer.scoring.chunk import Chunk, Coded, read_chunk
from fairlayer.scoring.project import TableProjection, project_chunks

__all__ = ["coded", "numbers", "score_table"]


def score_table(
    source: str | Path | Sequence[str | Path],
    constraints: Sequence[Constraint],
    *,
    out: str | Path,
    scores: str | Callable[[Any], Any] = "score",
    y: str | None = None,
    keep: Sequence[str] = (),
    rows: int = 262_144,
    bounds: tuple[float | None, float | None] | None = None,
    margin: float = 0.0,
    on_empty: str = "skip",
    on_infeasible: str = "raise",
    vocabulary: Vocabulary | None = None,
    accuracy: float | None = None,
    process_group: Any = None,
) -> TableProjection:
    """Project the scores of a table in files, and write them to a Parquet file, never holding more than a chunk.

    The columns written are those to `keep`, then `score`, `value` (the projected score) and `shift` (what was added
    before the bounds), row by row in the order of the files.

    Args:
        source: a .parquet or .csv file, or several, read one after the other. Sensitive features are the columns that
            the constraints name.
        constraints: what must hold for the means over the whole table.
        out: the Parquet file to write. It appears when it is complete.
        scores: the column of scores; or a function from a `pyarrow.RecordBatch` to scores, called in every sweep.
        y: the column of labels, for constraints that look at labels.
        keep: columns to copy.
        rows: rows per chunk.
        bounds: see `project_chunks`.
        margin: see `project`.
        on_empty: see `project`.
        on_infeasible: see `project`.
        vocabulary: see `project_chunks`.
        accuracy: see `project_chunks`.
        process_group: see `project_chunks`; each process has files of its own, and writes one of its own.

    Raises:
        DataError: a file or a column is missing, or the files change meanwhile.
        FairlayerError: as `project_chunks`.

    Source: the design of this package.

    Example:
        >>> import tempfile, pathlib, fairlayer as fl
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "in.csv").write_text("sex,score\\nF,0.2\\nM,0.6\\nF,0.4\\n")
        >>> table = score_table(folder / "in.csv", [fl.DemographicParity("sex", 0.0)], out=folder / "out.parquet")
        >>> table.samples, {cell: round(shift, 6) for cell, shift in table.shift.items()}
        (3, {'sex=F': 0.1, 'sex=M': -0.2})
    """
    paths = [Path(p) for p in ([source] if isinstance(source, str | Path) else source)]
    stated = as_constraints(constraints)
    labelled = any(constraint.needs_labels for constraint in stated)
    files = _Files(paths, scores, features=feature_names(stated), y=y if labelled else None, keep=keep, rows=rows)
    table = project_chunks(
        lambda: (files.given(batch) for batch in files.batches()),
        stated,
        bounds=bounds,
        margin=margin,
        on_empty=on_empty,
        on_infeasible=on_infeasible,
        vocabulary=vocabulary,
        accuracy=accuracy,
        process_group=process_group,
    )
    _write(table, files, Path(out))
    return table


class _Files:
    """Record batches of files, and what a chunk takes of them."""

    def __init__(
        self,
        paths: Sequence[Path],
        scores: str | Callable[[Any], Any],
        *,
        features: Sequence[str],
        y: str | None,
        keep: Sequence[str],
        rows: int,
    ) -> None:
        self.paths, self.scores, self.features, self.y, self.keep, self.rows = paths, scores, features, y, keep, rows
        missing = [str(path) for path in paths if not path.is_file()]
        if missing or not paths:
            raise DataError(f"no file at {', '.join(missing) or 'all'}. Give .parquet or .csv files.")

    def batches(self) -> Iterator[Any]:
        """Read the files, a batch of rows at a time."""
        named = [*self.features, *self.keep, *(() if self.y is None else (self.y,))]
        wanted = None if callable(self.scores) else [*dict.fromkeys((*named, self.scores))]
        for path in self.paths:
            for batch in _batches(path, wanted, self.rows):
                if batch.num_rows:
                    yield batch

    def given(self, batch: Any) -> tuple[Any, Any, Any]:
        """Return scores, sensitive features and labels of a batch."""
        features = {name: coded(_column(batch, name)) for name in self.features}
        labels = None if self.y is None else numbers(_column(batch, self.y))
        scores = self.scores(batch) if callable(self.scores) else numbers(_column(batch, self.scores))
        return scores, features, labels

    def chunks(self) -> Iterator[tuple[Any, Chunk]]:
        """Read the files once more, each batch with its chunk."""
        for number, batch in enumerate(self.batches()):
            yield batch, read_chunk(self.given(batch), number, labelled=self.y is not None)


def _batches(path: Path, wanted: list[str] | None, rows: int) -> Iterator[Any]:
    pyarrow = require("pyarrow", "ray")
    try:
        if path.suffix in (".parquet", ".pq"):
            parquet = require("pyarrow.parquet", "ray")
            with parquet.ParquetFile(path) as file:
                _check_columns(path, file.schema_arrow.names, wanted)
                yield from file.iter_batches(batch_size=rows, columns=wanted)
            return
        csv = require("pyarrow.csv", "ray")
        only_empty_is_missing = csv.ConvertOptions(null_values=[""], strings_can_be_null=True)
        blocks = csv.ReadOptions(block_size=64 * rows)
        with csv.open_csv(path, read_options=blocks, convert_options=only_empty_is_missing) as reader:
            _check_columns(path, reader.schema.names, wanted)
            yield from reader
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"'{path}' could not be read as a table: {str(error).strip()}") from error


def _check_columns(path: Path, found: Sequence[str], wanted: Sequence[str] | None) -> None:
    missing = [name for name in wanted or () if name not in found]
    if missing:
        raise DataError(f"'{path}' has no column {', '.join(map(repr, missing))}; its columns are {list(found)}.")


def _column(batch: Any, name: str) -> Any:
    if name not in batch.schema.names:
        raise DataError(f"there is no column {name!r}; the columns are {batch.schema.names}.")
    return batch.column(name)


def numbers(column: Any) -> Any:
    """Return an Arrow column as an array."""
    return column.to_numpy(zero_copy_only=False)


def coded(column: Any) -> Coded:
    """Return an Arrow column as distinct values and positions: a chunk has many rows and few groups."""
    short = column if hasattr(column, "dictionary") else column.dictionary_encode()
    return Coded(short.dictionary.to_pylist(), np.asarray(short.indices.fill_null(-1)).astype(np.int64))


def _write(table: TableProjection, files: _Files, out: Path) -> None:
    pyarrow, parquet = require("pyarrow", "ray"), require("pyarrow.parquet", "ray")
    unfinished, writer = out.with_name(f"{out.name}.unfinished"), None
    try:
        for (batch, score), value, shift in table.carry(((b, c.scores), c) for b, c in files.chunks()):
            columns = {name: _column(batch, name) for name in files.keep}
            columns |= {"score": score.astype(value.dtype), "value": value, "shift": shift.astype(value.dtype)}
            piece = pyarrow.RecordBatch.from_pydict(columns)
            writer = writer or parquet.ParquetWriter(unfinished, piece.schema)
            writer.write_batch(piece)
        if writer is not None:
            writer.close()
            unfinished.replace(out)
    finally:
        if writer is not None:
            writer.close()
        unfinished.unlink(missing_ok=True)
