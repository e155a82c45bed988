"""Intervals for differences and ratios between groups, which cover and which contain their estimate.

The largest difference between the measured means of several groups is above 0 also where the groups are equal, and a
resampled interval around it misses the true one. So both limits are made from the limits of the single groups,
(l_g(c), u_g(c)) at a critical value c, joined as Newcombe (1998) joins two of them, with d_ij = m_i - m_j:

    LOW  = max(0, max_ij  d_ij - sqrt((m_i - l_i(k))^2 + (u_j(k) - m_j)^2))
    HIGH =        max_ij  d_ij + sqrt((u_i(z) - m_i)^2 + (m_j - l_j(z))^2)

* LOW is above 0 when *some* pair shows a gap, and among many pairs some do by chance; k is Tukey's constant for the
  range of G groups, q(.975; G) / sqrt 2, conservative for unequal sizes (Tukey-Kramer).
* HIGH needs no correction: "the range is at least t" is a union over pairs, so missing it needs the one pair that is
  truly extreme to fail (an intersection-union test). z is the plain quantile.
* The limits of a group are Wilson's (1927) for a share, so that 0 of 7 is no certainty, and on the inner side Clopper's
  and Pearson's (1934) where at most five are hits, or misses; Student's t for a mean, with four degrees of freedom
  borrowed from the other groups, so that a group of one row has limits; DeLong's variance on the logit for an area
  under the curve.
* The estimate is the range of the empirical-Bayes means e_g = mu + tau2 / (tau2 + v_g) (m_g - mu), with the variance
  between groups tau2 by DerSimonian and Laird (1986), put inside [LOW, max - min]. No mean is moved by more than
  1.6 sqrt(v_g), nor by more than 4.8 v_g / |m_g - mu|, so that one group far from all others keeps its place.

Ratios have the same with the limits for a ratio by Donner and Zou (2012, MOVER-R). Nothing is drawn: two calls give
the same digits. Rows are taken to be independent; with weights, a group counts as (sum w)^2 / sum w^2 rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.audit.means import Means
from fairlayer.errors import ParameterError, require

__all__ = ["Interval", "group_limits", "pair_interval", "range_interval", "ratio_interval", "rows_needed", "tukey"]

_RARE = 5  # hits, or misses, up to which the inner limit of a share is exact
_BORROWED = 4.0  # degrees of freedom that each group takes from the pooled variance
_MOVED, _FAR = 1.6, 3.0  # standard errors by which a mean is moved at most, and from which on by less
_UNKNOWN = float("nan")


@dataclass(frozen=True)
class Interval:
    """A number with its limits.

    Args:
        measured: what the rows at hand show, noise included.
        estimate: the same with the part that noise makes taken out, as far as it can be known.
        low: lower limit.
        high: upper limit.
        level: the share of samples whose interval contains the truth.

    Example:
        >>> print(Interval(0.056, 0.031, 0.0, 0.082, 0.95))
        0.031 (0.000 to 0.082), measured 0.056
    """

    measured: float
    estimate: float
    low: float
    high: float
    level: float = 0.95

    @property
    def known(self) -> bool:
        """Whether there is an interval at all."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def __str__(self) -> str:
        if not self.known:
            return "not compared" if math.isnan(self.measured) else f"measured {self.measured:.3f}, no interval"
        return f"{self.estimate:.3f} ({self.low:.3f} to {self.high:.3f}), measured {self.measured:.3f}"


def range_interval(blocks: Means | Sequence[Means], level: float = 0.95) -> Interval:
    """Return the largest difference between groups; of several metrics, that of the worst one.

    Args:
        blocks: a metric of every group, or several whose worst range is meant (equalized odds: two rates).
        level: the level of the interval, both tails together.

    Raises:
        ParameterError: the level is not between 0 and 1.
        MissingExtraError: SciPy is not installed.

    Example:
        >>> import numpy as np
        >>> hired = Means.of_rates(np.array([200.0, 200.0]), np.array([60.0, 76.0]))
        >>> print(range_interval(hired))
        0.052 (0.000 to 0.171), measured 0.080
    """
    compared = [_present(block) for block in ([blocks] if isinstance(blocks, Means) else blocks)]
    found = [_range(block, level, len(compared)) for block in compared]
    known = [interval for interval in found if not math.isnan(interval.measured)]
    if not known:
        return _none(level)
    measured, estimate, low, high = np.max([(i.measured, i.estimate, i.low, i.high) for i in known], axis=0).tolist()
    return Interval(measured, min(max(estimate, low), measured), low, high, level)


