"""Whether a solution that is due is worth while: raw means that have hardly moved since the last one let it wait."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fairlayer.fused.book import SOLVED_SPREAD
from fairlayer.streaming.policies.base import State
from fairlayer.streaming.policies.present.changes import since_solved
from fairlayer.streaming.policies.present.state import FIRST_WAIT, reads_labels

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine
    from fairlayer.streaming.policies.present.policy import Present

__all__ = ["RESTS", "has_hardly_moved", "rest_until"]

RESTS = 4.0
"""Slacks, squared, by which raw means may move before a solution is worth while: half an error or so."""


def rest_until(policy: Present, state: State, stream: Machine) -> float:
    """Return the samples up to which a solution that is due after this one may wait; none may where it is -inf.

    It may wait for half of the memory, but not after the first, nor where labels matter or something is repaid.
    """
    if reads_labels(stream) or policy.repair is not None or stream.setting.hold is not None:
        return -math.inf
    return state["solved"] + 0.5 * (stream.memory or 1e3) if state["wait"] > 2.0 * FIRST_WAIT else -math.inf


def has_hardly_moved(policy: Present, state: State) -> bool:
    """Return whether raw means are, on average of samples, within twice the slack of their groups, in plain numbers."""
    moved, samples, weight = 0.0, 0.0, state["weight"]
    for column in state["book"].T.tolist():
        size, new, away = since_solved(column, weight)
        now, away = size + new, away / (column[SOLVED_SPREAD] or 1e-12)
        moved += away * away * (size or 1e-12) / (now or 1e-300)
        samples += now
    return moved <= RESTS * policy.doubt**2 * samples
