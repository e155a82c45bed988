"""From the scores of one trained model to ways of deciding, each fitted on validation rows only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from frontier_data import SENSITIVE, Array, Part, Splits
from frontier_numbers import Measure, Point
from scipy.special import expit, logit

import fairlayer as fl
from fairlayer.decisions import DecisionRule
from fairlayer.distillation import AmortisedShifts

TOLERANCES = (0.0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08)
TEMPERATURES = (0.5, 0.3, 0.15, 0.05)  # of emitted scores, in logits
SHRINKAGE = 0.04  # of scores that are to show nothing but a small gap
SHARES = np.arange(0.05, 0.405, 0.005)  # of yes among all validation rows, one blind threshold each


def parity(tolerance: float = 0.0) -> fl.Constraint:
    """Demographic parity on the group."""
    return fl.DemographicParity(SENSITIVE, tolerance)


def equal_odds(tolerance: float = 0.0) -> fl.Constraint:
    """Equalized odds on the group."""
    return fl.EqualizedOdds(SENSITIVE, tolerance)


@dataclass(frozen=True)
class Scored:
    """A model's scores in [0, 1] on validation and test rows."""

    splits: Splits
    valid: Array
    test: Array

    @property
    def pairs(self) -> tuple[tuple[Part, Array], tuple[Part, Array]]:
        """Each part with its scores."""
        return (self.splits.valid, self.valid), (self.splits.test, self.test)


Reading = Callable[[Scored], Iterator[Point]]


def blind(method: str, *, known: bool = False) -> Reading:
    """Decide by one threshold for everybody: 0.5, and the quantiles of the validation scores.

    Args:
        known: whether the scores themselves need the group.
    """

    def read(scored: Scored) -> Iterator[Point]:
        cuts = {"0.5": 0.5, **{f"top {share:.1%}": np.quantile(scored.valid, 1.0 - share) for share in SHARES}}
        valid, test = (Measure(part, scores) for part, scores in scored.pairs)
        for detail, cut in cuts.items():
            sides = valid.decisions(scored.valid >= cut), test.decisions(scored.test >= cut)
            yield Point(method, known, f"threshold {detail}", *sides)

    return read


def sharpened(method: str) -> Reading:
    """Emit sigmoid((logit - cut) / temperature) and decide at 0.5: the same order, scores nearer to decisions."""

    def read(scored: Scored) -> Iterator[Point]:
        valid, test = logit(scored.valid), logit(scored.test)
        for temperature, share in product(TEMPERATURES, SHARES):
            cut = np.quantile(valid, 1.0 - share)
            steep = Scored(scored.splits, *(expit((z - cut) / temperature) for z in (valid, test)))
            sides = [Measure(part, s).decisions(s >= 0.5) for part, s in steep.pairs]
            yield Point(method, False, f"temperature {temperature:g}, top {share:.1%}", *sides)

    return read


def shrunk(method: str) -> Reading:
    """Pull all scores towards their mean: any score gap and the same AUC, which shows what that pair does not say."""

    def read(scored: Scored) -> Iterator[Point]:
        mean = scored.valid.mean()
        near = Scored(scored.splits, *(mean + SHRINKAGE * (s - mean) for s in (scored.valid, scored.test)))
        yield from blind(method)(near)

    return read


def layered(method: str, tolerances: tuple[float, ...] = TOLERANCES) -> Reading:
    """Project the scores of each part onto the mean-score parity, then decide by one threshold."""

    def read(scored: Scored) -> Iterator[Point]:
        for tolerance in tolerances:
            projected = Scored(scored.splits, *(_project(part, s, tolerance) for part, s in scored.pairs))
            for point in blind(method, known=True)(projected):
                yield Point(method, True, f"tolerance {tolerance:g}, {point.detail}", point.valid, point.test)

    return read


def _project(part: Part, scores: Array, tolerance: float) -> Array:
    result = fl.project(
        torch.from_numpy(scores), [parity(tolerance)], sensitive_features=part.features, bounds=(0.0, 1.0)
    )
    return np.asarray(result.value.numpy())


def amortised(method: str, tolerance: float = 0.0) -> Reading:
    """Shift each group's scores by what the projection of the validation scores found, then decide by one threshold."""

    def read(scored: Scored) -> Iterator[Point]:
        valid = torch.from_numpy(scored.valid)
        fixed = AmortisedShifts.fit(
            valid,
            [parity(tolerance)],
            sensitive_features=scored.splits.valid.features,
            bounds=(0.0, 1.0),
        )
        moved = [fixed(torch.from_numpy(s), fixed.encode(part.features)).numpy() for part, s in scored.pairs]
        yield from blind(method, known=True)(Scored(scored.splits, *moved))

    return read


def ruled(
    method: str,
    constraint: Callable[[float], fl.Constraint] = parity,
    tolerances: Sequence[float] = TOLERANCES,
    *,
    randomised: bool = False,
) -> Reading:
    """Decide by one threshold for each group (or a lottery between two), fitted for accuracy under the constraint."""

    def read(scored: Scored) -> Iterator[Point]:
        measures = [Measure(part, scores) for part, scores in scored.pairs]
        for tolerance in tolerances:
            rule = DecisionRule.fit(
                scored.valid,
                [constraint(tolerance)],
                sensitive_features=scored.splits.valid.features,
                y=scored.splits.valid.y,
                randomised=randomised,
            )
            yes = [rule.apply(s, sensitive_features=part.features, seed=0).numpy() for part, s in scored.pairs]
            sides = [measure.decisions(each) for measure, each in zip(measures, yes, strict=True)]
            yield Point(method, True, f"{rule_name(constraint)}, tolerance {tolerance:g}", *sides)

    return read


def rule_name(constraint: Callable[[float], fl.Constraint]) -> str:
    """Return the name of the constraint."""
    return constraint(0.0).name
