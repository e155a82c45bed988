"""Predictions that wait for their labels: what is put down of them, and how labels that come are counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.groups import Groups
from fairlayer.streaming.cells import codes_of, groups_of
from fairlayer.streaming.labels.pending import Pending, Waiting
from fairlayer.streaming.machine import Machine

__all__ = ["count_at_once", "deliver", "wait_for_labels"]


def wait_for_labels(
    machine: Machine, pending: Pending, keys: Sequence[str | int], samples: tuple[Groups, FloatArray, FloatArray]
) -> None:
    """Put down samples (groups, raw scores, predictions) that were counted, until their labels come."""
    lost = pending.add(keys, _waiting(machine, *samples))
    if lost and not machine.lost_labels:
        machine.note("labels lost", f"more than {pending.limit} predictions wait; the oldest make room")
    machine.lost_labels += lost


def count_at_once(machine: Machine, samples: tuple[Groups, FloatArray, FloatArray], labels: FloatArray) -> None:
    """Count labels (n,), which were checked, of samples that have just been counted."""
    machine.history.flush()
    machine.observe_labels(_waiting(machine, *samples), labels)


def deliver(machine: Machine, pending: Pending, keys: Sequence[str | int], labels: FloatArray) -> None:
    """Count labels (n,) of samples that wait for them.

    Raises:
        ShapeError: an id does not wait for a label; nothing has changed.
        LabelValueError: a constraint cannot read such labels; nothing has changed.
    """
    found = pending.find(keys)
    machine.check_labels(groups_of(machine, found.codes), labels)
    pending.drop(keys)
    machine.observe_labels(found, labels)


def _waiting(machine: Machine, groups: Groups, raw: FloatArray, emitted: FloatArray) -> Waiting:
    codes = codes_of(machine, groups)
    estimates = machine.estimates(machine.history.locate(codes), raw)
    return Waiting(codes, raw, emitted, estimates, np.full(len(raw), machine.windows.number))
