"""How the nearest predictions under pairs are found: trees, answers that start at others, answers about right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fairlayer as fl
from fairlayer.constraints.lipschitz import nearest
from fairlayer.errors import InfeasibleConstraintsError
from fairlayer.geometry import Euclidean
from fairlayer.passes.pairs import graph
from fairlayer.passes.pairs.ends import FIRST, LAST, bent_step
from fairlayer.passes.pairs.problem import PairProblem
from fairlayer.solve import coupled


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), by_scipy=st.booleans())
def test_a_forest_reaches_every_node_once(seed: int, by_scipy: bool) -> None:
    """By SciPy and without it: offsets differ along each edge of a tree as asked, and parents come first."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    first, second = rng.integers(0, n, (2, int(rng.integers(0, 40))))
    first, second = first[first != second], second[first != second]
    difference = rng.normal(size=len(first))
    with pytest.MonkeyPatch.context() as patch:
        if not by_scipy:
            patch.setattr(graph, "_graph_library", lambda: None)
        found = graph.forest(n, first, second, difference)
    assert sorted(found.order.tolist()) == list(range(n))
    place = np.argsort(found.order)
    for node, (parent, edge) in enumerate(zip(found.parent.tolist(), found.edge.tolist(), strict=True)):
        if parent < 0:
            assert (edge, found.offset[node]) == (-1, 0.0)
            continue
        assert place[parent] < place[node]
        assert {first[edge], second[edge]} == {node, parent}
        apart = found.offset[first[edge]] - found.offset[second[edge]]
        assert apart == pytest.approx(difference[edge], abs=1e-12)
    joined = np.arange(n)
    for _ in range(n):
        low = np.minimum(joined[first], joined[second])
        np.minimum.at(joined, first, low)
        np.minimum.at(joined, second, low)
    np.testing.assert_array_equal(found.tree[:, None] == found.tree, joined[:, None] == joined)
    assert found.trees == len(np.unique(joined))


