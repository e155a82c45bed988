"""What the policies share that hold the gap of everything emitted: a feed-forward, then a correction for the past.

    target = raw - forward[cell]            the projection of the sketch, solved again as the stream grows
    emitted = correct(target, history)      hard or soft: the policy

Small batches under plain parity constraints take a short way on group sums; everything else the general one, the
core's projection with the history folded in.
"""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.errors import InfeasibleConstraintsError, SolverError
from fairlayer.solve import ClashingFaces
from fairlayer.streaming.control.correction import excess, feed_forward, feedback, large_step
from fairlayer.streaming.control.single import SpreadSums, clip
from fairlayer.streaming.policies.base import Answer, Call, Labelled, Policy, State

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

__all__ = ["Pooled", "at_bounds", "falling"]

_FIRST_REFRESH, _REFRESH_SHARE = 8, 8


class Pooled(Policy):
    """A policy on the pooled means; a kind of it says how hard it corrects."""

    holds_pooled: ClassVar[bool] = True

    @property
    @abstractmethod
    def label_rate(self) -> float:
        """How strongly the excess over labelled predictions shifts the next."""

    # ---- what a kind gives

    @abstractmethod
    def slack(self, samples: float) -> float:
        """Return the room above the tolerance (below it where negative) that the correction leaves."""

    @abstractmethod
    def inset(self, samples: float) -> float:
        """Return the room below the tolerance that the feed-forward keeps."""

    @abstractmethod
    def correct(self, stream: Machine, cells: IntArray, target: FloatArray, slack: float) -> tuple[FloatArray, float]:
        """Return corrected predictions, and by how much the limits could not be met."""

    def correct_one(self, sums: SpreadSums, cell: int, target: float, end: float, cap: float) -> float | None:
        """Return one prediction whose target lies beyond the end of its interval; None where there is no short way."""
        return end

    def cap(self, samples: float) -> float:
        """Return the room at which a soft step turns hard; infinite where there is no such room."""
        return math.inf

    def limited(self, shifts: FloatArray) -> FloatArray:
        """Return the shifts of the feed-forward, cut off where the policy has a limit."""
        return shifts

    def beyond(self) -> float | None:
        """Return how far beyond the bounds a target may lie; None for any distance."""
        return None

    # ---- the same for all kinds

    def begin(self) -> State:
        """Return no shifts, and a solution that is due at once."""
        return {"shifts": np.zeros(0), "prices": {}, "next_refresh": 0.0}

    def grow(self, state: State, stream: Machine) -> State:
        """Return the state with no shift for new cells, and a solution that is due."""
        new = np.zeros(len(stream.history.cells) - len(state["shifts"]))
        return {**state, "shifts": np.append(state["shifts"], new), "next_refresh": 0.0}

    def prepare(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray) -> State:
        """Solve for the feed-forward anew once the stream has grown by an eighth."""
        return self.solved(state, stream, stream.samples) if stream.samples >= state["next_refresh"] else state

    def solved(self, state: State, stream: Machine, samples: float) -> State:
        """Return the state after a solution for a stream of so many samples."""
        frame, sketch = stream.frame, stream.history.sketch
        shifts, prices = state["shifts"], state["prices"]
        try:
            shifts, prices = feed_forward(frame, self.inset(max(samples, sketch.total(), 1.0)))
            if frame.labelled:
                shifts = shifts + feedback(frame, self.label_rate, 0.0, labelled=True)
        except SolverError as error:  # a request must not fail for it: what is held does not depend on it
            warnings.warn(f"the feed-forward of a stream stays as it was: {error}", stacklevel=2)
        recent = samples if stream.memory is None else min(samples, stream.memory)
        due = samples + max(_FIRST_REFRESH, recent // _REFRESH_SHARE)
        return {"shifts": self.limited(shifts), "prices": prices, "next_refresh": due}

    def answer(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray) -> Answer:
        """Return clip(target), corrected where the pooled means would not hold."""
        target = self.target(state, stream, cells, raw)
        slack, start = self._slack(stream, len(cells)), clip(target, stream.bounds)
        frame = stream.frame
        if not frame.unlabelled or excess(frame, cells, start) <= slack:
            return Answer(start, start)
        try:
            emitted, widening = self.correct(stream, cells, target, slack)
        except ClashingFaces as clash:
            raise InfeasibleConstraintsError(
                f"no stream of predictions can meet {', '.join(c.name for c in stream.constraints)} together "
                f"({len(clash.faces)} statements clash). Loosen one of them."
            ) from None
        return Answer(emitted, start, widening)

    def answer_large(
        self, state: State, stream: Machine, cells: IntArray, raw: FloatArray, projected: FloatArray
    ) -> Answer:
        """Return the batch as it was projected where the pooled means then hold too; else see `large_step`."""
        frame = stream.frame
        if not frame.unlabelled:
            return Answer(projected, raw)
        slack = max(self._slack(stream, len(cells)), 0.0)
        if excess(frame, cells, projected) <= slack + 1e-9:
            return Answer(projected, projected)
        emitted, widening = large_step(frame, cells, projected if frame.labelled else raw, slack)
        return Answer(emitted, projected, widening)

    def answer_one(self, state: State, stream: Machine, cell: int, raw: float) -> tuple[float, float, float] | None:
        """Answer from group sums, where these suffice."""
        sums = stream.scratch.get("sums") or _sums_of(stream)
        if sums is None:
            return None
        samples = stream.samples + 1.0
        target = raw - float(state["shifts"][cell])
        beyond = self.beyond()
        if beyond is not None:
            target = min(max(target, sums.low - beyond), sums.high + beyond)
        slack = self.slack(samples) + stream.transition_room
        interval = sums.interval(cell, slack)
        if interval is None:
            return None
        low, high = interval
        start = emitted = min(max(target, sums.low), sums.high)
        if not low <= emitted <= high:
            end = low if emitted < low else high
            corrected = self.correct_one(sums, cell, target, end, self.cap(samples) + stream.transition_room)
            if corrected is None:
                return None
            emitted = min(max(corrected, sums.low), sums.high)
        stuck = 0.0
        if emitted in (sums.low, sums.high) and not low <= emitted <= high:
            low, high = sums.interval(cell, max(slack, 0.0)) or interval
            stuck = max(low - emitted, emitted - high)  # of the limits themselves, not of what is kept inside them
        sums.add(cell, 1.0, emitted)
        return emitted, abs(emitted - start), stuck

    def answer_many(self, state: State, stream: Machine, call: Call, emitted: FloatArray) -> tuple[float, float] | None:
        """Answer by the feed-forward alone where every spread then holds."""
        sums = stream.scratch.get("sums") or _sums_of(stream)
        if sums is None or not stream.takes(call.cells, call.raw):
            return None
        np.subtract(call.raw, state["shifts"][call.cells], out=emitted)
        np.maximum(emitted, sums.box[0], out=emitted)
        np.minimum(emitted, sums.box[1], out=emitted)
        k = len(stream.history.cells)
        counts, totals = (np.bincount(call.cells, weights, k).tolist() for weights in (None, emitted))
        return (0.0, 0.0) if sums.add_if_held(counts, totals, self._slack(stream, len(call.raw))) else None

    def count(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray, emitted: FloatArray) -> State:
        """Keep the group sums of the short way, where there are any."""
        sums = stream.scratch.get("sums")
        if sums is not None:
            k = len(stream.history.cells)
            counts = np.bincount(cells, minlength=k).tolist()
            sums.add_if_held(counts, np.bincount(cells, emitted, k).tolist(), np.inf)
        return state

    def count_labels(self, state: State, stream: Machine, labelled: Labelled) -> State:
        """Let the feed-forward be solved anew, where a constraint reads labels."""
        return {**state, "next_refresh": 0.0} if stream.frame.labelled else state

    def shifts(self, state: State, stream: Machine) -> FloatArray:
        """Return the feed-forward."""
        return np.asarray(state["shifts"])

    def prices(self, state: State, stream: Machine) -> dict[str, float]:
        """Return the prices of the feed-forward: minus the derivative of the mean 1/2 (y - z)^2 by the tolerance."""
        return dict(state["prices"])

    def room(self, samples: float) -> float:
        """Return the slack, where there is any."""
        return max(self.slack(samples), 0.0)

    def transition_length(self, stream: Machine) -> float:
        """Return as many samples as have been counted: pooled means cannot move faster without moving people far."""
        return max(float(self.settle), stream.samples)

    def merged(self, state: State, other: State, stream: Machine, rows: IntArray) -> State:
        """Return no shifts, and a solution that is due at once."""
        return {**state, "shifts": np.zeros(len(stream.history.cells)), "next_refresh": 0.0}

    def heard(self, state: State, stream: Machine, others: list[tuple[Machine, IntArray]]) -> State:
        """As after a merger."""
        return {**state, "shifts": np.zeros(len(stream.history.cells)), "next_refresh": 0.0}

    def target(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray) -> FloatArray:
        """Return raw scores less the feed-forward, kept near enough to the bounds for its shift to saturate."""
        target: FloatArray = raw - state["shifts"][cells]
        (low, high), beyond = stream.bounds, self.beyond()
        if beyond is None:
            return target
        return clip(target, (None if low is None else low - beyond, None if high is None else high + beyond))

    def _slack(self, stream: Machine, new: int) -> float:
        return self.slack(stream.samples + new) + stream.transition_room


def _sums_of(stream: Machine) -> SpreadSums | None:
    """Return the sums of plain groups of a stream; None where these do not suffice."""
    if "sums" not in stream.scratch:
        stream.scratch["sums"] = SpreadSums.of(stream.frame)
    found: SpreadSums | None = stream.scratch["sums"]
    return found


def at_bounds(emitted: FloatArray, bounds: tuple[float | None, float | None]) -> bool:
    """Return whether every prediction is at a bound."""
    return bool(np.isin(emitted, [bound for bound in bounds if bound is not None]).all())


def falling(samples: float) -> float:
    """Return N^-1/2, at most 1."""
    return float(samples**-0.5) if samples > 1.0 else 1.0
