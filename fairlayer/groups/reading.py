"""What a caller gives as sensitive features -> one array per feature, read when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

import numpy as np
import torch

from fairlayer._arrays import host_array
from fairlayer.errors import CategoryError, FairlayerError, ShapeError, require
from fairlayer.groups.categories import is_missing

__all__ = ["ReadColumns", "named_columns", "read_column", "read_columns"]

_TEXT = {str, NoneType}
_LARGEST = np.iinfo(np.int64).max


class ReadColumns(Mapping[str, Any]):
    """Feature name -> array, read when it is first asked for; all have the same length.

    Args:
        given: feature name -> column of any kind.
        n: number of samples; where it is None, the length of the first column that is read.
    """

    def __init__(self, given: Mapping[Any, Any], n: int | None) -> None:
        self._given = given
        self._n = n
        self._read: dict[str, Any] = {}

    @property
    def n(self) -> int:
        """Number of samples."""
        if self._n is None:
            for name in self:
                self[name]
                break
        return self._n or 0

    def __getitem__(self, name: str) -> Any:
        array = self._read.get(name)
        if array is None:
            array = read_column(name, self.column(name))
            if self._n is None:
                self._n = len(array)
            elif len(array) != self._n:
                self._refuse_length(name, array)
            self._read[name] = array
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(map(str, self._given))

    def __len__(self) -> int:
        return len(self._given)

    def __contains__(self, name: object) -> bool:
        return name in self._given or name in list(self)

    def column(self, name: str) -> Any:
        """Return a column as it was given."""
        try:
            return self._given[name]
        except KeyError:  # a name that is not text, such as the number of a column
            same = [key for key in self._given if str(key) == name]
            if not same:
                raise
            return self._given[same[0]]

    def _refuse_length(self, name: str, array: Any) -> None:
        if self._read:
            lengths = {read: len(values) for read, values in self._read.items()} | {name: len(array)}
            raise ShapeError(f"sensitive features must have one entry per sample, but their lengths are {lengths}.")
        raise ShapeError(
            f"there are {self._n} scores, but the sensitive features have {len(array)} entries ('{name}'). Give one "
            "entry per score."
        )


def read_columns(sensitive_features: Any, names: Sequence[str] = (), n: int | None = None) -> ReadColumns:
    """Return the features that were given, each read when it is first asked for.

    Args:
        sensitive_features: see `read_sensitive_features`.
        names: the features that will be asked for; without names, all are read at once.
        n: number of samples, where it is known.

    Raises:
        ShapeError: it is nothing that holds columns; or a column that is read at once is none.
    """
    columns = ReadColumns(named_columns(sensitive_features, names), n)
    for name in (names or columns) if n is None else ():
        if name in columns:
            columns[name]
    return columns


def named_columns(features: Any, names: Sequence[str] = ()) -> Mapping[Any, Any]:
    """Return what holds columns as a mapping of name -> column, none of which is read yet.

    Raises:
        ShapeError: it holds no columns, or not as many as there are names.
    """
    if isinstance(features, Mapping):
        return features
    _refuse_lazy("sensitive_features", features)
    if _library(features) == "duckdb" and hasattr(features, "fetchnumpy"):
        return _from_relation(features)
    titles = getattr(features, "column_names", None)  # tables of pyarrow, data sets of Hugging Face
    titles = titles if isinstance(titles, list) else getattr(features, "columns", None)
    if titles is not None and not isinstance(features, torch.Tensor | np.ndarray):
        return _Frame(features, list(titles))
    if isinstance(features, torch.Tensor | np.ndarray) and features.ndim == 2 and features.shape[1] == len(names):
        return {name: features[:, place] for place, name in enumerate(names)}
    if len(names) == 1 and _is_soft(features):
        return {names[0]: features}
    if isinstance(features, torch.Tensor | np.ndarray) and (features.ndim != 1 or len(names) != 1):
        raise ShapeError(
            f"the constraints speak of {len(names)} sensitive features {list(names)}, so a bare tensor must "
            f"have shape (n,) for one or (n, {len(names)}), but it has shape {tuple(features.shape)}. "
            "Give one column per name in that order, or a dict of name -> column."
        )
    if len(names) != 1 or features is None or isinstance(features, str | bytes):
        raise ShapeError(
            f"sensitive_features must be a dict of name -> column, a frame, or a tensor of codes, not "
            f"{type(features).__name__}. For one attribute write sensitive_features={{'name': column}}."
        )
    return {names[0]: features}


def read_column(name: str, column: Any) -> Any:
    """Return a column as an array: (n,) of whole numbers, floats, bools, text or objects, or (n, k) floats.

    Raises:
        ShapeError: it is not a column, or has another shape.
        CategoryError: it holds something that neither names a group nor is a number.
    """
    if isinstance(column, torch.Tensor):
        array = _from_tensor(name, column)
    elif isinstance(column, np.ndarray):
        array = _from_array(name, column)
    elif isinstance(column, list | tuple):
        array = _from_values(name, list(column))
    else:
        array = _from_object(name, column)
    if array.ndim == 1 and array.dtype.kind in "iufbO":
        return array
    return _checked(name, array)


# ---- kinds of columns


def _from_tensor(name: str, column: torch.Tensor) -> Any:
    try:
        return host_array(column)
    except FairlayerError:
        raise
    except (TypeError, RuntimeError, NotImplementedError) as error:  # sparse, meta, nested, quantised
        raise ShapeError(
            f"sensitive feature '{name}' must be a plain tensor with data, but is one of layout {column.layout} on "
            f"the device {column.device} ({error}). Use .to_dense() or .cpu()."
        ) from error


def _from_array(name: str, column: Any) -> Any:
    if isinstance(column, np.ma.MaskedArray):
        return _from_masked(name, column)
    if column.dtype.kind == "u" and column.dtype.itemsize == 8 and len(column) and int(column.max()) > _LARGEST:
        return column.astype(object)
    if column.dtype.kind == "O" and column.ndim == 1:
        return _from_values(name, column.tolist(), column)
    if column.dtype.kind in {"M", "m"}:
        return column.astype(object)  # the error is that of any other date
    return column


def _from_masked(name: str, column: Any) -> Any:
    mask = np.ma.getmaskarray(column)
    if column.ndim == 2 and column.dtype.kind == "f":
        return np.where(mask, np.nan, column.data)
    if column.ndim != 1 or column.dtype.names is not None:
        return column.data
    return _from_values(
        name, [None if hidden else value for value, hidden in zip(column.data.tolist(), mask, strict=True)]
    )


def _from_values(name: str, values: list[Any], array: Any = None) -> Any:
    """Return a list as an array of one kind where it has one, of objects where it is a mixture."""
    kinds = set(map(type, values))
    if kinds <= {int} or kinds <= {float} or kinds <= {bool}:
        return _from_numbers(values)
    if not kinds <= _TEXT:
        if any(issubclass(kind, list | tuple | np.ndarray | torch.Tensor) for kind in kinds):
            values = _opened(name, values)
            if isinstance(values, np.ndarray):
                return values
            array = None
        if any(issubclass(kind, float | np.floating) for kind in kinds) and _fractional(values):
            return np.array([np.nan if is_missing(value) else value for value in values], dtype=np.float64)
    if array is None:
        array = np.empty(len(values), dtype=object)
        array[:] = values
    return array


def _from_numbers(values: list[Any]) -> Any:
    try:
        return np.asarray(values) if values else np.zeros(0, dtype=np.int64)
    except OverflowError:
        return np.array(values, dtype=object)


def _opened(name: str, values: list[Any]) -> Any:
    """Return 0-d tensors and arrays as values, and rows of equal length as an array of two dimensions."""
    if all(
        getattr(value, "ndim", 1) == 0 or not isinstance(value, list | tuple | np.ndarray | torch.Tensor)
        for value in values
    ):
        return [value.item() if isinstance(value, np.ndarray | torch.Tensor) else value for value in values]
    try:
        rows = np.stack([host_array(v) if isinstance(v, torch.Tensor) else np.asarray(v) for v in values])
    except (ValueError, TypeError) as error:
        raise ShapeError(
            f"sensitive feature '{name}' is a list of rows of different lengths, or of rows among single values. Give "
            "one category per sample; for soft membership, rows of k >= 2 floats each."
        ) from error
    return rows


def _fractional(values: list[Any]) -> bool:
    """Return whether all values are numbers or missing, and some have fractions or are infinite."""
    numbers = [value for value in values if not is_missing(value)]
    if not all(isinstance(value, int | float | np.integer | np.floating) for value in numbers):
        return False
    return any(not float(value).is_integer() for value in numbers if not isinstance(value, int))


def _from_object(name: str, column: Any) -> Any:
    """Read a column of another library, or refuse what is not a column."""
    _refuse_lazy(f"sensitive feature '{name}'", column)
    library = _library(column)
    if library == "pyarrow" and hasattr(column, "to_pylist") and hasattr(column, "type"):
        return _from_arrow(name, column)
    if library == "duckdb" and hasattr(column, "fetchnumpy"):
        columns = _from_relation(column)
        if len(columns) == 1:
            return read_column(name, next(iter(columns.values())))
    elif not hasattr(column, "columns") and not isinstance(column, np.generic):
        if hasattr(column, "to_numpy"):
            array = np.asarray(column.to_numpy())
            if _may_have_been_whole(array) and hasattr(column, "tolist" if library == "pandas" else "to_list"):
                return _from_values(name, column.tolist() if library == "pandas" else column.to_list())
            return _from_array(name, array)
        if isinstance(column, Sequence) and not isinstance(column, str | bytes | bytearray | memoryview):
            return _from_values(name, list(column))
        if hasattr(column, "__array__"):
            return _from_array(name, np.asarray(column))
    raise ShapeError(
        f"sensitive feature '{name}' is {_described(column)}. It must be a column with one entry per sample: a list, a "
        "tensor, an array, or a column of a frame. Leave out a feature that is not known."
    )


def _may_have_been_whole(array: Any) -> bool:
    """Whether whole numbers beside a missing one became floating numbers, too large to be told apart."""
    return array.dtype.kind == "f" and array.ndim == 1 and bool((np.abs(array) >= 2 / np.finfo(array.dtype).eps).any())


def _from_arrow(name: str, column: Any) -> Any:
    """Read an array, or a chunked one, of pyarrow."""
    types = require("pyarrow", "ray").types
    plain = types.is_integer(column.type) or types.is_floating(column.type)
    if plain and column.null_count == 0:
        return _from_array(name, np.asarray(column))
    return _from_values(name, column.to_pylist())


def _from_relation(relation: Any) -> Mapping[str, Any]:
    """Read a relation of DuckDB, whose columns are arrays with masks."""
    columns: Mapping[str, Any] = relation.fetchnumpy()
    if len(columns) < len(relation.columns):
        return _Frame(columns, list(relation.columns))
    return columns


class _Frame(Mapping[str, Any]):
    """The columns of a frame, each taken out when it is asked for."""

    def __init__(self, frame: Any, titles: list[Any]) -> None:
        self._frame = frame
        self._titles = titles

    def __getitem__(self, name: str) -> Any:
        same = [title for title in self._titles if str(title) == name]
        if not same:
            raise KeyError(name)
        if len(same) > 1:
            raise ShapeError(
                f"the frame has {len(same)} columns named '{name}', so it does not say which is meant. Rename or drop "
                "all but one."
            )
        return self._frame[same[0]]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(map(str, self._titles)))

    def __len__(self) -> int:
        return len(set(map(str, self._titles)))


# ---- refusals


def _checked(name: str, array: Any) -> Any:
    """Return an array of text, or of soft memberships; refuse any other."""
    kind = array.dtype.kind
    if array.dtype.names is not None:
        raise ShapeError(
            f"sensitive feature '{name}' is a structured array with the fields {list(array.dtype.names)}. Give one of "
            "its fields, or a dict of them."
        )
    soft = array.ndim == 2 and array.shape[1] > 1 and kind == "f"
    if array.ndim != 1 and not soft:
        raise ShapeError(
            f"sensitive feature '{name}' must have shape (n,), or (n, k) floats with k >= 2 for soft "
            f"membership, but it has shape {array.shape}. Use column.squeeze(-1) for a single column."
        )
    if kind not in "UTf":
        raise CategoryError(
            f"sensitive feature '{name}' is an array of {array.dtype}, which does not name groups. Give text (decode "
            "bytes first), whole numbers or bools."
        )
    return array


def _refuse_lazy(what: str, given: Any) -> None:
    """Refuse frames that are a plan of a computation: they would be computed in silence, or not at all."""
    for call in ("toPandas", "collect", "compute", "read_all"):
        if hasattr(type(given), call) and not hasattr(given, "to_numpy"):
            raise ShapeError(
                f"{what} is a {type(given).__name__}, which is computed only when it is asked for. Call .{call}() "
                "first, and pass what it returns."
            )


def _is_soft(given: Any) -> bool:
    """Return whether it may be a membership: floats (n, k), k >= 2."""
    if isinstance(given, torch.Tensor):
        return given.is_floating_point() and given.ndim == 2 and given.shape[1] > 1
    return isinstance(given, np.ndarray) and given.dtype.kind == "f" and given.ndim == 2 and given.shape[1] > 1


def _library(given: Any) -> str:
    return type(given).__module__.partition(".")[0].lstrip("_")


def _described(column: Any) -> str:
    kind = type(column).__name__
    if column is None:
        return "None"
    if isinstance(column, str):
        return f"the single text {column[:30]!r}"
    if isinstance(column, set | frozenset):
        return f"a {kind}, which has no order"
    if isinstance(column, Iterator):
        return f"a {kind}, which can be read only once (use list(...))"
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
