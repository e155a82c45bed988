"""What replicas of one stream have counted, added to each other: for good, or anew at each exchange."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fairlayer._typing import IntArray
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.streaming.cells import located
from fairlayer.streaming.machine import Machine

__all__ = ["everyone", "hear", "merge", "subtract"]


def everyone(published: Any, group: Any) -> list[Any]:
    """Return what every process of a torch.distributed group publishes; each waits for the others."""
    from torch import distributed

    found: list[Any] = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(found, published, group=group)
    return found


def merge(machine: Machine, other: Machine) -> None:
    """Add all that another stream has counted, recent scores too."""
    rows = _joined(machine, other)
    machine.history.merge(other.history)
    machine.history.sketch.merge(other.history.sketch, rows)
    machine.rule.samples += other.rule.samples
    machine.own = machine.policy.merged(machine.own, other.own, machine, rows)
    _after_merger(machine, "merged", f"{other.rule.samples:g} predictions of another stream")


def hear(machine: Machine, others: Sequence[tuple[Machine, Machine | None]]) -> None:
    """Add what each other replica has counted since its base (its second part), and learn its recent scores."""
    added = 0.0
    placed = []
    for other, base in others:
        rows = _joined(machine, other)
        placed.append((other, rows))
        machine.history.merge(other.history)
        added += other.rule.samples
        if base is not None:
            _joined(machine, base)
            machine.history.merge(base.history, sign=-1.0)
            added -= base.rule.samples
    machine.rule.samples += added
    machine.history.sketch.hear([(other.history.sketch, rows) for other, rows in placed])
    machine.own = machine.policy.heard(machine.own, machine, placed)
    _after_merger(machine, "synchronised", f"{len(others)} replicas, {added:g} predictions that were not known here")


def subtract(machine: Machine, others: Iterable[Machine]) -> None:
    """Take away what other replicas have told."""
    for other in others:
        _joined(machine, other)
        machine.history.merge(other.history, sign=-1.0)
        machine.rule.samples -= other.rule.samples


def _joined(machine: Machine, other: Machine) -> IntArray:
    """Return the cell here of each cell of another stream.

    Raises:
        ConstraintDefinitionError: it has other categories.
    """
    if other.vocabulary.categories and machine.vocabulary.categories != other.vocabulary.categories:
        if machine.vocabulary.categories:
            raise ConstraintDefinitionError(
                f"streams with different categories cannot be merged: {dict(machine.vocabulary.categories)} and "
                f"{dict(other.vocabulary.categories)}. Call fit_categories(...) before streaming."
            )
        machine.vocabulary = other.vocabulary
    other.history.flush()
    machine.history.flush()
    return located(machine, other.history.codes())


def _after_merger(machine: Machine, kind: str, text: str) -> None:
    machine.forget_derived()
    machine.rule.cold = machine.unseen()
    machine.note(kind, text)
