"""FairLogisticRegression against scikit-learn, SciPy, and the same program as exponential cones."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, minimize
from sklearn.linear_model import LogisticRegression

import fairlayer as fl
from fairlayer.errors import BackendError, SolverError
from fairlayer.integrations.sklearn import FairLogisticRegression


def sample(seed: int = 0, n: int = 400, groups: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    group = random.integers(0, groups, n)
    x = random.normal(size=(n, 4)) + group[:, None] * np.array([0.8, 0.0, -0.5, 0.0])
    return x, (x @ random.normal(size=4) + group - 0.5 + random.logistic(size=n) > 0).astype(int), group


def parity(x, y, group, tolerance, **more):  # type: ignore[no-untyped-def]
    model = FairLogisticRegression([fl.DemographicParity("g", tolerance)], **more)
    return model.fit(x, y, sensitive_features={"g": group})


def loss(theta: np.ndarray, x: np.ndarray, y: np.ndarray, C: float) -> float:
    z = x @ theta[:-1] + theta[-1]
    return float(np.logaddexp(0, np.where(y == 1, -z, z)).sum() + theta[:-1] @ theta[:-1] / (2 * C))


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_without_constraints_it_is_logistic_regression(C: float) -> None:
    x, y, group = sample()
    weights = np.random.default_rng(1).uniform(0, 2, len(y))
    expected = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(x, y, sample_weight=weights)
    for constraints in ([], [fl.DemographicParity("g", 100.0)]):
        model = FairLogisticRegression(constraints, C=C)
        model.fit(x, y, sensitive_features={"g": group}, sample_weight=weights)
        np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-4)
        np.testing.assert_allclose(model.intercept_, expected.intercept_, atol=1e-4)
        np.testing.assert_allclose(model.predict_proba(x), expected.predict_proba(x), atol=1e-4)
        assert all(price == pytest.approx(0.0, abs=1e-6) for price in model.multipliers_.values())
        assert model.certificate_.holds


@pytest.mark.parametrize("tolerance", [0.0, 0.3])
def test_tight_as_by_scipy(tolerance: float) -> None:
    x, y, group = sample()
    model = parity(x, y, group, tolerance, C=2.0)
    row = np.append(x[group == 1].mean(axis=0) - x[group == 0].mean(axis=0), 0.0)

    def slope(theta: np.ndarray) -> np.ndarray:
        residual = 1 / (1 + np.exp(-(x @ theta[:-1] + theta[-1]))) - y
        return np.append(x.T @ residual + theta[:-1] / 2.0, residual.sum())

    limit = LinearConstraint(row, -tolerance, tolerance)
    found = minimize(
        loss,
        np.zeros(5),
        (x, y, 2.0),
        "SLSQP",
        jac=lambda t, *_: slope(t),
        constraints=[limit],
        options={"ftol": 1e-13},
    )
    np.testing.assert_allclose(np.append(model.coef_, model.intercept_), found.x, atol=1e-4)
    assert model.certificate_.objective == pytest.approx(found.fun, abs=1e-7)
    log_odds = model.decision_function(x)
    assert log_odds[group == 1].mean() - log_odds[group == 0].mean() == pytest.approx(tolerance, abs=1e-8)


@settings(max_examples=15)
@given(st.integers(0, 2**31 - 1))
def test_several_constraints_as_exponential_cones(seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y, group = sample(seed, n=int(random.integers(30, 120)), groups=int(random.integers(2, 5)))
    y[:2] = (0, 1)
    age = x[:, 0] + random.normal(size=len(x))
    C, tolerance = float(random.choice([0.1, 1.0, 10.0])), float(random.choice([0.0, 0.1, 0.4]))
    rules = [fl.EqualizedOdds("g", tolerance), fl.CovarianceBound("age", 0.05)]
    model = FairLogisticRegression(rules, C=C).fit(x, y, sensitive_features={"g": group, "age": age})
    w, b = cp.Variable(4), cp.Variable()
    z = x @ w + b
    stated = [cp.abs((age - age.mean()) @ z / len(x)) <= 0.05]
    for label in (0, 1):
        cells = [(group == g) & (y == label) for g in range(5)]
        means = [cp.sum(z[np.flatnonzero(cell)]) / cell.sum() for cell in cells if cell.any()]
        stated += [a - c <= tolerance for a in means for c in means if a is not c]
    signs = np.where(y == 1, -1.0, 1.0)
    program = cp.Problem(cp.Minimize(cp.sum(cp.logistic(cp.multiply(signs, z))) + cp.sum_squares(w) / (2 * C)), stated)
    program.solve(solver="CLARABEL")
    assert model.certificate_.holds
    assert model.certificate_.objective == pytest.approx(program.value, rel=1e-6)
    np.testing.assert_allclose(model.decision_function(x), z.value, atol=1e-3)


@pytest.mark.parametrize("tolerance", [0.0, 0.2])
@pytest.mark.parametrize("groups", [2, 4])
def test_the_price_is_the_slope_of_the_optimum(tolerance: float, groups: int) -> None:
    x, y, group = sample(groups=groups)
    price = parity(x, y, group, tolerance).multipliers_["DemographicParity('g')"]
    step = 1e-3 if tolerance else 1e-5
    points = [max(0.0, tolerance - step), tolerance + step]
    low, high = (parity(x, y, group, t).certificate_.objective for t in points)
    assert price == pytest.approx((low - high) / (points[1] - points[0]), rel=1e-3)
    assert price > 1.0


def test_the_lower_bound_is_one() -> None:
    """No coefficients that meet the constraint have a loss below it."""
    x, y, group = sample()
    model = parity(x, y, group, 0.1)
    random = np.random.default_rng(0)
    row = x[group == 1].mean(axis=0) - x[group == 0].mean(axis=0)
    best = np.append(model.coef_, model.intercept_)
    for size in (1e-6, 1e-3, 1.0):
        for _ in range(50):
            theta = best + size * random.normal(size=5)
            theta[:-1] -= row * (row @ theta[:-1] - np.clip(row @ theta[:-1], -0.1, 0.1)) / (row @ row)
            assert loss(theta, x, y, 1.0) >= model.certificate_.lower_bound - 1e-9


def test_all_three_gaps_are_reported_and_log_odds_are_bounded() -> None:
    x, y, group = sample()
    model = parity(x, y, group, 0.05)
    found = model.gaps_["DemographicParity('g')"]

    def gap(values: np.ndarray) -> float:
        return abs(values[group == 1].mean() - values[group == 0].mean())

    assert found.log_odds == pytest.approx(0.05, abs=1e-9)
    assert found.log_odds == pytest.approx(gap(model.decision_function(x)), abs=1e-12)
    assert found.probabilities == pytest.approx(gap(model.predict_proba(x)[:, 1]), abs=1e-12)
    assert found.decisions == pytest.approx(gap(model.predict(x)), abs=1e-12)


def test_weights_are_repetitions() -> None:
    x, y, group = sample(n=80, groups=3)
    times = np.random.default_rng(2).integers(0, 4, len(y))
    weighed = FairLogisticRegression([fl.DemographicParity("g", 0.1)])
    weighed.fit(x, y, sensitive_features={"g": group}, sample_weight=times)
    repeated = parity(np.repeat(x, times, axis=0), np.repeat(y, times), np.repeat(group, times), 0.1)
    np.testing.assert_allclose(weighed.coef_, repeated.coef_, atol=1e-7)


def test_separable_labels_still_reach_the_optimum() -> None:
    x, _, group = sample()
    y = (x[:, 0] + 0.3 * group > 0.4).astype(int)
    model = parity(x * 100, y, group, 0.1, C=1e8)
    assert model.certificate_.holds
    assert model.gaps_["DemographicParity('g')"].log_odds == pytest.approx(0.1, abs=1e-8)


def test_a_contrast_of_log_odds_may_be_asked_for() -> None:
    x, y, group = sample()
    rule = fl.Affine([[-1.0, 1.0]], lower=2.0, on="g")  # the start, all scores equal, does not meet it
    slack = FairLogisticRegression([]).fit(x, y).decision_function(x)
    assert slack[group == 1].mean() - slack[group == 0].mean() < 2.0
    log_odds = FairLogisticRegression([rule]).fit(x, y, sensitive_features={"g": group}).decision_function(x)
    assert log_odds[group == 1].mean() - log_odds[group == 0].mean() == pytest.approx(2.0, abs=1e-8)


@pytest.mark.parametrize(
    "rule",
    [
        fl.MinimumRate("g", floor=0.2),
        fl.MeanResidualParity("g", tolerance=0.1),
        fl.DisparateImpactRatio("g", ratio=0.8),
        fl.ErrorRateParity("g", tolerance=0.1),
        fl.BoundedGroupLoss("g", cap=0.4),
        fl.Affine([[1.0, 0.0]], upper=0.3, on="g"),
    ],
    ids=repr,
)
def test_levels_of_probabilities_are_refused(rule: fl.Constraint) -> None:
    x, y, group = sample()
    with pytest.raises(BackendError) as caught:
        FairLogisticRegression([rule]).fit(x, y, sensitive_features={"g": group})
    text = str(caught.value)
    assert "bounds mean log-odds" in text
    assert rule.name in text
    assert "project(...)" in text


def test_too_few_steps_are_an_error() -> None:
    x, y, group = sample()
    with pytest.raises(SolverError, match=r"max_iter=1 steps \(duality gap .* raise max_iter"):
        parity(x, y, group, 0.1, max_iter=1)
