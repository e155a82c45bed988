"""What a batch of a loader holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from fairlayer._keywords import ours_for
from fairlayer.errors import EmptyBatchError, ShapeError

__all__ = ["LoaderBatch", "read_batch", "read_loader"]

_KEYS = ("x", "y", "sensitive_features")
_FORMS = (
    "The forms that are read are (x, y, sensitive_features), a dict with the keys x, y, sensitive_features (y may be "
    "left out), and, with protected_attr_idx, also (x, y) and x alone, for the groups are columns of x."
)


class LoaderBatch(NamedTuple):
    """Inputs of a model, labels (None where there are none), and sensitive features (None likewise)."""

    x: Any
    y: Any = None
    sensitive_features: Any = None


def read_loader(loader: Iterable[Any], *, groups_in_x: bool = False) -> Iterator[LoaderBatch]:
    """Yield what each batch of a loader holds.

    Args:
        loader: a DataLoader, or anything else that gives batches as `read_batch` reads them.
        groups_in_x: see `read_batch`.

    Raises:
        ShapeError: it is not a loader, or a batch cannot be read.
        EmptyBatchError: it gives no batch, as a generator does that was used up.

    Example:
        >>> [batch.y for batch in read_loader([{"x": [[0.1]], "y": [1.0], "sensitive_features": {"sex": ["F"]}}])]
        [[1.0]]
    """
    if isinstance(loader, Tensor | Mapping | str) or not isinstance(loader, Iterable):
        raise ShapeError(
            f"a loader gives batches, but {type(loader).__name__} was given. Pass a DataLoader, or a list of batches: "
            f"[(x, y, sensitive_features)]. {_FORMS}"
        )
    batch = None
    for batch in loader:
        yield read_batch(batch, groups_in_x=groups_in_x)
    if batch is None:
        raise EmptyBatchError(
            "the loader gave no batch. A generator can be read once: make it anew, or pass a DataLoader or a list."
        )


def read_batch(batch: Any, *, groups_in_x: bool = False, needs_x: bool = True) -> LoaderBatch:
    """Return what a batch of a loader holds.

    A pair says itself what it is only where its second part is a dict or a frame of named columns: it is then
    (x, sensitive_features). A pair of tensors may be (x, y) or (x, groups), and is refused.

    Args:
        batch: (x, y, sensitive_features), a dict or named tuple with these names, or a pair.
        groups_in_x: whether the groups are columns of x, so that a pair is (x, y).
        needs_x: whether a dict must have an x; without one, x is None.

    Raises:
        ShapeError: it is none of these, or a pair that can be read in two ways.

    Example:
        >>> read_batch({"x": [[0.1]], "sensitive_features": {"sex": ["F"]}}).y is None
        True
        >>> read_batch(([[0.1]], [1.0]), groups_in_x=True).y
        [1.0]
    """
    if hasattr(batch, "_asdict") and _speaks(batch._fields):
        batch = batch._asdict()
    if isinstance(batch, Mapping):
        return _from_mapping(batch, needs_x)
    if groups_in_x and isinstance(batch, Tensor):
        return LoaderBatch(batch)
    if not isinstance(batch, tuple | list) or not 1 <= len(batch) <= 3 or (len(batch) == 1 and not groups_in_x):
        found = type(batch).__name__ + (f" of {len(batch)}" if isinstance(batch, tuple | list) else "")
        raise ShapeError(f"a loader gave a {found}, which cannot be read as a batch. {_FORMS}")
    if len(batch) > 1 and all(isinstance(part, tuple | list) and any(map(_is_column, part)) for part in batch):
        raise ShapeError(
            f"a loader gave a list of {len(batch)} rows, each with its own tensors, which nobody has put together. "
            f"Leave collate_fn to the DataLoader, or stack the rows. {_FORMS}"
        )
    if len(batch) == 2 and not groups_in_x:
        return _from_pair(*batch)
    return _checked(LoaderBatch(*batch), needs_x)


def _from_mapping(batch: Mapping[str, Any], needs_x: bool) -> LoaderBatch:
    foreign = {str(key): name for key in batch if (name := ours_for(str(key), _KEYS)) and name not in batch}
    if ("x" if needs_x else "sensitive_features") not in batch or foreign:
        hint = "".join(f" The key '{key}' is called '{name}' here." for key, name in foreign.items())
        raise ShapeError(f"a loader gave a dict with the keys {list(map(str, batch))}.{hint} {_FORMS}")
    return _checked(LoaderBatch(*(batch.get(key) for key in _KEYS)), needs_x)


def _checked(batch: LoaderBatch, needs_x: bool) -> LoaderBatch:
    if needs_x and batch.x is None:
        raise ShapeError(f"a loader gave a batch whose inputs x are None. {_FORMS}")
    if isinstance(batch.y, Mapping):
        raise ShapeError(
            f"a loader gave a batch whose second part, the labels y, is a dict with the keys "
            f"{list(map(str, batch.y))}: sensitive features stand third. {_FORMS}"
        )
    return batch


def _speaks(fields: tuple[str, ...]) -> bool:
    """Return whether a named tuple has x, or names what it holds in another order than (x, y, sensitive_features)."""
    ours = [field if field in _KEYS else ours_for(field, _KEYS) for field in fields]
    return "x" in fields or any(name is not None and ours.index(name) != _KEYS.index(name) for name in ours)


def _is_column(part: Any) -> bool:
    return isinstance(part, Tensor) and part.ndim > 0


def _from_pair(x: Any, second: Any) -> LoaderBatch:
    named = isinstance(second, Mapping) or hasattr(second, "columns") or hasattr(second, "column_names")
    if named:
        return _checked(LoaderBatch(x, None, second), True)
    raise ShapeError(
        f"a loader gave a pair of which the second part is a {type(second).__name__}: it may hold labels or sensitive "
        f"features. {_FORMS} A pair (x, sensitive_features) is read where the second part is a dict of name -> column."
    )
