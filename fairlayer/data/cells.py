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

__all__ = ["GroupsAndLabels", "as_column", "fractional", "named_columns", "read_groups_and_labels"]


class GroupsAndLabels(NamedTuple):
    """Codes (n,) of the group, of the label, and of both together."""

    group: NDArray[np.int64]
    label: NDArray[np.int64]
    both: NDArray[np.int64]


def read_groups_and_labels(groups: Any, y: Any, asked_by: str) -> GroupsAndLabels:
    """Return codes; a dict or frame of columns means their intersections, and unknown is a group of its own.

    Raises:
        ColumnError: lengths differ, no rows, or too many distinct values to be groups or labels.
    """
    columns = named_columns(groups)
    label = as_column("y", y)
    lengths = {name: len(column) for name, column in columns.items()} | {"y": len(label)}
    if len(set(lengths.values())) > 1 or len(label) == 0:
        raise ColumnError(f"{asked_by} needs one group and one label per row, and rows, but the lengths are {lengths}.")
    for name, column in {**columns, "y": label}.items():
        distinct = np.unique(column.astype(str))
        if len(distinct) > MOST_GROUPS:
            raise ColumnError(
                f"{asked_by}: '{name}' has {len(distinct)} distinct values, such as {listed(distinct.tolist(), 3)}. "
                "Cut amounts into bands first."
            )
    group = joint_codes([*columns.values()])
    return GroupsAndLabels(group, joint_codes([label]), joint_codes([group, label]))


def named_columns(groups: Any) -> dict[str, NDArray[Any]]:
    """Return a column, a dict of columns or a frame as a dict of arrays (n,)."""
    if isinstance(groups, Mapping):
        return {str(name): as_column(str(name), column) for name, column in groups.items()}
    if hasattr(groups, "columns"):
        return {str(name): as_column(str(name), groups[name]) for name in groups.columns}
    return {"groups": as_column("groups", groups)}


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
        ColumnError: it has another shape.
    """
    if isinstance(values, torch.Tensor):
        array = values.detach().cpu().numpy()
    elif hasattr(values, "to_numpy"):
        array = np.asarray(values.to_numpy())
    else:
        array = values if isinstance(values, np.ndarray) else np.array(list(values), dtype=object)
    if array.ndim != 1:
        raise ColumnError(f"column '{name}' must have shape (n,), but has shape {array.shape}. Use .squeeze(-1).")
    return array
