"""The trade-off between measures, and rules to choose a point of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.pareto.errors import MeasureError, UnreachableError
from fairlayer.pareto.runs import FrontPoint
from fairlayer.pareto.volume import hypervolume, non_dominated

__all__ = ["Front"]

_SIGNS = {"maximise": -1.0, "minimise": 1.0}  # of a measure as a loss


@dataclass(frozen=True)
class Front:
    """Points, and the measures they are compared by: first the accuracy (or error), second the gap.

    The rules look at means over seeds. They choose on the measures given here and refuse those named `test_...`:
    choose by validation measures, then report the test measures of the point chosen.

    Args:
        points: one per swept value.
        objectives: measure -> "maximise" or "minimise", in that order.

    Raises:
        MeasureError: a measure that a point does not have, fewer than two, or another direction.

    Example:
        >>> points = [FrontPoint(t, (0,), {"auc": a, "gap": g}, {}) for t, a, g in
        ...           [(0.0, 0.80, 0.00), (0.05, 0.86, 0.04), (0.1, 0.85, 0.09), (1.0, 0.88, 0.15)]]
        >>> front = Front(points, {"auc": "maximise", "gap": "minimise"})
        >>> [point.value for point in front.non_dominated()]
        [0.0, 0.05, 1.0]
        >>> front.most_accurate(gap_at_most=0.1).value, front.fairest(accuracy_at_least=0.85).value, front.knee().value
        (0.05, 0.05, 0.05)
    """

    points: Sequence[FrontPoint]
    objectives: Mapping[str, str]

    def __post_init__(self) -> None:
        odd = {name: way for name, way in self.objectives.items() if way not in _SIGNS}
        if odd or len(self.objectives) < 2:
            raise MeasureError(
                f'a front needs two or more measures, each "maximise" or "minimise", but was given {self.objectives}.'
            )
        lacking = [name for name in self.objectives if any(name not in point.mean for point in self.points)]
        if lacking or not self.points:
            known = sorted({name for point in self.points for name in point.mean})
            raise MeasureError(f"a front of {list(self.objectives)} was asked, but the points measure {known}.")

    @property
    def accuracy(self) -> str:
        """The first measure."""
        return next(iter(self.objectives))

    @property
    def gap(self) -> str:
        """The second measure."""
        return list(self.objectives)[1]

    def non_dominated(self) -> tuple[FrontPoint, ...]:
        """Return the points that no other beats in one measure without losing in another, in the points' order."""
        kept = non_dominated(self._losses(self.points))
        return tuple(point for point, keep in zip(self.points, kept, strict=True) if keep)

    def hypervolume(self, reference: Mapping[str, float]) -> float:
        """Return the volume that the points dominate up to a reference point, in the product of the measures' units.

        Args:
            reference: a value of each measure; points that are not better in every one add nothing.

        Raises:
            MeasureError: the reference names other measures.
        """
        self._check_names("the reference", reference)
        signs = [_SIGNS[way] for way in self.objectives.values()]
        corner = np.array([sign * reference[name] for sign, name in zip(signs, self.objectives, strict=True)])
        return hypervolume(self._losses(self.points), corner)

    def most_accurate(
        self, *, gap_at_most: float | None = None, ratio_at_least: float | None = None, by: str | None = None
    ) -> FrontPoint:
        """Return the point with the best first measure among those whose gap, or ratio, is within a limit.

        A gap that was measured on small groups is mostly the noise of measuring, so that a limit on it selects
        constants. Where the points hold the measures of `gap_measures`, the limit is therefore on the estimate.

        Args:
            gap_at_most: the limit of a second measure that is minimised (a gap).
            ratio_at_least: the limit of one that is maximised (a ratio of rates, such as 0.8 for four fifths).
            by: what is to be within the limit: "estimate" or "high", for the measure of that ending, or "measured";
                None for the estimate where the points have one.

        Raises:
            MeasureError: not exactly one limit, or one that does not fit the second measure.
            UnreachableError: no point is within the limit; names the nearest.
        """
        self._only_validation()
        given = {"gap_at_most": gap_at_most, "ratio_at_least": ratio_at_least}
        [(word, limit)] = self._one_of("most_accurate", given)
        self._expect(self.gap, "minimise" if word == "gap_at_most" else "maximise", word)
        sign = _SIGNS[self.objectives[self.gap]]
        name = self._limited(by)
        within = [point for point in self.points if sign * point.mean[name] <= sign * limit]
        if not within:
            way = ">=" if sign < 0 else "<="
            nearest = min(self.points, key=lambda point: sign * point.mean[name])
            raise self._unreachable(f"{name} {way} {limit:g}", nearest, name)
        return self._best_by(0, within)

    def _limited(self, by: str | None) -> str:
        """Return the measure that a limit on the gap is held against."""
        if by not in (None, "measured", "estimate", "high"):
            raise MeasureError(f'by is "measured", "estimate" or "high", but is {by!r}.')
        name = f"{self.gap}_{by or 'estimate'}"
        if by == "measured":
            return self.gap
        if all(name in point.mean for point in self.points):
            return name
        if by is None:
            return self.gap
        raise MeasureError(
            f"by={by!r} asks for the measure {name}, but the points have {sorted(self.points[0].mean)}. Let the "
            "function of the sweep return gap_measures(...) of fairlayer.pareto."
        )

    def fairest(self, *, accuracy_at_least: float | None = None, error_at_most: float | None = None) -> FrontPoint:
        """Return the point with the best gap among those whose first measure is good enough.

        Args:
            accuracy_at_least: the limit of a first measure that is maximised (accuracy, AUC).
            error_at_most: the limit of one that is minimised (an error).

        Raises:
            UnreachableError: no point is that good; names the best.
        """
        self._only_validation()
        given = {"accuracy_at_least": accuracy_at_least, "error_at_most": error_at_most}
        [(word, limit)] = self._one_of("fairest", given)
        self._expect(self.accuracy, "maximise" if word == "accuracy_at_least" else "minimise", word)
        sign = _SIGNS[self.objectives[self.accuracy]]
        within = [point for point in self.points if sign * point.mean[self.accuracy] <= sign * limit]
        if not within:
            way = ">=" if sign < 0 else "<="
            raise self._unreachable(f"{self.accuracy} {way} {limit:g}", self._best_by(0, self.points))
        return self._best_by(1, within)

    def knee(self) -> FrontPoint:
        """Return the non-dominated point farthest below the plane through the front's extremes.

        Each measure is scaled to [0, 1] over the front (0 is best); the point has the least sum. Where every point of
        the front is equally good by that, the first.
        """
        self._only_validation()
        front = self.non_dominated()
        losses = self._losses(front)
        span = np.ptp(losses, axis=0)
        scaled = (losses - losses.min(axis=0)) / np.where(span > 0, span, 1.0)
        return front[int(np.argmin(scaled.sum(axis=1)))]

    def preferred(self, weights: Mapping[str, float]) -> FrontPoint:
        """Return the point with the best weighted sum of its measures, each in its own unit.

        A weight says what one unit is worth: {"val_auc": 1.0, "val_gap": 0.5} gives up half a point of AUC for one
        point of gap. Only points on the convex hull of the front can be chosen so.

        Raises:
            MeasureError: weights for other measures, or one that is negative.
        """
        self._only_validation()
        self._check_names("weights", weights)
        if min(weights.values()) < 0:
            raise MeasureError(f"weights must be >= 0 (each measure has its direction already), but are {weights}.")
        losses = self._losses(self.points)
        cost = losses @ np.array([weights[name] for name in self.objectives])
        return self.points[int(np.lexsort([*losses.T[::-1], cost])[0])]  # of equal sums, no dominated point

    def plot(self, axes: Any = None, *, chosen: Mapping[str, FrontPoint] | None = None) -> Any:
        """Draw the first measure over the second; return the matplotlib figure. See `plot_front`."""
        from fairlayer.pareto.plot import plot_front

        return plot_front(self, axes, chosen=chosen or {})

    def _losses(self, points: Sequence[FrontPoint]) -> FloatArray:
        return np.array([[_SIGNS[way] * point.mean[name] for name, way in self.objectives.items()] for point in points])

    def _best_by(self, first: int, points: Sequence[FrontPoint]) -> FrontPoint:
        """Return the point with the best measure number `first`; ties go to the better other measures, in order."""
        losses = self._losses(points)
        others = [j for j in range(losses.shape[1]) if j != first]
        return points[int(np.lexsort([*losses[:, others[::-1]].T, losses[:, first]])[0])]

    def _unreachable(self, asked: str, best: FrontPoint, *more: str) -> UnreachableError:
        reached = ", ".join(f"{name} {best.mean[name]:.6g}" for name in dict.fromkeys((*self.objectives, *more)))
        return UnreachableError(
            f"{asked} was asked, but the best of {len(self.points)} swept values, {best.value!r}, has {reached} (mean "
            f"of {best.n} seeds). Ask for no more than that, or sweep further values."
        )

    def _one_of(self, rule: str, given: Mapping[str, float | None]) -> list[tuple[str, float]]:
        found = [(word, limit) for word, limit in given.items() if limit is not None]
        if len(found) != 1:
            raise MeasureError(f"{rule}() needs one of {list(given)}, but was given {dict(given)}.")
        return found

    def _expect(self, name: str, way: str, word: str) -> None:
        if self.objectives[name] != way:
            raise MeasureError(
                f"{word} speaks of a measure to {way}, but {name} is one to {self.objectives[name]}. The first measure "
                "of a front is its accuracy or error, the second its gap or ratio."
            )

    def _check_names(self, what: str, given: Mapping[str, float]) -> None:
        if set(given) != set(self.objectives):
            raise MeasureError(f"{what} must name the measures {list(self.objectives)}, but has {list(given)}.")

    def _only_validation(self) -> None:
        tested = [name for name in self.objectives if name.startswith("test_")]
        if tested:
            raise MeasureError(
                f"a point was to be chosen by {tested}: what is chosen by test data cannot be reported on it. Choose "
                "by measures of validation data, and report the test measures of the point chosen."
            )
