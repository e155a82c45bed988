"""Columns of a frame must count their rows alike: what is read by position is not what an index says."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from fairlayer.errors import RowOrderError

__all__ = ["check_row_order"]


def check_row_order(**columns: Any) -> None:
    """Check that no two of these pandas objects hold the same index in another order.

    Everything is read by position. Two series whose indexes hold the same entries in different orders were most
    likely meant to be joined by index, so that reading them by position would give each row another row's group. An
    index of other entries (a fresh 0, 1, ... beside the rows of a split) says nothing, and is passed over.

    Args:
        columns: what was given, by the name of its argument: series, frames, mappings of series; all else has no index.

    Raises:
        RowOrderError: two of them hold the same index in different orders.

    Example:
        >>> check_row_order(scores=[0.1, 0.2], y=None)
    """
    pandas = sys.modules.get("pandas")
    if pandas is None:
        return
    seen: list[tuple[str, Any]] = []
    for name, index in _indexes(pandas, columns):
        for other, before in seen:
            if _reordered(index, before):
                raise RowOrderError(
                    f"{other} and {name} hold the same {len(index)} index entries in different orders (the first rows "
                    f"are {before[:3].tolist()} and {index[:3].tolist()}), and all columns are read row by row. Bring "
                    f"them into one order with .loc[...] or .reindex(...), or pass .to_numpy() if the rows do belong "
                    "together as they stand."
                )
        seen.append((name, index))


def _indexes(pandas: Any, columns: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, column in columns.items():
        if isinstance(column, (pandas.Series, pandas.DataFrame)):
            yield name, column.index
        elif isinstance(column, Mapping):
            yield from _indexes(pandas, {f"{name}[{key!r}]": entry for key, entry in column.items()})


def _reordered(index: Any, before: Any) -> bool:
    if index is before or len(index) != len(before) or index.equals(before):
        return False
    return bool(index.is_unique and before.is_unique and before.isin(index).all())
