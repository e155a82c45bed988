"""Statements that say nothing, or cannot be meant: each is told once, as a warning, and changes no number."""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fairlayer._arrays import held_by_host, is_followed, without_derivatives
from fairlayer._rows import positive_part, reach_of
from fairlayer._typing import FloatArray
from fairlayer.constraints import Constraint, Spread, Statement
from fairlayer.constraints.statements import as_float
from fairlayer.edge.bounds import Box
from fairlayer.errors import FairlayerWarning

__all__ = [
    "OnceWarner",
    "about_limit",
    "about_logits",
    "about_names",
    "about_ratio",
    "about_rows_of_a_simplex",
    "about_rows_off_the_simplex",
    "nothing_to_compare",
    "warn_if_nothing_to_compare",
    "warn_of_unmeant",
]

_ROWS_SUM_TO_ONE = 1e-3
_ROWS_FAR_FROM_ONE = 1e-2
_WHOLE = re.compile(r"(?<==)'?(-?\d+)(?:\.0+)?'?(?=,|$)")  # a whole number in the name of a group
Ends = tuple[float | None, float | None]


class OnceWarner:
    """Says each thing once in its life: a layer holds one, so that a warning comes once per layer.

    Example:
        >>> once = OnceWarner()
        >>> with warnings.catch_warnings(record=True) as told:
        ...     warnings.simplefilter("always")
        ...     once.warn("topic", "A text."), once.warn("topic", "A text.")
        (None, None)
        >>> len(told)
        1
    """

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._calls = 0

    def due(self) -> bool:
        """Count a call, and return whether to look closely at it: at the calls 1, 2, 4, 8, ..."""
        self._calls += 1
        return self._calls & (self._calls - 1) == 0

    def due_next(self) -> bool:
        """Return whether the next call is one to look closely at, without counting it."""
        return self._calls & (self._calls + 1) == 0

    def count(self) -> None:
        """Count a call that nobody looks at."""
        self._calls += 1

    def warn(self, topic: str, text: str) -> None:
        """Warn, unless this topic has been spoken of."""
        if topic not in self._said:
            self._said.add(topic)
            warnings.warn(text, FairlayerWarning, stacklevel=_caller_outside())


def warn_if_nothing_to_compare(constraint: Constraint, statement: Statement, once: OnceWarner) -> None:
    """Warn, once per constraint, where a statement speaks of fewer groups than it takes to say something.

    Call it for every statement that a constraint makes about a batch. It costs the length of a matrix.
    """
    if len(statement.matrix) < (2 if isinstance(statement, Spread) else 1):
        means = statement.means
        unknown = 0 if means.codes is None else int((means.codes < 0).sum())
        once.warn(f"compare {constraint.name}", nothing_to_compare(constraint, means.groups, unknown))


def nothing_to_compare(constraint: Constraint, groups: Sequence[str], unknown: int) -> str:
    """Return what to say of a constraint on fewer than two groups, and so many samples of unknown group."""
    names = ", ".join(map(repr, constraint.features))
    known = f"the only group known is {groups[0]!r}" if groups else "no group is known"
    others = "1 sample is" if unknown == 1 else f"{unknown} samples are"
    rest = f", and {others} of unknown group" if unknown else ""
    return (
        f"{constraint.name} has nothing to compare: of the sensitive feature {names} {known}{rest}. It bounds nothing. "
        "Check the column (None, NaN and -1 mean unknown), and call fit_categories(...) on data that has every group."
    )


