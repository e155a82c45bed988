"""Other constraints on a live stream, or other limits: what was counted stays, and the limits are reached on a way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fairlayer.groups import Vocabulary
from fairlayer.streaming.machine import Machine
from fairlayer.streaming.setting import Setting
from fairlayer.streaming.transition import Transition, changed_limits, limits_of

__all__ = ["begin_transition", "changed"]


def changed(machine: Machine, setting: Setting, over: float | None) -> tuple[Machine, Callable[[tuple[int, ...]], Any]]:
    """Return a machine under another setting that has counted all that this one has, and how codes are recoded.

    Features that no constraint reads any more are left out of the cells; new ones are unknown for what was counted.
    """
    new = Machine(setting)
    places = [machine.features.index(name) if name in machine.features else None for name in new.features]
    words = machine.vocabulary.categories
    if words:
        new.vocabulary = Vocabulary({name: words.get(name, ()) for name in new.features}, open=False)

    def recode(codes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(-1 if place is None else codes[place] for place in places)

    machine.history.flush()
    codes = [recode(cell) for cell in machine.history.cells]
    rows = new.history.locate(np.array(codes, dtype=np.int64).reshape(len(codes), len(new.features)))
    new.history.take_over(machine.history, rows)
    new.windows.take_over(machine.windows, rows, len(new.history.cells))
    new.rule.load_state(machine.rule.to_state())
    new.events, new.lost_labels = list(machine.events), machine.lost_labels
    new.own = setting.policy.taken_over(setting.policy.grow(new.own, new), machine.own, new, rows)
    begin_transition(new, limits_of(machine.constraints), over)
    new.rule.cold = new.unseen()
    new.enter(new.phase())
    return new, recode


def begin_transition(machine: Machine, before: Mapping[str, Sequence[Any]], over: float | None = None) -> None:
    """Begin the way from the limits held before to those of the constraints, where they differ."""
    extra = changed_limits(before, machine.constraints)
    gone = [name for name in before if name not in {c.name for c in machine.constraints}]
    if (not extra and not gone) or not machine.rule.samples:
        return
    asked = machine.setting.transition if over is None else over
    length = machine.policy.transition_length(machine) if asked is None else asked
    machine.transition = Transition(extra, machine.rule.samples, float(length))
    machine.rule.changing_until = machine.rule.samples + float(length)
    machine.own = {**machine.own, "next_refresh": 0.0}
    said = [*(f"{name} is new or changed" for name in extra), *(f"{name} is gone" for name in gone)]
    machine.note("limits changed", f"{'; '.join(said)}; reached after {length:g} predictions")
