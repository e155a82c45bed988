"""The machine of a stream that is in use: under a lock, with what waits for labels, and watched."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from fairlayer._typing import FloatArray
from fairlayer.constraints import Constraint
from fairlayer.edge import read_per_sample
from fairlayer.groups import Vocabulary
from fairlayer.streaming.calls.entrance import as_scores_again, raw_of
from fairlayer.streaming.calls.lookup import CellLookup
from fairlayer.streaming.calls.undoing import whole
from fairlayer.streaming.cells import read
from fairlayer.streaming.changing import changed
from fairlayer.streaming.labels.awaiting import count_at_once, wait_for_labels
from fairlayer.streaming.labels.pending import Pending, read_ids
from fairlayer.streaming.machine import Machine
from fairlayer.streaming.replicas import everyone, hear, merge
from fairlayer.streaming.reporting.watching import Watch
from fairlayer.streaming.saving import load_stream, loaded, machine_state
from fairlayer.streaming.setting import Setting

__all__ = ["Live"]

_ShortStep = Callable[[Machine, CellLookup, Any, Any], Tensor | None]


class Live:
    """A machine, what waits for labels, and what is known of its cells; all of it may be put in place of another.

    Whoever reads or changes the machine holds the lock: `locked` for a look, `changing` for a step that may meet new
    categories.

    Args:
        setting: what is asked of the stream.
    """

    machine: Machine
    pending: Pending
    lookup: CellLookup
    base: dict[str, Any] | None
    """What was known here at the latest sync."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.lock = threading.Lock()
        self.watch = Watch()
        self._syncing = threading.Lock()  # one sync at a time; requests do not take it
        self._resets = 0
        self._put(Machine(setting), Pending(), None)

    @contextmanager
    def locked(self) -> Iterator[Machine]:
        """Hold the lock."""
        with self.lock:
            yield self.machine

    @contextmanager
    def changing(self) -> Iterator[Machine]:
        """Hold the lock during a step that may meet new categories; then look at what it did, and tell."""
        with self.lock:
            machine = self.machine
            yield machine
            if machine.vocabulary is not self.lookup.vocabulary or len(machine.history.cells) != self.lookup.size:
                self.know()
            self.watch.look(machine, self.pending)
        self.watch.tell()

    def know(self) -> None:
        """Make the tables of cells anew."""
        machine = self.machine
        self.lookup = CellLookup(machine.features, machine.vocabulary, machine.history.cells)

    def shortly(self, step: _ShortStep, given: Any, features: Any, at: float | None) -> Tensor | None:
        """Take a step by a short way; None where it needs the general one, and nothing has changed."""
        watch = self.watch
        with self.lock:
            machine = self.machine
            if at is not None or machine.windows.clocked:
                machine.windows.check(at)
            machine.now = at
            emitted = step(machine, self.lookup, given, features)
            if emitted is None:
                return None
            watch.look(machine, self.pending)
        if watch.untold:
            watch.tell()
        return emitted

    def general(
        self,
        scores: Tensor,
        projected: FloatArray | None,
        features: Any,
        *,
        ids: Sequence[str | int] | None,
        y: Any,
        vocabulary: Vocabulary | None,
        at: float | None = None,
    ) -> Tensor:
        """Count a call of any kind and return its predictions; `projected` are those of a batch projected by itself."""
        raw = raw_of(scores, self.setting.geometry, from_logits=self.setting.from_logits)
        keys = None if ids is None else read_ids(ids, len(raw))
        labels = read_per_sample("y", y, tuple(scores.shape))
        with self.changing() as machine:
            groups = read(machine, features, len(raw), vocabulary)
            if labels is not None:
                machine.check_labels(groups, labels[:, 0])
            machine.windows.check(at)
            if projected is None:
                emitted = whole(machine, self.pending, lambda: machine.step(groups, raw), at)
            else:
                emitted = whole(machine, self.pending, lambda: machine.step_large(groups, raw, projected), at)
            samples = groups, raw, emitted
            if labels is not None:
                count_at_once(machine, samples, labels[:, 0])
            elif keys is not None:
                wait_for_labels(machine, self.pending, keys, samples)
        return as_scores_again(emitted, scores)

    def whole(self, step: Callable[[Machine], None]) -> None:
        """Hold the lock during a change from outside, which happens whole or not at all."""
        with self.locked() as machine:
            whole(machine, self.pending, lambda: step(machine))
            self.know()

    def hold(self, constraints: tuple[Constraint, ...], over: float | None) -> None:
        """Go on under other constraints; see `InferenceState.change_constraints`."""
        setting = self.setting.with_constraints(constraints)
        with self.lock:
            machine, recode = changed(self.machine, setting, over)
            self.pending.recode(recode)
            self.setting, self.machine, self.base = setting, machine, None
            self.know()
            self.watch.look(machine, self.pending)
        self.watch.tell()

    def reset(self) -> None:
        """Begin anew."""
        with self.lock:
            self._put(Machine(self.setting), Pending(), None)

    def to_state(self) -> dict[str, Any]:
        """Return tensors and plain containers."""
        with self.locked() as machine:
            saved = {"machine": machine_state(machine), "pending": self.pending.to_state()}
            return saved if self.base is None else {**saved, "base": self.base}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `to_state` returned; see `load_stream`."""
        machine, pending = load_stream(self.setting, state)
        with self.lock:
            self._put(machine, pending, state.get("base"))

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add what the machine of another stream has counted."""
        addition = loaded(self.setting, state)
        self.whole(lambda machine: merge(machine, addition))

    def sync(self, group: Any) -> None:
        """Learn what every replica of a group has emitted; see `InferenceState.sync`."""
        with self._syncing:
            with self.locked() as machine:
                own, base, reset = machine_state(machine), self.base, self._resets
            setting, token = self.setting, uuid.uuid4().hex
            others = [
                (loaded(setting, state), None if before is None else loaded(setting, before))
                for name, state, before in everyone((token, own, base), group)
                if name != token
            ]
            known = loaded(setting, own)
            hear(known, others)
            with self.locked() as machine:
                if self._resets != reset:
                    return  # the stream that was published is no more
                whole(machine, self.pending, lambda: hear(machine, others))
                self.base = machine_state(known)
                self.know()

    def _put(self, machine: Machine, pending: Pending, base: dict[str, Any] | None) -> None:
        """Go on with another machine."""
        self.machine, self.pending, self.base = machine, pending, base
        self._resets += 1
        self.watch.begin(machine)
        self.know()
