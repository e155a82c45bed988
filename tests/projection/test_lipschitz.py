"""LipschitzFairness against an interior-point solver, and its laws, derivatives, certificate and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cvxpy as cp
import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.errors import (
    BackendError,
    ConstraintDefinitionError,
    FairlayerError,
    InfeasibleConstraintsError,
    InvalidBoundsError,
    ParameterError,
    ShapeError,
)
from fairlayer.passes.pairs import Pairs
from fairlayer.passes.pairs import problem as pair_problem

GEOMETRIES = ("euclidean", "entropic", "likelihood")


class Problem(NamedTuple):
    """A batch with pairs, and perhaps groups; everything is NumPy and float64."""

    scores: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray]
    constant: float
    groups: np.ndarray | None
    tolerance: float
    weights: np.ndarray | None
    bounds: tuple[float | None, float | None] | None
    geometry: str

    def project(self, scores: Any = None, **more: Any) -> fl.Projection:
        stated: list[Any] = [fl.LipschitzFairness(constant=self.constant, pairs=self.pairs)]
        features = None
        if self.groups is not None:
            stated.append(fl.DemographicParity("g", self.tolerance))
            features = {"g": self.groups}
        scores = torch.tensor(self.scores) if scores is None else scores
        return fl.project(
            scores,
            stated,
            sensitive_features=features,
            bounds=self.bounds,
            geometry=self.geometry,
            sample_weight=self.weights,
            **more,
        )


def random_problem(seed: int, geometry: str) -> Problem:
    """Chains, random graphs with parallel pairs, ties, people at distance 0, constant 0, weights, bounds, groups."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 40))
    features = rng.normal(size=(n, int(rng.integers(1, 4))))
    if rng.random() < 0.4:
        features = np.round(features)  # duplicates, and distances that add up
    if rng.random() < 0.3:
        first, second = np.arange(n - 1), np.arange(1, n)
    else:
        first, second = rng.integers(0, n, (2, int(rng.integers(1, 4 * n))))
    keep = first != second
    first, second = first[keep], second[keep]
    distance = np.linalg.norm(features[first] - features[second], axis=1)
    scores = rng.random(n) if geometry != "euclidean" else rng.normal(size=n)
    if rng.random() < 0.3:
        scores = np.round(scores * 4) / 4
    if geometry != "euclidean":
        scores = scores.clip(0.01, 0.99)
    bounds = None if geometry != "euclidean" else [None, (-0.5, 0.5), (0.0, 1.0), (None, 0.3)][int(rng.integers(4))]
    groups = rng.integers(0, 2 + int(rng.random() < 0.3), n) if rng.random() < 0.6 else None
    weights = rng.uniform(0.5, 3.0, n) if rng.random() < 0.3 else None
    constant = float(rng.choice([0.0, 0.02, 0.1, 0.5, 2.0]))
    tolerance = float(rng.choice([0.0, 0.02, 0.1]))
    return Problem(scores, (first, second, distance), constant, groups, tolerance, weights, bounds, geometry)


def distance_to(problem: Problem, y: Any, library: Any = np) -> Any:
    z, w = problem.scores, np.ones(len(problem.scores)) if problem.weights is None else problem.weights
    if problem.geometry == "euclidean":
        return 0.5 * (w @ library.square(y - z))
    if library is cp:
        if problem.geometry == "entropic":
            return w @ (cp.kl_div(y, z) + cp.kl_div(1 - y, 1 - z))
        return w @ (cp.kl_div(z, y) + cp.kl_div(1 - z, 1 - y))
    p, q = (y, z) if problem.geometry == "entropic" else (z, y)
    return w @ (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))


def oracle(problem: Problem) -> np.ndarray | None:
    """The same problem by cvxpy and Clarabel, stated from the documentation."""
    y = cp.Variable(len(problem.scores))
    first, second, distance = problem.pairs
    limits: list[Any] = [cp.abs(y[first] - y[second]) <= problem.constant * distance] if len(first) else []
    w = np.ones(len(problem.scores)) if problem.weights is None else problem.weights
    for bound, sign in zip(problem.bounds or (None, None), (1, -1), strict=True):
        if bound is not None:
            limits.append(sign * y >= sign * bound)
    if problem.groups is not None:
        inside = [np.where(problem.groups == g, w, 0.0) for g in np.unique(problem.groups)]
        means = [(each / each.sum()) @ y for each in inside]
        limits += [a - b <= problem.tolerance for a in means for b in means if a is not b]
    task = cp.Problem(cp.Minimize(distance_to(problem, y, cp)), limits)
    try:
        task.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    except cp.SolverError:
        return None
    return None if y.value is None or "inaccurate" in task.status else np.asarray(y.value)