def warn_of_unmeant(
    scores: Tensor,
    stated: Iterable[tuple[Constraint, Statement]],
    box: Box,
    once: OnceWarner,
    *,
    simplex: bool = False,
    from_logits: bool = False,
) -> None:
    """Warn, once for each kind, of scores, bounds and limits that do not belong together.

    Call it for each batch; it looks closely at the calls 1, 2, 4, 8, ... of a layer, so that it costs nothing.

    Args:
        scores: (n,), (n, 1) or (n, k), as they were given.
        stated: each constraint with each of its statements about the batch.
        box: bounds on the predictions.
        once: what remembers, for the layer, which warnings were given.
        simplex: whether each row of predictions is held on the simplex.
        from_logits: whether the scores are logits, so that the predictions are probabilities.
    """
    if not once.due() or is_followed(scores) or scores.numel() == 0:
        return
    plain = without_derivatives(scores)
    ends = (0.0, 1.0) if from_logits or simplex else (_end(box.lower, min), _end(box.upper, max))
    numbers = held_by_host(plain)
    smallest = None if from_logits else float(numbers.min())
    if not simplex and not from_logits:
        _say(once, "simplex", about_rows_of_a_simplex(plain))
        _say(once, "logits", about_logits(numbers, ends))
        if ends == (None, None) and bool(((numbers >= 0) & (numbers <= 1)).all()):
            ends = (0.0, 1.0)
    if simplex and not from_logits:
        _say(once, "no simplex", about_rows_off_the_simplex(plain))
    for constraint, statement in stated:
        _say(once, f"names {constraint.name}", about_names(constraint, statement))
        _say(once, f"limit {constraint.name}", about_limit(constraint, statement, ends))
        _say(once, f"ratio {constraint.name}", about_ratio(constraint, statement, smallest, ends))


def about_rows_of_a_simplex(scores: Tensor) -> str | None:
    """Return what to say where rows are the probabilities of classes, and each column is projected by itself."""
    if scores.ndim != 2 or scores.shape[1] < 2:
        return None
    off = (scores.double().sum(dim=1) - 1.0).abs().max()
    if bool((scores < 0).any()) or not float(off) <= _ROWS_SUM_TO_ONE:
        return None
    return (
        f"the rows of the scores, of shape {tuple(scores.shape)}, sum to 1 as the probabilities of "
        f"{scores.shape[1]} classes do, but each column is projected by itself, after which they do not. Pass "
        'bounds="simplex" to keep them probabilities.'
    )


def about_rows_off_the_simplex(scores: Tensor) -> str | None:
    """Return what to say where rows that are to be the probabilities of classes do not sum to 1."""
    sums = scores.double().sum(dim=-1)
    if float((sums - 1.0).abs().max()) <= _ROWS_FAR_FROM_ONE:
        return None
    return (
        f"the rows of the scores sum to between {float(sums.min()):.3g} and {float(sums.max()):.3g}, and not to 1: "
        "each row is first moved onto the simplex. If they are logits, pass torch.softmax(logits, dim=1), or "
        'geometry="entropic" with from_logits=True.'
    )


def about_logits(scores: Any, ends: Ends) -> str | None:
    """Return what to say where most scores, of an array or a tensor, lie outside bounds of 0 and 1."""
    low, high = ends
    if low is None or high is None or not (0.0 <= low <= 0.01 and 0.99 <= high <= 1.0):
        return None
    outside = float(((scores < 0) | (scores > 1)).sum()) / math.prod(scores.shape)
    if outside <= 0.5:
        return None
    return (
        f"{outside:.0%} of the scores lie outside the bounds (0, 1), as logits do, and are cut off there. Pass "
        "from_logits=True with a geometry that takes logits, or pass probabilities (torch.sigmoid)."
    )


def about_names(constraint: Constraint, statement: Statement) -> str | None:
    """Return what to say where the names of two groups differ in their writing only, and are most likely one."""
    seen: dict[str, str] = {}
    for group in statement.means.groups:
        plain = "".join(group.split()).casefold()
        other = seen.setdefault(_WHOLE.sub(r"\1", plain), group)
        if other == group:
            continue
        if "".join(other.split()).casefold() == plain:
            how = "differ only by case or blanks"
            remedy = "bring the names into one form first, for example by .str.strip().str.lower()"
        else:
            how = "are the same number, once as a number and once as text"
            remedy = "bring the column into one type first, for example by .astype(int)"
        return (
            f"{constraint.name} compares the groups {other!r} and {group!r}, whose names {how}, as groups of their "
            f"own. If they are one group, {remedy}."
        )
    return None


