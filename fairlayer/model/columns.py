"""Sensitive features that are columns of x, beside those that a caller passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from fairlayer.edge import LoaderBatch, read_loader
from fairlayer.errors import MissingSensitiveFeatureError, ShapeError

__all__ = ["read_batches", "with_columns"]


def with_columns(indices: tuple[int, ...], sensitive_features: Any, args: tuple[Any, ...]) -> Any:
    """Return the sensitive features, and under the name `x[i]` each of these columns of the first argument.

    Raises:
        ShapeError: the features have no names, or x has no such column.
        MissingSensitiveFeatureError: the first argument is no tensor (n, d).
    """
    if not indices:
        return sensitive_features
    if sensitive_features is not None and not isinstance(sensitive_features, Mapping):
        raise ShapeError("with protected_attr_idx, give further sensitive_features as a dict of name -> column.")
    if not args or not isinstance(args[0], Tensor) or args[0].ndim != 2:
        raise MissingSensitiveFeatureError(
            "protected_attr_idx reads columns of the first positional input, which must be a tensor (n, d). "
            "Pass sensitive_features= instead."
        )
    width = args[0].shape[1]
    if not all(-width <= i < width for i in indices):
        raise ShapeError(f"protected_attr_idx={indices} was asked, but x has {width} columns.")
    columns = {f"x[{i}]": args[0][:, i] for i in indices}
    return {**columns, **(sensitive_features or {})}


def read_batches(loader: Iterable[Any], indices: tuple[int, ...]) -> Iterator[LoaderBatch]:
    """Yield what each batch of a loader holds, columns of x among the sensitive features."""
    for x, y, features in read_loader(loader, groups_in_x=bool(indices)):
        yield LoaderBatch(x, y, with_columns(indices, features, (x,)))
