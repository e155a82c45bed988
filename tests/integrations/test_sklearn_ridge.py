"""FairRidge against scikit-learn, the KKT equations, and the same program written out in cvxpy."""

from __future__ import annotations

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

import fairlayer as fl
from fairlayer.errors import InfeasibleConstraintsError
from fairlayer.integrations.sklearn import FairRidge
from fairlayer.integrations.sklearn.training_data import Centred, read_demands
from tests.core import truth
from tests.core.problems import SOLO_KINDS, Problem, problems, solo_problem

REFUSED = {"GroupCalibration"}  # bins by score, which no convex program has


def sample(seed: int = 0, n: int = 300, groups: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    group = random.integers(0, groups, n)
    x = random.normal(size=(n, 4)) + group[:, None] * np.array([1.0, 0.0, -0.5, 0.0])
    return x, x @ random.normal(size=4) + group + 0.5 * random.normal(size=n) + 3.0, group


def parity(x, y, group, tolerance, **more):  # type: ignore[no-untyped-def]
    model = FairRidge([fl.DemographicParity("g", tolerance)], **more)
    return model.fit(x, y, sensitive_features={"g": group})


def group_gap(predictions: np.ndarray, group: np.ndarray) -> float:
    means = [predictions[group == g].mean() for g in np.unique(group)]
    return float(max(means) - min(means))


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 100.0])
def test_without_constraints_it_is_ridge(alpha: float) -> None:
    x, y, group = sample()
    weights = np.random.default_rng(1).uniform(0, 2, len(y))
    expected = Ridge(alpha).fit(x, y, sample_weight=weights)
    for constraints in ([], [fl.DemographicParity("g", 100.0)]):
        model = FairRidge(constraints, alpha=alpha)
        model.fit(x, y, sensitive_features={"g": group}, sample_weight=weights)
        np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-8)
        assert model.intercept_ == pytest.approx(expected.intercept_, abs=1e-8)
        assert all(price == pytest.approx(0.0, abs=1e-6) for price in model.multipliers_.values())
        assert model.certificate_.holds


@pytest.mark.parametrize("tolerance", [0.0, 0.1, 0.2])
def test_two_groups_solve_the_kkt_equations(tolerance: float) -> None:
    x, y, group = sample()
    model = parity(x, y, group, tolerance, alpha=2.0)
    Z = np.column_stack([x, np.ones(len(x))])
    H = 2.0 * (Z.T @ Z + np.diag([2.0] * 4 + [0.0]))
    a = Z[group == 1].mean(axis=0) - Z[group == 0].mean(axis=0)
    a *= np.sign(a @ np.linalg.solve(H, Z.T @ y))  # the higher group first
    kkt = np.block([[H, a[:, None]], [a[None, :], np.zeros((1, 1))]])
    solution = np.linalg.solve(kkt, np.append(2.0 * Z.T @ y, tolerance))
    np.testing.assert_allclose(np.append(model.coef_, model.intercept_), solution[:-1], atol=1e-7)
    assert model.multipliers_["DemographicParity('g')"] == pytest.approx(solution[-1], rel=1e-6)
    assert group_gap(model.predict(x), group) == pytest.approx(tolerance, abs=1e-8)
    assert model.gaps_["DemographicParity('g')"] == pytest.approx(tolerance, abs=1e-8)


def oracle(problem: Problem, x: np.ndarray, y: np.ndarray, alpha: float) -> tuple[str, float, np.ndarray]:
    w, b = cp.Variable(x.shape[1]), cp.Variable()
    predictions = x @ w + b
    stated = []
    for term in truth.all_terms(problem):
        value = term.rows @ predictions + term.offset
        if isinstance(term, truth.AllPairs):
            stated.append(term.scale * cp.max(value) - cp.min(value) <= term.width)
            continue
        for j in range(len(term.rows)):
            stated += [value[j] <= term.upper[j]] * bool(np.isfinite(term.upper[j]))
            stated += [value[j] >= term.lower[j]] * bool(np.isfinite(term.lower[j]))
    program = cp.Problem(cp.Minimize(cp.sum_squares(y - predictions) + alpha * cp.sum_squares(w)), stated)
    try:
        program.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    except cp.SolverError:
        return "failed", np.nan, np.zeros(0)
    return program.status, program.value, predictions.value


