"""What is seen of a stream while it runs: its phase and callbacks, a trace, and what warnings have to say of it."""

from __future__ import annotations

import math
from collections.abc import Callable

from fairlayer.constraints import Constraint
from fairlayer.edge import OnceWarner, nothing_to_compare
from fairlayer.groups import cell_name
from fairlayer.streaming.labels.pending import Pending
from fairlayer.streaming.machine import Machine
from fairlayer.streaming.phases import Phase
from fairlayer.streaming.reporting.trace import Trace

__all__ = ["Watch"]

_ENOUGH = 100  # samples after which a stream should have met more than one group


class Watch:
    """Book-keeping of steps, beside what they count.

    `look` is called under the lock of the stream, `tell` without it: warnings and callbacks may take their time.
    """

    def __init__(self) -> None:
        self.callbacks: list[Callable[[Phase, Phase], None]] = []
        self.trace = Trace()
        self.untold = False  # whether `tell` has something to say
        self._phase: Phase | None = None
        self._changes: list[tuple[Phase, Phase]] = []
        self._once = OnceWarner()
        self._warnings: dict[str, str] = {}  # constraint -> what is to be said of it, once the lock is free

    def begin(self, machine: Machine) -> None:
        """Begin anew with a machine that has been put in place of another."""
        self.trace, self._phase = Trace(), machine.phase()
        machine.enter(self._phase)

    def look(self, machine: Machine, pending: Pending) -> None:
        """Look at a machine after a step.

        Args:
            machine: of the stream.
            pending: predictions that wait for a label.
        """
        phase = machine.rule.phase(machine.policy.settle)
        if machine.revision != self.trace.revision:
            self.trace.record(machine, phase)
            self._warnings |= _without_comparison(machine, len(pending))
            self.untold = self.untold or bool(self._warnings)
        if phase is not self._phase:
            machine.enter(phase)
            if self._phase is not None:
                self._changes.append((self._phase, phase))
            self._phase, self.untold = phase, True

    def tell(self) -> None:
        """Say what the steps before have left to say."""
        self.untold = False
        while self._warnings:
            name, text = self._warnings.popitem()
            self._once.warn(f"compare {name}", text)
        while True:
            try:
                before, after = self._changes.pop(0)
            except IndexError:  # none, or another thread was faster
                return
            for callback in self.callbacks:
                callback(before, after)


def _without_comparison(machine: Machine, waiting: int) -> dict[str, str]:
    """Return what to say of constraints that compare nothing, once there are samples enough to tell."""
    said: dict[str, str] = {}
    words = machine.vocabulary.categories
    for constraint in machine.constraints if machine.rule.samples >= _ENOUGH else ():
        tables = [words.get(name, ()) for name in constraint.on]
        few = bool(constraint.on) and math.prod(map(len, tables)) < 2
        if few and not _compares(machine, constraint):
            groups = [cell_name(constraint.on, tables, [0] * len(tables))] if all(tables) else []
            unknown = machine.history.sums["count"][machine.history.codes().min(axis=1) < 0].sum()
            said[constraint.name] = nothing_to_compare(constraint, groups, int(unknown))
        elif constraint.needs_labels and not waiting and not _compares(machine, constraint):
            said[constraint.name] = (
                f"{constraint.name} looks at labels, but of {machine.rule.samples:.0f} predictions of this stream "
                "none has a label and none waits for one, so that nothing is bounded. Pass ids= with each request "
                "and deliver labels with observe_labels(ids, y) when they come, or pass y= where they are known."
            )
    return said


def _compares(machine: Machine, constraint: Constraint) -> bool:
    found = machine.measured()[constraint.name]
    return found is not None and found.value is not None
