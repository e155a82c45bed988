"""What comes in a request, checked before anything is computed: JSON text -> values -> a frame."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fairlayer.data.columns import as_text
from fairlayer.data.encoder import CategoricalColumn
from fairlayer.data.errors import listed
from fairlayer.errors import DataError, require
from fairlayer.training.config import feature_names
from fairlayer.training.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RequestError", "frame_of", "read_body", "read_columns", "read_labels", "unseen_levels"]

_LARGEST = 3e38  # of float32
_SURROGATE = re.compile("[\ud800-\udfff]")


class RequestError(DataError):
    """A request is not what the scorer takes."""


def read_body(
    text: bytes, *, needed: Sequence[str], allowed: Sequence[str] = (), numbers: Sequence[str] = ()
) -> dict[str, Any]:
    """Read a JSON object with lists under the keys `needed`, possibly those `allowed`, and numbers under `numbers`.

    Raises:
        RequestError: it is no such object, or holds NaN or Infinity.

    Example:
        >>> read_body(b'{"ids": [1], "labels": [0]}', needed=("ids", "labels"))
        {'ids': [1], 'labels': [0]}
    """
    try:
        body = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is no JSON that can be read ({error}).") from error
    if not isinstance(body, dict):
        raise RequestError(f"the body must be a JSON object, but is a {_kind(body)}.")
    free = (*allowed, *numbers)
    missing, unknown = [key for key in needed if key not in body], [k for k in body if k not in (*needed, *free)]
    if missing or unknown:
        raise RequestError(
            f"the body must have the keys {listed(needed)}"
            + (f" and may have {listed(free)}" if free else "")
            + f", but has {listed(body, 5) or 'none'}."
        )
    for key, value in body.items():
        if value is None and key in free:
            continue
        if key in numbers:
            if not isinstance(value, int | float) or isinstance(value, bool) or _problem(value):
                raise RequestError(
                    f"'{key}' must be a number of ordinary size, but is {_kind(value)} {str(value)[:20]}."
                )
        elif not isinstance(value, list):
            raise RequestError(f"'{key}' must be a list, but is a {_kind(value)}.")
    return body


def read_labels(labels: list[Any]) -> list[float]:
    """Return labels as numbers.

    Raises:
        RequestError: some are none, or too large.

    Example:
        >>> read_labels([1, 0.0, True])
        [1.0, 0.0, 1.0]
    """
    wrong = [label for label in labels if not isinstance(label, int | float) or _problem(label)]
    if wrong:
        raise RequestError(f"labels must be numbers of ordinary size, but hold {str(wrong[:3])[:80]}.")
    return [float(label) for label in labels]


def read_columns(recipe: Recipe) -> tuple[str, ...]:
    """Return the columns that a record must have: features, and what the sensitive features are made of."""
    sources = {cut.column: cut.source for cut in recipe.cuts}
    sensitive = [sources.get(name, name) for name in feature_names(recipe.config.parsed())]
    return tuple(dict.fromkeys([*(column.name for column in recipe.encoder.columns), *sensitive]))


def frame_of(records: Any, columns: Sequence[str], *, most: int) -> pd.DataFrame:
    """Return records (a list of objects, column -> value; null where missing) as a frame of the columns given.

    Raises:
        RequestError: there are none or too many, a column is missing, or a value is no text, number or null.
    """
    if not isinstance(records, list) or not records:
        raise RequestError("'records' must be a list of at least one object, one for each prediction asked for.")
    if len(records) > most:
        raise RequestError(f"{len(records)} records were sent, at most {most} are taken at once. Send them in parts.")
    for place, record in enumerate(records):
        _check_record(place, record, columns)
    pandas = require("pandas", "train")
    return pandas.DataFrame({name: [record[name] for record in records] for name in columns})


def unseen_levels(recipe: Recipe, frame: pd.DataFrame) -> dict[str, int]:
    """Count, by column, values of categorical features that no training row had; the network sees no level there."""
    counts = {}
    for column in recipe.encoder.columns:
        if isinstance(column, CategoricalColumn):
            known = set(column.levels)
            counts[column.name] = sum(name not in known for name in as_text(frame[column.name]))
    return {name: count for name, count in counts.items() if count}


def _check_record(place: int, record: Any, columns: Sequence[str]) -> None:
    if not isinstance(record, Mapping):
        raise RequestError(f"record {place} must be an object of column -> value, but is a {_kind(record)}.")
    missing = [name for name in columns if name not in record]
    if missing:
        raise RequestError(
            f"record {place} lacks {listed(missing)}. It must have {listed(columns, 40)}; "
            "write null where a value is not known."
        )
    for name in columns:
        problem = _problem(record[name])
        if problem:
            raise RequestError(f"record {place}: '{name}' {problem}. Give text, a number, true, false or null.")


def _problem(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return "is no text that can be encoded (half of a surrogate pair)" if _SURROGATE.search(value) else None
    if not isinstance(value, int | float):
        return f"is a {_kind(value)}"
    if isinstance(value, float) and math.isnan(value):
        return "is NaN"
    return None if abs(value) <= _LARGEST else f"is too large for a number ({str(value)[:12]}...)"


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON value; write null where a number is missing")


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
