"""Thousands of groups: the short ways give what the general one gives, and what they solve grows no faster."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fairlayer as fl
from fairlayer import _rows
from fairlayer.geometry import geometry_of
from fairlayer.passes import Cells, NumpyPasses
from fairlayer.solve import RowSlabs, SlabSystem, SpreadSlabs, newton, price_equations, sparse
from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.counted import CountedPasses
from fairlayer.solve.inward import samples_of
from fairlayer.solve.newton import optimality_error, solve_newton
from fairlayer.solve.prices import PriceProgram
from fairlayer.solve.quadratic import solve_quadratic
from fairlayer.solve.ranges import solve_ranges
from fairlayer.solve.slabs import normals_of
from fairlayer.solve.sorted import SortedBatch
from fairlayer.solve.standin import solve_by_stand_in
from fairlayer.solve.table import RowTable
from fairlayer.solve.units import Units

SEEDS = st.integers(0, 2**31)


def batch_of(rng: np.random.Generator, groups: int, geometry: str) -> NumpyPasses:
    n = int(rng.integers(groups, 60))
    codes = np.append(np.arange(groups), rng.integers(0, groups, n - groups))
    z = np.clip(rng.beta(2, 3, n) + 0.3 * rng.normal(size=groups)[codes], 1e-3, 1 - 1e-3)
    if geometry == "euclidean" and rng.random() < 0.4:
        z = np.round(z, 1)  # ties
    if geometry == "euclidean" and rng.random() < 0.3:
        z = z * rng.choice([3.0, 30.0]) - 1.0  # outside the bounds
    x = np.log(z / (1 - z)) if geometry == "entropic" else z
    weights = rng.integers(1, 4, n).astype(float) if rng.random() < 0.3 else None
    counts = np.bincount(codes, weights).astype(float)
    return NumpyPasses(x, Cells(codes, counts, None, True, weights), 0.0, 1.0, geometry_of(geometry))


def system_of(rng: np.random.Generator, groups: int) -> SlabSystem:
    scale = float(rng.choice([1.0, 1.0, 0.8]))
    width = float(rng.choice([0.0, 0.01, 0.1, 0.3])) if scale == 1.0 else 0.0
    offset = None if scale < 1 or rng.random() < 0.7 else rng.normal(size=groups) * 0.02
    blocks: list[RowSlabs | SpreadSlabs] = [SpreadSlabs(np.eye(groups), offset, scale, width)]
    if rng.random() < 0.4:
        floor, cap = float(rng.choice([0.2, 0.4])), float(rng.choice([np.inf, 0.6]))
        blocks.append(RowSlabs(np.eye(groups), np.full(groups, floor), np.full(groups, cap)))
    return SlabSystem(blocks)


@pytest.mark.parametrize("geometry", ["euclidean", "entropic", "likelihood"])
@given(seed=SEEDS)
@settings(deadline=None, max_examples=60)
def test_one_range_is_the_general_solution(geometry: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(3, 12))
    passes, slabs = batch_of(rng, groups, geometry), system_of(rng, groups)
    start = passes.at(None)
    slabs = gauged(passes, slabs, start, accuracy_of(passes))
    units = Units.of(RowTable.of(slabs))
    assert units is not None
    if slabs.worst(start.statistics)[0] <= 1.0 or not units.fit(passes):
        return
    found = solve_ranges(passes, slabs, units, start, passes.widest_metric())
    found = solve_by_stand_in(passes, slabs, start) if found is None else found
    assert found is not None
    assert optimality_error(found, slabs) <= 50.0  # feasible, and every face with a price is tight
    assert (found.multipliers >= 0).all()
    nu = found.multipliers @ normals_of(found.faces, groups)
    np.testing.assert_allclose(nu, found.nu, atol=1e-10 * max(1.0, np.abs(nu).max()))
    try:
        general = solve_newton(passes, slabs, start)
    except fl.errors.SolverError:
        return  # the general method stalls on some of these; the check above needs no second opinion
    np.testing.assert_allclose(found.value, general.value, atol=1e-9)


@given(seed=SEEDS)
@settings(deadline=None, max_examples=80)
def test_prices_solve_the_program_that_faces_solve(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (int(k) for k in rng.integers(2, 6, 2))
    features = np.indices((a, b)).reshape(2, -1)
    if rng.random() < 0.4:
        features[1] = np.where(rng.random(a * b) < 0.9, features[0] % b, features[1])  # all but nested
    cells = a * b
    counts = np.maximum(1, np.exp(rng.normal(0, 1, cells)) * 20).round()
    metric, centre = rng.uniform(0.7, 1, cells) / counts, 0.5 + rng.normal(0, 0.1, cells)
    blocks: list[RowSlabs | SpreadSlabs] = []
    for feature in features:
        rows = np.zeros((feature.max() + 1, cells))
        rows[feature, np.arange(cells)] = counts
        rows = rows[rows.sum(axis=1) > 0]
        width = float(rng.choice([0.0, 0.02, 0.05]))
        blocks.append(SpreadSlabs(rows / rows.sum(axis=1, keepdims=True), None, float(rng.choice([1, 1, 0.9])), width))
    if rng.random() < 0.4:
        blocks.append(SpreadSlabs(np.eye(cells), None, 1.0, 0.1))
    if rng.random() < 0.4:
        blocks.append(RowSlabs(np.eye(cells), np.full(cells, 0.45), np.full(cells, np.inf)))
    slabs = SlabSystem(blocks).accurate_to(1e-13, np.ones(cells))
    table = RowTable.of(slabs)
    found = PriceProgram(table).solve(centre, metric)
    assert found is not None
    point = centre - metric * (found.price @ table.matrix)
    assert slabs.worst(point)[0] <= 2.0
    np.testing.assert_allclose(point, solve_quadratic(centre, metric, slabs, (), 0.1).point, atol=1e-10)


def clarabel(z: np.ndarray, parts: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """Project onto spreads of group means over partitions, by cvxpy."""
    cp = pytest.importorskip("cvxpy")
    y = cp.Variable(len(z))
    limits = [y >= 0, y <= 1]
    for given_codes, tolerance in parts:
        present, codes = np.unique(given_codes, return_inverse=True)
        rows = np.eye(len(present))[:, codes] / np.bincount(codes)[:, None]
        low = cp.Variable()
        limits += [rows @ y >= low, rows @ y <= low + tolerance]
    cp.Problem(cp.Minimize(cp.sum_squares(y - z)), limits).solve(
        solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12
    )
    return np.asarray(y.value)


@pytest.mark.parametrize("kind", ["one", "two", "nested", "dependent", "crossed", "strata"])
def test_many_cells_against_cvxpy(kind: str) -> None:
    rng = np.random.default_rng(7)
    n = 1500
    a, b = rng.integers(0, 40, n), rng.integers(0, 30, n)
    b = {"nested": a // 5, "dependent": np.where(rng.random(n) < 0.9, a, b)}.get(kind, b)
    z = np.clip(rng.random(n) + 0.3 * (rng.random(40) - 0.5)[a] + 0.3 * (rng.random(40) - 0.5)[b], 0, 1)
    features, parts = {"a": a, "b": b}, [(a, 0.02), (b, 0.03)]
    constraints: list[fl.Constraint] = [fl.DemographicParity("a", 0.02), fl.DemographicParity("b", 0.03)]
    if kind == "one":
        constraints, parts = constraints[:1], parts[:1]
    if kind == "crossed":
        constraints.append(fl.DemographicParity(("a", "b"), 0.5))
        parts.append((a * 100 + b, 0.5))
    if kind == "strata":
        features["b"] = a % 2
        constraints, parts = [fl.ConditionalParity("b", given="a", tolerance=0.0)], []
        features = {"a": b, "b": rng.integers(0, 2, n)}
        for stratum in range(30):
            parts.append((np.where(b == stratum, features["b"], -1), 0.0))
    if kind == "strata":
        wanted = z.copy()
        for stratum in range(30):
            inside = b == stratum
            wanted[inside] = clarabel(z[inside], [(features["b"][inside], 0.0)])
    else:
        wanted = clarabel(z, parts)
    found = fl.project(torch.tensor(z), constraints, sensitive_features=features, bounds=(0.0, 1.0))
    np.testing.assert_allclose(found.value.numpy(), wanted, atol=2e-5)
    assert found.certificate.holds
    assert found.passes <= 12


@pytest.mark.parametrize("geometry", ["euclidean", "entropic"])
@pytest.mark.parametrize("groups", [3, 50])
def test_derivative_of_one_range(groups: int, geometry: str) -> None:
    rng = np.random.default_rng(groups)
    n = 4 * groups
    codes = np.append(np.arange(groups), rng.integers(0, groups, n - groups))
    z = 0.2 + 0.6 * rng.random(n)
    features = {"g": codes}

    def value(scores: torch.Tensor, tolerance: torch.Tensor) -> torch.Tensor:
        rule = [fl.DemographicParity("g", tolerance)]
        return fl.project(scores, rule, sensitive_features=features, bounds=(0.0, 1.0), geometry=geometry).value

    scores = torch.tensor(z, requires_grad=True)
    tolerance = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(value, (scores, tolerance), eps=1e-7, atol=1e-5, rtol=1e-4)
    if groups == 3:
        assert torch.autograd.gradgradcheck(value, (scores, tolerance), eps=1e-6, atol=1e-4, rtol=1e-3)


def test_the_price_of_a_range_is_the_slope_of_its_distance() -> None:
    rng = np.random.default_rng(3)
    n, groups = 400, 60
    codes, z = rng.integers(0, groups, n), torch.tensor(rng.random(n))

    def at(tolerance: float) -> fl.Projection:
        rule = [fl.DemographicParity("g", tolerance)]
        return fl.project(z, rule, sensitive_features={"g": codes}, bounds=(0.0, 1.0))

    def cost(tolerance: float) -> float:
        return 0.5 * float(((at(tolerance).value - z) ** 2).sum())

    price = float(at(0.1).multipliers["DemographicParity('g')"])
    assert price == pytest.approx((cost(0.1 - 1e-5) - cost(0.1 + 1e-5)) / 2e-5, rel=1e-5)


def test_sparse_matrices_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    n = 300
    features = {"a": rng.integers(0, 5, n), "b": rng.integers(0, 4, n)}
    labels = rng.integers(0, 2, n)
    z = torch.tensor(rng.random(n))
    rules = [
        fl.DemographicParity("a", 0.01),
        fl.EqualizedOdds("b", 0.02),
        fl.ErrorRateParity("a", 0.05),
        fl.MinimumRate("b", 0.4),
        fl.DisparateImpactRatio("b", 0.9),
    ]

    def solved() -> fl.Projection:
        return fl.project(z, rules, sensitive_features=features, y=labels, bounds=(0.0, 1.0))

    plain = solved()
    monkeypatch.setattr(_rows, "_FULL_UP_TO", 0)
    from fairlayer.constraints import means

    means._selection.cache_clear()
    try:
        sparse = solved()
        assert sparse.certificate.holds
        np.testing.assert_allclose(sparse.value.numpy(), plain.value.numpy(), atol=1e-12)
        for name, price in plain.multipliers.items():
            assert float(sparse.multipliers[name]) == pytest.approx(float(price), rel=1e-8, abs=1e-9)
    finally:
        means._selection.cache_clear()


def test_nothing_grows_faster_than_the_groups() -> None:
    """Passes stay few, and no system is solved that is larger than what the attributes share."""
    sizes, passes = [], []
    solve = PriceProgram.solve

    def watched(self: PriceProgram, centre: np.ndarray, metric: np.ndarray):
        found = solve(self, centre, metric)
        assert found is not None
        sizes.append(max(found.solved))
        return found

    for groups in (50, 200, 800):
        rng = np.random.default_rng(groups)
        n = 10 * groups
        codes, sex = rng.integers(0, groups, n), rng.integers(0, 2, n)
        z = torch.tensor(np.clip(rng.beta(2, 3, n) + 0.3 * (rng.random(groups) - 0.5)[codes], 0, 1))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PriceProgram, "solve", watched)
            rules = [fl.DemographicParity("g", 0.02), fl.DemographicParity("sex", 0.01)]
            both = fl.project(z, rules, sensitive_features={"g": codes, "sex": sex}, bounds=(0.0, 1.0))
            assert both.certificate.holds
        one = fl.project(z, rules[:1], sensitive_features={"g": codes}, bounds=(0.0, 1.0))
        assert one.certificate.holds
        passes += [one.passes, both.passes]
    assert max(passes) <= 12, passes
    assert max(sizes, default=0) <= 4, sizes


def test_a_sparse_factorisation_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attributes of 300 groups that share 600 cells, with SciPy and without."""
    rng = np.random.default_rng(9)
    n = 6000
    a = rng.integers(0, 300, n)
    features = {"a": a, "b": (a + rng.integers(0, 2, n)) % 300}
    z = torch.tensor(np.clip(rng.beta(2, 3, n) + 0.3 * (rng.random(300) - 0.5)[a], 0, 1))
    made: list[int] = []
    system = price_equations.SparseSystem

    def watched(*arguments: Any) -> Any:
        made.append(len(arguments[2]))
        return system(*arguments)

    def solved() -> fl.Projection:
        rules = [fl.DemographicParity("a", 0.02), fl.DemographicParity("b", 0.02)]
        return fl.project(z, rules, sensitive_features=features, bounds=(0.0, 1.0))

    monkeypatch.setattr(price_equations, "SparseSystem", watched)
    found = solved()
    assert made
    assert max(made) > 200
    assert found.certificate.holds
    made.clear()
    monkeypatch.setattr(sparse, "library", lambda: None)
    plain = solved()
    assert not made
    np.testing.assert_allclose(found.value.numpy(), plain.value.numpy(), atol=1e-12)
    for name, price in plain.multipliers.items():
        assert float(found.multipliers[name]) == pytest.approx(float(price), rel=1e-8)