def _batch(seed: int, n: int = 300) -> tuple[np.ndarray, Any, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    z = 1.0 / (1.0 + np.exp(-1.5 * x[:, 0] - 0.5 * rng.normal(size=n)))
    near = nearest(x, 6, standardise=False)
    constant = float(np.quantile(np.abs(z[near.first] - z[near.second]) / near.distance, 0.5))
    groups = {"g": (rng.random(n) < 1.0 / (1.0 + np.exp(-x[:, 0]))).astype(int), "h": rng.integers(0, 3, n)}
    return z, fl.LipschitzFairness(constant=constant, pairs=tuple(near)), groups


RULES: dict[str, Any] = {
    "one that binds": lambda: [fl.DemographicParity("g", 0.01)],
    "two that bind": lambda: [fl.DemographicParity("g", 0.05), fl.DemographicParity(("g", "h"), 0.08)],
    "one just missed": lambda: [fl.DemographicParity("h", 0.02)],
    "floors": lambda: [fl.MinimumRate("g", 0.55)],
    "none that fits": lambda: [fl.MinimumRate("g", 0.9), fl.DemographicParity("g", 0.01)],
}


@pytest.mark.parametrize("geometry", ["euclidean", "entropic", "likelihood"])
@pytest.mark.parametrize("asked", RULES)
@pytest.mark.parametrize("seed", [0, 1])
def test_rough_answers_change_no_result(geometry: str, asked: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    z, lipschitz, groups = _batch(seed)

    def solved() -> np.ndarray | None:
        how: dict[str, Any] = {"sensitive_features": groups, "bounds": (0.0, 1.0), "geometry": geometry}
        try:
            found = fl.project(torch.tensor(z), [lipschitz, *RULES[asked]()], **how)
        except InfeasibleConstraintsError:
            return None
        assert found.certificate.holds
        return found.value.numpy()

    ours = solved()
    monkeypatch.setattr(coupled, "_clearly_missed", lambda *_: False)
    plain = solved()
    assert (ours is None) == (plain is None)
    if ours is not None and plain is not None:
        np.testing.assert_allclose(ours, plain, atol=1e-9)


def test_rough_answers_save_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the exact answers, the first costs a search; those after it lie so near that what held it holds them."""
    z, lipschitz, groups = _batch(2, 1_500)
    searches: list[bool] = []
    sought = PairProblem._newton

    def counted(self: Any, *state: Any) -> Any:
        searches.append(True)
        return sought(self, *state)

    monkeypatch.setattr(PairProblem, "_newton", counted)

    def spent() -> int:
        searches.clear()
        rules = [lipschitz, fl.DemographicParity("g", 0.01)]
        assert fl.project(torch.tensor(z), rules, sensitive_features=groups, bounds=(0.0, 1.0)).certificate.holds
        return len(searches)

    ours, exact = spent(), coupled.solve_newton
    monkeypatch.setattr(coupled, "solve_newton", lambda *given, **more: exact(*given, **{**more, "near": None}))
    assert ours < spent()  # the exact search starts where they found the solution to be
    monkeypatch.setattr(coupled, "_clearly_missed", lambda *_: False)
    assert ours <= 0.7 * spent()


def test_an_answer_starts_at_what_held_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    z, lipschitz, _ = _batch(4)
    first, second, distance = lipschitz.pairs
    pairs = graph.Pairs(first, second, lipschitz.constant * distance, 300)
    problem = PairProblem(pairs, Euclidean(), z, None, 0.0, 1.0)
    before = problem.answer(np.zeros(300))
    monkeypatch.setattr(PairProblem, "_newton", None)  # a search would fail
    again = problem.answer(np.zeros(300))
    np.testing.assert_allclose(again.value, before.value, atol=1e-12)
    moved = problem.answer(np.full(300, 1e-9))
    np.testing.assert_allclose(moved.value, before.value, atol=1e-8)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_pairs_that_are_left_out_follow_from_the_others(seed: int) -> None:
    """By shortest paths: through the pairs that are left, no two nodes may be further apart than through all of them.

    Limits are small whole numbers, so that ties are frequent.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import shortest_path

    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 14))
    i, j = np.triu_indices(n, 1)
    taken = rng.random(len(i)) < rng.uniform(0.1, 1.0)
    i, j = i[taken], j[taken]
    limit = rng.integers(1, 6, len(i)).astype(float)
    kept = graph.not_implied(i, j, limit, n)

    def apart(rows: Any) -> Any:
        return shortest_path(coo_matrix((limit[rows], (i[rows], j[rows])), shape=(n, n)).tocsr(), directed=False)

    assert np.array_equal(apart(kept), apart(np.arange(len(i))))
    between = np.full((n, n), np.inf)
    between[i, j] = between[j, i] = limit
    detour = (between[i] + between[j]).min(axis=1, initial=np.inf)
    assert np.array_equal(np.setdiff1d(np.arange(len(i)), kept), np.flatnonzero(detour <= limit))


def test_on_a_line_a_path_is_left() -> None:
    rng = np.random.default_rng(0)
    x = np.sort(rng.random(2_000))
    i = np.concatenate([np.arange(2_000 - step) for step in (1, 2, 3)])
    j = i + np.repeat([1, 2, 3], [1_999, 1_998, 1_997])
    mixed = rng.permutation(2_000)
    kept = graph.not_implied(mixed[i], mixed[j], x[j] - x[i], 2_000)
    assert np.array_equal(kept, np.arange(1_999))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("geometry", ["euclidean", "entropic"])
def test_labels_along_one_column_are_smoothed_far(geometry: str) -> None:
    """A small constant makes long chains of samples at their limits; scores of 0 and 1 pull at them with all force."""
    torch.manual_seed(0)
    x = torch.rand(1_500, dtype=torch.float64)
    y = (torch.rand(1_500, dtype=torch.float64) < 0.4).double()
    closeness = fl.LipschitzFairness(["x"], constant=0.2, neighbours=5)
    result = fl.project(y, [closeness], sensitive_features={"x": x}, bounds=(0.0, 1.0), geometry=geometry)
    assert result.certificate.holds


def test_a_step_never_reaches_an_end_of_an_open_domain() -> None:
    """One up from the number next to 0 is too small to be seen beside 1, and must not end at 0."""
    y = np.array([FIRST, FIRST, 0.5, LAST, LAST])
    moved = bent_step(y, np.array([1e-320, -1.0, 1e300, 1.0, -1e-320]), 1.0)
    assert moved.min() >= FIRST
    assert moved.max() <= LAST
