"""A step that fails leaves a stream as it was: what it may have changed, kept and put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fairlayer.groups import Vocabulary
from fairlayer.streaming.cells import adopt, recoded
from fairlayer.streaming.labels.pending import Pending
from fairlayer.streaming.machine import Machine
from fairlayer.streaming.policies.base import State

__all__ = ["whole"]

Result = TypeVar("Result")
Mark = tuple[int, Vocabulary, State, float]


def whole(machine: Machine, pending: Pending, step: Callable[[], Result], at: float | None = None) -> Result:
    """Run a step so that it changes the machine whole or not at all; `at` was checked."""
    mark, before = _mark(machine), machine.vocabulary
    try:
        machine.now = at
        result = step()
    except BaseException:
        _restore(machine, mark)
        raise
    if machine.vocabulary is not before:
        old, new = before.categories, machine.vocabulary.categories
        pending.recode(lambda codes: recoded(machine.features, codes, old, new))
    return result


def _mark(machine: Machine) -> Mark:
    """Return what a failing step may have changed; counts are not among it."""
    return len(machine.history.cells), machine.vocabulary, machine.own, machine.rule.forward


def _restore(machine: Machine, mark: Mark) -> None:
    """Undo a failing step."""
    known, vocabulary, machine.own, machine.rule.forward = mark
    machine.history.forget_cells(known)
    if vocabulary.categories != machine.vocabulary.categories:
        adopt(machine, vocabulary)
    machine.forget_derived()
