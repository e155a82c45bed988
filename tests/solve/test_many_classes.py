"""Many groups over class probabilities: K by its blocks gives what K as an array gives, in a fraction of the time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer._rows import GroupedRows, as_sparse
from fairlayer.passes import arrays, base
from fairlayer.passes.class_metric import ClassLayout, ClassMetric
from fairlayer.solve import class_systems, newton, quadratic, solving, sparse
from fairlayer.solve.class_rows import ClassRows
from fairlayer.solve.class_systems import ClassEquations, class_system

GROUPS, CLASSES, ROWS = 40, 3, 600
KINDS = ("parity", "two attributes", "crossing", "strata", "floor", "ratio", "opportunity")


def case(kind: str, far: float = 0.0, groups: int = GROUPS) -> tuple[torch.Tensor, list[fl.Constraint], dict[str, Any]]:
    """Return rows of probabilities, rules, and what they are read from."""
    rng = np.random.default_rng(KINDS.index(kind))
    a, b = rng.integers(0, groups, ROWS), rng.integers(0, 5, ROWS)
    logits = rng.normal(0, 1, (ROWS, CLASSES)) + 0.7 * rng.normal(0, 1, (groups, CLASSES))[a]
    given: dict[str, Any] = {"sensitive_features": {"a": a, "b": b}}
    rules: list[fl.Constraint] = [fl.DemographicParity("a", 0.1)]
    if kind == "two attributes":
        rules.append(fl.DemographicParity("b", 0.02))
    elif kind == "crossing":
        rules += [fl.DemographicParity("b", 0.02), fl.DemographicParity(("a", "b"), 0.3)]
    elif kind == "strata":
        rules = [fl.ConditionalParity("b", given="a", tolerance=0.1)]
    elif kind == "floor":
        rules = [fl.MinimumRate("a", floor=0.28)]
    elif kind == "ratio":
        rules = [fl.DisparateImpactRatio("a", ratio=0.8)]
    elif kind == "opportunity":
        given["y"] = rng.integers(0, CLASSES, ROWS)
        rules = [fl.EqualOpportunity("a", 0.2)]
    scores = np.exp(logits)
    scores = scores / scores.sum(axis=1, keepdims=True) + far * rng.normal(0, 1, logits.shape)
    return torch.from_numpy(scores).requires_grad_(), rules, given


def solved(scores: torch.Tensor, rules: list[fl.Constraint], given: dict[str, Any], geometry: str) -> Any:
    """Return the projection, and the gradient of some upstream."""
    found = fl.project(scores, rules, bounds="simplex", geometry=geometry, **given)
    upstream = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return found, torch.autograd.grad(found.value, scores, upstream)[0]


def watch(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note each program that is solved face by face."""
    made: list[int] = []
    by_faces = quadratic.solve_quadratic

    def watched(*arguments: Any) -> Any:
        made.append(len(arguments[0]))
        return by_faces(*arguments)

    monkeypatch.setattr(newton, "solve_quadratic", watched)
    return made


@pytest.mark.parametrize("geometry", ["euclidean", "entropic"])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_give_what_an_array_gives(kind: str, geometry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = case(kind)
    by_faces = watch(monkeypatch)
    found, gradient = solved(*asked, geometry)
    assert not by_faces
    assert found.certificate.holds
    assert found.passes <= 12
    monkeypatch.setattr(base, "_FULL_UP_TO", math.inf)
    wanted, wanted_gradient = solved(*asked, geometry)
    assert by_faces
    assert float((found.value - wanted.value).detach().abs().max()) < 1e-11
    assert float((gradient - wanted_gradient).abs().max()) < 1e-9


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"strata", "crossing"}])  # of 3 rows to a cell
def test_far_rows_take_few_passes(kind: str) -> None:
    with pytest.warns(fl.FairlayerWarning, match="moved onto the simplex"):
        found, _ = solved(*case(kind, far=3.0), "euclidean")
    assert found.certificate.holds
    assert found.passes <= 24


