"""Statements about group means, as linear conditions about the n predictions and a few helpers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.constraints import Rows, Spread, Statement

__all__ = ["Condition", "conditions_of", "row_sizes", "spread_offset"]

Role = Literal["upper", "lower", "equal", "high", "low", "width", "tied"]  # three of Rows, four of Spread


@dataclass(frozen=True)
class Condition:
    """`weights @ y + helpers @ h <= constant + slope * tolerance + widens * widening`, or `==`.

    The multiplier of an equality has a sign; the side that holds y decides how a tolerance acts.
    """

    block: int
    row: int
    role: Role
    weights: FloatArray
    helpers: tuple[tuple[int, float], ...] = ()
    constant: float = 0.0
    slope: float = 0.0
    widens: float = 0.0

    @property
    def is_equality(self) -> bool:
        """Whether both sides are equal."""
        return self.role in {"equal", "tied"}

    @cached_property
    def size(self) -> float:
        """Length of the weights, by which the condition is divided."""
        return float(np.linalg.norm(self.weights)) or 1.0

    def slope_at(self, multiplier: float) -> float:
        """Return how the right-hand side moves with the tolerance, given the multiplier."""
        if not self.is_equality:
            return self.slope
        return float(np.sign(multiplier)) if self.role == "equal" else float(multiplier > 0)


def conditions_of(statements: Sequence[Statement], tolerances: FloatArray, *, equalities: bool) -> Iterator[Condition]:
    """State every statement; without `equalities`, as inequalities only, which can be widened."""
    helper = 0
    for block, statement in enumerate(statements):
        if isinstance(statement, Rows):
            yield from _row_conditions(block, statement, float(tolerances[block]), equalities)
        elif equalities and tolerances[block] == 0 and statement.scale == 1.0:
            yield from _tied_conditions(block, statement, helper)
            helper += 1
        else:
            yield from _spread_conditions(block, statement, helper)
            helper += 2


def _row_conditions(block: int, rows: Rows, tolerance: float, equalities: bool) -> Iterator[Condition]:
    """State lower - tolerance <= v_r <= upper + tolerance."""
    sizes = row_sizes(rows)
    for r, weights in enumerate(rows.matrix @ rows.means.as_weights()):
        lower, upper = float(rows.lower_offset[r]), float(rows.upper_offset[r])
        if equalities and lower - tolerance == upper + tolerance:
            yield Condition(block, r, "equal", weights, (), upper + tolerance)
            continue
        if math.isfinite(upper):
            yield Condition(block, r, "upper", weights, (), upper, 1.0, sizes[r])
        if math.isfinite(lower):
            yield Condition(block, r, "lower", -weights, (), -lower, 1.0, sizes[r])


def row_sizes(rows: Rows) -> FloatArray:
    """Return how far each row moves per unit of prediction: the unit of its violation."""
    reach: FloatArray = np.abs(rows.means.as_weights()).sum(axis=1)
    size = np.abs(rows.matrix) @ reach
    return np.asarray(np.where(size > 0, size, 1.0))


def _spread_conditions(block: int, spread: Spread, helper: int) -> Iterator[Condition]:
    """State low <= v_i <= high and scale * high - low <= tolerance."""
    low, high = helper, helper + 1
    offset = spread_offset(spread)
    members = spread.matrix @ spread.means.as_weights()
    for i, weights in enumerate(members):
        yield Condition(block, i, "high", weights, ((high, -1.0),), -offset[i])
        yield Condition(block, i, "low", -weights, ((low, 1.0),), offset[i])
    nothing = np.zeros(members.shape[1])
    yield Condition(block, 0, "width", nothing, ((high, spread.scale), (low, -1.0)), 0.0, 1.0, 1.0)


def _tied_conditions(block: int, spread: Spread, helper: int) -> Iterator[Condition]:
    """State v_i == c for every member."""
    offset = spread_offset(spread)
    for i, weights in enumerate(spread.matrix @ spread.means.as_weights()):
        yield Condition(block, i, "tied", weights, ((helper, -1.0),), -offset[i])


def spread_offset(spread: Spread) -> FloatArray:
    """Return what is added to each member."""
    return np.zeros(len(spread.matrix)) if spread.offset is None else spread.offset
