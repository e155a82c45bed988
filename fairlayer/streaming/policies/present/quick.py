"""The same answers, counting and solutions by compiled kernels, where numba is installed and there was work for them.

The plain way stays for other geometries than the three of the box, for other statements than parities of plain means
(solutions only), for limits on their way to others, and where something is repaid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.fused.book import AT_BOOK, NOISE, OF_BINS, OF_CELLS, OF_GUARDS, PLACES, TERMS
from fairlayer.fused.switch import StreamSweeps, stream_kernels
from fairlayer.geometry import Geometry
from fairlayer.geometry.entropic import Entropic
from fairlayer.geometry.euclidean import Euclidean
from fairlayer.geometry.likelihood import Likelihood
from fairlayer.streaming.calls.lookup import address
from fairlayer.streaming.control.guard import Guards
from fairlayer.streaming.policies.base import Placed, State
from fairlayer.streaming.policies.present.resting import RESTS, rest_until
from fairlayer.streaming.policies.present.state import MOST_MEMORIES, guards, labels_told, reads_labels, scale

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine
    from fairlayer.streaming.policies.present.policy import Present

__all__ = ["REFUSED", "Feed", "Quick", "quick_feed", "quick_of", "ready"]

REFUSED = 2
"""How a compiled block ends that holds a sample which it cannot take; nothing has changed then."""

_GEOMETRIES: dict[type[Geometry], int] = {Euclidean: 0, Entropic: 1, Likelihood: 2}
_NOBODY = np.zeros(0, dtype=np.int64), np.zeros(0)


class Feed(NamedTuple):
    """A solution, as the plain way and the compiled one find it; pulls, raw means and slacks are in the book by then.

    Args:
        shifts: the shifts of each member, by "constraint/member".
        prices: the prices of each constraint.
        unmet: by how much the worst statement is missed.
        widest: the largest tolerance.
        spread: the standard deviation of recent raw scores.
        inner: the same of scores that are cut off at the bounds, which tells how far chance moves a mean prediction.
    """

    shifts: dict[str, float]
    prices: dict[str, float]
    unmet: float
    widest: float
    spread: float
    inner: float


class Quick:
    """What the kernels are given of a state, as long as it lasts."""

    def __init__(self, sweeps: StreamSweeps, policy: Present, state: State, stream: Machine) -> None:
        self.policy, self.rest_until, self.farthest = policy, rest_until(policy, state, stream), RESTS * policy.doubt**2
        self.steps, self.calls = sweeps.stream_steps, sweeps.stream_call
        self.points, self.solving = sweeps.stream_points, sweeps.stream_solve
        self._call, self._moved = self.calls.entrance(), self.points.moved_quickly()
        self.book, self.curve = state["book"], state["curve"]
        self.found = found = guards(state, stream)
        self.labelled, self.untold = reads_labels(stream), np.zeros((2, state["book"].shape[1]))
        labels, (low, high) = scale(stream), stream.bounds
        self.terms = np.empty(TERMS)
        self.terms[:] = (
            _GEOMETRIES[type(stream.geometry)],
            -math.inf if low is None else low,
            math.inf if high is None else high,
            state["noise"],
            0.0 if policy.guard is None or not found.owners else 1.0,
            self.labelled,
            labels.low or 0.0,
            labels.width or 0.0,
            stream.setting.from_logits,
        )
        self.memory = stream.memory or math.inf
        self.growth = math.exp(1.0 / self.memory)
        self.n, self.growth_of_n = 1, self.growth  # samples of the last call, and by how much their weight grew
        self.given = (self.book, self.curve, found.member, found.kind, found.start, found.room, self.terms)
        self.journal = stream.history.journal
        self.places = _places((*self.given, *self.journal), found, self.curve.shape[1])
        self.desk = address(self.places)

    def renew(self, state: State, stream: Machine, found: Guards) -> None:
        """Go on with a state that was solved for anew: it has another book and another noise."""
        if found is self.found and state["curve"] is self.curve and state["book"].flags.c_contiguous:
            self.book, self.rest_until = state["book"], rest_until(self.policy, state, stream)
            self.given = (self.book, *self.given[1:])
            self.places[AT_BOOK] = address(self.book)
            self.terms[NOISE] = state["noise"]

    def one(self, cell: int, raw: float, weight: float) -> tuple[float, float, bool, int]:
        """Answer and count one sample; see `stream_steps.step_one`."""
        found: tuple[float, float, bool, int] = self.steps.step_one(*self.given, weight, cell, raw)
        return found

    def rests(self, state: State, stream: Machine) -> bool:
        """Return whether a solution that is due can wait once more; see `resting`."""
        if stream.rule.samples > self.rest_until or state["next_refresh"] == 0.0 or stream.transition is not None:
            return False
        return bool(self._moved(self.desk, state["weight"]) <= self.farthest)

    def takes(self, samples: Placed) -> bool:
        """Return whether `answer` will take these samples; nothing has changed."""
        return bool(self.calls.takes(self.desk, *samples))

    def answer(self, state: State, samples: Placed, out: int) -> tuple[float, float] | None:
        """Answer and count samples where they lie; see `stream_call.call`."""
        edge, at, wide, n, first = samples
        weight = state["weight"] * (self.growth_of_n if n == self.n else self._growth_over(n))
        ended, moved, correction = self._call(self.desk, edge, at, wide, n, first, weight, out)
        if ended:
            if ended == REFUSED:
                return None
            state["next_refresh"] = 0.0  # type: ignore[index]
        if moved:
            state["guarded"] += moved  # type: ignore[index]
        state["weight"] = weight  # type: ignore[index]
        return correction, state["unmet"]

    def weight_after(self, state: State, n: int) -> float:
        """Return the weight of n samples that come together, all of which weigh as much."""
        return float(state["weight"] * (self.growth_of_n if n == self.n else self._growth_over(n)))

    def _growth_over(self, n: int) -> float:
        self.n, self.growth_of_n = n, math.exp(min(n / self.memory, MOST_MEMORIES))
        return self.growth_of_n

    def block(self, cells: IntArray, raw: FloatArray, weight: float, emitted: FloatArray) -> tuple[int, int, float]:
        """Answer and count a block; see `stream_steps.step_block`."""
        found: tuple[int, int, float] = self.steps.step_block(*self.given, weight, cells, raw, emitted)
        return found


def _places(arrays: Sequence[np.ndarray[Any, Any]], found: Guards, bins: int) -> IntArray:
    """Return addresses and sizes of what a call reads and writes, as `stream_call` takes them."""
    if not all(array.flags.c_contiguous for array in arrays):
        raise ValueError("the arrays of a compiled call must lie row by row")
    places = np.empty(PLACES, dtype=np.int64)
    places[AT_BOOK : AT_BOOK + len(arrays)] = [address(array) for array in arrays]
    places[OF_CELLS], places[OF_BINS], places[OF_GUARDS] = arrays[0].shape[1], bins, len(found.owners)
    return places


def ready(state: State, stream: Machine) -> Quick | None:
    """Return the compiled way of a state where it has been made already."""
    found: Quick | None = stream.scratch.get("quick")
    if found is not None and found.book is state["book"] and found.curve is state["curve"]:
        return found
    return None


def quick_of(policy: Present, state: State, stream: Machine, rows: int = 1) -> Quick | None:
    """Return the compiled way of a state, None where the plain one serves."""
    found = ready(state, stream)
    if found is not None:
        return found
    if type(stream.geometry) not in _GEOMETRIES or not state["book"].shape[1]:
        return None
    sweeps = stream_kernels(rows)
    if sweeps is None:
        return None
    found = stream.scratch["quick"] = Quick(sweeps, policy, state, stream)
    return found


def quick_feed(
    quick: Quick,
    state: State,
    stream: Machine,
    block: tuple[IntArray, FloatArray] | None,
    *,
    settings: tuple[float, ...],
    book: FloatArray,
) -> Feed:
    """Solve by the kernels, into a book; `settings` are doubt, trust, and the largest shift (0: what scores span)."""
    sketch, found = stream.history.sketch, quick.found
    t, paid, unmet, spread, inner = quick.solving.refresh(
        sketch.counts,
        sketch.totals,
        sketch.weight,
        *(block or _NOBODY),
        quick.curve,
        labels_told(state) if quick.labelled else quick.untold,
        found.member,
        found.kind,
        found.needs_labels,
        found.start,
        found.tolerance,
        np.array([state["shifts"].get(name, 0.0) for name in found.members]),
        quick.terms,
        np.array([*settings, sketch.high - sketch.low]),
        book,
    )
    prices = {constraint.name: 0.0 for constraint in stream.constraints}
    for owner, price in zip(found.owners, paid.tolist(), strict=True):
        prices[owner] += price
    return Feed(dict(zip(found.members, t.tolist(), strict=True)), prices, unmet, found.widest, spread, inner)
