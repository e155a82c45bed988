"""What a stream with a store is asked, checked and made plain before anything changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairlayer.constraints import Constraint
from fairlayer.edge import as_columns, feature_names, read_groups, read_per_sample
from fairlayer.errors import ConstraintDefinitionError, ShapeError
from fairlayer.groups import Groups, Vocabulary
from fairlayer.streaming.store import Id, IdReusedError, LabelChangedError, StoredAnswer, UnknownIdError

__all__ = [
    "Asked",
    "Delivered",
    "Emitted",
    "Part",
    "categories_of",
    "check_known",
    "check_same",
    "read_asked",
    "read_labels",
]

_LONGEST_ID = 256


class Emitted(NamedTuple):
    """What a call was answered, all (n,).

    Args:
        emitted: predictions.
        raw: the raw scores that they were made from.
        repeated: whether an id had come before, and got what it got then.
    """

    emitted: Tensor
    raw: Tensor
    repeated: list[bool]


class Delivered(NamedTuple):
    """What became of labels.

    Args:
        counted: labels that had not come before, and are stored.
        waiting: labels that are kept in memory until the store is back; they are checked and counted then.
    """

    counted: int
    waiting: int = 0


@dataclass(frozen=True)
class Part:
    """The samples of a request that have no answer yet.

    Args:
        raw: (n,) raw scores.
        features: sensitive feature -> (n,) categories.
        ids: (n,) or None.
        at: seconds on the caller's clock.
        digests: (n,) of the records, or None.
        counters: numbers to be added to those that the store keeps.
        inputs: (n,) what the model read, or None.
        read: (n,) what the model said, or None where that is `raw`.
    """

    raw: Tensor
    features: dict[str, list[Any]]
    ids: list[Id] | None
    at: float | None
    digests: list[str] | None
    counters: dict[str, int] | None
    inputs: list[object] | None
    read: list[float] | None = None


@dataclass(frozen=True)
class Asked:
    """A request for predictions: all of its samples, see `Part`."""

    whole: Part

    @property
    def ids(self) -> list[Id]:
        """The ids, none where none were given."""
        return self.whole.ids or []

    def unanswered(self, known: Mapping[Id, StoredAnswer]) -> list[int]:
        """Return which samples have no answer yet.

        Raises:
            IdReusedError: an id was answered before for another record.
        """
        ids, marks = self.whole.ids, self.whole.digests
        if ids is None:
            return list(range(len(self.whole.raw)))
        for i, key in enumerate(ids):
            _check_record(key, known.get(key), None if marks is None else marks[i])
        return [i for i, key in enumerate(ids) if key not in known]

    def part(self, rows: Sequence[int]) -> Part:
        """Return some of the samples."""
        whole = self.whole
        return Part(
            whole.raw[list(rows)],
            {name: [column[i] for i in rows] for name, column in whole.features.items()},
            _some(whole.ids, rows),
            whole.at,
            _some(whole.digests, rows),
            whole.counters,
            _some(whole.inputs, rows),
            _some(whole.read, rows),
        )

    def answered(self, rows: Sequence[int], answers: Tensor | None, known: Mapping[Id, StoredAnswer]) -> Emitted:
        """Return the answers (n,): new ones for some of the samples, and for the others what was answered before."""
        emitted, raw = self.whole.raw.clone(), self.whole.raw.clone()
        if answers is not None:
            emitted[list(rows)] = answers
        new = set(rows)
        for i, key in enumerate(self.ids):
            if i not in new:
                emitted[i], raw[i] = known[key].emitted, known[key].raw
        return Emitted(emitted, raw, [i not in new for i in range(len(raw))])


def read_asked(
    scores: Tensor,
    sensitive_features: Any,
    *,
    constraints: Sequence[Constraint],
    vocabulary: Vocabulary | None,
    ids: Sequence[Id] | None = None,
    at: float | None = None,
    digests: Sequence[str] | None = None,
    counters: Mapping[str, int] | None = None,
    inputs: Sequence[object] | None = None,
    read: Sequence[float] | None = None,
) -> Asked:
    """Check a request and make it plain.

    Raises:
        ShapeError: scores or ids are none, or lengths differ.
        CategoryError: a category is not known.
    """
    raw, keys = _column_of(scores), None if ids is None else _checked_ids(ids, scores.numel())
    groups = read_groups(sensitive_features, constraints, len(raw), vocabulary)
    features = {name: categories_of(groups, name) for name in feature_names(constraints)}
    marks, counted = None if digests is None else list(digests), None if counters is None else dict(counters)
    told = None if inputs is None else list(inputs)
    return Asked(Part(raw, features, keys, at, marks, counted, told, None if read is None else list(read)))


def _some(values: list[Any] | None, rows: Sequence[int]) -> list[Any] | None:
    return None if values is None else [values[i] for i in rows]


def _check_record(key: Id, known: StoredAnswer | None, digest: str | None) -> None:
    """See that an id which was answered before comes with the record that it came with then.

    Raises:
        IdReusedError: it comes with another.
    """
    if known is not None and None not in (digest, known.digest) and digest != known.digest:
        raise IdReusedError(
            f"the id {key!r} was answered before for another record. Give each record an id of its own; the same id is "
            "for asking again for the same answer."
        )


def categories_of(groups: Groups, name: str) -> list[Any]:
    """Return one feature as plain categories, None where unknown: values that a store can hold."""
    column = groups.column(name)
    if column.codes is None:
        return list(groups.raw[name].tolist())
    words = (*column.categories, None)  # the code -1 is the last
    return [words[code] for code in column.codes.tolist()]


def _column_of(scores: Tensor) -> Tensor:
    """Return raw scores (n,) in double precision, a copy.

    Raises:
        ShapeError: they are no one score per sample.
    """
    as_columns(scores, empty=True)  # whole numbers and bools are not scores
    if scores.ndim == 2 and scores.shape[1] != 1:
        raise ShapeError(f"a stream takes one score per sample, (n,) or (n, 1), but found {tuple(scores.shape)}.")
    return scores.detach().to("cpu", torch.float64, copy=True).reshape(-1)


def _checked_ids(ids: Sequence[Id], n: int) -> list[Id]:
    """Return the ids of n samples.

    Raises:
        ShapeError: one is not an id, one is given twice, or there are more or fewer.
    """
    keys = list(ids)
    if len(keys) != n:
        raise ShapeError(f"there are {n} samples, but {len(keys)} ids. Give one id per sample.")
    wrong = [key for key in keys if not _is_id(key)]
    if wrong:
        raise ShapeError(
            f"an id is a string of at most {_LONGEST_ID} characters, or a whole number below 2^63, "
            f"but found {wrong[:3]}."
        )
    if len(set(keys)) < n:
        raise ShapeError("an id is given twice in one call. Each sample needs an id of its own.")
    return keys


def _is_id(key: object) -> bool:
    if isinstance(key, str):
        return len(key) <= _LONGEST_ID and not any("\ud800" <= letter <= "\udfff" for letter in key)
    return isinstance(key, int) and not isinstance(key, bool) and -(2**63) <= key < 2**63


def read_labels(ids: Sequence[Id], y: Any, *, labelled: bool) -> dict[Id, float]:
    """Return id -> label of labels that are delivered.

    Args:
        ids: the ids of earlier predictions.
        y: a label for each.
        labelled: whether some constraint looks at labels.

    Raises:
        ConstraintDefinitionError: none does.
        ShapeError: an id is none, or lengths differ.
    """
    keys = _checked_ids(ids, len(list(ids)))
    column = read_per_sample("y", y, (len(keys),))
    assert column is not None
    if not labelled:
        raise ConstraintDefinitionError(
            "labels were delivered, but no constraint of this stream looks at labels: there is nothing to count."
        )
    return dict(zip(keys, (float(label) for label in column[:, 0]), strict=True))


def check_known(ids: Iterable[Id], known: Mapping[Id, Any]) -> None:
    """See that there is a prediction for each id.

    Raises:
        UnknownIdError: there is none.
    """
    missing = [key for key in ids if key not in known]
    if missing:
        raise UnknownIdError(
            f"labels came for the ids {missing[:5]}, of which no prediction is known: an id is given when a "
            "prediction is asked for, and remembered for as long as the store says."
        )


def check_same(labels: Mapping[Id, float], known: Mapping[Id, Any]) -> None:
    """See that no id had another label before.

    Raises:
        LabelChangedError: one had.
    """
    changed = [key for key, label in labels.items() if known[key].label not in (None, label)]
    if changed:
        raise LabelChangedError(
            f"another label was delivered before for the ids {changed[:5]}. A label is counted once and not taken back."
        )