def violation(problem: Problem, y: np.ndarray) -> float:
    first, second, distance = problem.pairs
    worst = float((np.abs(y[first] - y[second]) - problem.constant * distance).max(initial=0.0))
    low, high = problem.bounds or (None, None)
    worst = max(worst, 0.0 if low is None else low - y.min(), 0.0 if high is None else y.max() - high)
    if problem.groups is not None:
        w = np.ones(len(y)) if problem.weights is None else problem.weights
        means = [np.average(y[problem.groups == g], weights=w[problem.groups == g]) for g in np.unique(problem.groups)]
        worst = max(worst, max(means) - min(means) - problem.tolerance)
    return worst


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("block", range(3))
def test_equals_an_interior_point_solver(geometry: str, block: int) -> None:
    compared = 0
    for seed in range(25 * block, 25 * (block + 1)):
        problem = random_problem(seed, geometry)
        result = problem.project()
        y = result.value.numpy()
        assert violation(problem, y) <= 1e-10, (seed, violation(problem, y))
        assert result.certificate.holds, (seed, result.certificate)
        expected = oracle(problem)
        if expected is None:
            continue
        compared += 1
        assert np.abs(y - expected).max() <= 1e-4, (seed, np.abs(y - expected).max())
    assert compared >= 23


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_random_problem_is_proved(geometry: str) -> None:
    for seed in range(1000, 1080):
        problem = random_problem(seed, geometry)
        result = problem.project()
        assert violation(problem, result.value.numpy()) <= 1e-10, seed
        assert result.certificate.holds, (seed, result.certificate)


def smooth_problem(geometry: str, seed: int, weights: bool) -> Problem:
    """No ties, so that the projection is differentiable where it stands."""
    rng = np.random.default_rng(seed)
    n = 10
    first, second = rng.integers(0, n, (2, 16))
    keep = first != second
    distance = rng.uniform(0.05, 1.0, int(keep.sum()))
    groups = np.arange(n) % 2
    bounds = (0.0, 1.0) if geometry == "euclidean" else None
    scores = rng.uniform(-0.6, 1.6, n) if geometry == "euclidean" else rng.uniform(0.05, 0.95, n)
    w = rng.uniform(0.5, 2.0, n) if weights else None
    return Problem(scores, (first[keep], second[keep], distance), 0.3, groups, 0.01, w, bounds, geometry)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("weights", [False, True])
def test_derivatives(geometry: str, weights: bool) -> None:
    for seed in range(2):
        problem = smooth_problem(geometry, seed, weights)
        z = torch.tensor(problem.scores, requires_grad=True)
        result = problem.project()
        assert result.status == "projected"
        assert len(result.active) > 3

        def projected(scores: torch.Tensor, problem: Problem = problem) -> torch.Tensor:
            return problem.project(scores).value

        assert torch.autograd.gradcheck(projected, (z,), check_forward_ad=True, fast_mode=True)
        if geometry != "euclidean":  # a piecewise linear one has no second derivative
            assert torch.autograd.gradgradcheck(projected, (z,), fast_mode=True)


def test_multipliers_are_prices() -> None:
    """The price of the constant is by how much the distance falls per unit of it."""
    for geometry in GEOMETRIES:
        problem = smooth_problem(geometry, 3, weights=False)
        name = next(iter(problem.project().multipliers))
        low, high = (problem._replace(constant=problem.constant + step) for step in (-1e-5, 1e-5))
        slope = (distance_to(high, high.project().value.numpy()) - distance_to(low, low.project().value.numpy())) / 2e-5
        price = float(problem.project().multipliers[name])
        assert price > 0.01
        assert abs(-slope - price) <= 1e-3 * price


