"""A stream of one worker among several that share a PostgreSQL store.

a request    one step of this worker's own state; answered once the database has it
beside it    a thread writes what has come together in one transaction, and every `refresh` seconds an exchange:
             this worker's counts for the others, theirs for this one
store gone   requests are answered at once from memory and wait there to be written, as labels do; the `Lease` bounds by
             how much the workers can move the pooled means until they hear of each other again
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fairlayer.groups import Groups, Vocabulary
from fairlayer.streaming.control.lease import Lease
from fairlayer.streaming.state import InferenceState
from fairlayer.streaming.store import Id, Step, StoredAnswer, StoreError
from fairlayer.streaming.stores.asking import Delivered, Emitted, Part, check_known, check_same, read_asked, read_labels
from fairlayer.streaming.stores.exchanging import Exchanged
from fairlayer.streaming.stores.finishing import Finish, answered_of, finished, owner_of, step_of
from fairlayer.streaming.stores.postgres import Database, Queued
from fairlayer.streaming.stores.recording import Recorder, slot_trail
from fairlayer.streaming.stores.together import Together
from fairlayer.trail.appending import Prepared

if TYPE_CHECKING:
    from fairlayer.streaming.stores.shared import SharedStore

__all__ = ["SharedStream"]

_MOST_WAITING = 100_000  # steps that wait for a store that is gone
_PATIENCE = 5.0  # seconds for which an answer waits for a store that is there
_RETRY = 0.5  # seconds between two attempts to reach one that is gone


class SharedStream:
    """The stream of one worker; see the top of this file.

    Args:
        state: empty, of the constraints that the database holds.
        store: where to write, and the share.
        vocabulary: all categories, in an order that all workers have.
        finish: what turns predictions into answers; None to answer them.
        recorder: what writes a row of the worker's chain of an audit trail for each answer, in the transaction that
            stores it; its trail is a `SlotTrail`.

    Raises:
        StoreError: the database cannot be reached, holds another stream, or has no free slot.
    """

    def __init__(
        self,
        state: InferenceState,
        store: SharedStore,
        vocabulary: Vocabulary,
        finish: Finish | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._recorder, self._trail = recorder, None if recorder is None else slot_trail(recorder)
        self.state, self.store, self._words, self._finish = state, store, vocabulary.closed(), finish
        self.lock = threading.RLock()
        self._more = threading.Condition(self.lock)
        self._constraints = state.constraints
        self._labelled = any(constraint.needs_labels for constraint in self._constraints)
        self._waiting: list[Queued] = []  # steps that the database does not have
        self._recent: dict[Id, StoredAnswer] = {}  # their answers
        # And those that it has got since the last exchange but one: a look-up may have begun before they were there.
        self._stored_since: list[dict[Id, StoredAnswer]] = [{}, {}]
        self._spooled: dict[Id, float] = {}  # labels that came while the database was gone
        self._exchanged = Exchanged(state, finish)
        self._stored = self._seq = 0
        self.attached, self._ended, self._closing, self._said = True, False, False, ""
        self._writer, self._reader = (Database(store.address, kind=store.kind) for _ in range(2))
        self._looked_up = Together(self._reader.answers)
        self._writer.prepare(owner_of(self._constraints, finish), store.shares)
        self.slot = self._writer.take(store.slots)
        if self._trail is not None:
            self._writer.keep(self._trail, self.slot)
        self.state.adopt(self._words)
        found = self._writer.load(self.slot)
        self._exchanged.resume(found, self._words)
        self._seq = self._stored = found.steps[-1][0] if found.steps else found.seq
        self._exchange()
        self._thread = threading.Thread(target=self._work, name="fairlayer-store", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Steps that the database does not have yet."""
        return len(self._waiting)

    @property
    def waiting_labels(self) -> int:
        """Labels that the database does not have yet."""
        return len(self._spooled)

    @property
    def counters(self) -> dict[str, int]:
        """Numbers that go with the streams of all workers, as far as this one has heard."""
        return dict(self._exchanged.own + self._exchanged.others)

    def check(self) -> None:
        """Raise where a request could not be taken now.

        Raises:
            StoreError: too many steps wait, or the stream has ended.
        """
        if self._ended or len(self._waiting) >= _MOST_WAITING:
            raise StoreError(f"no more can be taken: {self._said or 'the stream has ended'}")

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
        """Return predictions for raw scores, as `DurableStream.answer` does.

        Raises:
            StoreError: too many steps wait for a store that is gone; nothing is counted.
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
        if self._recorder is not None:
            self._recorder.check(at, asked.ids)
        known = self._known(asked.ids)
        with self.lock:
            self.check()
            for own in (*self._stored_since, self._recent):
                known.update({key: own[key] for key in asked.ids if key in own})
            fresh = asked.unanswered(known)
            answers = self._step(asked.part(fresh)) if fresh else None
            self._await(self._seq)
        return asked.answered(fresh, answers, known)

    def observe_labels(self, ids: Sequence[Id], y: Any) -> int:
        """Deliver labels of predictions that any worker made; return how many were new and are stored.

        The worker that made a prediction counts its label at its next exchange. See `deliver_labels`.
        """
        return self.deliver_labels(ids, y).counted

    def deliver_labels(self, ids: Sequence[Id], y: Any) -> Delivered:
        """Deliver labels of predictions that any worker made.

        While the database is gone they wait in memory, as steps do, and are written when it is back; those that then
        turn out to have no prediction, or another label before, are noted as an event and left out.

        Raises:
            ConstraintDefinitionError: no constraint looks at labels.
            LabelValueError: a constraint cannot read them.
            LabelChangedError: an id had another label before.
            UnknownIdError: an id has no prediction; nothing is counted.
            StoreError: too many labels wait; nothing is counted.
        """
        told = read_labels(ids, y, labelled=self._labelled)
        with self.state._live.lock:
            labels = np.array(list(told.values()))
            self.state._live.machine.check_labels(_some_groups(self.state, len(told)), labels)
        if self.attached:
            try:
                return self._store_labels(told)
            except StoreError as error:
                self._lose(error)
        with self.lock:
            if len(self._spooled) + len(told) > _MOST_WAITING:
                raise StoreError(f"no more labels can be taken: {len(self._spooled)} wait, and {self._said}")
            check_same(told, {key: StoredAnswer(0.0, self._spooled.get(key), 0.0) for key in told})
            self._spooled.update(told)
        return Delivered(0, len(told))

    def _store_labels(self, told: Mapping[Id, float]) -> Delivered:
        known = self._reader.answers(list(told))
        check_known(told, known)
        check_same(told, known)
        new = {key: label for key, label in told.items() if known[key].label is None}
        self._reader.label(new)
        return Delivered(len(new))

    def close(self) -> None:
        """Write what waits and the whole state, and let go of the slot."""
        with self._more:
            if self._closing:
                return
            self._closing = True
            self._more.notify_all()
        self._thread.join(30.0)
        self._ended = True
        try:
            self._exchange()
        except StoreError as error:
            warnings.warn(f"{len(self._waiting)} steps could not be written at the end: {error}", stacklevel=2)
        self._writer.close()
        self._reader.close()

    # ---- requests

    def _known(self, keys: list[Id]) -> dict[Id, StoredAnswer]:
        if not keys or not self.attached:
            return {}
        try:
            return self._looked_up(keys)
        except StoreError as error:
            self._lose(error)
            return {}

    def _step(self, part: Part) -> Tensor:
        ids = part.ids if self._labelled else None
        emitted = self.state.emit(part.raw, part.features, ids=ids, vocabulary=self._words, at=part.at)
        step = finished(step_of(part, emitted)._replace(meters=self.state.meters()), self._finish)
        self._exchanged.own.update(step.counters or {})
        self._seq += 1
        self._waiting.append(Queued(self._seq, step, self._recorded(step, part)))
        marks: Sequence[str | None] = step.digests or [None] * len(step.ids or ())
        for key, mark, a, b in zip(step.ids or (), marks, step.answered, step.raw or (), strict=bool(step.ids)):
            self._recent[key] = StoredAnswer(a, None, b, mark)
        self._more.notify_all()
        return torch.tensor(step.answered, dtype=torch.float64)

    def _recorded(self, step: Step, part: Part) -> Sequence[Prepared]:
        if self._recorder is None or self._trail is None:
            return ()
        return self._trail.prepare(self._recorder.records(answered_of(self.state, step, part, self._finish)))

    def _await(self, number: int) -> None:
        """Wait until the database has the step; not where it is gone."""
        end = time.monotonic() + _PATIENCE
        while self._stored < number and self.attached and not self._ended:
            left = end - time.monotonic()
            if left <= 0.0:
                return
            self._more.wait(left)

    # ---- beside them

    def _work(self) -> None:
        due = time.monotonic() + self.store.refresh
        while True:
            with self._more:
                if not self._closing and not (self._waiting and self.attached):
                    self._more.wait(max(0.01, min(due - time.monotonic(), self.store.refresh)))
                if self._closing:
                    return
            try:
                if time.monotonic() >= due or not self.attached:
                    due = time.monotonic() + self.store.refresh
                    self._exchange()
                else:
                    self._flush()
            except StoreError as error:
                self._lose(error)
                time.sleep(min(_RETRY, self.store.refresh))

    def _flush(self) -> None:
        with self.lock:
            steps = list(self._waiting)
        if steps:
            self._writer.append(self.slot, steps)
            self._done(steps[-1].seq)

    def _exchange(self) -> None:
        """Hear the others, and publish what this worker has done, in this order: what is published is then known."""
        self._write_spooled()
        told, labels = self._writer.hear(self.slot)
        with self.lock:
            self._exchanged.hear(told)
            self._exchanged.learn(labels)
            steps, seq, settled = list(self._waiting), self._seq, dict(self._exchanged.learnt)
            state, published = self._exchanged.snapshot(), self._exchanged.published()
            lease = Lease.begin(self.store.lease / self.store.shares, self.state._live.machine.history)
        self._writer.exchange(self.slot, steps, seq=seq, state=state, published=published, settled=list(settled))
        with self.lock:
            self.state._live.machine.lease = lease
            self._stored_since = [self._stored_since[-1], {}]
            for key in settled:
                self._exchanged.learnt.pop(key, None)
        self._done(seq)

    def _write_spooled(self) -> None:
        """Write labels that came while the store was gone, after the steps that they belong to."""
        with self.lock:
            spooled = dict(self._spooled)
        if not spooled:
            return
        self._flush()
        known = self._writer.answers(list(spooled))
        good = {key: label for key, label in spooled.items() if key in known and known[key].label in {None, label}}
        self._writer.label(good)
        with self.lock:
            for key in spooled:
                self._spooled.pop(key, None)
            if len(good) < len(spooled):
                text = f"{len(spooled) - len(good)} of {len(spooled)} had no prediction, or another label before"
                self.state._live.machine.note("labels left out", text)
                warnings.warn(f"labels that waited for the PostgreSQL store were left out: {text}.", stacklevel=2)

    def _done(self, seq: int) -> None:
        with self._more:
            self._stored = max(self._stored, seq)
            while self._waiting and self._waiting[0].seq <= seq:
                for key in self._waiting.pop(0).step.ids or ():
                    if key in self._recent:
                        self._stored_since[-1][key] = self._recent.pop(key)
            if not self.attached:
                self.attached, self._said = True, ""
                self.state._live.machine.note("store back", "what waited is written; the others are heard again")
                warnings.warn("the PostgreSQL store is back; what waited has been written.", stacklevel=2)
            self._more.notify_all()

    def _lose(self, error: StoreError) -> None:
        """Go on without the store; say so once."""
        self._reader.close()  # its connection is as old; the next request after the return opens a new one
        with self._more:
            if self.attached:
                self.attached, self._said = False, str(error)
                self.state._live.machine.note(
                    "store gone", f"share of the lease: {self.store.lease / self.store.shares:g}"
                )
                warnings.warn(f"answers wait in memory: {error}", stacklevel=2)
            self._more.notify_all()


def _some_groups(state: InferenceState, n: int) -> Any:
    """Return groups to read labels beside; labels are checked by their values only."""
    machine = state._live.machine
    codes = np.zeros(n, dtype=np.int64)
    return Groups.from_codes(dict.fromkeys(machine.features, codes), machine.vocabulary)
