"""Several classes: rows of scores travel whole, a constraint speaks of the classes that it is told, and the worst is
its number. Each problem is stated once more for a conic solver, class by class, from the formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from scipy.special import softmax

import fairlayer as fl
from fairlayer.errors import FairlayerError

Program = tuple[Callable[[cp.Variable, np.ndarray, float], list[cp.Constraint]], Callable[[np.ndarray], float]]
TOLERANCE = 0.03


@dataclass(frozen=True)
class Batch:
    """A few rows of three or four class probabilities, groups, and the class of each row."""

    rows: np.ndarray
    group: np.ndarray
    label: np.ndarray
    weights: np.ndarray

    @staticmethod
    def random(seed: int) -> Batch:
        random = np.random.default_rng(seed)
        n, k = int(random.integers(16, 40)), int(random.integers(3, 5))
        group = np.arange(n) % 2
        rows = softmax(random.normal(size=(n, k)) + np.outer(group, random.normal(size=k)), axis=1)
        label = random.permutation(np.arange(n) // 2 % k)
        return Batch(rows, group, label, random.integers(1, 4, n).astype(float))

    def mean(self, inside: np.ndarray) -> np.ndarray:
        """Weights (n,) of a mean over some rows."""
        share = self.weights * inside
        return share / share.sum()


def gaps(batch: Batch, c: int, how: str) -> list[np.ndarray]:
    """Rows (n,) whose product with the scores of class c must stay within the limit, both ways."""
    first, second = batch.group == 0, batch.group == 1
    mine, rest = batch.label == c, batch.label != c
    inside = {"parity": [batch.label >= 0], "opportunity": [mine], "predictive": [rest], "odds": [mine, rest]}[how]
    pairs = [(first & part, second & part) for part in inside]
    return [batch.mean(one) - batch.mean(other) for one, other in pairs if one.any() and other.any()]


KINDS: dict[str, Callable[..., fl.Constraint]] = {
    "parity": fl.DemographicParity,
    "opportunity": fl.EqualOpportunity,
    "predictive": fl.PredictiveEquality,
    "odds": fl.EqualizedOdds,
}
CLASSES = [None, 0, (0, 2), 1]
PROBLEMS = [
    (seed, how, CLASSES[(seed + seed // 4) % 4], ("euclidean", "entropic")[seed // 2 % 2])
    for seed, how in enumerate([*KINDS] * 5)
]  # fmt: skip


def chosen(batch: Batch, classes: Any) -> list[int]:
    if classes is None:
        return list(range(batch.rows.shape[1]))
    return [classes] if isinstance(classes, int) else list(classes)


def solved(batch: Batch, how: str, classes: Any, geometry: str, tolerance: float, *, simplex: bool = True) -> Any:
    """The nearest rows by a conic solver, and their distance."""
    y = cp.Variable(batch.rows.shape)
    weights = np.repeat(batch.weights[:, None], batch.rows.shape[1], axis=1)
    if geometry == "euclidean":
        apart = 0.5 * cp.square(y - batch.rows)
    else:
        apart = cp.kl_div(y, batch.rows)
        apart = apart if simplex else apart + cp.kl_div(1 - y, 1 - batch.rows)
    distance = cp.sum(cp.multiply(weights, apart))
    limits = [cp.sum(y, axis=1) == 1, y >= 0] if simplex else [y >= 0, y <= 1]
    for c in chosen(batch, classes):
        limits += [cp.abs(row @ y[:, c]) <= tolerance for row in gaps(batch, c, how)]
    program = cp.Problem(cp.Minimize(distance), limits)
    program.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return y.value, float(distance.value)


def number(batch: Batch, rows: np.ndarray, how: str, classes: Any) -> float:
    return max(abs(float(row @ rows[:, c])) for c in chosen(batch, classes) for row in gaps(batch, c, how))


def given(batch: Batch, how: str) -> dict[str, Any]:
    labels = None if how == "parity" else batch.label
    return {"sensitive_features": {"group": batch.group}, "y": labels, "sample_weight": batch.weights}


@pytest.mark.parametrize(("seed", "how", "classes", "geometry"), PROBLEMS)
def test_rows_on_the_simplex(seed: int, how: str, classes: Any, geometry: str) -> None:
    batch = Batch.random(seed)
    rule = KINDS[how]("group", TOLERANCE, classes=classes)
    result = fl.project(batch.rows, rule, bounds="simplex", geometry=geometry, **given(batch, how))
    expected, distance = solved(batch, how, classes, geometry, TOLERANCE)
    value = result.value.numpy()
    assert value.shape == batch.rows.shape
    np.testing.assert_allclose(value, expected, atol=2e-5)
    assert result.certificate.holds
    found = float((batch.weights[:, None] * apart(value, batch.rows, geometry)).sum())
    assert found == pytest.approx(distance, rel=1e-6, abs=1e-8)
    assert number(batch, value, how, classes) <= TOLERANCE + 1e-9
    # the price of the limit is what the conic solver's optimum loses by it
    step = 1e-3
    wide, narrow = (solved(batch, how, classes, geometry, TOLERANCE + by)[1] for by in (step, -step))
    price = float(result.multipliers[rule.name].sum())
    assert price == pytest.approx((narrow - wide) / (2 * step), rel=0.02, abs=1e-4)


def apart(y: np.ndarray, z: np.ndarray, geometry: str) -> np.ndarray:
    if geometry == "euclidean":
        return 0.5 * (y - z) ** 2
    return np.where(y > 0, y * np.log(np.where(y > 0, y, 1.0) / z), 0.0) - y + z


@pytest.mark.parametrize(("seed", "how", "classes", "geometry"), PROBLEMS[::2])
def test_the_number_is_that_of_the_worst_class(seed: int, how: str, classes: Any, geometry: str) -> None:
    batch = Batch.random(seed)
    rule = KINDS[how]("group", TOLERANCE, classes=classes)
    hot = np.eye(batch.rows.shape[1])[batch.label]
    asked: dict[str, Any] = given(batch, how)
    if asked["y"] is not None:
        asked["y"] = hot
    found = rule.measure(batch.rows, **asked)
    assert found.value == pytest.approx(number(batch, batch.rows, how, classes), abs=1e-12)
    assert found.limit == TOLERANCE
    worst = max(chosen(batch, classes), key=lambda c: number(batch, batch.rows, how, c))
    assert found.column == worst


@pytest.mark.parametrize("geometry", ["euclidean", "entropic"])
@pytest.mark.parametrize("classes", CLASSES)
def test_independent_columns(classes: Any, geometry: str) -> None:
    """Columns that no class is named of stay as they are; each of the others is a problem of its own."""
    batch = Batch.random(3)
    k = batch.rows.shape[1]
    rule = fl.DemographicParity("group", TOLERANCE, classes=classes)
    asked: dict[str, Any] = given(batch, "parity") | {"bounds": (0.0, 1.0), "geometry": geometry}
    scores = np.clip(batch.rows + 0.05, 0.0, 0.99)  # rows that add up to more than 1
    result = fl.project(scores, rule, **asked)
    other = Batch(scores, batch.group, batch.label, batch.weights)
    expected, _ = solved(other, "parity", classes, geometry, TOLERANCE, simplex=False)
    np.testing.assert_allclose(result.value.numpy(), expected, atol=2e-5)
    for c in set(range(k)) - set(chosen(batch, classes)):
        np.testing.assert_allclose(result.value.numpy()[:, c], scores[:, c], atol=1e-12)
    assert result.certificate.holds


def test_labels_of_classes_are_numbers_or_columns() -> None:
    batch = Batch.random(2)
    rule = fl.EqualOpportunity("group", TOLERANCE, classes=(0, 1))
    asked = given(batch, "opportunity")
    hot = np.eye(batch.rows.shape[1])[batch.label]
    values = [
        fl.project(batch.rows, rule, bounds="simplex", **(asked | {"y": y})).value
        for y in (batch.label, torch.tensor(batch.label), hot)
    ]
    for value in values[1:]:
        torch.testing.assert_close(value, values[0])
    with pytest.raises(FairlayerError, match="class"):
        fl.project(batch.rows, rule, bounds="simplex", **(asked | {"y": batch.label + 7}))
    with pytest.raises(FairlayerError, match="classes"):
        fl.project(batch.rows, fl.DemographicParity("group", 0.1, classes=9), bounds="simplex", **asked)


@pytest.mark.parametrize(
    "make",
    [
        lambda c: fl.DemographicParity("group", 0.1, classes=c),
        lambda c: fl.EqualOpportunity("group", 0.1, classes=c),
        lambda c: fl.PredictiveEquality("group", 0.1, classes=c),
        lambda c: fl.EqualizedOdds("group", 0.1, classes=c),
        lambda c: fl.ConditionalParity("group", given="group2", tolerance=0.1, classes=c),
        lambda c: fl.MeanResidualParity("group", 0.5, classes=c),
        lambda c: fl.DisparateImpactRatio("group", ratio=0.5, classes=c),
        lambda c: fl.ErrorRateParity("group", 0.2, classes=c),
        lambda c: fl.BoundedGroupLoss("group", cap=0.9, classes=c),
        lambda c: fl.MinimumRate("group", floor=0.05, classes=c),
        lambda c: fl.GroupCalibration("group", 0.5, classes=c),
        lambda c: fl.CovarianceBound("age", 0.2, classes=c),
        lambda c: fl.Affine([[-1.0, 1.0]], upper=0.2, on="group", classes=c),
    ],
)
def test_every_constraint_takes_classes(make: Callable[[Any], fl.Constraint]) -> None:
    """A constraint on one class says of rows what it says of that column alone."""
    batch = Batch.random(5)
    n, k = batch.rows.shape
    features = {"group": batch.group, "group2": np.arange(n) // 2 % 2, "age": np.random.default_rng(0).normal(size=n)}
    hot = np.eye(k)[batch.label]
    for c in range(k):
        rule, alone = make(c), make(None)
        features_of = {name: features[name] for name in rule.features}
        whole = rule.measure(batch.rows, sensitive_features=features_of, y=hot)
        column = alone.measure(batch.rows[:, c], sensitive_features=features_of, y=hot[:, c])
        assert (whole.value, whole.excess) == pytest.approx((column.value, column.excess), abs=1e-12)
        assert rule.classes == (c,)
        assert f"classes={c}" in repr(rule)
        assert f"classes={c}" in rule.name
        result = fl.project(
            batch.rows, rule, sensitive_features=features_of, y=batch.label, bounds="simplex", on_infeasible="relax"
        )
        assert result.certificate.holds
        np.testing.assert_allclose(result.value.numpy().sum(axis=1), 1.0, atol=1e-9)
        if result.widening == 0 and not isinstance(rule, fl.GroupCalibration):
            after = rule.measure(result.value, sensitive_features=features_of, y=hot)
            assert after.excess is not None
            assert after.excess <= 1e-8
