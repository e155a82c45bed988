"""All limits of a path are solved as one problem: whatever the rows, each is a projection at its own limit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fairlayer as fl
from fairlayer.constraints import Batch, Constraint, Spread, Statement
from fairlayer.constraints.measure import read_worst, worst_numbers
from fairlayer.errors import InfeasibleConstraintsError
from fairlayer.fused import switch
from fairlayer.geometry import Entropic, Euclidean, Geometry, Likelihood
from fairlayer.groups import read_sensitive_features
from fairlayer.passes import Cells, CondensedBatch, NumpyPasses, sorted_by_cell, sorting
from fairlayer.solve import grid

N = 600
BOX: dict[str, Any] = {"bounds": (0.0, 1.0)}
WAYS: list[dict[str, Any]] = [BOX, {"geometry": "entropic"}, {"geometry": "likelihood"}, {"bounds": None}]
NAMES = ["box", "entropic", "likelihood", "line"]

RULES: dict[str, Any] = {
    "a pair": lambda t: [fl.DemographicParity("two", t)],
    "a range": lambda t: [fl.DemographicParity("five", t)],
    "two attributes": lambda t: [fl.DemographicParity("two", t), fl.DemographicParity("three", t)],
    "nested attributes": lambda t: [fl.DemographicParity(("two", "three"), t), fl.DemographicParity("two", t)],
    "many rows": lambda t: [fl.DemographicParity("five", t), fl.DemographicParity("three", t)],
    "a ratio and a range": lambda t: [fl.DisparateImpactRatio("two", t), fl.DemographicParity("three", t)],
    "floors": lambda t: [fl.MinimumRate("three", t)],
    "floors across": lambda t: [fl.DemographicParity("two", t), fl.MinimumRate("three", t)],
}
GRIDS: dict[str, list[float]] = {
    "mixed": [0.3, 0.0, 0.02, 0.02, 0.1, 0.9],
    "all met": [0.95, 0.99],
    "one": [0.05],
}
SCORES = ["smooth", "narrow", "alone", "equal", "ends", "absent"]


def _batch(seed: int, shape: str) -> tuple[np.ndarray, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    features = {name: rng.integers(0, k, N) for name, k in (("two", 2), ("three", 3), ("five", 5))}
    z = np.clip(rng.beta(1.2, 1.5, N) + 0.1 * features["two"] - 0.05 * features["five"], 0.01, 0.99)
    if shape == "narrow":
        z = 0.51 + 0.2 * z
    if shape == "alone":  # a group of one sample
        features["two"][:] = 0
        features["two"][7] = 1
    if shape == "equal":
        z[:] = 0.37
    if shape == "ends":
        z = np.where(rng.random(N) < 0.5, 1e-9, 1.0 - 1e-9)
    if shape == "absent":
        features["five"][:] = rng.integers(0, 2, N)
        features["two"][:] = 0
    return z, {"sensitive_features": features}


def _compare(asked: Any, z: Any, about: dict[str, Any], limits: list[float]) -> fl.FairnessPath:
    path = fl.fairness_path(z, asked(0.1), limits, **about)
    assert path.tolerances.tolist() == sorted(set(limits))
    for row, limit in enumerate(path.tolerances.tolist()):
        rules = asked(limit)
        try:
            result = fl.project(z, rules, **about)
        except InfeasibleConstraintsError:
            assert np.isnan(path.distance[row])
            assert np.isnan(path.gaps[row]).all()
            assert np.isnan(path.moved[row])
            continue
        value, size = result.value.numpy(), 1.0 + float(np.abs(result.shift.numpy()).max(initial=0.0))
        assert path.distance[row] == pytest.approx(0.5 * result.certificate.distance**2, rel=1e-9, abs=1e-9)
        np.testing.assert_allclose(path.shifts[row], result.shift.numpy(), atol=1e-8 * size)
        for owner, rule in enumerate(rules):
            number = float(rule.measure(value, sensitive_features=about["sensitive_features"]))
            np.testing.assert_allclose(path.gaps[row, owner], number, atol=1e-12 * size)
    return path


@pytest.mark.parametrize("options", WAYS, ids=NAMES)
@pytest.mark.parametrize("asked", RULES)
@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from(SCORES), limits=st.sampled_from(list(GRIDS)))
@example(seed=0, shape="narrow", limits="mixed")
@example(seed=1, shape="equal", limits="mixed")
@settings(max_examples=3)
def test_each_limit_is_a_projection(asked: str, options: Any, seed: int, shape: str, limits: str) -> None:
    z, about = _batch(seed, shape)
    _compare(
        RULES[asked], z, {**about, **options}, [limit for limit in GRIDS[limits] if limit > 0 or "ratio" not in asked]
    )


@pytest.mark.parametrize("options", WAYS[:3], ids=NAMES[:3])
@pytest.mark.parametrize("asked", ["floors across", "floors"])
def test_limits_that_nothing_meets_lie_among_others(options: Any, asked: str) -> None:
    z, about = _batch(0, "smooth")
    path = _compare(RULES[asked], z, {**about, **options}, [0.4, 1.4, 0.7, 1.1])
    assert np.isnan(path.distance).tolist() == [False, False, True, True]


def test_limits_that_fit_are_solved_together(monkeypatch: pytest.MonkeyPatch) -> None:
    alone: list[Any] = []
    plain = grid.solve
    monkeypatch.setattr(grid, "solve", lambda *given, **how: (alone.append(given), plain(*given, **how))[1])
    z, about = _batch(1, "smooth")
    for asked in ("a pair", "a range", "two attributes", "many rows"):
        fl.fairness_path(z, RULES[asked](0.1), [0.0, 0.01, 0.05, 0.2], **about, **BOX)
    assert not alone
    fl.fairness_path(z, fl.MinimumRate("three", 0.1), [0.6, 1.5], **about, **BOX)
    assert len(alone) == 1


def test_what_does_not_end_together_is_solved_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    z, about = _batch(2, "smooth")
    asked = RULES["two attributes"]
    expected = fl.fairness_path(z, asked(0.1), [0.0, 0.01, 0.2], **about, **BOX)
    monkeypatch.setattr(grid, "_STEPS", 1)  # too few for the limits that bind
    found = fl.fairness_path(z, asked(0.1), [0.0, 0.01, 0.2], **about, **BOX)
    for name in ("distance", "multipliers", "shifts", "gaps", "decision_gaps", "moved"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-9)


@pytest.mark.parametrize("options", WAYS[:3], ids=NAMES[:3])
def test_a_price_is_what_a_limit_costs(options: Any) -> None:
    z, about = _batch(3, "smooth")
    limits = np.linspace(0.01, 0.05, 5)
    path = fl.fairness_path(z, RULES["two attributes"](0.1), limits.tolist(), **about, **options)
    step = 1e-5
    near = [
        fl.fairness_path(z, RULES["two attributes"](0.1), (limits + by).tolist(), **about, **options)
        for by in (-step, step)
    ]
    slope = (near[1].distance - near[0].distance) / (2 * step)
    np.testing.assert_allclose(-slope, path.multipliers.sum(axis=1), rtol=1e-3)


class _Shifted(Constraint):
    """A range whose members are compared as they are up to some limit, and shifted against each other beyond it."""

    needs_labels = False
    limit_argument = "most"

    def __init__(self, on: str, most: float) -> None:
        self.on, self.most, self.name = (on,), most, f"Shifted({on!r})"

    def statements(self, batch: Batch) -> Sequence[Statement]:
        means = batch.means(self.on)
        offset = None if self.most < 0.1 else np.array([0.0, 0.15])
        return [Spread(means, means.select(), means.groups, self.most, offset)]


@pytest.mark.parametrize("options", WAYS, ids=NAMES)
def test_statements_may_have_other_parts_at_other_limits(options: Any) -> None:
    z, about = _batch(3, "smooth")
    _compare(lambda t: [_Shifted("two", t)], z, {**about, **options}, [0.02, 0.05, 0.1, 0.12])


def test_thousands_of_cells() -> None:
    rng = np.random.default_rng(4)
    n, k = 20_000, 1_200
    z, features = rng.random(n), {"g": rng.integers(0, k, n)}
    _compare(lambda t: [fl.DemographicParity("g", t)], z, {"sensitive_features": features, **BOX}, [0.02, 0.3])


RULES_READ: list[Any] = [
    lambda t: fl.DemographicParity("three", t),
    lambda t: fl.DisparateImpactRatio("three", t),
    lambda t: fl.MinimumRate("three", t),
    lambda t: fl.EqualizedOdds("three", t),
    lambda t: fl.MeanResidualParity("three", t),
    lambda t: fl.GroupCalibration("three", t),
]


@pytest.mark.parametrize("rule", RULES_READ)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=5)
def test_the_numbers_of_many_limits_are_those_of_each(rule: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 3, 60)
    batch = Batch(
        read_sensitive_features({"three": groups}),
        60,
        rng.integers(0, 2, 60).astype(float),
        None,
        lambda: np.linspace(0, 1, 60),
    )
    limits = [0.05, 0.1, 0.4, 1.0]
    stated = [rule(limit).statements(batch) for limit in limits]
    values = rng.normal(size=(len(limits), 60)) * rng.integers(0, 2)
    found = worst_numbers(stated, lambda means: np.array([means.of(each) for each in values]))
    for row, statements in enumerate(stated):
        reading, _ = read_worst(statements, {each.means.key: each.means.of(values[row]) for each in statements})
        expected = np.nan if reading.value is None else reading.value
        np.testing.assert_allclose(found[row], expected, atol=1e-15)


def test_the_worst_of_several_statements_is_taken_at_each_limit_by_itself() -> None:
    groups, labels = np.array([0, 0, 1, 1]), np.array([0.0, 1.0, 0.0, 1.0])
    batch = Batch(read_sensitive_features({"g": groups}), 4, labels, None, lambda: np.zeros(4))
    stated = [fl.EqualizedOdds("g", limit).statements(batch) for limit in (0.05, 0.05, 0.3)]
    values = np.array([[0.1, 0.5, 0.5, 0.7], [0.1, 0.5, 0.2, 0.7], [0.1, 0.5, 0.5, 0.7]])  # apart by label 0, and by 1
    found = worst_numbers(stated, lambda means: np.array([means.of(each) for each in values]))
    np.testing.assert_allclose(found, [0.4, 0.2, 0.4], atol=1e-15)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The compiled sweeps, loaded."""
    pytest.importorskip("numba", reason="compiled sweeps need numba, the extra 'fused'")
    monkeypatch.setenv(switch.SWITCH, "1")
    monkeypatch.setattr(switch, "_batches", switch._Library(switch.Sweeps))
    sweeps = switch.kernels(1)
    assert sweeps is not None
    return sweeps


