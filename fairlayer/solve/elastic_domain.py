"""Where predictions may lie, as the elastic program sees it, and numbers in a box as the first such domain.

The program moves along a line in the space of multipliers. Each free choice of the predictions then answers by its
cheapest end: a number by its lower or its upper bound, a row of classes by one class (see `elastic_simplex`). Along the
line that answer changes at breakpoints, and the domains list them.

`x` is a point whose entries are at an end, but for the basic ones, which the program determines by equations, and
for those of a box that nothing has pulled yet, which stay where they started.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.solve.elastic_samples import SampleMap

__all__ = ["BoxDomain", "Breakpoints", "Domain"]


class Breakpoints(NamedTuple):
    """Where the answer of the domain changes along a line of multipliers."""

    at: FloatArray  # step, ascending within an entry
    drop: FloatArray  # by how much the slope falls there; infinite where it must not be passed
    entry: IntArray
    target: IntArray  # box: 0 for the lower, 1 for the upper end; simplex: the class
    pivot: FloatArray  # rate at which the reduced cost reaches zero

    def at_places(self, places: IntArray) -> Breakpoints:
        """Return some of the breakpoints."""
        return Breakpoints(
            self.at[places], self.drop[places], self.entry[places], self.target[places], self.pivot[places]
        )


class Domain(Protocol):
    """What the elastic program asks of a domain."""

    samples: SampleMap
    x: FloatArray
    size: FloatArray  # of each column of B

    def level(self) -> FloatArray:
        """Return predictions that are all equal, or as nearly as the domain allows."""

    def tilted(self, random: np.random.Generator) -> FloatArray:
        """Return random costs, in units of `size`, that draw each entry to where it started; none for basic entries."""

    def costs(self, costs: FloatArray) -> FloatArray:
        """Return the costs of the basic entries."""

    def settle(self, reduced: FloatArray, noise: FloatArray) -> None:
        """Move every entry to the end that is cheapest at the reduced costs; nothing is basic."""

    def settle_others(self, reduced: FloatArray, noise: FloatArray) -> None:
        """Move every entry that is not basic to the end that is cheapest at the reduced costs."""

    def beyond(self, reduced: FloatArray, noise: FloatArray) -> bool:
        """Return whether the cheapest end of some entry is infinite."""

    def enlarge(self, factor: float) -> None:
        """Move the replacements of infinite bounds outwards."""

    def columns(self, normals: FloatArray) -> FloatArray:
        """Return normals @ B at the basic entries, (k, basic)."""

    def shift(self, change: FloatArray) -> None:
        """Move the basic entries."""

    def exchange(self) -> bool:
        """Make the basic entries those that can be out of their bounds; return whether their columns changed."""

    def excess(self) -> tuple[FloatArray, FloatArray]:
        """Return by how much each basic entry lies above (> 0) or below (< 0) its bounds, and the size of it all."""

    def breakpoints(self, reduced: FloatArray, change: FloatArray, noise: FloatArray) -> Breakpoints:
        """Return the breakpoints along `reduced + t change`, t >= 0, of what is not basic."""

    def flip(self, passed: Breakpoints) -> None:
        """Move entries whose breakpoints were passed."""

    def enter(self, entry: int, target: int) -> None:
        """Make an entry basic."""

    def leave(self, position: int) -> None:
        """Put a basic entry to the end that it passed."""

    def clipped(self) -> FloatArray:
        """Return the point of the domain nearest to x."""

    def near(self) -> FloatArray:
        """Return the point nearest to x that is no further out than the first replacements of infinite bounds."""

    def lowest(self, reduced: FloatArray, noise: FloatArray) -> float:
        """Return the least value of `reduced` over the domain, infinite bounds replaced by their first numbers."""

    def by_bounds(self, reduced: FloatArray) -> tuple[FloatArray | None, FloatArray | None]:
        """Return the derivative of `lowest` in the lower and in the upper bounds; None where there are none."""


class BoxDomain:
    """Numbers between bounds, which may be infinite.

    What is pulled towards an infinite bound waits at a large number, until it can be basic; basic entries may go
    beyond. `enlarge` moves that number further out.
    """

    def __init__(
        self, samples: SampleMap, lower: FloatArray, upper: FloatArray, start: FloatArray, reach: float
    ) -> None:
        self.samples, self.true_lower, self.true_upper = samples, lower, upper
        self.reach = reach
        self._place()
        self.near_lower, self.near_upper = self.lower, self.upper
        self.x = np.minimum(np.maximum(start, self.lower), self.upper)
        self.basic: list[int] = []
        self.size = samples.norms(len(lower))

    def _place(self) -> None:
        self.lower = np.maximum(self.true_lower, np.minimum(-self.reach, self.true_upper - self.reach))
        self.upper = np.minimum(self.true_upper, np.maximum(self.reach, self.true_lower + self.reach))

    def enlarge(self, factor: float) -> None:
        """Move the replacements of infinite bounds outwards."""
        at_lower, at_upper = self.x == self.lower, self.x == self.upper
        self.reach *= factor
        self._place()
        free = np.ones(len(self.x), bool)
        free[self.basic] = False
        self.x = np.where(free & at_lower, self.lower, np.where(free & at_upper, self.upper, self.x))

    def level(self) -> FloatArray:
        """See `Domain.level`."""
        level = np.full_like(self.x, self.x.mean() if len(self.x) else 0.0)
        return np.minimum(np.maximum(level, self.lower), self.upper)

    def by_bounds(self, reduced: FloatArray) -> tuple[FloatArray | None, FloatArray | None]:
        """See `Domain.by_bounds`."""
        return np.maximum(reduced, 0.0), np.minimum(reduced, 0.0)

    def beyond(self, reduced: FloatArray, noise: FloatArray) -> bool:
        """See `Domain.beyond`."""
        pulled_down, pulled_up = reduced > noise, reduced < -noise
        return bool((pulled_down & np.isinf(self.true_lower)).any() or (pulled_up & np.isinf(self.true_upper)).any())

    def tilted(self, random: np.random.Generator) -> FloatArray:
        """See `Domain.tilted`: towards the nearer end."""
        size = self.size * random.uniform(0.5, 1.0, len(self.x))
        below, above = self.x - self.true_lower, self.true_upper - self.x
        costs = np.where(np.isinf(below) & np.isinf(above), 0.0, np.where(below <= above, size, -size))
        costs[self.basic] = 0.0
        return costs

    def costs(self, costs: FloatArray) -> FloatArray:
        """See `Domain.costs`."""
        return costs[self.basic]

    def settle_others(self, reduced: FloatArray, noise: FloatArray) -> None:
        """See `Domain.settle_others`."""
        basic = self.x[self.basic]
        self.x = np.where(reduced > noise, self.lower, np.where(reduced < -noise, self.upper, self.x))
        self.x[self.basic] = basic

    def settle(self, reduced: FloatArray, noise: FloatArray) -> None:
        """See `Domain.settle`."""
        self.basic = []
        self.x = np.where(reduced > noise, self.lower, np.where(reduced < -noise, self.upper, self.x))

    def columns(self, normals: FloatArray) -> FloatArray:
        """See `Domain.columns`."""
        entries = np.array(self.basic, int)
        return self.samples.columns(normals, entries, np.zeros(len(entries), int))

    def shift(self, change: FloatArray) -> None:
        """See `Domain.shift`."""
        self.x[self.basic] += change

    def exchange(self) -> bool:
        """See `Domain.exchange`."""
        return False

    def excess(self) -> tuple[FloatArray, FloatArray]:
        """See `Domain.excess`."""
        x, lower, upper = self.x[self.basic], self.true_lower[self.basic], self.true_upper[self.basic]
        end = np.where(x > upper, upper, np.where(x < lower, lower, x))
        return x - end, np.maximum(np.abs(x), np.abs(end))

    def breakpoints(self, reduced: FloatArray, change: FloatArray, noise: FloatArray) -> Breakpoints:
        """See `Domain.breakpoints`."""
        down, up = change > noise, change < -noise
        target = np.where(down, self.lower, self.upper)
        room = np.abs(self.x - target)
        moving = (down | up) & (room > 0.0)
        moving[self.basic] = False
        entry = np.flatnonzero(moving)
        rate = np.abs(change[entry])
        to_go = np.where(down[entry], -reduced[entry], reduced[entry])
        at = np.maximum(to_go, 0.0) / rate
        return Breakpoints(at, rate * room[entry], entry, up[entry].astype(int), rate)

    def flip(self, passed: Breakpoints) -> None:
        """See `Domain.flip`."""
        self.x[passed.entry] = np.where(passed.target == 1, self.upper[passed.entry], self.lower[passed.entry])

    def enter(self, entry: int, target: int) -> None:
        """See `Domain.enter`."""
        self.basic.append(entry)

    def leave(self, position: int) -> None:
        """See `Domain.leave`."""
        entry = self.basic.pop(position)
        above = self.x[entry] - self.upper[entry] > self.lower[entry] - self.x[entry]
        self.x[entry] = self.upper[entry] if above else self.lower[entry]

    def clipped(self) -> FloatArray:
        """See `Domain.clipped`."""
        return np.minimum(np.maximum(self.x, self.true_lower), self.true_upper)

    def near(self) -> FloatArray:
        """See `Domain.near`."""
        return np.minimum(np.maximum(self.x, self.near_lower), self.near_upper)

    def lowest(self, reduced: FloatArray, noise: FloatArray) -> float:
        """See `Domain.lowest`."""
        end = np.where(reduced > 0.0, self.near_lower, self.near_upper)
        true = np.where(reduced > 0.0, self.true_lower, self.true_upper)
        return float(np.where(np.isinf(true) & (np.abs(reduced) <= noise), 0.0, reduced * end).sum())