def check(problem: Problem, seed: int) -> None:
    """Compare with the oracle, for features that reach few or all predictions."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, problem.n).astype(float)
    problem = replace(problem, labels=labels, estimates=None)
    x = random.normal(size=(problem.n, int(random.choice([2, 6, problem.n]))))
    alpha = float(random.choice([0.1, 1.0]))
    status, value, predictions = oracle(problem, x, labels, alpha)
    model = FairRidge(problem.constraints(), alpha=alpha)
    if status == "infeasible":
        with pytest.raises(InfeasibleConstraintsError, match="no linear model of these features meets"):
            model.fit(x, labels, sensitive_features=problem.features)
    if status != "optimal":
        return
    model.fit(x, labels, sensitive_features=problem.features)
    assert model.certificate_.holds
    assert model.certificate_.objective == pytest.approx(value, rel=1e-5, abs=1e-5)
    np.testing.assert_allclose(model.predict(x), predictions, atol=2e-3)
    for rule in problem.rules:
        assert truth.violation(problem, rule, model.predict(x)) <= 1e-8 * max(1.0, truth.reach(problem, rule))


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")  # of the oracle, which then is not asked
@settings(max_examples=25)
@given(problems(scale=1.0), st.integers(0, 2**31 - 1))
def test_any_constraints_as_written_out_in_cvxpy(problem: Problem, seed: int) -> None:
    assume(not any(rule.kind in REFUSED for rule in problem.rules))
    check(problem, seed)


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("kind", [kind for kind in SOLO_KINDS if kind not in REFUSED])
def test_each_constraint_as_written_out_in_cvxpy(kind: str) -> None:
    for seed in range(4):
        check(replace(solo_problem(kind, seed, n=30), bounds=None), seed)


@pytest.mark.parametrize("tolerance", [0.0, 0.2])
@pytest.mark.parametrize("groups", [2, 4])
def test_the_price_is_the_slope_of_the_optimum(tolerance: float, groups: int) -> None:
    x, y, group = sample(groups=groups)
    price = parity(x, y, group, tolerance).multipliers_["DemographicParity('g')"]
    step = 1e-3 if tolerance else 1e-5
    points = [max(0.0, tolerance - step), tolerance + step]
    low, high = (parity(x, y, group, t).certificate_.objective for t in points)
    slope = (low - high) / (points[1] - points[0])
    assert price == pytest.approx(slope, rel=1e-3)
    assert price > 1.0


def test_the_price_of_rows_and_of_several_constraints() -> None:
    x, y, group = sample(groups=3)
    age = x[:, 0] + np.random.default_rng(3).normal(size=len(x))

    def fit(residual: float, covariance: float) -> FairRidge:
        rules = [fl.MeanResidualParity("g", residual), fl.CovarianceBound("age", covariance)]
        return FairRidge(rules, alpha=300.0).fit(x, y, sensitive_features={"g": group, "age": age})

    at, step = (0.05, 0.3), 1e-3
    prices = list(fit(*at).multipliers_.values())
    for j, price in enumerate(prices):
        up, down = (fit(*(t + sign * step * (i == j) for i, t in enumerate(at))) for sign in (1, -1))
        slope = (down.certificate_.objective - up.certificate_.objective) / (2 * step)
        assert price == pytest.approx(slope, rel=1e-4)
        assert price > 1.0


def test_weights_are_repetitions() -> None:
    x, y, group = sample(n=60, groups=3)
    times = np.random.default_rng(2).integers(0, 4, len(y))
    weighed = FairRidge([fl.DemographicParity("g", 0.1)])
    weighed.fit(x, y, sensitive_features={"g": group}, sample_weight=times)
    repeated = parity(np.repeat(x, times, axis=0), np.repeat(y, times), np.repeat(group, times), 0.1)
    np.testing.assert_allclose(weighed.coef_, repeated.coef_, atol=1e-8)
    assert weighed.multipliers_["DemographicParity('g')"] == pytest.approx(
        repeated.multipliers_["DemographicParity('g')"], rel=1e-6
    )


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_do_not_matter(scale: float) -> None:
    x, y, group = sample(groups=3)
    plain = parity(x, y, group, 0.1, alpha=1.0)
    other = parity(x * scale, y * scale, group, 0.1 * scale, alpha=scale**2)
    np.testing.assert_allclose(other.predict(x * scale), plain.predict(x) * scale, rtol=1e-6, atol=1e-6 * scale)
    assert other.certificate_.holds


def test_features_of_very_different_sizes() -> None:
    x, y, group = sample()
    size = np.array([1e8, 1e-8, 1.0, 1e8])
    plain, other = parity(x, y, group, 0.1, alpha=1e-9), parity(x * size, y, group, 0.1, alpha=1e-25)
    np.testing.assert_allclose(other.predict(x * size), plain.predict(x), atol=1e-6)
    assert other.certificate_.holds


def test_multipliers_of_a_spread_are_balanced() -> None:
    """Only then is the dual value a bound: otherwise the free number could lower the Lagrangian without end."""
    x, y, group = sample(groups=4)
    features = {"g": group}
    rules = [fl.DemographicParity("g", 0.1), fl.DemographicParity("g", 0.0), fl.MeanResidualParity("g", 0.2)]
    demands = read_demands("FairRidge", rules, features, y, None)
    limits = demands.limits(Centred.of(x, np.ones(len(x))))
    duals = limits.balanced(np.random.default_rng(0).normal(size=len(limits)))
    assert (duals[~limits.tied] >= 0).all()
    assert duals.any()
    np.testing.assert_allclose(limits.free.T @ duals, 0.0, atol=1e-12)


def test_a_certificate_can_fail() -> None:
    x, y, group = sample()
    proof = parity(x, y, group, 0.1).certificate_
    assert proof.holds
    assert not replace(proof, violation=1e-3).holds
    assert not replace(proof, objective=proof.objective * (1 + 1e-6)).holds