def test_only_the_active_pairs_matter() -> None:
    """All pairs of everybody, or just those that hold the answer: the same predictions."""
    rng = np.random.default_rng(0)
    for seed in range(20):
        n = 30
        x, z = rng.normal(size=(n, 2)), rng.random(n)
        first, second = np.triu_indices(n, 1)
        distance = np.linalg.norm(x[first] - x[second], axis=1)
        whole = Problem(z, (first, second, distance), 0.2, None, 0.0, None, None, "euclidean")
        passes = whole.project().columns[0].solver_passes  # type: ignore[attr-defined]
        held = np.flatnonzero(passes.multipliers(passes.at(None), None))
        few = whole._replace(pairs=(first[held], second[held], distance[held]))
        assert 0 < len(held) < len(first) / 4, seed
        np.testing.assert_allclose(whole.project().value.numpy(), few.project().value.numpy(), atol=1e-12)


def test_a_broken_solver_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that is feasible, but not the nearest, has no certificate."""
    problem = smooth_problem("euclidean", 1, weights=False)
    assert problem.project().certificate.holds
    right = pair_problem.PairProblem.answer

    def shrunk(self: Any, pull: np.ndarray) -> Any:
        found = right(self, pull)
        centre = found.value.mean()
        return pair_problem.PairAnswer(centre + 0.9 * (found.value - centre), found.clusters, found.multipliers)

    monkeypatch.setattr(pair_problem.PairProblem, "answer", shrunk)
    certificate = problem._replace(groups=None).project().certificate
    assert certificate.violation <= certificate.atol
    assert not certificate.holds

    def apart(self: Any, pull: np.ndarray) -> Any:
        found = right(self, pull)
        return pair_problem.PairAnswer(found.value * 1.001, found.clusters, found.multipliers)

    monkeypatch.setattr(pair_problem.PairProblem, "answer", apart)
    certificate = problem._replace(groups=None, bounds=None).project().certificate
    assert certificate.violation > certificate.atol


def test_neighbours_are_found_in_columns() -> None:
    rng = np.random.default_rng(0)
    n = 60
    table = {"income": rng.normal(size=n) * 1e4, "age": rng.integers(18, 90, n), "sex": np.arange(n) % 2}
    rule = fl.LipschitzFairness(("income", "age"), constant=0.1, neighbours=3)
    scores = torch.tensor(rng.random(n))
    result = fl.project(scores, [rule, fl.DemographicParity("sex", 0.01)], sensitive_features=table, bounds=(0.0, 1.0))
    x = np.stack([table["income"], table["age"]], axis=1).astype(float)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    apart = np.linalg.norm(x[:, None] - x[None], axis=2)
    y = result.value.numpy()
    for i in range(n):
        for j in np.argsort(apart[i])[1:4]:
            assert abs(y[i] - y[j]) <= 0.1 * apart[i, j] + 1e-10
    assert result.certificate.holds
    found = rule.measure(y, sensitive_features=table)
    assert found.limit == 0.1
    assert found.value == pytest.approx(0.1)
    assert found.holds
    before = rule.measure(scores, sensitive_features=table)
    assert not before.holds
    assert before.value is not None
    assert before.value > 0.1


def test_a_matrix_of_features_and_unknown_ones() -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[4, 1] = float("nan")
    scores = torch.linspace(0, 1, 20, dtype=torch.float64)
    rule = fl.LipschitzFairness("x", constant=0.01, neighbours=4, standardise=False)
    result = fl.project(scores, [rule], sensitive_features={"x": x})
    assert result.value[4] == scores[4]  # nobody is beside a person of whom something is unknown
    assert (result.value[:4] != scores[:4]).all()
    assert result.certificate.holds


def test_a_model_trains_through_it() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, generator=generator)
    sex = torch.arange(64) % 2
    y = (x[:, 0] + 0.5 * sex > 0).float()
    net = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Sigmoid())
    rules: Sequence[fl.Constraint] = [
        fl.LipschitzFairness("x", constant=0.05, neighbours=3),
        fl.DemographicParity("sex", 0.02),
    ]
    model = fl.FairModel(net, rules, geometry="entropic")
    optimiser = torch.optim.Adam(net.parameters(), 0.05)
    losses = []
    for _ in range(5):
        scores = model(x, sensitive_features={"x": x, "sex": sex}).squeeze(1)
        loss = torch.nn.functional.binary_cross_entropy(scores, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert model.last_projection is not None
    assert model.last_projection.certificate.holds
    with pytest.raises(FairlayerError, match="LipschitzFairness"):
        model(x[:4], sensitive_features={"x": x[:4], "sex": sex[:4]}, inference=True)


def test_float32_and_columns() -> None:
    rng = np.random.default_rng(2)
    scores = torch.tensor(rng.random((30, 2)), dtype=torch.float32)
    rule = fl.LipschitzFairness("x", constant=0.1, neighbours=3, classes=1)
    result = fl.project(scores, [rule], sensitive_features={"x": rng.normal(size=30)})
    assert result.value.dtype == torch.float32
    assert result.certificate.holds
    assert torch.equal(result.value[:, 0], scores[:, 0])
    assert not torch.equal(result.value[:, 1], scores[:, 1])


def test_the_path_of_a_constant() -> None:
    rng = np.random.default_rng(1)
    features = {"x": rng.normal(size=40)}
    scores = torch.tensor(rng.random(40))
    rule = fl.LipschitzFairness("x", constant=1.0, neighbours=3)
    path = fl.fairness_path(scores, rule, [0.05, 0.5, 5.0], sensitive_features=features, bounds=(0.0, 1.0))
    for t, distance in zip(path.tolerances.tolist(), path.distance.tolist(), strict=True):
        rule = fl.LipschitzFairness("x", constant=t, neighbours=3)
        one = fl.project(scores, rule, sensitive_features=features, bounds=(0.0, 1.0))
        assert abs(0.5 * one.certificate.distance**2 - distance) <= 1e-9


def test_it_says_no_by_name() -> None:
    pairs = np.array([0]), np.array([1]), np.array([1.0])
    two = torch.tensor([0.2, 0.8], dtype=torch.float64)
    with pytest.raises(ConstraintDefinitionError, match="constant=-1"):
        fl.LipschitzFairness("x", constant=-1.0)
    with pytest.raises(ConstraintDefinitionError, match="takes no gradient"):
        fl.LipschitzFairness("x", constant=torch.tensor(1.0))
    with pytest.raises(ConstraintDefinitionError, match="neighbours=0"):
        fl.LipschitzFairness("x", constant=1.0, neighbours=0)
    with pytest.raises(ConstraintDefinitionError, match="columns and pairs"):
        fl.LipschitzFairness("x", constant=1.0, pairs=pairs)
    with pytest.raises(ConstraintDefinitionError, match="needs the name"):
        fl.LipschitzFairness(constant=1.0)
    with pytest.raises(ShapeError, match="has 1 rows"):
        fl.project(two[:1], [fl.LipschitzFairness(constant=1.0, pairs=pairs)])
    alike = fl.LipschitzFairness(constant=0.1, pairs=pairs)
    with pytest.raises(BackendError, match="simplex"):
        fl.project(torch.full((2, 2), 0.5), [alike], bounds="simplex")
    with pytest.raises(ParameterError, match="sample weights above 0"):
        fl.project(two, [alike], sample_weight=[0.0, 1.0])
    with pytest.raises(InvalidBoundsError, match="a tensor"):
        fl.project(two, [alike], bounds=(torch.tensor(0.0, requires_grad=True), 1.0))
    with pytest.raises(FairlayerError, match="LipschitzFairness"):
        fl.InferenceState([alike])
    with pytest.raises(FairlayerError, match="LipschitzFairness"):
        fl.decide(two.numpy(), [alike])


def test_what_cannot_be_met_is_said() -> None:
    """Two people who are alike, in groups whose means must differ."""
    same = np.array([0]), np.array([1]), np.array([0.0])
    rules = [fl.LipschitzFairness(constant=1.0, pairs=same), fl.Affine([[1.0, -1.0]], lower=0.3, on="g")]
    for how in ("raise", "relax"):
        with pytest.raises(InfeasibleConstraintsError, match="LipschitzFairness"):
            fl.project(
                torch.tensor([0.2, 0.8]),
                rules,
                sensitive_features={"g": ["a", "b"]},
                bounds=(0.0, 1.0),
                on_infeasible=how,
            )


def test_it_needs_no_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given pairs, the core solves by its own conjugate gradients."""
    rng = np.random.default_rng(0)
    n = 400
    first, second = rng.integers(0, n, (2, 2000))
    keep = first != second
    pairs = first[keep], second[keep], rng.uniform(0.1, 1.0, int(keep.sum()))
    problem = Problem(rng.random(n), pairs, 0.1, np.arange(n) % 2, 0.01, None, (0.0, 1.0), "euclidean")
    expected = problem.project().value
    monkeypatch.setattr("fairlayer.passes.pairs.linear._sparse_library", lambda: None)
    result = problem.project()
    assert result.certificate.holds
    assert torch.allclose(result.value, expected, rtol=0.0, atol=1e-11)
    assert Pairs(*pairs, n).n == n


