"""The parts of a document on single people: how alike people are treated alike, and what a changed group changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.audit.individual import Flips, consistency, flip_test
from fairlayer.data.columns import as_numbers, as_text, column_of
from fairlayer.errors import ParameterError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["alike", "distances_of", "flips_of", "individual_section"]

NEIGHBOURS = 5


def alike(
    frame: pd.DataFrame,
    columns: Sequence[str],
    *,
    scores: Any = None,
    decisions: Any = None,
    neighbours: int = NEIGHBOURS,
) -> dict[str, Any]:
    """Compare every person with those nearest by some columns.

    Args:
        frame: the people.
        columns: the columns by which people are alike; numbers are scaled by their deviation, categories are alike or
            not.
        scores: (n,) predictions; None where there are none.
        decisions: (n,) of 0 and 1; None where there are none.
        neighbours: how many others a person is compared with.

    Raises:
        ParameterError: there are not more people than neighbours.
        DataError: a column is missing.
    """
    x = distances_of(frame, columns)
    if len(x) <= neighbours:
        raise ParameterError(f"each person is compared with {neighbours} others, but there are {len(x)} people in all.")
    kept = {"scores": scores, "decisions": decisions}
    found = {name: consistency(x, values, neighbours=neighbours) for name, values in kept.items() if values is not None}
    return {"columns": list(columns), "neighbours": neighbours, "people": len(x), "consistency": found}


def distances_of(frame: pd.DataFrame, columns: Sequence[str]) -> FloatArray:
    """Return the columns as numbers whose Euclidean distances compare people: (n, k).

    A number is divided by its deviation, what is missing becomes the mean; of a category, two different ones are as far
    apart as numbers that differ by one deviation.
    """
    parts: list[FloatArray] = []
    for name in columns:
        column = column_of(frame, name, "compared")
        if column.dtype.kind in "biuf":
            numbers = as_numbers(column)
            mean = float(np.nanmean(numbers)) if not np.isnan(numbers).all() else 0.0
            filled = np.where(np.isnan(numbers), mean, numbers) - mean
            parts.append((filled / (filled.std() or 1.0))[:, None])
            continue
        names = as_text(column)
        known = sorted({str(word) for word in names})
        parts.append(np.array([[str(word) == one for one in known] for word in names], dtype=np.float64) / np.sqrt(2.0))
    return np.hstack(parts)


def flips_of(
    predict: Callable[[Any], Any], frame: pd.DataFrame, columns: Sequence[str], *, threshold: float = 0.5
) -> dict[str, Flips]:
    """Ask a model about everybody with each other value of a sensitive column, for every column that has two values."""
    several = [name for name in columns if frame[name].nunique() > 1]
    return {name: flip_test(predict, frame, name, threshold=threshold) for name in several}


def individual_section(
    near: Mapping[str, Any] | None, flips: Mapping[str, Flips] | None = None, *, decided: bool = True
) -> dict[str, Any]:
    """Return the part of the document, with its sentences."""
    return {
        "alike": None if near is None else dict(near),
        "flips": [{"column": name, **vars(one)} for name, one in (flips or {}).items()],
        "sentences": [*_alike_sentences(near), *(_flip(name, one, decided) for name, one in (flips or {}).items())],
    }


def _alike_sentences(near: Mapping[str, Any] | None) -> list[str]:
    if near is None:
        return []
    by = ", ".join(near["columns"])
    told = [f"{near['people']:,} people were compared with the {near['neighbours']} others who are nearest by {by}."]
    found = near["consistency"]
    if "decisions" in found:
        told.append(
            f"The decision on a person differs from those on these others in {100 * (1 - found['decisions']):.1f} of "
            f"100 comparisons (consistency {found['decisions']:.3f})."
        )
    if "scores" in found:
        told.append(
            f"A person's score differs from the mean of these others' by {1 - found['scores']:.3f} on average "
            f"(consistency {found['scores']:.3f})."
        )
    return told


def _flip(name: str, found: Flips, decided: bool) -> str:
    asked = f"The model was asked again about {found.rows:,} people with every other value of {name}, all else the same"
    change = f"scores change by {found.mean_change:.3f} on average, and by {found.largest_change:.3f} at most"
    flips = f"; the decision on {found.changed:,} of them would be another" if decided else ""
    return f"{asked}: {change}{flips}. What other columns tell about {name} stayed as it was, so it may do more."
