"""The phase of a stream, for people and alarms; it changes nothing.

| phase | when |
|---|---|
| CHANGING | limits, constraints or categories were changed, and their transition is under way |
| COLD | a group that a constraint compares has not been seen |
| WARMING | fewer samples than the policy's `settle` |
| SATURATED | the last step could not meet the limits: predictions stood at their bounds |
| DRIFTING | a clear change was seen a moment ago, or corrections have been large beside the feed-forward |
| STEADY | otherwise |
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

__all__ = ["Phase", "PhaseRule"]

_MEMORY = 500.0  # samples over which corrections are averaged
_ENTER, _LEAVE = 0.35, 0.2  # correction per feed-forward at which DRIFTING begins and ends
_NOISE = 0.02  # least feed-forward, in prediction units, that corrections are measured by


class Phase(StrEnum):
    """Where a stream stands.

    Example:
        >>> import torch, fairlayer as fl
        >>> stream = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.1)], bounds=(0.0, 1.0))
        >>> _ = stream.emit(torch.tensor([0.5, 1.0]), {"sex": ["F", "M"]})
        >>> stream.phase is Phase.WARMING, str(stream.phase)
        (True, 'warming')
    """

    CHANGING = "changing"
    COLD = "cold"
    WARMING = "warming"
    STEADY = "steady"
    SATURATED = "saturated"
    DRIFTING = "drifting"


_CHANGING, _COLD, _WARMING, _STEADY, _SATURATED, _DRIFTING = Phase  # looked up once: each request asks


class PhaseRule:
    """The numbers that decide the phase."""

    def __init__(self) -> None:
        self.samples = 0.0
        self.cold = True
        self.correction = 0.0  # running mean of |emitted - clip(target)|
        self.forward = 0.0  # mean of |target - raw|, as of the last feed-forward
        self.widening = 0.0  # of the last step
        self.drifting = False
        self.changing_until = 0.0  # samples at which the transition under way ends
        self.unsettled_until = 0.0  # samples until which a clear change makes the stream DRIFTING

    def observe(self, samples: float, correction: float, widening: float) -> None:
        """Count one step."""
        self.samples = total = self.samples + samples
        share = samples / (total if total < _MEMORY else _MEMORY)
        self.correction += (share if share < 1.0 else 1.0) * (correction - self.correction)
        self.widening = widening
        forward = self.forward if self.forward > _NOISE else _NOISE
        self.drifting = self.correction > forward * (_LEAVE if self.drifting else _ENTER)

    def phase(self, settle: int) -> Phase:
        """Return the phase."""
        if self.samples < self.changing_until:
            return _CHANGING
        if self.cold:
            return _COLD
        if self.widening > 1e-9:
            return _SATURATED
        if self.samples < settle:
            return _WARMING
        return _DRIFTING if self.drifting or self.samples < self.unsettled_until else _STEADY

    def to_state(self) -> dict[str, float]:
        """Return plain numbers."""
        return {name: float(value) for name, value in vars(self).items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `to_state` returned."""
        for name, value in state.items():
            setattr(self, name, bool(value) if name in ("cold", "drifting") else float(value))
