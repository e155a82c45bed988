"""A stream that outlives its process: every step is in the store before its predictions are released."""

from __future__ import annotations

import io
import pickle
import sqlite3
import struct
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairlayer.constraints import Constraint
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.groups import Vocabulary
from fairlayer.streaming.state import InferenceState
from fairlayer.streaming.store import Id, Step, StoreError, StoreView, StreamStore
from fairlayer.streaming.stores.asking import Delivered, Emitted, Part, check_known, check_same, read_asked, read_labels
from fairlayer.streaming.stores.finishing import Finish, answered_of, finished, owner_of, recount, step_of
from fairlayer.streaming.stores.recording import Witness

__all__ = ["DurableStream", "read_state"]

_UNREADABLE = (EOFError, LookupError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError, struct.error)


class DurableStream:
    """An `InferenceState` and the store that it resumes from.

    A new store begins with the state as it stands (a warm start included). A store that holds a stream replaces it:
    last snapshot, then a recount of the logged steps, which emits nothing anew. Afterwards change the state through
    this object only.

    Args:
        state: the state of the constraints whose stream the store holds.
        store: the store to write to.
        vocabulary: closed, where a new category is to be an error.
        finish: what turns predictions into answers; None to answer them.
        witness: what writes beside each step of predictions, in its transaction, such as a `Recorder` of an audit
            trail.

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
        read: Sequence[float] | None = None,
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
            read: one per sample, what the model said, for the witness, where `scores` are what a rule made of it.

        Raises:
            IdReusedError: an id was answered before for another record; nothing is counted.
        """
        asked = read_asked(
            scores,
            sensitive_features,
            constraints=self._constraints,
            vocabulary=self._words,
            ids=ids,
            at=at,
            digests=digests,
            counters=counters,
            inputs=inputs,
            read=read,
        )
        with self.lock:
            known = self.store.answers(asked.ids) if asked.ids else {}
            fresh = asked.unanswered(known)
            answers = self._step(asked.part(fresh)) if fresh or not len(asked.whole.raw) else None
        return asked.answered(fresh, answers, known)

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

    def _step(self, part: Part) -> Tensor:
        self._catch_up()
        # In double precision, so that the number counted is the number stored and, as JSON, the number sent.
        ids = part.ids if self._labelled else None
        emitted = self.state.emit(part.raw, part.features, ids=ids, vocabulary=self._words, at=part.at)
        self._ahead = True  # what finishes may have remembered answers that are not stored
        step = finished(step_of(part, emitted), self._finish)
        self._write(step, self._beside(step, part))
        return torch.tensor(step.answered, dtype=torch.float64)

    def _beside(self, step: Step, part: Part) -> Callable[[sqlite3.Connection], None] | None:
        """Return what the witness writes in the step's transaction."""
        if self._witness is None or step.raw is None:
            return None
        return partial(self._witness, step=answered_of(self.state, step, part, self._finish))

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
        saved = _restore(self.state, snapshot, self.store.path, self._finish)
        recount(self.state, saved, steps, self._words, self._finish)
        self._ahead = False
        if saved["machine"]["limits"] != self.state.state_dict()["machine"]["limits"]:
            self._snapshot()  # so that the way to the new limits is begun once, and not at each start

    def _check_owner(self) -> None:
        _check_owner(self._constraints, self.store, self._finish)


def read_state(path: str | Path, state: InferenceState, vocabulary: Vocabulary | None) -> InferenceState:
    """Bring an empty state to where the stream in a file stands, also while another process goes on with it.

    Args:
        path: the path of the store.
        state: the state of the same constraints and policy.
        vocabulary: the vocabulary of the stream.

    Raises:
        StoreError: there is no such store, or it holds the stream of other constraints.
    """
    with StoreView(path) as view:
        _check_owner(state.constraints, view, None)
        snapshot, steps = view.load()
    if snapshot is not None:
        saved = _restore(state, snapshot, str(path), None)
        recount(state, saved, steps, None if vocabulary is None or vocabulary.open else vocabulary, None)
    return state


def _restore(state: InferenceState, snapshot: bytes, path: str, finish: Finish | None) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(io.BytesIO(snapshot), weights_only=True)
        state.load_state_dict(saved)
        if finish is not None:
            finish.load_state(saved["finish"])
        return saved
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
