"""What comes in a request, checked before anything is computed: JSON text -> values -> a frame."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fairlayer.data.columns import as_text
from fairlayer.data.encoder import CategoricalColumn
from fairlayer.data.errors import listed
from fairlayer.errors import DataError, require
from fairlayer.serving.fields import Field, kind_of, problem_of
from fairlayer.training.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RequestError", "frame_of", "read_body", "read_labels", "unseen_levels"]


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
        raise RequestError(f"the body is not JSON that can be read ({error}).") from error
    if not isinstance(body, dict):
        raise RequestError(f"the body must be a JSON object, but is {kind_of(body)}.")
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
            if not isinstance(value, int | float) or isinstance(value, bool) or problem_of(value):
                raise RequestError(
                    f"'{key}' must be a number of ordinary size, but is {kind_of(value)}, {str(value)[:20]}."
                )
        elif not isinstance(value, list):
            raise RequestError(f"'{key}' must be a list, but is {kind_of(value)}.")
    if body.get("ids") is not None:
        body["ids"] = [_whole(each) for each in body["ids"]]
    return body


def _whole(value: Any) -> Any:
    """A number without a fraction is a whole one, however it is written: 17.0 is 17."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def read_labels(labels: list[Any]) -> list[float]:
    """Return labels as numbers.

    Raises:
        RequestError: some are none, or too large.

    Example:
        >>> read_labels([1, 0.0, True])
        [1.0, 0.0, 1.0]
    """
    wrong = [label for label in labels if not isinstance(label, int | float) or problem_of(label)]
    if wrong:
        raise RequestError(f"labels must be numbers of ordinary size, but hold {str(wrong[:3])[:80]}.")
    return [float(label) for label in labels]


def frame_of(records: Any, fields: Sequence[Field], *, most: int) -> pd.DataFrame:
    """Return records (a list of objects, column -> value; null where missing) as a frame of the fields given.

    Raises:
        RequestError: there are none or too many, a column is missing, or a value is not what its column holds.
    """
    if not isinstance(records, list) or not records:
        raise RequestError("'records' must be a list of at least one object, one for each prediction asked for.")
    if len(records) > most:
        raise RequestError(f"{len(records)} records were sent, at most {most} are taken at once. Send them in parts.")
    for place, record in enumerate(records):
        _check_record(place, record, fields)
    pandas = require("pandas", "train")
    return pandas.DataFrame({field.name: [record[field.name] for record in records] for field in fields})


def unseen_levels(recipe: Recipe, frame: pd.DataFrame) -> dict[str, int]:
    """Count, by column, values of categorical features that no training row had; the network sees no level there."""
    counts = {}
    for column in recipe.encoder.columns:
        if isinstance(column, CategoricalColumn):
            known = set(column.levels)
            counts[column.name] = sum(name not in known for name in as_text(frame[column.name]))
    return {name: count for name, count in counts.items() if count}


def _check_record(place: int, record: Any, fields: Sequence[Field]) -> None:
    if not isinstance(record, Mapping):
        raise RequestError(f"record {place} must be an object of column -> value, but is {kind_of(record)}.")
    missing = [field.name for field in fields if field.name not in record]
    if missing:
        raise RequestError(
            f"record {place} lacks {listed(missing)}. It must have {listed([field.name for field in fields], 40)}; "
            "write null where a value is not known."
        )
    for field in fields:
        problem = field.problem(record[field.name])
        if problem:
            raise RequestError(f"record {place}: '{field.name}' {problem}.")


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON value; write null where a number is missing")
