"""Rows as a Parquet file, written piece by piece."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairlayer.errors import require
from fairlayer.trail.errors import TrailError
from fairlayer.trail.reading import Row, rows_between

__all__ = ["export_table"]

_PIECE = 10_000
_NUMBERS = ("raw", "emitted", "shift")
_TEXTS = ("cells", "decision", "phase", "policy", "limit", "model", "package", "input")


def export_table(
    path: str | Path, target: str | Path, start: float | None, end: float | None, *, before: Callable[[], None]
) -> int:
    """Write the rows with start <= time < end; return how many. `before` is called when nothing can refuse any more.

    Columns: row, time, kind, subject, erased, then the fields of a decision (scores as numbers; cells and limit as
    JSON), then `body`, the whole content as JSON.
    """
    arrow, parquet = require("pyarrow", "trail"), require("pyarrow.parquet", "trail")
    if Path(target).exists():
        raise TrailError(f"the file '{target}' is there already; an export never overwrites. Give another name.")
    schema = arrow.schema(
        [("row", arrow.int64()), ("time", arrow.float64()), ("kind", arrow.string()), ("subject", arrow.string())]
        + [("erased", arrow.bool_())]
        + [(name, arrow.float64()) for name in _NUMBERS]
        + [(name, arrow.string()) for name in (*_TEXTS, "body")]
    )
    before()
    rows, count = rows_between(path, start, end), 0
    with parquet.ParquetWriter(target, schema) as writer:
        while piece := list(itertools.islice(rows, _PIECE)):
            writer.write_table(arrow.Table.from_pylist([_flat(row) for row in piece], schema=schema))
            count += len(piece)
    return count


def _flat(row: Row) -> dict[str, Any]:
    body = row.body or {}
    flat: dict[str, Any] = {**row._asdict(), "erased": row.body is None, "body": None}
    if row.body is not None:
        flat["body"] = json.dumps(row.body, ensure_ascii=False)
    decision = body if row.kind == "decision" else {}
    flat.update({name: value if isinstance(value := decision.get(name), int | float) else None for name in _NUMBERS})
    flat.update({name: _text(decision.get(name)) for name in _TEXTS})
    return flat


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
