"""The candidates of a sweep, or the routes of a training: what each measured, and why it was not chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairlayer.errors import ParameterError
from fairlayer.pareto import FrontPoint, Sweep
from fairlayer.routes import Route, Routes
from fairlayer.routes.numbers import furthest

__all__ = ["alternatives_among", "alternatives_of"]


def alternatives_of(
    sweep: Sweep | str | Path, *, chosen: Any, maximise: str = "accuracy", minimise: str = "gap"
) -> list[dict[str, Any]]:
    """Return every candidate with its measures, whether it was chosen, and if not, what it loses or gains.

    Args:
        sweep: a sweep, or the folder of one.
        chosen: the value that was chosen, as it is or as text; None where nothing was.
        maximise: the measure of quality.
        minimise: the measure of the gap.

    Raises:
        ParameterError: the sweep has no such value, or has not measured these.

    Example:
        >>> from fairlayer.pareto.runs import SweepRun
        >>> measures = {0.02: {"accuracy": 0.80, "gap": 0.02}, 0.1: {"accuracy": 0.84, "gap": 0.1}}
        >>> sweep = Sweep(tuple(SweepRun(limit, 0, found) for limit, found in measures.items()))
        >>> alternatives_of(sweep, chosen=0.1)[0]["why_not"]
        'its gap is smaller by 0.080, and its accuracy lower by 0.040'
    """
    points = (sweep if isinstance(sweep, Sweep) else Sweep.read(sweep)).points()
    names = [str(point.value) for point in points]
    measured = set(points[0].mean) if points else set()
    if not {maximise, minimise} <= measured:
        raise ParameterError(
            f"alternatives are shown by '{maximise}' and '{minimise}', but the sweep measured "
            f"{', '.join(sorted(measured)) or 'nothing'}. Name two of these (--maximise, --minimise)."
        )
    if chosen is not None and str(chosen) not in names:
        raise ParameterError(f"the sweep has no value '{chosen}', only {', '.join(names)}.")
    best = next((point for point in points if str(point.value) == str(chosen)), None)
    order = [maximise, minimise, *sorted(measured - {maximise, minimise})]
    return [
        {
            "name": str(point.value),
            "measures": {name: float(point.mean[name]) for name in order},
            "chosen": point is best,
            "why_not": _why_not(point, best, maximise, minimise),
        }
        for point in points
    ]


def alternatives_among(routes: Routes, chosen: str) -> list[dict[str, Any]]:
    """Return every route of a training with its measures on the test rows, and why it was not chosen.

    A route is chosen on the validation rows, by the criterion that was stated, so that is what the reasons speak of.

    Args:
        routes: the comparison.
        chosen: the name of the route that is kept.

    Example:
        >>> import numpy as np
        >>> from fairlayer.routes import Candidate, compare_routes
        >>> from fairlayer.training import Observed
        >>> rng = np.random.default_rng(0)
        >>> sex = rng.integers(0, 2, 400)
        >>> scores = np.clip(rng.normal(0.4 + 0.2 * sex, 0.15), 0.01, 0.99)
        >>> rows = Observed({"sex": sex}, rng.uniform(size=400) < scores)
        >>> parity = "demographic_parity(sex, 0.02)"
        >>> found = compare_routes([Candidate("mine", scores, scores)], parity, valid=rows, test=rows)
        >>> [row["name"] for row in alternatives_among(found, found.best.name)]
        ['mine', 'mine, projected', 'mine, rule', 'mine, batch']
    """
    best = routes.named(chosen)
    return [
        {
            "name": route.name,
            "measures": _measures(route),
            "chosen": route is best,
            "why_not": "" if route is best else _why_not_route(route, best, routes),
        }
        for route in routes.routes
    ]


def _measures(route: Route) -> dict[str, float | None]:
    """Return the quality first and the gap second, as the picture shows them."""
    quality = {name: value for name, value in route.test.measures.items() if name != "calibration"}
    first = next(iter(quality))
    gaps = {
        "gap of decisions": furthest(route.test.decision_gaps),
        "gap of mean scores": furthest(route.test.score_gaps),
    }
    known = {name: gap for name, gap in gaps.items() if gap is not None}
    return {first: quality.pop(first), **known, **quality}


def _why_not_route(route: Route, best: Route, routes: Routes) -> str:
    criterion = routes.criterion
    if not criterion.keeps(route.valid) and criterion.keeps(best.valid):
        return f"on the validation rows its {criterion.at} is {criterion.excess(route.valid):.3f} beyond the limit"
    name = criterion.measure.replace("_", " ")
    mine, chosen = (each.valid.measures.get(criterion.measure) for each in (route, best))
    if mine is None or chosen is None:
        return f"it has no {name}"
    if criterion.worth(route.valid) > criterion.worth(best.valid) and best is routes.best:
        return (
            f"on the validation rows its {name} is {mine:.4f}, which cannot be told from {chosen:.4f}, and on new "
            "people a larger gap of decisions is to be expected of it"
        )
    if criterion.worth(route.valid) > criterion.worth(best.valid):
        return f"it could not be kept: on the validation rows its {name} is {mine:.4f}, against {chosen:.4f}"
    return f"on the validation rows its {name} is {mine:.4f}, against {chosen:.4f}"


def _why_not(point: FrontPoint, best: FrontPoint | None, maximise: str, minimise: str) -> str:
    if point is best:
        return ""
    if best is None:
        return "nothing was chosen"
    gap = point.mean[minimise] - best.mean[minimise]
    quality = point.mean[maximise] - best.mean[maximise]
    gap_said = f"its {minimise} is {'larger' if gap > 0 else 'smaller'} by {abs(gap):.3f}"
    quality_said = f"its {maximise} {'higher' if quality > 0 else 'lower'} by {abs(quality):.3f}"
    if gap >= 0 and quality <= 0:
        return f"worse in both: {gap_said}, and {quality_said}"
    if gap <= 0 and quality >= 0:
        return f"better in both, and yet not chosen: {gap_said}, and {quality_said}"
    return f"{gap_said}, and {quality_said}"