@pytest.mark.parametrize("size", [10.0, 1000.0])
@pytest.mark.parametrize("groups", [2, 50])
def test_a_handful_of_passes_far_outside_the_bounds(size: float, groups: int) -> None:
    rng = np.random.default_rng(0)
    n = 4000
    codes = rng.integers(0, groups, n)
    z = torch.tensor(rng.normal(size=n) * size + 0.3 * size * rng.normal(size=groups)[codes])
    for rule in (fl.DemographicParity("g", 0.01), fl.MinimumRate("g", 0.55), fl.DisparateImpactRatio("g", 0.9)):
        found = fl.project(z, [rule], sensitive_features={"g": codes}, bounds=(0.0, 1.0))
        assert found.certificate.holds
        assert found.passes <= 6, rule


def test_passes_are_counted_truly(monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps = 0
    at = NumpyPasses.at

    def watched(self: NumpyPasses, nu: np.ndarray | None):
        nonlocal sweeps
        sweeps += 1
        return at(self, nu)

    monkeypatch.setattr(NumpyPasses, "at", watched)
    rng = np.random.default_rng(1)
    n = 2000
    codes, z = rng.integers(0, 200, n), torch.tensor(rng.random(n))
    for rules in (
        [fl.MinimumRate("g", 0.45)],
        [fl.DemographicParity("g", 0.02)],
        [fl.DemographicParity("g", 0.02), fl.MinimumRate("g", 0.48)],
    ):
        sweeps = 0
        found = fl.project(z, rules, sensitive_features={"g": codes}, bounds=(0.0, 1.0))
        assert found.passes == sweeps <= 10


@pytest.mark.parametrize("geometry", ["euclidean", "entropic", "likelihood"])
@given(seed=SEEDS, far=st.sampled_from([1.0, 50.0, 1000.0]))
@settings(deadline=None, max_examples=15)
def test_a_sorted_batch_measures_as_a_pass_does(geometry: str, seed: int, far: float) -> None:
    rng = np.random.default_rng(seed)
    passes = batch_of(rng, int(rng.integers(2, 8)), geometry)
    if geometry == "entropic":
        passes = NumpyPasses(passes.scores * far, passes.cells, 0.0, 1.0, passes.geometry)
    for nu in (rng.normal(size=len(passes.cells.counts)) * size for size in (1.0, 5.0, 20.0 * far)):
        (found, free), wanted = SortedBatch(passes).at(nu, slopes=True), passes.at(nu)
        np.testing.assert_allclose(found, wanted.statistics, atol=1e-12)
        np.testing.assert_allclose(free / passes.cells.counts**2, wanted.curvature, atol=1e-12)


@pytest.mark.parametrize("geometry", ["entropic", "likelihood"])
@pytest.mark.parametrize("kind", ["spread out", "two heaps", "groups apart"])
@pytest.mark.parametrize("far", [30.0, 1000.0])
def test_a_handful_of_passes_for_far_log_odds(geometry: str, kind: str, far: float) -> None:
    """Every sample that a search looks at counts; scores of the likelihood geometry that round to 0 or 1 are equal."""
    rng = np.random.default_rng(0)
    n, groups = 20_000, 200
    codes = rng.integers(0, groups, n)
    logits = (
        rng.normal(size=n)
        + {
            "spread out": rng.uniform(-far, far, n),
            "two heaps": np.where(rng.random(n) < 0.5, far, -far),
            "groups apart": rng.uniform(-far, far, groups)[codes],
        }[kind]
    )
    plain = geometry == "likelihood"
    scores = torch.tensor(1.0 / (1.0 + np.exp(-logits)) if plain else logits)
    rules, given = [fl.DemographicParity("g", 0.02)], {"g": codes}
    options = {"geometry": geometry, "from_logits": not plain}
    found = fl.project(scores, rules, sensitive_features=given, bounds=(0.0, 1.0), **options)
    assert found.certificate.holds
    spread_out = 10 if geometry == "entropic" else 20 if far < 1000 else 80
    assert found.passes <= {"spread out": spread_out, "two heaps": 12, "groups apart": 10}[kind]


def _far_out(geometry: str, kind: str, rules: str, groups: int, far: float) -> fl.Projection:
    """Project scores in heaps, apart by group, or of which a few groups lie far out."""
    rng = np.random.default_rng(1)
    n = 10_000
    g, h = rng.integers(0, groups, n), rng.integers(0, 2, n)
    where = {
        "heaps": np.where(rng.random(n) < 0.5, far, -far),
        "apart": rng.uniform(-far, far, groups)[g],
        "few cells": np.where(g == 0, far, -0.3 * far),
    }[kind]
    x = rng.normal(size=n) + where
    with np.errstate(over="ignore"):
        z = 1.0 / (1.0 + np.exp(-x)) if geometry == "likelihood" else x
    asked: dict[str, list[fl.Constraint]] = {
        "one": [fl.DemographicParity("g", 0.02)],
        "two": [fl.DemographicParity("g", 0.02), fl.DemographicParity("h", 0.01)],
        "ratio": [fl.DisparateImpactRatio("g", 0.8)],
        "floors": [fl.DemographicParity("g", 0.05), fl.MinimumRate("h", 0.55)],
    }
    how: dict[str, Any] = {"geometry": geometry, "from_logits": geometry == "entropic", "bounds": (0.0, 1.0)}
    return fl.project(torch.tensor(z), asked[rules], sensitive_features={"g": g, "h": h}, **how)


@pytest.mark.parametrize("far", [30.0, 100.0])
@pytest.mark.parametrize("groups", [2, 8])
@pytest.mark.parametrize("rules", ["one", "two", "ratio", "floors"])
@pytest.mark.parametrize("kind", ["heaps", "apart", "few cells"])
@pytest.mark.parametrize("geometry", ["euclidean", "entropic", "likelihood"])
def test_a_dozen_passes_wherever_the_scores_lie(geometry: str, kind: str, rules: str, groups: int, far: float) -> None:
    found = _far_out(geometry, kind, rules, groups, far)
    assert found.certificate.holds
    assert found.passes <= 10  # also where whole cells answer by less than 1e-15 and share one price


def test_one_multiplier_is_looked_for_on_a_stand_in_too() -> None:
    """Most samples at the bounds, and the few between them far apart: slopes of nothing on both sides."""
    rng = np.random.default_rng(0)
    n = 2000
    g = rng.integers(0, 2, n)
    z = torch.tensor(0.3 * (rng.normal(size=n) + np.where(g == 0, 25.0, -25.0)))
    rule = fl.DemographicParity("g", 0.02)
    found = fl.project(z, rule, sensitive_features={"g": g}, bounds=(0.0, 1.0))
    assert found.certificate.holds
    assert found.passes <= 10


@pytest.mark.parametrize("geometry", ["euclidean", "entropic", "likelihood"])
def test_a_stand_in_changes_nothing(geometry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _far_out(geometry, "apart", "floors", 8, 30.0)
    monkeypatch.setattr("fairlayer.solve.solving.solve_by_stand_in", lambda *_: None)
    without = _far_out(geometry, "apart", "floors", 8, 30.0)
    assert without.passes > found.passes
    np.testing.assert_allclose(found.value.numpy(), without.value.numpy(), atol=1e-9)


@pytest.mark.parametrize("geometry", ["entropic", "likelihood"])
def test_a_mild_batch_that_takes_six_sweeps_asks_no_stand_in(geometry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: Any) -> None:
        raise AssertionError("a stand-in costs more than the sweeps that are left")

    monkeypatch.setattr("fairlayer.solve.solving.solve_by_stand_in", asked)
    rng = np.random.default_rng(2)
    y, g = rng.integers(0, 2, 10_000), rng.integers(0, 4, 10_000)
    z = np.clip(rng.beta(1.2, 1.5, 10_000) + 0.05 * g, 0.001, 0.999)
    rule = fl.EqualizedOdds("g", 0.02)
    found = fl.project(z, rule, sensitive_features={"g": g}, y=y, bounds=(0.0, 1.0), geometry=geometry)
    assert found.certificate.holds
    assert found.passes > 4  # it would have been asked after four


def test_a_stand_in_of_many_rows_does_not_wait_for_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_faces(*_: object) -> None:
        raise AssertionError("hundreds of faces, one at a time")

    monkeypatch.setattr(newton, "solve_quadratic", by_faces)
    rng, n = np.random.default_rng(4), 5000
    features = {"a": rng.integers(0, 4, n), "s": rng.integers(0, 100, n)}
    lifts = 0.3 * rng.random(4)[features["a"]] + 0.3 * rng.random(100)[features["s"]]
    rule = fl.ConditionalParity("a", given="s", tolerance=1e-4)
    for _ in range(4):
        scores = 10.0 * rng.normal(size=n) + lifts
        result = fl.project(scores, [rule], sensitive_features=features, bounds=(0.0, 1.0))
        assert result.certificate.holds


def test_what_a_stand_in_looks_at_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    few = _far_out("likelihood", "apart", "two", 8, 30.0).passes
    monkeypatch.setattr("fairlayer.solve.along.thinned", samples_of)  # every look visits every sample
    assert _far_out("likelihood", "apart", "two", 8, 30.0).passes > few


@pytest.mark.parametrize("far", [30.0, 100.0, 1000.0])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_two_groups_with_far_log_odds_take_a_handful_of_passes(far: float) -> None:
    rng = np.random.default_rng(0)
    n = 5000
    codes = rng.integers(0, 2, n)
    logits = torch.tensor(rng.normal(size=n) + rng.uniform(-far, far, 2)[codes])
    options: dict[str, Any] = {"geometry": "entropic", "from_logits": True, "bounds": (0.0, 1.0)}
    found = fl.project(logits, fl.DemographicParity("g", 0.02), sensitive_features={"g": codes}, **options)
    assert found.certificate.holds
    assert found.passes <= 10


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_cells_that_hardly_answer_overflow_nothing() -> None:
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 29, 400)
    logits = torch.tensor(rng.normal(size=400) + rng.uniform(-1000.0, 1000.0, 29)[codes])
    options: dict[str, Any] = {"geometry": "entropic", "from_logits": True, "bounds": (0.0, 1.0)}
    for tolerance in (0.0, 0.02):
        rule = fl.DemographicParity("g", tolerance)
        assert fl.project(logits, rule, sensitive_features={"g": codes}, **options).certificate.holds


def test_a_likelihood_step_does_not_cancel_at_the_ends() -> None:
    z = np.array([1.0 - 2.0**-50, 2.0**-50])
    value, _ = geometry_of("likelihood").step(z, np.array([1.0, -1.0]), 0.0, 1.0)
    assert value[1] == pytest.approx(2.0**-25, rel=1e-12)  # of q y^2 - (1 + q) y + z = 0 the root at q = -1
    assert 1.0 - value[0] == pytest.approx(2.0**-25, rel=1e-7)


def test_a_floor_that_nothing_meets_is_named_and_relaxed_by_the_least() -> None:
    rng = np.random.default_rng(2)
    n, groups = 900, 90
    codes, z = rng.integers(0, groups, n), torch.tensor(rng.random(n))
    rules = [fl.MinimumRate("g", 1.1)]
    with pytest.raises(fl.errors.InfeasibleConstraintsError, match="MinimumRate"):
        fl.project(z, rules, sensitive_features={"g": codes}, bounds=(0.0, 1.0))
    wide = fl.project(z, rules, sensitive_features={"g": codes}, bounds=(0.0, 1.0), on_infeasible="relax")
    assert wide.widening == pytest.approx(0.1, abs=1e-8)  # no mean is above 1
    assert wide.certificate.holds


def test_counted_passes_count() -> None:
    passes = CountedPasses(batch_of(np.random.default_rng(0), 3, "euclidean"))
    passes.at(None)
    passes.at(np.ones(3))
    assert passes.count == 2
    assert passes.n == passes.base.n


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (80, 90)])
def test_rows_read_like_an_array(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape[0])
    full = rng.normal(size=shape) * (rng.random(shape) < 0.3)
    sparse, vector = _rows.as_sparse(full), rng.normal(size=shape[1])
    np.testing.assert_allclose(sparse @ vector, full @ vector, atol=1e-14)
    np.testing.assert_allclose(rng.normal(size=shape[0]) @ (0 * sparse), np.zeros(shape[1]))
    left = rng.normal(size=(3, shape[0]))
    np.testing.assert_allclose(left @ sparse, left @ full, atol=1e-13)
    np.testing.assert_array_equal(np.asarray(abs(-2.0 * sparse)), np.abs(2.0 * full))
    np.testing.assert_array_equal(np.asarray(sparse[::2]), full[::2])
    np.testing.assert_array_equal(sparse[-1], full[-1])
    np.testing.assert_array_equal(sparse != 0, full != 0)
    other = _rows.as_sparse(full.T)
    np.testing.assert_allclose(np.asarray(sparse @ other), full @ full.T, atol=1e-13)
    np.testing.assert_array_equal(_rows.reads(sparse, vector > 0), _rows.reads(full, vector > 0))


@pytest.mark.parametrize("groups", [2, 10, 50])
def test_label_estimates_take_a_dozen_vectors_whatever_the_groups(groups: int) -> None:
    rng = np.random.default_rng(0)
    n = 100_000
    codes, estimates, z = rng.integers(0, groups, n), rng.random(n), torch.tensor(rng.random(n))
    tracemalloc.start()
    try:
        rules = [fl.EqualizedOdds("g", 0.001)]
        fl.project(z, rules, sensitive_features={"g": codes}, label_probabilities=estimates, bounds=(0.0, 1.0))
        peak = tracemalloc.get_traced_memory()[1] / 8 / n
    finally:
        tracemalloc.stop()
    assert peak <= 12, peak