def ratio_interval(blocks: Means | Sequence[Means], level: float = 0.95) -> Interval:
    """Return the smallest ratio of two groups, min over max, 1 where they are equal; of several metrics, the worst.

    There is none where all are 0, where a number is negative, or where fewer than two groups are compared.

    Args:
        blocks: the means of each metric.
        level: the share of samples whose interval covers the truth.

    Example:
        >>> import numpy as np
        >>> hired = Means.of_rates(np.array([200.0, 200.0]), np.array([60.0, 76.0]))
        >>> print(ratio_interval(hired))
        0.857 (0.599 to 1.000), measured 0.789
    """
    compared = [_present(block) for block in ([blocks] if isinstance(blocks, Means) else blocks)]
    found = [_ratio(block, level, len(compared)) for block in compared]
    known = [interval for interval in found if not math.isnan(interval.measured)]
    if not known:
        return _none(level)
    measured, estimate, low, high = np.min([(i.measured, i.estimate, i.low, i.high) for i in known], axis=0).tolist()
    return Interval(measured, min(max(estimate, measured), high), low, high, level)


def pair_interval(means: Means, first: int, second: int, level: float = 0.95) -> Interval:
    """Return the signed difference of two groups that were named beforehand, first minus second (Newcombe 1998).

    Args:
        means: the means of two groups.
        level: the share of samples whose interval covers the truth.

    Example:
        >>> import numpy as np
        >>> hired = Means.of_rates(np.array([200.0, 200.0]), np.array([60.0, 76.0]))
        >>> print(pair_interval(hired, 1, 0))
        0.080 (-0.013 to 0.171), measured 0.080
    """
    pair = means.take(np.array([first, second]))
    if not pair.seen.all():
        return _none(level)
    difference = float(pair.value[0] - pair.value[1])
    if means.kind == "none":
        return Interval(difference, difference, _UNKNOWN, _UNKNOWN, level)
    low, high = _limits(pair, _quantile(level))
    down = math.hypot(pair.value[0] - low[0], high[1] - pair.value[1])
    up = math.hypot(high[0] - pair.value[0], pair.value[1] - low[1])
    return Interval(difference, difference, difference - down, difference + up, level)