SHAPES: dict[str, Any] = {
    "smooth": lambda rng, n: rng.beta(1.2, 1.5, n),
    "clipped": lambda rng, n: np.clip(rng.normal(0.5, 0.5, n), 0.0, 1.0),
    "few values": lambda rng, n: np.round(rng.random(n) * 6.0) / 6.0,
    "one value": lambda rng, n: np.full(n, 0.3),
    "heavy tails": lambda rng, n: rng.standard_t(1.0, n) * 10.0,
    "all but one": lambda rng, n: np.append(rng.random(n - 1) * 1e-9, 1.0),
    "next to nothing": lambda rng, n: rng.integers(0, 3, n) * 5e-324,
}


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [1, 900, 12_000, 310_000])
@pytest.mark.parametrize("k", [1, 7])
@pytest.mark.parametrize("wide", [False, True])
def test_samples_are_sorted_by_cell(shape: str, n: int, k: int, wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a compiled sweep, and where NumPy sorts by wide instructions by those."""
    monkeypatch.setattr("fairlayer.passes.sorting._sorts_by_wide_instructions", lambda: wide)
    rng = np.random.default_rng(n + k)
    x, codes = SHAPES[shape](rng, n), rng.integers(0, k + 1, n)  # the last: in no cell
    found = sorted_by_cell(x, Cells(codes, np.ones(k), None))
    order = np.lexsort((x, codes))
    np.testing.assert_array_equal(found.scores, x[order])
    np.testing.assert_array_equal(np.diff(found.starts), np.bincount(codes, minlength=k + 1))


@pytest.mark.parametrize("k", [1, 7])
def test_weighted_samples_are_sorted_with_their_weights(k: int) -> None:
    rng = np.random.default_rng(k)
    x, w, codes = np.round(rng.random(900), 2), rng.random(900) + 0.1, rng.integers(0, k + 1, 900)
    found = sorted_by_cell(x, Cells(codes, np.ones(k), None, False, w))
    assert found.weights is not None
    for cell, (first, last) in enumerate(pairwise(found.starts.tolist())):
        here = codes == cell
        assert (np.diff(found.scores[first:last]) >= 0).all()
        pairs = zip(found.scores[first:last].tolist(), found.weights[first:last].tolist(), strict=True)
        assert sorted(pairs) == sorted(zip(x[here].tolist(), w[here].tolist(), strict=True))


@pytest.mark.usefixtures("compiled")
def test_the_quicker_sort_is_found_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    swept, asked = sorting._swept, list[str]()

    def noted(*given: Any) -> Any:
        asked.append("sweep")
        return swept(*given)

    def times(numpy: float, sweep: float) -> None:
        def least_time(work: Any) -> float:
            asked.clear()
            work()
            return sweep if asked else numpy

        monkeypatch.setattr(sorting, "_least_time", least_time)
        sorting._sorts_by_wide_instructions.cache_clear()

    monkeypatch.setattr(sorting, "_swept", noted)
    rng = np.random.default_rng(0)
    x, cells = rng.random(310_000), Cells(np.zeros(310_000, dtype=int), np.ones(1), None)
    try:
        for numpy, sweep in ((2.0, 1.0), (1.0, 2.0)):
            times(numpy, sweep)
            assert sorting._sorts_by_wide_instructions() is (numpy < sweep)
            asked.clear()
            sorted_by_cell(x, cells)
            assert asked == (["sweep"] if sweep < numpy else [])  # the quicker one is taken
    finally:
        sorting._sorts_by_wide_instructions.cache_clear()


@pytest.mark.parametrize(("geometry", "lower", "upper"), [
    (Euclidean(), 0.0, 1.0), (Euclidean(), None, None), (Euclidean(), 0.2, None), (Euclidean(), None, 0.7),
    (Entropic(), 1e-12, 1.0 - 1e-12), (Likelihood(), 1e-12, 1.0 - 1e-12),
])  # fmt: skip
@pytest.mark.parametrize("weighted", [False, True])
def test_compiled_sums_are_the_plain_ones(  # noqa: PLR0917 - a grid
    geometry: Geometry,
    lower: float | None,
    upper: float | None,
    weighted: bool,
    compiled: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng, n, cells = np.random.default_rng(5), 4_000, 3
    z = np.round(rng.beta(1.2, 1.5, n) * 200.0) / 200.0 * 0.98 + 0.01
    x = z * 1.6 - 0.3 if geometry == Euclidean() else np.log(z / (1.0 - z)) if geometry == Entropic() else z
    codes = rng.integers(0, cells + 1, n)
    weights = rng.random(n) + 0.1 if weighted else None
    counts = np.bincount(codes, weights, cells + 1)[:cells].astype(float)
    batch = CondensedBatch(NumpyPasses(x, Cells(codes, counts, None, False, weights), lower, upper, geometry))
    pulls = np.pad(rng.normal(size=(9, cells)) * np.logspace(-3, 3, 9)[:, None], ((0, 0), (0, 1)))
    pulls[0] = 0.0
    swept = batch.at(pulls)
    monkeypatch.setattr("fairlayer.passes.condensed.loaded", lambda: None)
    plain = batch.at(pulls)
    sizes = 1.0 + np.abs(pulls).max(axis=1, keepdims=True)
    for ours, theirs in zip(swept, plain, strict=True):
        np.testing.assert_allclose(ours / sizes, theirs / sizes, rtol=1e-11, atol=1e-10)
