"""What one worker of several has heard of the others, what it tells them, and how both are kept."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch

from fairlayer.errors import ShapeError
from fairlayer.groups import Vocabulary
from fairlayer.streaming.machine import Machine
from fairlayer.streaming.replicas import hear, subtract
from fairlayer.streaming.saving import loaded, machine_state
from fairlayer.streaming.state import InferenceState
from fairlayer.streaming.store import Id
from fairlayer.streaming.stores.finishing import Finish, recount
from fairlayer.streaming.stores.postgres import Slot

__all__ = ["Exchanged"]


class Exchanged:
    """The counts of one worker, which its state holds together with those of the others.

    Args:
        state: the state of this worker; it holds what was heard too.
        finish: what turns predictions into answers; None to answer them.

    `own` and `others` are the counters that go with the streams; `learnt` are labels that were counted and are to be
    marked in the database.
    """

    def __init__(self, state: InferenceState, finish: Finish | None) -> None:
        self.state, self._finish = state, finish
        self.own, self.others = Counter[str](), Counter[str]()
        self.learnt: dict[Id, float] = {}
        self._heard: dict[int, Machine] = {}

    def hear(self, told: Mapping[int, bytes]) -> None:
        """Take over what the others have published since."""
        found, others = {}, Counter[str]()
        for slot, published in told.items():
            values = _read(published)
            others.update(values["counters"])
            machine = loaded(self.state._live.setting, values["machine"])
            if machine.rule.samples:
                found[slot] = machine
        self.others = others
        if all(_same_counts(self._heard.get(slot), machine) for slot, machine in found.items()):
            return  # nothing new
        with self.state._live.lock:
            machine = self.state._live.machine
            hear(machine, [(each, self._heard.get(slot)) for slot, each in found.items()])
            machine.events.pop()  # one each second would push out all others
            self.state._live.know()
        self._heard = found

    def published(self) -> bytes:
        """Return this worker's own counts: all that it knows less what it has heard."""
        own = loaded(self.state._live.setting, self.state.state_dict()["machine"])
        subtract(own, self._heard.values())
        own.transition, own.events = None, []
        return _written({"machine": machine_state(own), "counters": dict(self.own)})

    def learn(self, labels: Mapping[Id, float]) -> None:
        """Count labels that have come for this worker's predictions; those that no longer wait are only marked."""
        new = {key: label for key, label in labels.items() if key not in self.learnt}
        for key, label in new.items():
            with suppress(ShapeError):  # it had to make room long ago
                self.state.observe_labels([key], [label])
        self.learnt.update(new)

    def snapshot(self) -> bytes:
        """Return all of this, to be resumed from."""
        heard = {str(slot): machine_state(machine) for slot, machine in self._heard.items()}
        left = {} if self._finish is None else self._finish.to_state()
        return _written({"state": self.state.state_dict(), "heard": heard, "counters": dict(self.own), "finish": left})

    def resume(self, found: Slot, vocabulary: Vocabulary) -> None:
        """Bring the state to where the database has it."""
        saved = None if found.state is None else _read(found.state)
        if saved is not None:
            self.state.load_state_dict(saved["state"])
            self._heard = {int(slot): loaded(self.state._live.setting, state) for slot, state in saved["heard"].items()}
            self.own.update(saved["counters"])
            if self._finish is not None:
                self._finish.load_state(saved["finish"])
        before = None if saved is None else saved["state"]
        recount(self.state, before, [step for _, step in found.steps], vocabulary, self._finish)
        for _, step in found.steps:
            self.own.update(step.counters or {})


def _same_counts(before: Machine | None, now: Machine) -> bool:
    return before is not None and torch.equal(before.history.to_state()["sums"], now.history.to_state()["sums"])


def _written(values: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(values), buffer)
    return buffer.getvalue()


def _read(text: bytes) -> dict[str, Any]:
    values: dict[str, Any] = torch.load(io.BytesIO(text), weights_only=True)
    return values
