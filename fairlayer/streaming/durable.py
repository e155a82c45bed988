"""A stream that outlives its process: every step is in the store before its predictions are released."""

from __future__ import annotations

import io
import pickle
import sqlite3
import struct
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fairlayer.constraints import Constraint
from fairlayer.edge import as_columns, feature_names, read_groups, read_per_sample
from fairlayer.errors import ConstraintDefinitionError, ShapeError
from fairlayer.groups import Groups, Vocabulary
from fairlayer.streaming.recording import Answered, Witness
from fairlayer.streaming.state import InferenceState
from fairlayer.streaming.store import (
    Answer,
    Id,
    IdReusedError,
    LabelChangedError,
    Step,
    StoreError,
    StoreView,
    StreamStore,
    UnknownIdError,
)

__all__ = [
    "Delivered",
    "DurableStream",
    "Emitted",
    "Finish",
    "answered_of",
    "categories_of",
    "check_known",
    "check_record",
    "check_same",
    "checked_ids",
    "column_of",
    "finished",
    "limits_of",
    "owner_of",
    "read_labels",
    "read_state",
    "recount",
]

_LONGEST_ID = 256
_UNREADABLE = (EOFError, LookupError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError, struct.error)


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


class Finish(Protocol):
    """What turns emitted predictions into answers, such as decisions, and remembers what it has to."""

    owner: str

    def answers(self, features: Mapping[str, Sequence[Any]], emitted: Sequence[float]) -> list[float]:
        """Return the answers, and remember."""

    def recount(
        self, features: Mapping[str, Sequence[Any]], emitted: Sequence[float], answers: Sequence[float]
    ) -> None:
        """Remember answers that were given before."""

    def counters(self, features: Mapping[str, Sequence[Any]], answers: Sequence[float]) -> Mapping[str, int]:
        """Return what the store is to count of answers."""

    def to_state(self) -> dict[str, float]:
        """Return plain numbers."""

    def load_state(self, state: Mapping[str, float]) -> None:
        """Restore what `to_state` returned."""


class Delivered(NamedTuple):
    """What became of labels.

    Args:
        counted: labels that had not come before, and are stored.
        waiting: labels that are kept in memory until the store is back; they are checked and counted then.
    """

    counted: int
    waiting: int = 0


