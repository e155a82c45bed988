"""The same answers, counting and solutions by compiled kernels, where numba is installed and there was work for them.

The plain way stays for other geometries than the three of the box, for other statements than parities of plain means
(solutions only), for limits on their way to others, and where something is repaid.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.fused.book import TERMS
from fairlayer.fused.switch import StreamSweeps, stream_kernels
from fairlayer.geometry import Geometry
from fairlayer.geometry.entropic import Entropic
from fairlayer.geometry.euclidean import Euclidean
from fairlayer.geometry.likelihood import Likelihood
from fairlayer.streaming.policies.base import State
from fairlayer.streaming.policies.present.state import guards, labels_told, reads_labels, scale

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

__all__ = ["REFUSED", "Feed", "Quick", "quick_feed", "quick_of"]

REFUSED = 2
"""How a compiled block ends that holds a sample which it cannot take; nothing has changed then."""

_GEOMETRIES: dict[type[Geometry], int] = {Euclidean: 0, Entropic: 1, Likelihood: 2}
_NOBODY = np.zeros(0, dtype=np.int64), np.zeros(0)


class Feed(NamedTuple):
    """A solution, as the plain way and the compiled one find it.

    Args:
        base: (cells,) the pull of each cell at a label estimate of 0.
        slope: (cells,) what an estimate of 1 adds.
        shifts: of each member, by "constraint/member".
        prices: of each constraint.
        unmet: by how much the worst statement is missed.
        widest: the largest tolerance.
        spread: the standard deviation of recent raw scores.
    """

    base: FloatArray
    slope: FloatArray
    shifts: dict[str, float]
    prices: dict[str, float]
    unmet: float
    widest: float
    spread: float


class Quick:
    """What the kernels are given of a state, as long as it lasts."""

    def __init__(self, sweeps: StreamSweeps, state: State, stream: Machine, limit: float | None) -> None:
        self.steps, self.solving = sweeps.stream_steps, sweeps.stream_solve
        self.book, self.curve = state["book"], state["curve"]
        found = guards(state, stream)
        labels, (low, high) = scale(stream), stream.bounds
        self.terms = np.empty(TERMS)
        self.terms[:] = (
            _GEOMETRIES[type(stream.geometry)],
            -math.inf if low is None else low,
            math.inf if high is None else high,
            state["noise"],
            0.0 if limit is None or not found.owners else 1.0,
            reads_labels(stream),
            labels.low or 0.0,
            labels.width or 0.0,
        )
        self.growth = math.exp(1.0 / (stream.memory or math.inf))
        self.given = (self.book, self.curve, found.member, found.kind, found.start, found.room, self.terms)

    def fits(self, state: State) -> bool:
        """Return whether the state is still the one that this was made of."""
        return self.book is state["book"] and self.curve is state["curve"]

    def one(self, cell: int, raw: float, weight: float) -> tuple[float, float, bool, int]:
        """Answer and count one sample; see `stream_steps.step_one`."""
        found: tuple[float, float, bool, int] = self.steps.step_one(*self.given, weight, cell, raw)
        return found

    def block(self, cells: IntArray, raw: FloatArray, weight: float, emitted: FloatArray) -> tuple[int, int, float]:
        """Answer and count a block; see `stream_steps.step_block`."""
        found: tuple[int, int, float] = self.steps.step_block(*self.given, weight, cells, raw, emitted)
        return found


def quick_of(state: State, stream: Machine, limit: float | None, rows: int = 1) -> Quick | None:
    """Return the compiled way of a state, None where the plain one serves."""
    found: Quick | None = stream.scratch.get("quick")
    if found is not None and found.fits(state):
        return found
    if type(stream.geometry) not in _GEOMETRIES or not state["book"].shape[1]:
        return None
    sweeps = stream_kernels(rows)
    if sweeps is None:
        return None
    found = stream.scratch["quick"] = Quick(sweeps, state, stream, limit)
    return found


def quick_feed(
    quick: Quick, state: State, stream: Machine, block: tuple[IntArray, FloatArray] | None, settings: tuple[float, ...]
) -> Feed:
    """Return the solution by the kernels; `settings` are doubt, trust, and the largest shift of probabilities."""
    sketch, found, kernels = stream.history.sketch, guards(state, stream), quick.solving
    *points, recent, spread = kernels.gather(
        sketch.counts, sketch.totals, sketch.weight, *(block or _NOBODY), quick.curve, quick.terms
    )
    doubt, trust, limit = settings
    numbers = np.array([doubt, trust, limit if stream.geometry.bounded else max(sketch.high - sketch.low, spread)])
    before = np.array([state["shifts"].get(name, 0.0) for name in found.members])
    pulls, t, mass, unmet = kernels.solve(
        *points,
        spread,
        labels_told(state),
        found.member,
        found.kind,
        found.needs_labels,
        found.start,
        found.tolerance,
        before,
        quick.terms,
        numbers,
    )
    k = state["book"].shape[1]
    last = pulls[len(pulls) - k * (2 if reads_labels(stream) else 1) :]
    prices = {constraint.name: 0.0 for constraint in stream.constraints}
    paid = np.maximum(t, 0.0) * mass / max(recent, 1e-9)
    for owner, first, end in zip(found.owners, found.start.tolist(), found.start[1:].tolist(), strict=False):
        prices[owner] += float(paid[first:end].sum())
    slope = last[k:] - last[:k] if len(last) > k else np.zeros(k)
    return Feed(
        last[:k].copy(),
        slope,
        dict(zip(found.members, t.tolist(), strict=True)),
        prices,
        unmet,
        float(found.tolerance.max()),
        spread,
    )