def group_limits(means: Means, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Return the limits of each group's own number, (groups,) each; NaN for a group that has none."""
    low, high = np.full_like(means.value, np.nan), np.full_like(means.value, np.nan)
    seen = means.seen
    if seen.any() and means.kind != "none":
        low[seen], high[seen] = _limits(_present(means), _quantile(level))
    return low, high


def rows_needed(limit: float, share: float, groups: int) -> int:
    """Return about how many rows each group needs, so that equal groups are told to differ by at most `limit`.

        n = 2 p (1 - p) (3.24 / limit)^2        for an 80 % chance and two groups; half as many again for more

    Args:
        limit: the largest difference that is allowed, as a share.
        share: the overall rate p.
        groups: the number of groups compared.

    Example:
        >>> rows_needed(0.05, 0.3, 2)
        1764
    """
    if not 0 < limit < 1:
        raise ParameterError(f"rows can be counted for a limit between 0 and 1, not {limit!r}.")
    needed = 2 * share * (1 - share) * (3.24 / limit) ** 2
    return math.ceil(needed * (1.0 if groups <= 2 else 1.5))


def _range(means: Means, level: float, blocks: int) -> Interval:
    if len(means.value) < 2:
        return _none(level)
    measured = float(np.ptp(means.value))
    if means.kind == "none":
        return Interval(measured, measured, _UNKNOWN, _UNKNOWN, level)
    z, k = _critical(level, len(means.value), blocks)
    (low_k, high_k), (low_z, high_z) = _limits(means, k), _limits(means, z)
    m = means.value
    differences = m[:, None] - m[None]  # ordered pairs: the first group minus the second
    down = np.hypot((m - low_k)[:, None], (high_k - m)[None])
    up = np.hypot((high_z - m)[:, None], (m - low_z)[None])
    low = max(0.0, float(_off_diagonal(differences - down, -np.inf).max()))
    high = float(_off_diagonal(differences + up, -np.inf).max())
    estimate = float(np.ptp(_shrunk(means)))
    return Interval(measured, min(max(estimate, low), measured), low, high, level)


def _ratio(means: Means, level: float, blocks: int) -> Interval:
    if len(means.value) < 2 or means.value.max() <= 0 or means.value.min() < 0:
        return _none(level)
    measured = float(means.value.min() / means.value.max())
    if means.kind == "none":
        return Interval(measured, measured, _UNKNOWN, _UNKNOWN, level)
    z, k = _critical(level, len(means.value), blocks)
    low = float(_off_diagonal(_ratios(means.value, *_limits(means, z), upper=False), np.inf).min())
    high = min(1.0, float(_off_diagonal(_ratios(means.value, *_limits(means, k), upper=True), np.inf).min()))
    shrunk = np.maximum(_shrunk(means), 0.0)
    estimate = float(shrunk.min() / shrunk.max()) if shrunk.max() > 0 else measured
    return Interval(measured, min(max(estimate, measured), high), low, high, level)


def _present(means: Means) -> Means:
    return means.take(np.flatnonzero(means.seen))


def _none(level: float) -> Interval:
    return Interval(_UNKNOWN, _UNKNOWN, _UNKNOWN, _UNKNOWN, level)


def _off_diagonal(pairs: FloatArray, fill: float) -> FloatArray:
    np.fill_diagonal(pairs, fill)
    return pairs


def _ratios(m: FloatArray, low: FloatArray, high: FloatArray, *, upper: bool) -> FloatArray:
    """Return one limit of m_i / m_j for all ordered pairs, by MOVER-R, with the root in the denominator.

    With A = m_i m_j, and B, D = x (2 m - x) at the limits that matter, the roots of D r^2 - 2 A r + B = 0 are
    r = (A -+ sqrt(A^2 - B D)) / D, and the lower one is B / (A + sqrt(A^2 - B D)), which needs no D > 0.
    """
    low, high = np.maximum(low, 0.0), np.maximum(high, 0.0)
    top, bottom = (high, low) if upper else (low, high)
    A = m[:, None] * m[None]
    B = (top * (2 * m - top))[:, None]
    D = (bottom * (2 * m - bottom))[None]
    root = np.sqrt(np.maximum(A**2 - B * D, 0.0))
    limit: FloatArray
    if upper:
        limit = np.divide(A + root, D, out=np.full(A.shape, np.inf), where=np.broadcast_to(D > 0, A.shape))
    else:
        limit = np.divide(B, A + root, out=np.zeros(A.shape), where=A + root > 0)
    return limit


def _limits(means: Means, c: float) -> tuple[FloatArray, FloatArray]:
    """Return the limits of each group at a critical value."""
    if means.kind == "rate":
        return _wilson(means.value, means.count, c)
    if means.kind == "area":
        return _logit(means, c)
    if means.kind == "root":
        low, high = _student(means.value**2, means, c)
        return np.sqrt(np.maximum(low, 0.0)), np.sqrt(high)
    return _student(means.value, means, c)


def _wilson(m: FloatArray, n: FloatArray, c: float) -> tuple[FloatArray, FloatArray]:
    """Return Wilson's limits; where at most 5 rows, and half of them, are hits, or misses, exact ones on that side.

    Wilson's lower limit of 3 hits in 10 rows is too high, the more so the larger c is, and 20 such groups then show a
    gap that nobody has. Clopper and Pearson (1934) take the share at which so many hits, or more, have the chance
    1 - Phi(c): a quantile of Beta(x, n - x + 1).
    """
    scale = 1 + c * c / n
    middle = (m + c * c / (2 * n)) / scale
    half = c * np.sqrt(np.maximum(m * (1 - m), 0.0) / n + c * c / (4 * n * n)) / scale
    low = np.minimum(np.minimum(middle - half, m), _rare(m, n, c))
    high = np.maximum(np.maximum(middle + half, m), 1 - _rare(1 - m, n, c))
    return low, high


def _rare(m: FloatArray, n: FloatArray, c: float) -> FloatArray:
    """Return the lower limits of the shares of rare events, infinity for the others."""
    special = require("scipy.special", "audit")
    hits = m * n
    rare = (hits > 1e-9) & (hits <= np.minimum(_RARE, n / 2) + 1e-9)
    limits = np.full_like(m, np.inf)
    limits[rare] = special.betaincinv(hits[rare], (n - hits)[rare] + 1, special.ndtr(-c))
    return limits


def _student(m: FloatArray, means: Means, c: float) -> tuple[FloatArray, FloatArray]:
    special = require("scipy.special", "audit")
    half = special.stdtrit(_degrees(means), special.ndtr(c)) * np.sqrt(_variance_of_mean(means))
    return m - half, m + half


def _logit(means: Means, c: float) -> tuple[FloatArray, FloatArray]:
    m = means.value
    inside = (m > 0) & (m < 1) & (means.spread > 0)
    low, high = _wilson(m, np.maximum(means.count, 1.0), c)  # no variance is known where all pairs are in order
    middle = np.where(inside, m, 0.5)
    slope = c * np.sqrt(np.where(inside, means.spread, 0.0)) / (middle * (1 - middle))
    odds = np.log(middle / (1 - middle))
    return (
        np.where(inside, 1 / (1 + np.exp(-(odds - slope))), low),
        np.where(inside, 1 / (1 + np.exp(-(odds + slope))), high),
    )


def _degrees(means: Means) -> FloatArray:
    return np.maximum(means.count - 1, 0.0) + _BORROWED


def _variance_of_mean(means: Means) -> FloatArray:
    """Return [sum of squared deviations + 4 s2_pooled] / (n - 1 + 4) / n."""
    pooled = means.spread.sum() / max(1.0, float(np.maximum(means.count - 1, 0.0).sum()))
    variance: FloatArray = (means.spread + _BORROWED * pooled) / _degrees(means) / means.count
    return variance


def _variance(means: Means) -> FloatArray:
    """Return the variance of each group's number."""
    if means.kind == "rate":
        return _variance_of_share(means)
    if means.kind == "area":
        return np.where(means.spread > 0, means.spread, _variance_of_share(means))
    variance = _variance_of_mean(means)
    if means.kind == "root":  # of sqrt(x) around x: V / 4 x, and at 0 no more than the deviation of x itself
        slope = np.maximum(4 * means.value**2, np.sqrt(variance))
        root: FloatArray = np.divide(variance, slope, out=np.zeros_like(variance), where=slope > 0)
        return root
    return variance


def _variance_of_share(means: Means) -> FloatArray:
    p = (means.value * means.count + 1) / (means.count + 2)
    variance: FloatArray = p * (1 - p) / means.count
    return variance


def _shrunk(means: Means) -> FloatArray:
    """Return the empirical-Bayes means; the groups' own where there is no noise."""
    m, v = means.value, _variance(means)
    if not (v > 0).all():
        return m
    w = 1 / v
    mu = (w * m).sum() / w.sum()
    Q = (w * (m - mu) ** 2).sum()
    tau2 = max(0.0, (Q - (len(m) - 1)) / (w.sum() - (w * w).sum() / w.sum()))  # DerSimonian and Laird
    w = 1 / (v + tau2)
    mu = (w * m).sum() / w.sum()
    # A group moves by _MOVED standard errors at most (Efron and Morris 1971, limited translation), and by less the
    # farther it lies from the others beyond _FAR of them: what is so far away is no chance.
    error = np.sqrt(v)
    limit = _MOVED * error * np.minimum(1.0, _FAR * error / np.maximum(np.abs(m - mu), 1e-300))
    shrunk: FloatArray = np.clip(mu + tau2 / (tau2 + v) * (m - mu), m - limit, m + limit)
    return shrunk


def _critical(level: float, groups: int, blocks: int) -> tuple[float, float]:
    """Return z for the upper limit and k for the lower one."""
    return _quantile(level), tukey(groups, level, blocks)


def _quantile(level: float) -> float:
    return _normal_quantile(_checked(level))


def _checked(level: float) -> float:
    if not 0 < level < 1:
        raise ParameterError(f"the level of an interval lies between 0 and 1, such as 0.95, not {level!r}.")
    return float(level)


@lru_cache(maxsize=64)
def _normal_quantile(level: float) -> float:
    stats: Any = require("scipy.stats", "audit")
    return float(stats.norm.ppf(0.5 + level / 2))


@lru_cache(maxsize=1024)
def tukey(groups: int, level: float = 0.95, blocks: int = 1) -> float:
    """Return Tukey's constant, at which no pair of equal groups differs in a share (1 + level) / 2 of samples.

    Args:
        groups: the number of groups, at least 2.
        level: the level of the two-sided interval.
        blocks: the number of metrics of which the worst is taken.

    Example:
        >>> [round(tukey(groups), 2) for groups in (2, 3, 5, 10, 20)]
        [2.24, 2.6, 2.97, 3.38, 3.75]
    """
    stats: Any = require("scipy.stats", "audit")
    share = (0.5 + _checked(level) / 2) ** (1 / blocks)
    return float(stats.studentized_range.ppf(share, groups, np.inf) / math.sqrt(2))