class DurableStream:
    """An `InferenceState` and the store that it resumes from.

    A new store begins with the state as it stands (a warm start included). A store that holds a stream replaces it:
    last snapshot, then a recount of the logged steps, which emits nothing anew. Afterwards change the state through
    this object only.

    Args:
        state: of the constraints whose stream the store holds.
        store: where to.
        vocabulary: closed, where a new category is to be an error.
        finish: what turns predictions into answers; None to answer them.
        witness: writes beside each step of predictions, in its transaction, such as a `Recorder` of an audit trail.

    Raises:
        StoreError: the store holds the stream of other constraints.

    Example:
        >>> import torch, fairlayer as fl
        >>> state = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.1)], bounds=(0.0, 1.0))
        >>> stream = DurableStream(state, StreamStore(":memory:"))
        >>> first = stream.emit(torch.tensor([0.9]), {"sex": ["F"]}, ids=["request 1"])
        >>> again = stream.emit(torch.tensor([0.9]), {"sex": ["F"]}, ids=["request 1"])
        >>> bool(first == again), stream.state.samples
        (True, 1)
    """

    def __init__(
        self,
        state: InferenceState,
        store: StreamStore,
        *,
        vocabulary: Vocabulary | None = None,
        finish: Finish | None = None,
        witness: Witness | None = None,
    ) -> None:
        self.state, self.store, self._finish, self._witness = state, store, finish, witness
        self.lock = threading.RLock()
        self._words = vocabulary if vocabulary is not None and not vocabulary.open else None
        self._constraints = state.constraints
        self._labelled = any(constraint.needs_labels for constraint in self._constraints)
        self._ahead = False  # the state in memory holds a step that the store does not
        self._resume()

    def emit(
        self,
        scores: Tensor,
        sensitive_features: Any,
        *,
        ids: Sequence[Id] | None = None,
        at: float | None = None,
    ) -> Tensor:
        """Return predictions for raw scores (n,) or (n, 1), counted and stored; half precision becomes float32.

        Args:
            scores: raw scores.
            sensitive_features: see `project`.
            ids: one per sample. An id that has come before gets the prediction that it got then, and is not counted
                again, whatever its score is now.
            at: seconds on the caller's clock, see `InferenceState.emit`.

        Raises:
            StoreError: the step could not be written; nothing is counted.
            FairlayerError: as for `InferenceState.emit`; nothing is counted.
        """
        found = self.answer(scores, sensitive_features, ids=ids, at=at)
        kept = torch.float64 if scores.dtype is torch.float64 else torch.float32
        return found.emitted.to(kept).to(scores.device).reshape(scores.shape)

    def answer(
        self,
        scores: Tensor,
        sensitive_features: Any,
        *,
        ids: Sequence[Id] | None = None,
        at: float | None = None,
        digests: Sequence[str] | None = None,
        counters: Mapping[str, int] | None = None,
        inputs: Sequence[object] | None = None,
    ) -> Emitted:
        """Return the same in double precision, beside the raw scores and which ids had come before.

        Args:
            scores: raw scores.
            sensitive_features: see `project`.
            ids: see `emit`.
            at: see `emit`.
            digests: one per sample, of the record that it was made from. An id that comes again must bring the same.
            counters: numbers to be added to those that the store keeps, where anything is counted.
            inputs: one per sample, what the model read, for the witness.

        Raises:
            IdReusedError: an id was answered before for another record; nothing is counted.
        """
        raw, keys = column_of(scores), None if ids is None else checked_ids(ids, scores.numel())
        groups = read_groups(sensitive_features, self._constraints, len(raw), self._words)
        columns = {name: categories_of(groups, name) for name in feature_names(self._constraints)}
        emitted = raw.clone()
        with self.lock:
            known = self.store.answers(keys) if keys else {}
            for i, key in enumerate(keys or ()):
                check_record(key, known.get(key), None if digests is None else digests[i])
            fresh = [i for i in range(len(raw)) if keys is None or keys[i] not in known]
            if fresh or not len(raw):
                part = {name: [column[i] for i in fresh] for name, column in columns.items()}
                emitted[fresh] = self._step(
                    raw[fresh],
                    part,
                    None if keys is None else [keys[i] for i in fresh],
                    at=at,
                    digests=None if digests is None else [digests[i] for i in fresh],
                    counters=None if counters is None else dict(counters),
                    inputs=None if inputs is None else [inputs[i] for i in fresh],
                )
        for i, key in enumerate(keys or ()):
            if key in known:
                emitted[i], raw[i] = known[key].emitted, known[key].raw
        return Emitted(emitted, raw, [i not in set(fresh) for i in range(len(raw))])

    @property
    def counters(self) -> dict[str, int]:
        """The counters that the store keeps."""
        return self.store.counters()

    def observe_labels(self, ids: Sequence[Id], y: Any) -> int:
        """Deliver labels of earlier predictions; return how many were new (the same label again counts once).

        Raises:
            ConstraintDefinitionError: no constraint looks at labels.
            LabelChangedError: an id had another label before.
            UnknownIdError: an id has no prediction; nothing is counted.
            ShapeError: a prediction had to make room for later ones; nothing is counted.
        """
        told = read_labels(ids, y, labelled=self._labelled)
        keys, labels = list(told), list(told.values())
        with self.lock:
            known = self.store.answers(keys)
            check_known(keys, known)
            check_same(told, known)
            new = [i for i, key in enumerate(keys) if known[key].label is None]
            if new:
                self._label([keys[i] for i in new], [labels[i] for i in new])
        return len(new)

    def deliver_labels(self, ids: Sequence[Id], y: Any) -> Delivered:
        """Deliver labels as `observe_labels` does; none of them ever waits here."""
        return Delivered(self.observe_labels(ids, y))

    def reset(self) -> None:
        """Forget everything, in the store too."""
        with self.lock:
            self._ahead = True  # until both have forgotten
            self.store.forget()
            self.state.reset()
            self._snapshot()
            self._ahead = False

    def close(self) -> None:
        """Write the state whole and let go of the file."""
        with self.lock:
            if not self._ahead:
                self._snapshot()
            self.store.close()

    def __enter__(self) -> DurableStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- steps

    def _step(
        self,
        raw: Tensor,
        features: dict[str, list[Any]],
        ids: list[Id] | None,
        *,
        at: float | None,
        inputs: list[object] | None,
        **more: Any,
    ) -> Tensor:
        self._catch_up()
        # In double precision, so that the number counted is the number stored and, as JSON, the number sent.
        emitted = self.state.emit(raw, features, ids=ids if self._labelled else None, vocabulary=self._words, at=at)
        self._ahead = True  # what finishes may have remembered answers that are not stored
        step = finished(Step(ids, {}, raw.tolist(), emitted.tolist(), features, at=at, **more), self._finish)
        self._write(step, self._beside(step, inputs))
        return torch.tensor(step.answered, dtype=torch.float64)

    def _beside(self, step: Step, inputs: list[object] | None) -> Callable[[sqlite3.Connection], None] | None:
        """Return what the witness writes in the step's transaction."""
        if self._witness is None or step.raw is None:
            return None
        return partial(self._witness, step=answered_of(self.state, step, inputs))

    def _label(self, ids: list[Id], labels: list[float]) -> None:
        self._catch_up()
        self.state.observe_labels(ids, labels)
        self._write(Step(ids, {}, labels=labels))

    def _write(self, step: Step, beside: Callable[[sqlite3.Connection], None] | None = None) -> None:
        """Store the step that the state has just taken, or take it back."""
        self._ahead = True
        try:
            self.store.append(step._replace(meters=self.state.meters()), beside)
        except BaseException:
            self._resume()
            raise
        self._ahead = False
        if self.store.due:
            try:
                self._snapshot()
            except StoreError as error:  # the step itself is stored, and so is every one that the log still holds
                warnings.warn(f"no snapshot was written, the log grows on: {error}", stacklevel=2)

    def _snapshot(self) -> None:
        buffer = io.BytesIO()
        saved = self.state.state_dict()
        if self._finish is not None:
            saved["finish"] = self._finish.to_state()
        torch.save(saved, buffer)
        self.store.snapshot(buffer.getvalue(), owner_of(self._constraints, self._finish))

    # ---- resuming

    def _catch_up(self) -> None:
        if self._ahead:  # an earlier step could neither be stored nor taken back
            self._resume()

    def _resume(self) -> None:
        self._check_owner()
        snapshot, steps = self.store.load()
        if snapshot is None:
            self._snapshot()
            return
        _restore(self.state, snapshot, self.store.path, self._finish)
        recount(self.state, steps, self._words, self._finish)
        self._ahead = False

    def _check_owner(self) -> None:
        _check_owner(self._constraints, self.store, self._finish)


