"""Decisions for all but the uncertain, who go to a person; or, in Kamiran's form, to the group that fares worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.constraints.base import as_names
from fairlayer.decisions.curves import Partition
from fairlayer.decisions.inputs import as_scores, read_scores
from fairlayer.decisions.rule import names_of
from fairlayer.edge import read_features
from fairlayer.errors import InfeasibleConstraintsError, ParameterError

__all__ = ["REFERRED", "ReferredDecisions", "reject_option"]

REFERRED = -1


@dataclass(frozen=True)
class ReferredDecisions:
    """Decisions with a band around the threshold, and what it costs and can promise.

    Args:
        decisions: (n,) of 0 and 1, and `REFERRED` (-1) for rows that go to a person.
        band: rows whose score is this near to the threshold, or nearer, are in the band; negative for none.
        groups: names of the groups.
        referred: share of each group in the band (groups,).
        rates: share of each group that is selected where everybody in the band is decided for parity (groups,).
        gap: largest difference of these rates: what is reached if the band is decided for parity.
        largest_gap: the largest difference that any decisions on those referred can lead to; `gap` where nobody is.
        gap_before: the gap of the decisions `score >= threshold`.

    Example:
        >>> scores = [0.9, 0.8, 0.55, 0.2, 0.7, 0.45, 0.3, 0.1]
        >>> found = reject_option(scores, "sex", 0.0, sensitive_features={"sex": ["F"] * 4 + ["M"] * 4})
        >>> found.groups, found.referred.tolist(), found.rates.tolist()
        (('sex=F', 'sex=M'), [0.25, 0.25], [0.5, 0.5])
    """

    decisions: IntArray
    band: float
    groups: tuple[str, ...]
    referred: FloatArray
    rates: FloatArray
    gap: float
    largest_gap: float
    gap_before: float

    def __repr__(self) -> str:
        width = max([4, *map(len, self.groups)])
        band = f"within {self.band:.4g} of the threshold" if self.band >= 0.0 else "none, since none is needed"
        asked = int((self.decisions == REFERRED).sum())
        lines = [f"ReferredDecisions of {len(self.decisions)} rows, {asked} of them referred; band: {band}"]
        lines.append(f"  {'group':<{width}} {'in the band':>12} {'rate':>7}")
        for name, share, rate in zip(self.groups, self.referred, self.rates, strict=True):
            lines.append(f"  {name:<{width}} {share:>12.1%} {rate:>7.1%}")
        ends = f"{self.gap_before:.4g} before, {self.gap:.4g} reachable, at most {self.largest_gap:.4g}"
        return "\n".join([*lines, f"  gap: {ends}"])


def reject_option(
    scores: Any,
    on: str | Sequence[str],
    tolerance: float,
    *,
    sensitive_features: Any,
    threshold: float = 0.5,
    refer: bool = True,
    widest: float | None = None,
) -> ReferredDecisions:
    """Return decisions with the narrowest band around the threshold in which the selection rates can be levelled.

        decide s_i >= threshold     where |s_i - threshold| > band
        in the band                 1 for groups whose rate is below that of all, 0 for the others: `refer=False`;
                                    or nobody decides, and a person does: `refer=True`

    The band is the narrowest one for which the first rule within it brings the rates within the tolerance. With
    `refer=True` a person may do as well as that; whatever he or she does, the rates of two groups differ by no more
    than

        largest_gap = max over g, h of (share selected outside the band + share referred)_g - (share selected outside)_h

    Args:
        scores: (n,), (n, 1); probabilities, or any scores with a threshold of their own.
        on: a sensitive feature, or several for their intersections; rows of unknown group are decided by the threshold.
        tolerance: largest difference of selection rates between groups, in [0, 1].
        sensitive_features: see `project`.
        threshold: a score at or above it is a decision for 1.
        refer: leave rows in the band to a person.
        widest: largest band allowed; None for any.

    Raises:
        InfeasibleConstraintsError: no band, or none as narrow as asked, brings the rates within the tolerance.
        ParameterError: the tolerance is outside [0, 1].

    Source: Kamiran, Karim, Zhang (2012), "Decision theory for discrimination-aware classification", for the band; the
        bound for a person's decisions is this package's.
    Limits: the band is fitted to one batch. `decide` reaches the same rates with more right decisions where it may
        move thresholds.

    Example:
        >>> scores = [0.9, 0.8, 0.55, 0.2, 0.7, 0.45, 0.3, 0.1]
        >>> found = reject_option(scores, "sex", 0.0, sensitive_features={"sex": ["F"] * 4 + ["M"] * 4})
        >>> found.decisions.tolist(), found.gap_before, found.gap, found.largest_gap
        ([1, 1, -1, 0, 1, -1, 0, 0], 0.5, 0.0, 0.5)
    """
    if not 0.0 <= tolerance <= 1.0:
        raise ParameterError(f"reject_option was given tolerance={tolerance!r}; a gap of rates lies in [0, 1].")
    names = as_names(on)
    values = read_scores(as_scores(scores))
    groups = read_features(sensitive_features, names, len(values))
    partition = Partition.of(groups, names, len(values))
    known: BoolArray = np.asarray((partition.codes >= 0).all(axis=1))
    group = np.where(known[partition.cell_of], np.cumsum(known)[partition.cell_of] - 1, -1)
    words = [groups.column(name).categories for name in names]
    each = [tuple(words[j][c] for j, c in enumerate(codes)) for codes in partition.codes[known].tolist()]
    base = values >= threshold
    lifted = _lifted(group, base, len(each))
    distance = np.abs(values - threshold)
    band = _narrowest(distance, group, base, lifted, len(each), tolerance, np.inf if widest is None else widest)
    inside = (distance <= band) & (group >= 0)
    decided = np.where(inside, lifted, base)
    rates = _shares(decided, group, len(each))
    outside, referred = _shares(base & ~inside, group, len(each)), _shares(inside, group, len(each))
    gap = _range(rates)
    return ReferredDecisions(
        decisions=np.where(inside & refer, REFERRED, decided.astype(np.int64)),
        band=band,
        groups=names_of(names, each),
        referred=referred,
        rates=rates,
        gap=gap,
        largest_gap=_largest(outside, referred) if refer else gap,
        gap_before=_range(_shares(base, group, len(each))),
    )


def _lifted(group: IntArray, base: BoolArray, groups: int) -> BoolArray:
    """Return what is decided in the band: 1 for groups below the rate of all."""
    rates = _shares(base, group, groups)
    overall = float(base[group >= 0].mean()) if groups else 0.0
    return np.append(rates < overall, False)[group]


def _narrowest(  # noqa: PLR0917 - the rows, then what is asked
    distance: FloatArray,
    group: IntArray,
    base: BoolArray,
    lifted: BoolArray,
    groups: int,
    tolerance: float,
    widest: float,
) -> float:
    """Return the narrowest band that levels the rates; -1 where none is needed."""
    start = np.bincount(group[(group >= 0) & base], minlength=groups).astype(np.float64)
    sizes = np.bincount(group[group >= 0], minlength=groups).astype(np.float64)
    if groups < 2 or np.ptp(start / sizes) <= tolerance + 1e-12:
        return -1.0
    rows = np.flatnonzero((group >= 0) & (distance <= widest))
    rows = rows[np.argsort(distance[rows], kind="stable")]
    steps = np.zeros((len(rows), groups))
    steps[np.arange(len(rows)), group[rows]] = lifted[rows].astype(float) - base[rows]
    gaps = np.ptp((start + np.cumsum(steps, axis=0)) / sizes, axis=1)
    last = np.append(np.diff(distance[rows]) > 0, True)  # of rows at one distance all are in the band, or none
    fits = np.flatnonzero((gaps <= tolerance + 1e-12) & last[: len(rows)])
    if not len(fits):
        best = f"{gaps[last[: len(rows)]].min():.4g}" if len(rows) else "that without a band"
        raise InfeasibleConstraintsError(
            f"reject_option was asked for a gap of at most {tolerance:g}, but the smallest that a band reaches is "
            f"{best}. Give a larger tolerance (or `widest`), or use decide(...), which moves thresholds."
        )
    return float(distance[rows[fits[0]]])


def _shares(chosen: BoolArray, group: IntArray, groups: int) -> FloatArray:
    known = group >= 0
    return np.asarray(np.bincount(group[known], chosen[known], groups) / np.bincount(group[known], minlength=groups))


def _range(rates: FloatArray) -> float:
    return float(np.ptp(rates)) if len(rates) else 0.0


def _largest(outside: FloatArray, referred: FloatArray) -> float:
    """Return the largest difference that decisions on those referred can lead to, between two different groups."""
    differences = (outside + referred)[:, None] - outside[None, :]
    np.fill_diagonal(differences, 0.0)
    return float(differences.max(initial=0.0))
