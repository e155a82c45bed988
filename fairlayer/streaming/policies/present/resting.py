"""Whether a solution that is due is worth while: raw means that have hardly moved since the last one let it wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairlayer.fused.book import COUNT, RAW, SOLVED_MEAN, SOLVED_SLACK
from fairlayer.streaming.policies.base import State
from fairlayer.streaming.policies.present.state import FIRST_WAIT, reads_labels

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine
    from fairlayer.streaming.policies.present.policy import Present

__all__ = ["RESTS", "has_hardly_moved", "may_rest", "repays"]

RESTS = 4.0
"""Slacks, squared, by which raw means may move before a solution is worth while: half an error or so."""

_READ = [COUNT, RAW, SOLVED_MEAN, SOLVED_SLACK]


def may_rest(policy: Present, state: State, stream: Machine) -> bool:
    """Return whether a solution that is due may wait at all.

    It may not after half of the memory, after the first, where labels matter, on the way to other limits, and where
    something is repaid.
    """
    return not (
        stream.samples - state["solved"] > 0.5 * (stream.memory or 1e3)
        or state["wait"] <= 2.0 * FIRST_WAIT
        or state["next_refresh"] == 0.0
        or stream.transition is not None
        or reads_labels(stream)
        or repays(policy, stream)
    )


def has_hardly_moved(state: State) -> bool:
    """Return whether raw means are, on average of samples, within twice the slack of their groups, in plain numbers."""
    moved = samples = 0.0
    for count, raw, mean, slack in zip(*state["book"][_READ].tolist(), strict=True):
        if count > 0.0:
            distance = (raw / count - mean) / (slack if slack > 1e-12 else 1e-12)
            moved += count * distance * distance
            samples += count
    return moved <= RESTS * samples


def repays(policy: Present, stream: Machine) -> bool:
    """Return whether an old gap, or that of the window, is repaid."""
    return policy.repair is not None or stream.setting.hold is not None
