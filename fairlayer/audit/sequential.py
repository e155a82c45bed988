"""Alarms on a stream that is looked at all the time: a betting test, and a confidence sequence, for two groups.

A 95 % interval that is looked at after each of 10,000 requests raises a false alarm in every second stream. Here a
gambler bets against "the groups' means differ by at most the tolerance": with the differences of pairs d_t in [-1, 1],

    K_t(lambda) = prod_s (1 + lambda (d_s - tolerance)),        lambda in [0, 1 / (1 + tolerance))

is at most 1 on average, however long it runs, while the means differ by no more than that, and so is the mixture over
many lambda and over the two directions. By Ville's inequality it ever reaches 1 / alpha in at most a share alpha of
streams, wherever one stops or looks. The bets are laid on a fixed grid (a diversified Kelly bettor), so the state is a
few dozen numbers for any length of the stream.

A pair is the mean of the next values of the one group minus that of the other: as many pairs as the smaller side of a
batch allows, whose sizes depend on the counts alone and never on the values.

Sources: Chugg, Cortes-Gomez, Wilder and Ramdas (2023), "Auditing fairness by betting"; Waudby-Smith and Ramdas (2024),
"Estimating means of bounded random variables by betting", section 3 for the confidence sequence and appendix B for the
diversified bettor. The order in which groups arrive must not depend on the values that are still to come.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.errors import NonFiniteScoresError, ParameterError

__all__ = ["SequentialTest", "evidence", "interval", "start", "step"]

# Bets from 0.005 to 0.995 of the largest one that cannot ruin, each 1.6 times the one before.
_SHARES = (*(0.005 * 1.6**k for k in range(11)), 0.995)
_LARGEST = 700.0  # the logarithm of the largest wealth that is told; a number can hold no more
_CAP = 0.75  # the largest bet of the confidence sequence


@dataclass(frozen=True)
class SequentialTest:
    """All that is known about a pair of groups: a value of fixed size.

    Args:
        tolerance: the largest difference of the means that is not an alarm.
        alpha: the share of streams in which a false alarm is ever raised, at most.
        log_wealth: the logarithm of the wealth of every bet, for "the first group is higher" and then for "the second
            is higher".
        pairs: the number of pairs seen.
        rows: the values seen of each group.
        sums: their sums.
        waiting_rows: the values of each group that wait for a partner.
        waiting_sums: their sums.
        alarm: how many values had been seen when the alarm was raised; None while there is none.
        weighted: the sums of the confidence sequence: sum of lambda d, sum of lambda, sum of v psi(lambda).
        moments: sum of the differences and of their squared deviations, in units of [0, 1].

    Example:
        >>> state = step(start(tolerance=0.05), [1.0, 0.0], [1.0])
        >>> state.rows, state.pairs, state.waiting_rows, SequentialTest.from_dict(state.to_dict()) == state
        ((2, 1), 1, (0, 0), True)
    """

    tolerance: float
    alpha: float
    log_wealth: tuple[tuple[float, ...], tuple[float, ...]]
    pairs: int = 0
    rows: tuple[int, int] = (0, 0)
    sums: tuple[float, float] = (0.0, 0.0)
    waiting_rows: tuple[int, int] = (0, 0)
    waiting_sums: tuple[float, float] = (0.0, 0.0)
    alarm: int | None = None
    weighted: tuple[float, float, float] = (0.0, 0.0, 0.0)
    moments: tuple[float, float] = (0.0, 0.0)

    @property
    def gap(self) -> float:
        """The first group's mean minus the second's, over all values seen."""
        first, second = (total / rows if rows else math.nan for total, rows in zip(self.sums, self.rows, strict=True))
        return first - second

    @property
    def wealth(self) -> float:
        """What the gambler has of 1: the evidence against the tolerance, an e-value."""
        return math.exp(min(_mixture(self.log_wealth[0] + self.log_wealth[1]), _LARGEST))

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(held: Mapping[str, Any]) -> SequentialTest:
        """Rebuild what `to_dict` wrote."""
        first, second = held["log_wealth"]
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list | tuple) else value for name, value in held.items()
        }
        plain["log_wealth"] = (tuple(first), tuple(second))
        return SequentialTest(**plain)


def start(tolerance: float = 0.0, alpha: float = 0.05) -> SequentialTest:
    """Return the state before the first request.

    Args:
        tolerance: the largest difference of the groups' means that is not an alarm, in units of the values, in [0, 1).
        alpha: the share of streams without such a difference in which an alarm is ever raised, at most.

    Raises:
        ParameterError: a number is out of its range.
    """
    if not 0 <= tolerance < 1:
        raise ParameterError(
            f"the tolerance of a sequential test lies in [0, 1), for values in [0, 1], but is {tolerance!r}."
        )
    if not 0 < alpha < 1:
        raise ParameterError(f"alpha is a share of false alarms between 0 and 1, such as 0.05, not {alpha!r}.")
    nothing = (0.0,) * len(_SHARES)
    return SequentialTest(float(tolerance), float(alpha), (nothing, nothing))


def step(state: SequentialTest, first: Any = (), second: Any = ()) -> SequentialTest:
    """Return the state after a batch, of one value or of many; the state given is not changed.

    Args:
        state: what `start` or `step` returned.
        first: the batch's values of the first group, decisions or scores in [0, 1], in order.
        second: those of the second group.

    Raises:
        NonFiniteScoresError: a value is not in [0, 1].

    Example:
        >>> import numpy as np
        >>> rng, state = np.random.default_rng(0), start(tolerance=0.05)
        >>> for _ in range(400):
        ...     state = step(state, rng.random(1) < 0.6, rng.random(1) < 0.3)
        >>> state.alarm is not None, state.rows
        (True, (400, 400))
    """
    values = (_values(first), _values(second))
    differences, waiting_rows, waiting_sums = _pair(state, values)
    rows = (state.rows[0] + len(values[0]), state.rows[1] + len(values[1]))
    sums = (state.sums[0] + float(values[0].sum()), state.sums[1] + float(values[1].sum()))
    after = replace(state, rows=rows, sums=sums, waiting_rows=waiting_rows, waiting_sums=waiting_sums)
    return _bet(after, differences) if differences else after


def interval(state: SequentialTest) -> tuple[float, float]:
    """Return limits of the first mean minus the second that hold the truth at *every* time, in 1 - alpha of streams.

    It is the predictable plug-in empirical Bernstein sequence of the pairs; where the means drift, it holds their
    average over time, weighted by the bets.

    Example:
        >>> interval(start())
        (-1.0, 1.0)
    """
    total, bets, spread = state.weighted
    if not bets:
        return -1.0, 1.0
    half = (math.log(2 / state.alpha) + spread) / bets
    low, high = total / bets - half, total / bets + half  # in units of [0, 1], as (d + 1) / 2
    return max(-1.0, 2 * low - 1), min(1.0, 2 * high - 1)


def evidence(states: Iterable[SequentialTest]) -> float:
    """Return the evidence that *some* pair is beyond its tolerance: the mean of the pairs' wealths.

    It ever reaches 1 / alpha in at most a share alpha of streams in which no pair is beyond, so that many pairs may be
    watched at once.

    Raises:
        ParameterError: there is no state.
    """
    wealths = [state.wealth for state in states]
    if not wealths:
        raise ParameterError("evidence is that of one pair or more, but no state was given.")
    return sum(wealths) / len(wealths)


def _values(values: Any) -> FloatArray:
    found = np.asarray(values, dtype=np.float64).reshape(-1)
    if not ((found >= 0) & (found <= 1)).all():  # NaN fails both
        raise NonFiniteScoresError(
            f"a watch takes values in [0, 1], but a batch holds {found[~((found >= 0) & (found <= 1))][0]:g}. Divide "
            "scores by their range first; the tolerance is in the same unit."
        )
    return found


def _pair(
    state: SequentialTest, values: tuple[FloatArray, FloatArray]
) -> tuple[list[float], tuple[int, int], tuple[float, float]]:
    """Return the differences of the pairs, and what is left waiting."""
    counts = tuple(waiting + len(new) for waiting, new in zip(state.waiting_rows, values, strict=True))
    if not min(counts):
        sums = tuple(waiting + float(new.sum()) for waiting, new in zip(state.waiting_sums, values, strict=True))
        return [], (counts[0], counts[1]), (sums[0], sums[1])
    blocks = min(max(1, len(values[0])), max(1, len(values[1])))
    first, second = (
        _block_means(state.waiting_rows[side], state.waiting_sums[side], values[side], blocks) for side in (0, 1)
    )
    return (first - second).tolist(), (0, 0), (0.0, 0.0)


def _block_means(waiting: int, total: float, values: FloatArray, blocks: int) -> FloatArray:
    """Return the means of consecutive blocks of about equal size; what waited belongs to the first block."""
    ends = (np.arange(1, blocks + 1) * len(values)) // blocks
    sums = np.diff(np.concatenate([[0.0], np.cumsum(values)])[np.concatenate([[0], ends])])
    sizes = np.diff(ends, prepend=0).astype(np.float64)
    sums[0], sizes[0] = sums[0] + total, sizes[0] + waiting
    means: FloatArray = sums / sizes
    return means


def _bet(state: SequentialTest, differences: list[float]) -> SequentialTest:
    """Let every bettor win or lose by each pair in turn, and raise the alarm at the pair where the wealth suffices."""
    bets = [share / (1 + state.tolerance) for share in _SHARES]
    first, second = (list(logs) for logs in state.log_wealth)
    needed, alarm = -math.log(state.alpha), state.alarm
    for difference in differences:
        up, down = difference - state.tolerance, -difference - state.tolerance
        for k, bet in enumerate(bets):
            first[k] += math.log1p(bet * up)
            second[k] += math.log1p(bet * down)
        rich = alarm is None and max(*first, *second) >= needed  # the mean of the bettors has no more than the richest
        if rich and _mixture((*first, *second)) >= needed:
            alarm = sum(state.rows)
    moved = replace(state, log_wealth=(tuple(first), tuple(second)), alarm=alarm)
    return _sequence(moved, differences)


def _mixture(logs: tuple[float, ...]) -> float:
    """Return the logarithm of the mean wealth over directions and bets."""
    top = max(logs)
    return top + math.log(sum(math.exp(log - top) for log in logs) / len(logs))


def _sequence(state: SequentialTest, differences: list[float]) -> SequentialTest:
    """Follow the empirical Bernstein sequence of x = (d + 1) / 2, whose bets are fixed before each x is seen.

    lambda_t = min(sqrt(2 log(2 / alpha) / (v_{t-1} t log(1 + t))), 0.75)
    psi(lambda) = (-log(1 - lambda) - lambda) / 4
    limits: sum lambda x / sum lambda -+ (log(2 / alpha) + sum 4 (x_t - m_{t-1})^2 psi(lambda_t)) / sum lambda
    """
    total, bets, spread = state.weighted
    first, second = state.moments
    t = state.pairs
    for difference in differences:
        x = (difference + 1) / 2
        mean, variance = (0.5 + first) / (t + 1), (0.25 + second) / (t + 1)
        t += 1
        bet = min(math.sqrt(2 * math.log(2 / state.alpha) / (variance * t * math.log1p(t))), _CAP)
        total, bets = total + bet * x, bets + bet
        spread += (x - mean) ** 2 * (-math.log1p(-bet) - bet)
        first += x
        second += (x - (0.5 + first) / (t + 1)) ** 2
    return replace(state, pairs=t, weighted=(total, bets, spread), moments=(first, second))