def test_a_pair_that_a_bound_holds_does_not_move() -> None:
    pair = np.array([0]), np.array([1]), np.array([1.0])
    scores = torch.tensor([2.5, 0.9, 0.4], dtype=torch.float64, requires_grad=True)
    value = fl.project(scores, fl.LipschitzFairness(constant=0.1, pairs=pair), bounds=(0.0, 1.0)).value
    torch.testing.assert_close(value.detach(), torch.tensor([1.0, 0.9, 0.4], dtype=torch.float64))
    scores.data[1] = 0.7  # the pair is tight now, and the upper one at its bound
    value = fl.project(scores, fl.LipschitzFairness(constant=0.1, pairs=pair), bounds=(0.0, 1.0)).value
    torch.testing.assert_close(value.detach(), torch.tensor([1.0, 0.9, 0.4], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(value.sum(), scores)
    assert gradient.tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("geometry", ["entropic", "likelihood"])
@pytest.mark.parametrize("neighbours", [1, 5])
@pytest.mark.parametrize("constant", [0.01, 0.3])
def test_probabilities_at_their_ends_keep_close_too(geometry: str, neighbours: int, constant: float) -> None:
    rng, n = np.random.default_rng(1), 300
    features = rng.normal(size=(n, 3))
    first = np.repeat(np.arange(n), neighbours)
    apart = np.linalg.norm(features[:, None] - features[None], axis=2)
    second = np.argsort(apart, axis=1)[:, 1 : neighbours + 1].ravel()
    scores = rng.choice([0.0, 1.0, 0.5], n, p=[0.4, 0.3, 0.3])
    scores = np.where(scores == 0.5, rng.random(n), scores)
    pairs = first, second, apart[first, second]
    result = Problem(scores, pairs, constant, None, 0.0, None, (0.0, 1.0), geometry).project()
    value = result.value.numpy()
    assert result.certificate.holds
    assert (np.abs(value[first] - value[second]) <= constant * pairs[2] + 1e-10).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [4, 61, 103, 139, 175, 183, 293, 420])
def test_scores_at_the_ends_and_samples_side_by_side(seed: int) -> None:
    """Distances of 1e-9 among ones of .01 make trees next to an end, where every force is mostly rounding."""
    rng = np.random.default_rng(seed)
    n, columns, neighbours = int(rng.choice([30, 200, 800])), int(rng.choice([1, 2])), int(rng.choice([1, 3, 5]))
    x = rng.random((n, columns))
    if seed % 2:
        x = np.round(x, 2) + 1e-9 * rng.random((n, columns))
    scores = np.where(rng.random(n) < 0.5, rng.beta(0.1, 0.1, n), (rng.random(n) < 0.4) * 1.0)
    weight, constant = torch.tensor(rng.random(n) + 0.1), float(rng.choice([0.01, 0.1, 0.5, 2.0]))
    geometry, names = str(rng.choice(["entropic", "likelihood"])), [f"x{i}" for i in range(columns)]
    result = fl.project(
        torch.tensor(scores),
        fl.LipschitzFairness(names, constant=constant, neighbours=neighbours),
        sensitive_features=dict(zip(names, x.T, strict=True)),
        bounds=(0.0, 1.0),
        geometry=geometry,
        sample_weight=weight,
    )
    assert result.certificate.holds