def read_state(path: str | Path, state: InferenceState, vocabulary: Vocabulary | None) -> InferenceState:
    """Bring an empty state to where the stream in a file stands, also while another process goes on with it.

    Args:
        path: of the store.
        state: of the same constraints and policy.
        vocabulary: of the stream.

    Raises:
        StoreError: there is no such store, or it holds the stream of other constraints.
    """
    with StoreView(path) as view:
        _check_owner(state.constraints, view, None)
        snapshot, steps = view.load()
    if snapshot is not None:
        _restore(state, snapshot, str(path), None)
        recount(state, steps, None if vocabulary is None or vocabulary.open else vocabulary, None)
    return state


def _restore(state: InferenceState, snapshot: bytes, path: str, finish: Finish | None) -> None:
    try:
        saved = torch.load(io.BytesIO(snapshot), weights_only=True)
        state.load_state_dict(saved)
        if finish is not None:
            finish.load_state(saved["finish"])
    except ConstraintDefinitionError:  # it says which
        raise
    except _UNREADABLE as error:
        raise StoreError(
            f"the store '{path}' holds a state that this version cannot read ({error!r}). Begin a new file."
        ) from error


def _check_owner(constraints: Sequence[Constraint], store: StreamStore | StoreView, finish: Finish | None) -> None:
    names, owner = owner_of(constraints, finish), store.constraints()
    if owner is not None and owner != names:
        raise StoreError(
            f"the store '{store.path}' holds a stream under {owner}, but this model has {names}. "
            "Begin a new file: pooled means of two streams do not mix."
        )


