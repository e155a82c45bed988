"""Group and label of each row as integer codes, from columns of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fairlayer.data.batches import joint_codes
from fairlayer.data.columns import MOST_GROUPS
from fairlayer.data.errors import ColumnError, listed
from fairlayer.errors import ShapeError
from fairlayer.groups import read_column
from fairlayer.groups.encoding import encode, encode_values, is_continuous
from fairlayer.groups.reading import ReadColumns, named_columns

__all__ = ["GroupsAndLabels", "as_column", "fractional", "named_arrays", "read_groups_and_labels"]


class GroupsAndLabels(NamedTuple):
    """Codes (n,) of the group, of the label, and of both together."""

    group: NDArray[np.int64]
    label: NDArray[np.int64]
    both: NDArray[np.int64]


def read_groups_and_labels(groups: Any, y: Any, asked_by: str) -> GroupsAndLabels:
    """Return codes; a dict or frame of columns means their intersections, and unknown is a group of its own.

    Raises:
        ColumnError: no column, lengths that differ, no rows, or too many distinct values to be groups or labels.
        CategoryError: a column of groups does not name groups.
    """
    columns = named_arrays(groups)
    label = as_column("y", y)
    lengths = {name: len(column) for name, column in columns.items()} | {"y": len(label)}
    if len(set(lengths.values())) > 1 or len(label) == 0:
        raise ColumnError(f"{asked_by} needs one group and one label per row, and rows, but the lengths are {lengths}.")
    group = [_group_codes(name, column) for name, column in columns.items()]
    codes = {**dict(zip(columns, group, strict=True)), "y": encode_values("y", label)}
    for name, code in codes.items():
        distinct = len(np.unique(code))
        if distinct > MOST_GROUPS:
            shown = ({**columns, "y": label})[name][:3].tolist()
            raise ColumnError(
                f"{asked_by}: '{name}' has {distinct} distinct values, such as {listed(shown, 3)}. "
                "Cut amounts into bands first."
            )
    return GroupsAndLabels(joint_codes(group), codes["y"], joint_codes([*group, codes["y"]]))


def named_arrays(groups: Any) -> dict[str, NDArray[Any]]:
    """Return a column, a dict of columns or a frame as a dict of arrays (n,)."""
    if not isinstance(groups, Mapping) and not hasattr(groups, "columns") and not hasattr(groups, "column_names"):
        return {"groups": as_column("groups", groups)}
    given = ReadColumns(named_columns(groups), None)
    return {name: as_column(name, given.column(name)) for name in given}


def _group_codes(name: str, column: NDArray[Any]) -> NDArray[np.int64]:
    """Return the code of each row, the unknown being the last."""
    if is_continuous(column) and len(np.unique(column)) > MOST_GROUPS:
        return encode_values(name, column)  # too many to be groups at all, which is what the error shall say
    codes = encode(name, column, None).codes
    assert codes is not None
    return codes + 1


def fractional(dtype: Any) -> Any:
    """Return a dtype that holds fractions: the one given where it does, else the default of torch, or float64.

    Example:
        >>> fractional(torch.int64), fractional(torch.float16), fractional(np.dtype("int32"))
        (torch.float32, torch.float16, dtype('float64'))
    """
    if isinstance(dtype, torch.dtype):
        return dtype if dtype.is_floating_point else torch.get_default_dtype()
    return dtype if np.issubdtype(dtype, np.floating) else np.dtype(np.float64)


def as_column(name: str, values: Any) -> NDArray[Any]:
    """Return a tensor, series, array or list as an array (n,).

    Raises:
        ColumnError: it is not a column, or has another shape.
    """
    try:
        array: NDArray[Any] = read_column(name, values)
    except ShapeError as error:
        raise ColumnError(str(error)) from error
    if array.ndim != 1:
        raise ColumnError(f"column '{name}' must have shape (n,), but has shape {array.shape}. Use .squeeze(-1).")
    return array
