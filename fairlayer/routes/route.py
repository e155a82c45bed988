"""One way to predictions, and all of them side by side with the one that a criterion chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fairlayer._notebook import table_html
from fairlayer._typing import FloatArray, IntArray
from fairlayer.calibration import GroupCalibrator
from fairlayer.decisions import DecisionRule, ExpectedGap
from fairlayer.routes.criterion import Criterion
from fairlayer.routes.errors import RouteError
from fairlayer.routes.numbers import MEASURES, RouteNumbers, furthest
from fairlayer.training.kept import Step

__all__ = ["Route", "Routes"]


@dataclass(frozen=True)
class Route:
    """One way to predictions.

    Args:
        name: as tables show it.
        candidate: the name of the model whose scores it takes.
        step: what is done to them.
        valid: numbers on the validation rows, by which it is chosen; of a rule, those of folds that it has not seen.
        test: numbers on the test rows.
        seconds: the seconds that it took to train and to apply.
        rule: the thresholds of a decision rule.
        expected: the gap that its decisions are expected to show on new rows, as many as the test rows, and in the long
            run; None where they keep their limit in each batch, and for a regression.
        calibrator: what makes label estimates of the scores, where a constraint reads labels.
        scores: (rows,) that the route emits for the test rows.
        decisions: (rows,) 0 or 1, of the test rows; None for a regression.

    Example:
        >>> import numpy as np
        >>> from fairlayer.routes import Candidate, compare_routes
        >>> from fairlayer.training import Observed
        >>> random = np.random.default_rng(0)
        >>> sex = random.integers(0, 2, 400)
        >>> scores = np.clip(random.normal(0.4 + 0.2 * sex, 0.15), 0.01, 0.99)
        >>> rows = Observed({"sex": sex}, random.uniform(size=400) < scores)
        >>> mine, limit = [Candidate("mine", scores, scores)], "demographic_parity(sex, 0.02)"
        >>> projected = compare_routes(mine, limit, valid=rows, test=rows).named("mine, projected")
        >>> projected.step, projected.decisions.shape
        ('projected', (400,))
    """

    name: str
    candidate: str
    step: Step
    valid: RouteNumbers
    test: RouteNumbers
    seconds: float
    rule: DecisionRule | None = field(default=None, repr=False)
    expected: ExpectedGap | None = None
    calibrator: GroupCalibrator | None = field(default=None, repr=False)
    scores: FloatArray | None = field(default=None, repr=False)
    decisions: IntArray | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "candidate": self.candidate,
            "step": self.step,
            "seconds": self.seconds,
            "expected_gap": None if self.expected is None else asdict(self.expected),
            "valid": self.valid.to_dict(),
            "test": self.test.to_dict(),
        }


@dataclass(frozen=True)
class Routes:
    """Every route, and the one that a criterion chooses on the validation rows.

    Args:
        routes: the routes, in the order of the candidates.
        criterion: the criterion by which one is chosen.
        left_out: routes that could not be made, with the reason.
        rows: numbers of validation and of test rows.

    Example:
        >>> import numpy as np
        >>> from fairlayer.routes import Candidate, compare_routes
        >>> from fairlayer.training import Observed
        >>> random = np.random.default_rng(0)
        >>> sex = random.integers(0, 2, 400)
        >>> scores = np.clip(random.normal(0.4 + 0.2 * sex, 0.15), 0.01, 0.99)
        >>> rows = Observed({"sex": sex}, random.uniform(size=400) < scores)
        >>> mine, limit = [Candidate("mine", scores, scores)], "demographic_parity(sex, 0.02)"
        >>> found = compare_routes(mine, limit, valid=rows, test=rows)
        >>> str(found.criterion), found.rows
        ('log_loss at score gap', {'valid': 400, 'test': 400})
    """

    routes: tuple[Route, ...]
    criterion: Criterion
    left_out: tuple[tuple[str, str], ...]
    rows: dict[str, int]

    @property
    def best(self) -> Route:
        """The route that the criterion chooses."""
        return self.routes[self.criterion.best([route.valid for route in self.routes])]

    @property
    def kept(self) -> bool:
        """Whether the best route keeps the gap on the validation rows; otherwise it is the one nearest to it."""
        return self.criterion.keeps(self.best.valid)

    def chosen_by(self, criterion: Criterion) -> Route:
        """Return the route that another criterion would choose."""
        return self.routes[criterion.best([route.valid for route in self.routes])]

    def _repr_html_(self) -> str:
        tests = [route.test for route in self.routes]
        measures = [name for name in MEASURES if any(test.measures.get(name) is not None for test in tests)]
        head = ("route", *(name.replace("_", " ") for name in measures), "score gap", "decision gap", "seconds")
        rows = [
            (
                f"{'* ' if route is self.best else ''}{route.name}",
                *(route.test.measures.get(name) for name in measures),
                furthest(route.test.score_gaps),
                furthest(route.test.decision_gaps),
                f"{route.seconds:.0f}",
            )
            for route in self.routes
        ]
        note = f"*: the best by {self.criterion}, on the validation rows. Gaps are those of the worst constraint."
        return table_html(f"Routes on {self.rows['test']} test rows", head, rows, note=note)

    def named(self, name: str) -> Route:
        """Return a route by its name.

        Raises:
            RouteError: there is none.
        """
        for route in self.routes:
            if route.name == name:
                return route
        raise RouteError(f"there is no route '{name}', only {', '.join(route.name for route in self.routes)}.")

    def among(self, names: Sequence[str]) -> Routes:
        """Return the comparison of some of the routes.

        Raises:
            RouteError: none of them is there.
        """
        some = tuple(route for route in self.routes if route.name in names)
        if not some:
            raise RouteError(f"none of {', '.join(names)} is a route here.")
        return Routes(some, self.criterion, self.left_out, self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "criterion": str(self.criterion),
            "best": self.best.name,
            "keeps_the_gap": self.kept,
            "rows": dict(self.rows),
            "routes": [route.to_dict() for route in self.routes],
            "left_out": [list(each) for each in self.left_out],
        }