def owner_of(constraints: Sequence[Constraint], finish: Finish | None) -> list[str]:
    """Return whose stream it is, as a store keeps it: constraints, and what finishes."""
    return [*(constraint.name for constraint in constraints), *(() if finish is None else (finish.owner,))]


def finished(step: Step, finish: Finish | None) -> Step:
    """Return a step with its answers, and with what is to be counted of them."""
    if finish is None or step.features is None or step.emitted is None:
        return step
    answers = finish.answers(step.features, step.emitted)
    counted = Counter(step.counters or {}) + Counter(finish.counters(step.features, answers))
    return step._replace(answers=answers, counters=dict(counted))


def recount(
    state: InferenceState, steps: Sequence[Step], vocabulary: Vocabulary | None, finish: Finish | None = None
) -> None:
    """Count logged steps as they were emitted; nothing is decided anew."""
    labelled = any(constraint.needs_labels for constraint in state.constraints)
    for step in steps:
        if step.emitted is None or step.raw is None:
            state.observe_labels(step.ids or [], step.labels)
            continue
        raw, emitted = (torch.tensor(values, dtype=torch.float64) for values in (step.raw, step.emitted))
        state.absorb(raw, emitted, step.features, vocabulary, ids=step.ids if labelled else None, at=step.at)
        if finish is not None:
            finish.recount(step.features or {}, step.emitted, step.answered)
    if steps:
        saved = state.state_dict()
        saved["machine"]["rule"] = steps[-1].meters["rule"]
        saved["machine"]["policy"].update(steps[-1].meters["policy"])
        state.load_state_dict(saved)


def answered_of(state: InferenceState, step: Step, inputs: Sequence[object] | None) -> Answered:
    """Return what a step of predictions, just taken, was asked and answers."""
    return Answered(
        step.features or {},
        step.raw or [],
        step.answered,
        state.phase.value,
        state.policy.name,
        limits_of(state.constraints),
        ids=step.ids,
        at=step.at,
        inputs=inputs,
    )


def limits_of(constraints: Iterable[Constraint]) -> dict[str, float]:
    """Return what each constraint holds its number to, by name; those without a number are left out."""
    return {one.name: float(one.limit) for one in constraints if one.limit is not None}


def check_record(key: Id, known: Answer | None, digest: str | None) -> None:
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


def column_of(scores: Tensor) -> Tensor:
    """Return raw scores (n,) in double precision, a copy.

    Raises:
        ShapeError: they are no one score per sample.
    """
    as_columns(scores, empty=True)  # whole numbers and bools are no scores
    if scores.ndim == 2 and scores.shape[1] != 1:
        raise ShapeError(f"a stream takes one score per sample, (n,) or (n, 1), but found {tuple(scores.shape)}.")
    return scores.detach().to("cpu", torch.float64, copy=True).reshape(-1)


def checked_ids(ids: Sequence[Id], n: int) -> list[Id]:
    """Return the ids of n samples.

    Raises:
        ShapeError: one is no id, one is given twice, or there are more or fewer.
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
        ids: of earlier predictions.
        y: a label for each.
        labelled: whether some constraint looks at labels.

    Raises:
        ConstraintDefinitionError: none does.
        ShapeError: an id is none, or lengths differ.
    """
    keys = checked_ids(ids, len(list(ids)))
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
