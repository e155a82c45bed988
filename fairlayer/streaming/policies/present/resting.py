"""Whether a solution that is due is worth while: raw means that have hardly moved since the last one let it wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairlayer.fused.book import SOLVED_SPREAD
from fairlayer.streaming.policies.base import State
from fairlayer.streaming.policies.present.changes import since_solved
from fairlayer.streaming.policies.present.state import FIRST_WAIT, reads_labels

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine
    from fairlayer.streaming.policies.present.policy import Present

__all__ = ["RESTS", "ever_rests", "has_hardly_moved", "may_rest"]

RESTS = 4.0
"""Slacks, squared, by which raw means may move before a solution is worth while: half an error or so."""


def ever_rests(policy: Present, stream: Machine) -> bool:
    """Return whether solutions may wait in such a stream: where labels matter or something is repaid, none may."""
    return not reads_labels(stream) and policy.repair is None and stream.setting.hold is None


def may_rest(state: State, stream: Machine) -> bool:
    """Return whether a solution that is due may wait now, in a stream where some may.

    It may not after half of the memory, after the first, and on the way to other limits.
    """
    return (
        stream.rule.samples - state["solved"] <= 0.5 * (stream.memory or 1e3)
        and state["wait"] > 2.0 * FIRST_WAIT
        and state["next_refresh"] != 0.0
        and stream.transition is None
    )


def has_hardly_moved(policy: Present, state: State) -> bool:
    """Return whether raw means are, on average of samples, within twice the slack of their groups, in plain numbers."""
    moved, samples, weight = 0.0, 0.0, state["weight"]
    for column in state["book"].T.tolist():
        size, new, away = since_solved(column, weight)
        now, away = size + new, away / (column[SOLVED_SPREAD] or 1e-12)
        moved += away * away * (size or 1e-12) / (now or 1e-300)
        samples += now
    return moved <= RESTS * policy.doubt**2 * samples