@pytest.mark.parametrize("kind", ["floor", "ratio"])
def test_what_equal_rows_meet_needs_no_program(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("asked for a few steps before feasibility is known")

    monkeypatch.setattr(solving, "_at_first", refused)
    found, _ = solved(*case(kind), "euclidean")
    assert found.certificate.holds


def test_a_thousand_groups_are_not_solved_face_by_face(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 1000, 10_000)
    logits = rng.normal(0, 1, (10_000, 3)) + 0.6 * rng.normal(0, 1, (1000, 3))[a]
    by_faces = watch(monkeypatch)
    scores = torch.softmax(torch.from_numpy(logits), dim=1).requires_grad_()
    found, _ = solved(scores, [fl.DemographicParity("a", 0.1)], {"sensitive_features": {"a": a}}, "euclidean")
    assert not by_faces
    assert found.certificate.holds


def estimates(geometry: str, groups: int, rows: int) -> tuple[torch.Tensor, dict[str, Any]]:
    """Return scores of groups with unlike means, and what to read with them, of labels probabilities only."""
    rng = np.random.default_rng(5)
    a = np.append(np.arange(groups), rng.integers(0, groups, rows - groups))
    scores = torch.from_numpy(np.clip(rng.beta(2, 2, rows) + rng.normal(0, 0.15, groups)[a], 0.001, 0.999))
    bounds = {"bounds": (0.0, 1.0)} if geometry == "euclidean" else {"geometry": geometry}
    given = {"sensitive_features": {"a": a}, "label_probabilities": rng.random(rows), **bounds}
    return scores.requires_grad_(), given


@pytest.mark.parametrize("geometry", ["euclidean", "entropic", "likelihood"])
@pytest.mark.parametrize("rule", [fl.EqualOpportunity, fl.EqualizedOdds, fl.MeanResidualParity])
def test_estimated_labels_of_groups_have_blocks_too(rule: Any, geometry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, given = estimates(geometry, 60, 3000)
    weight = np.random.default_rng(6).integers(0, 3, 3000).astype(float)
    upstream = torch.randn(3000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    results = []
    for blocks in (True, False):
        if not blocks:
            monkeypatch.setattr(GroupedRows, "blocks", refuse)
            monkeypatch.setattr(arrays, "_FULL_UP_TO", math.inf)
        found = fl.project(scores, rule("a", 0.02), sample_weight=weight, **given)
        assert found.certificate.holds
        results.append((found.value.detach(), torch.autograd.grad(found.value, scores, upstream)[0]))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-9)


@pytest.mark.parametrize("rule", [fl.EqualOpportunity, fl.EqualizedOdds])
def test_a_thousand_groups_with_estimated_labels(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    by_faces = watch(monkeypatch)
    scores, given = estimates("euclidean", 1000, 20_000)
    found = fl.project(scores, rule("a", 0.02), **given)
    found.value.square().sum().backward()
    assert not by_faces
    assert found.certificate.holds


def refuse(*_: Any) -> Any:
    """Stand for what is not to be called."""
    raise AssertionError


def test_without_scipy_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = case("strata")
    found, gradient = solved(*asked, "euclidean")
    for module in (sparse, class_systems):
        monkeypatch.setattr(module, "library", lambda: None)
    wanted, wanted_gradient = solved(*asked, "euclidean")
    assert float((found.value - wanted.value).detach().abs().max()) < 1e-11
    assert float((gradient - wanted_gradient).abs().max()) < 1e-9


@pytest.mark.parametrize("geometry", ["euclidean", "entropic"])
def test_the_derivative_of_the_derivative_takes_blocks(geometry: str) -> None:
    scores, rules, given = case("parity", groups=20)

    def value(z: torch.Tensor) -> torch.Tensor:
        return fl.project(z, rules, bounds="simplex", geometry=geometry, **given).value

    way = torch.randn(scores.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    way = way - way.mean(dim=1, keepdim=True)
    one = torch.autograd.grad((value(scores) ** 2).sum(), scores, create_graph=True)[0]
    twice = torch.autograd.grad((one * way).sum(), scores)[0]
    step = 1e-6

    def slope(z: torch.Tensor) -> torch.Tensor:
        z = z.detach().requires_grad_()
        return torch.autograd.grad((value(z) ** 2).sum(), z)[0]

    wanted = (slope(scores + step * way) - slope(scores - step * way)) / (2 * step)
    off = ((twice - wanted) * way).sum() / (wanted * way).sum()
    assert abs(float(off)) < 1e-4


def metric_of(rng: np.random.Generator, cells: int, classes: int) -> ClassMetric:
    roots = rng.normal(0, 1, (cells, classes, classes))
    return ClassMetric(roots @ roots.transpose(0, 2, 1))


@pytest.mark.parametrize("by_cell", [False, True])
def test_a_metric_of_blocks_multiplies_like_its_array(by_cell: bool) -> None:
    rng = np.random.default_rng(3)
    one, two = (ClassMetric(metric_of(rng, 5, 3).blocks, by_cell=by_cell) for _ in range(2))
    full, vector, square = np.asarray(one), rng.normal(0, 1, 15), rng.normal(0, 1, (4, 15))
    assert np.allclose(one @ vector, full @ vector)
    assert np.allclose(vector @ one, vector @ full)
    assert np.allclose(square @ one, square @ full)
    assert np.allclose(one @ square.T, full @ square.T)
    assert (square[:0] @ one).shape == (0, 15)
    added = one + 0.5 * (two - one)
    assert isinstance(added, ClassMetric)
    assert np.allclose(np.asarray(added), full + 0.5 * (np.asarray(two) - full))


@pytest.mark.parametrize("loose", [0.0, 1e-15, 0.3])
@pytest.mark.parametrize("strata", [2, 40])
@pytest.mark.parametrize("scipy", [True, False])
def test_the_equations_are_those_of_the_dense_system(
    loose: float, strata: int, scipy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of groups, each tied to a level, and of two overlapping sums over all groups; some are not in force."""
    monkeypatch.setattr(class_systems, "_DENSE", 0.0 if scipy else math.inf)
    rng = np.random.default_rng(4)
    cells, classes = 80, 3
    metric = metric_of(rng, cells, classes)
    matrix = np.concatenate([np.eye(cells * classes), np.kron(np.eye(classes), rng.random((2, cells)))])
    block = np.append(np.repeat(np.arange(classes), cells), 3 + np.arange(2 * classes))
    levels = np.append(np.arange(cells * classes) % strata, np.full(2 * classes, -1))
    rows = ClassRows(as_sparse(matrix), block, ClassLayout(classes))
    assert rows.bundles == cells
    assert len(rows.rest) == 2 * classes
    active = np.flatnonzero(rng.random(len(matrix)) < 0.8)
    soft, slope = rng.random(len(active)) + 0.1, np.where(levels[active] >= 0, rng.random(len(active)) + 0.5, 0.0)
    ties = np.eye(strata + 1)[levels[active]][:, :strata] * slope[:, None]
    square = matrix[active] @ np.asarray(metric) @ matrix[active].T + np.diag(soft)
    dense = np.block([[square, ties], [ties.T, -loose * np.eye(strata)]])
    right = rng.normal(0, 1, len(dense))
    system = class_system(ClassEquations(rows, metric, active, soft, slope, levels[active], np.full(strata, loose)))
    price, level = system.solve(right[: len(active)], right[len(active) :])
    assert np.allclose(np.append(price, level), np.linalg.solve(dense, right), atol=1e-9)