def about_limit(constraint: Constraint, statement: Statement, ends: Ends) -> str | None:
    """Return what to say where no predictions within the bounds can break a statement."""
    low, high = ends
    if low is None or high is None or not _is_stated(statement):
        return None
    tolerance = as_float(statement.tolerance)
    smallest, largest = _reach(statement, low, high)
    if isinstance(statement, Spread):
        loose = bool(tolerance >= statement.scale * largest.max() - smallest.min())
        limit = f"{tolerance:g}"
    else:
        upper, lower = statement.upper_offset + tolerance, statement.lower_offset - tolerance
        loose = bool((upper >= largest).all() and (lower <= smallest).all())
        limit = f"[{lower.min():g}, {upper.max():g}]"
    if not loose:
        return None
    return (
        f"the limit of {constraint.name}, {limit}, cannot bind: predictions between {_plain(low)} and {_plain(high)} "
        "never go beyond it, so it bounds nothing. A limit is in prediction units: two points of a hundred are 0.02."
    )


def _plain(bound: float) -> str:
    """Return a bound without the margin by which predictions keep away from it."""
    return f"{round(bound, 3) if abs(bound - round(bound)) < 1e-3 else bound:g}"


def about_ratio(constraint: Constraint, statement: Statement, smallest: float | None, ends: Ends) -> str | None:
    """Return what to say where a ratio of means is bounded, and predictions may be negative."""
    ratio = isinstance(statement, Spread) and statement.scale != 1.0
    if not ratio or smallest is None or smallest >= 0.0 or (ends[0] is not None and ends[0] >= 0.0):
        return None
    return (
        f"{constraint.name} bounds a ratio of means, but the scores go down to {smallest:g}: a ratio of numbers of "
        "different sign says nothing. Give probabilities or amounts >= 0, or bound a difference."
    )


def _say(once: OnceWarner, topic: str, text: str | None) -> None:
    if text is not None:
        once.warn(topic, text)


def _is_stated(statement: Statement) -> bool:
    """Return whether a statement speaks of anything in this batch."""
    return len(statement.matrix) >= (2 if isinstance(statement, Spread) else 1) and bool(statement.means.counts.any())


def _reach(statement: Statement, low: float, high: float) -> tuple[FloatArray, FloatArray]:
    """Return the smallest and the largest value of each row: interval arithmetic through weights and matrix."""
    means, matrix = statement.means, statement.matrix
    least, most = np.full(len(means), low), np.full(len(means), high)
    if means.weights is not None:
        present = means.counts > 0  # an empty soft group has no numbers to speak of
        ones = np.ones(means.weights.shape[1])
        total, size = means.weights @ ones, reach_of(means.weights, ones)
        above, below = np.where(present, 0.5 * (size + total), 0.0), np.where(present, 0.5 * (total - size), 0.0)
        least, most = above * low + below * high, above * high + below * low
    above, below = positive_part(matrix), -positive_part(-matrix)
    offset: Any = 0.0
    if isinstance(statement, Spread) and statement.offset is not None:
        offset = statement.offset
    return above @ least + below @ most + offset, above @ most + below @ least + offset


def _end(bound: Any, outermost: Any) -> float | None:
    if bound is None or not isinstance(bound, Tensor):
        return None if bound is None else float(bound)
    if is_followed(bound):
        return None
    return float(outermost(bound.min(), bound.max(), key=float))


def _caller_outside() -> int:
    """Return the stack level of the first caller outside this package, for the place that a warning names."""
    for level, frame in enumerate(_frames(), 1):
        if not frame.startswith(("fairlayer.", "torch.", "warnings")):
            return max(level - 1, 2)
    return 2


def _frames() -> Iterator[str]:
    frame = sys._getframe(1)
    while frame is not None:
        yield frame.f_globals.get("__name__", "")
        frame = frame.f_back  # type: ignore[assignment]
