"""A batch of scores -> one record for each person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlayer.errors import ShapeError
from fairlayer.trail.records import Decision

__all__ = ["decisions_of"]


def decisions_of(
    emitted: Sequence[float],
    *,
    time: float,
    cells: Mapping[str, Sequence[Any]],
    raw: Sequence[float] | None = None,
    decisions: Sequence[Any] | None = None,
    subjects: Sequence[str] | None = None,
    inputs: Sequence[object] | None = None,
    **same: Any,
) -> list[Decision]:
    """Return the records of a batch, to be appended together: `trail.append(decisions_of(...))`.

    Args:
        emitted: (n,) the scores that were answered.
        time: the time, on the caller's clock.
        cells: sensitive feature -> (n,) categories; None for one that is not known.
        raw: (n,) the scores before the layer; the shift is their difference.
        decisions: (n,) what was decided.
        subjects: (n,) who they are; an HMAC is written.
        inputs: (n,) what the model read; an HMAC is written.
        **same: what is the same for all of them: phase, policy, limit, model, package, details.

    Raises:
        ShapeError: a column has another length.

    Example:
        >>> first, second = decisions_of([0.5, 0.4], time=0.0, cells={"sex": ["F", "M"]}, raw=[0.25, 0.4], model="v7")
        >>> first.shift, first.cells, second.model
        (0.25, {'sex': 'F'}, 'v7')
    """
    n = len(emitted)
    columns: dict[str, Sequence[Any] | None] = {"raw": raw, "decisions": decisions, "subjects": subjects,
                                                "inputs": inputs, **cells}  # fmt: skip
    wrong = {name: len(column) for name, column in columns.items() if column is not None and len(column) != n}
    if wrong:
        raise ShapeError(f"every column of a batch has one entry per score, {n}, but these have {wrong}.")

    def at(column: Sequence[Any] | None, row: int) -> Any:
        return None if column is None else column[row]

    return [
        Decision(
            time=time,
            subject=at(subjects, row),
            input=at(inputs, row),
            cells={name: column[row] for name, column in cells.items()},
            raw=None if raw is None else float(raw[row]),
            emitted=float(score),
            decision=at(decisions, row),
            shift=None if raw is None else float(score) - float(raw[row]),
            **same,
        )
        for row, score in enumerate(emitted)
    ]
