"""The derivative is that of the projection: reverse, forward, second order; for scores, tolerances and bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

import fairlayer as fl
from tests.core import truth
from tests.core.problems import SOLO_KINDS, Problem, random_problem, seeds, solo_problem

DOUBLE = torch.float64
WITH_TOLERANCE = [
    k for k in SOLO_KINDS if not k.startswith("Affine") and k != "DisparateImpactRatio"
]  # cap and floor included


def _as_function(problem: Problem) -> Callable[[Tensor], Tensor]:
    return lambda scores: problem.project(scores).value


def _smooth(f: Callable[[Tensor], Tensor], at: Tensor, width: float = 1e-4) -> bool:
    """Whether f is linear around a point, in some directions: no kink within `width`."""
    generator = torch.Generator().manual_seed(0)
    middle = f(at)
    for _ in range(6):
        step = width * torch.randn(at.shape, generator=generator, dtype=DOUBLE)
        if ((f(at + step) + f(at - step) - 2 * middle).abs() > 1e-10).any():
            return False
    return True


def _points(kind: str, count: int = 3, at_most: int = 12) -> Iterator[Problem]:
    """Problems of one kind that the projection moves, at points with margin."""
    found = 0
    for seed in range(400):
        bounded = [True, False, None][seed % 3]
        problem = solo_problem(kind, seed, bounded=bounded, n=4 + seed % (at_most - 3))
        z = torch.tensor(problem.scores)
        f = _as_function(problem)
        if problem.project().active and _smooth(f, z):
            yield problem
            found += 1
        if found == count:
            return
    assert found, f"no point with margin for {kind}"


KINDS = pytest.mark.parametrize("kind", SOLO_KINDS)


@KINDS
def test_first_derivative_by_finite_differences(kind: str) -> None:
    for problem in _points(kind):
        z = torch.tensor(problem.scores, requires_grad=True)
        assert gradcheck(_as_function(problem), (z,), check_forward_ad=True, check_undefined_grad=False)


@KINDS
def test_second_derivative_by_finite_differences(kind: str) -> None:
    """Of a smooth function around the projection; that of the projection itself is zero inside a piece."""
    for problem in _points(kind, count=1, at_most=6):

        def f(z: Tensor, problem: Problem = problem) -> Tensor:
            return (problem.project(z + 0.0).value ** 3).sin()

        z = torch.tensor(problem.scores, requires_grad=True)
        if _smooth(_as_function(problem), z.detach(), 1e-3):
            assert gradgradcheck(f, (z,))
        assert gradgradcheck(_as_function(problem), (z,))


@KINDS
def test_jacobian_is_an_orthogonal_projector(kind: str) -> None:
    for problem in _points(kind, count=2, at_most=30):
        J = torch.autograd.functional.jacobian(_as_function(problem), torch.tensor(problem.scores))
        torch.testing.assert_close(J, J.T, atol=1e-10, rtol=0)
        torch.testing.assert_close(J @ J, J, atol=1e-9, rtol=0)


@settings(max_examples=80)
@given(seed=seeds)
def test_jacobian_of_mixes(seed: int) -> None:
    """Symmetric, idempotent, and equal to finite differences where the projection is linear."""
    problem = random_problem(seed, scale=1.0)
    if problem.n > 60 or any(r.kind == "GroupCalibration" for r in problem.rules):
        return
    f, z = _as_function(problem), torch.tensor(problem.scores)
    J = torch.autograd.functional.jacobian(f, z)
    torch.testing.assert_close(J, J.T, atol=1e-8, rtol=0)
    torch.testing.assert_close(J @ J, J, atol=1e-7, rtol=0)
    v = torch.tensor(np.random.default_rng(seed).normal(size=problem.n))
    h = 1e-6
    ahead, behind, here = f(z + h * v), f(z - h * v), f(z)
    if ((ahead + behind - 2 * here).abs() < 1e-11).all():
        torch.testing.assert_close(J @ v, (ahead - behind) / (2 * h), atol=2e-6 * max(1.0, problem.size), rtol=1e-5)


def test_functional_transforms_agree() -> None:
    problem = next(_points("EqualizedOdds"))
    f, z = _as_function(problem), torch.tensor(problem.scores)
    J = torch.autograd.functional.jacobian(f, z)
    torch.testing.assert_close(torch.func.jacrev(f)(z), J)
    torch.testing.assert_close(torch.func.jacfwd(f)(z), J)
    v = torch.randn_like(z)
    torch.testing.assert_close(torch.func.jvp(f, (z,), (v,))[1], J @ v)
    torch.testing.assert_close(torch.func.vjp(f, z)[1](v)[0], J.T @ v)

    def loss(z: Tensor) -> Tensor:
        return (f(z) ** 2).sum()

    torch.testing.assert_close(torch.func.hessian(loss)(z), 2 * J.T @ J)
    torch.testing.assert_close(torch.autograd.functional.hessian(loss, z), 2 * J.T @ J)


# --- tolerances


def _with_limit(kind: str, on: tuple[str, ...], limit: Any, more: dict[str, Any]) -> fl.Constraint:
    first = on[0] if len(on) == 1 else on
    if kind == "ResidualBetweenGroups":
        return fl.MeanResidualParity(first, limit, between_groups=True)
    if kind == "BoundedGroupLossCustom":
        from tests.core.problems import custom_loss

        return fl.BoundedGroupLoss(first, limit, loss=custom_loss)
    return (
        getattr(fl, kind)(first, limit, **more)
        if kind != "ConditionalParity"
        else fl.ConditionalParity(first, tolerance=limit, **more)
    )


def _of_limit(problem: Problem) -> tuple[Callable[..., Tensor], float]:
    """The value as a function of the limit of the (only) rule, and the limit."""
    (rule,) = problem.rules

    def value(limit: Tensor, scores: Tensor | None = None) -> Tensor:
        constraint = _with_limit(rule.kind, rule.on, limit, rule.more)
        z = torch.tensor(problem.scores) if scores is None else scores
        return fl.project(z, [constraint], **problem.arguments()).value

    return value, rule.limit


@pytest.mark.parametrize("kind", WITH_TOLERANCE)
def test_tolerance_takes_a_gradient(kind: str) -> None:
    checked = 0
    for problem in _points(kind, count=8):
        value, limit = _of_limit(problem)
        if kind not in ("MinimumRate", "BoundedGroupLoss", "BoundedGroupLossCustom") and limit < 1e-3:
            continue
        at = torch.tensor(limit, dtype=DOUBLE, requires_grad=True)
        z = torch.tensor(problem.scores, requires_grad=True)
        if not _smooth(lambda t, value=value: value(t.detach()), at.detach(), 1e-4):
            continue
        assert gradcheck(value, (at, z), check_forward_ad=True)
        assert gradgradcheck(value, (at, z))
        checked += 1
        if checked == 3:
            break
    assert checked


@pytest.mark.parametrize("kind", WITH_TOLERANCE)
def test_multipliers_are_the_price_of_tolerance(kind: str) -> None:
    """d (1/2 |value - scores|^2) / d tolerance = -multiplier: reported, by autograd and by finite differences."""
    checked = 0
    for problem in _points(kind, count=8, at_most=40):
        value, limit = _of_limit(problem)
        if limit < 1e-3 and kind not in ("MinimumRate", "BoundedGroupLoss", "BoundedGroupLossCustom"):
            continue
        z = torch.tensor(problem.scores)

        def cost(t: Tensor, value: Any = value, z: Tensor = z) -> Tensor:
            return 0.5 * ((value(t) - z) ** 2).sum()

        at, h = torch.tensor(limit, dtype=DOUBLE, requires_grad=True), 1e-6
        slope = float(torch.autograd.grad(cost(at), at)[0])
        difference = float(cost(at.detach() + h) - cost(at.detach() - h)) / (2 * h)
        (price,) = (float(m) for m in problem.project().multipliers.values())
        sign = 1.0 if kind == "MinimumRate" else -1.0  # a floor costs more the higher it is
        assert slope == pytest.approx(sign * price, rel=1e-6, abs=1e-9)
        assert slope == pytest.approx(difference, rel=1e-4, abs=1e-5)
        assert price >= 0
        checked += 1
    assert checked


@pytest.mark.parametrize("groups", [2, 3, 5, 12])
def test_price_at_tolerance_zero(groups: int) -> None:
    """Equality rows: the derivative towards more tolerance, by finite differences; also that of the value."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        z = torch.tensor(rng.normal(size=5 * groups))
        features = {"g": np.arange(5 * groups) % groups}

        def value(t: Any, z: Tensor = z, features: Any = features) -> Tensor:
            return fl.project(z, [fl.DemographicParity("g", t)], sensitive_features=features).value

        t = torch.tensor(0.0, dtype=DOUBLE, requires_grad=True)
        slope = float(torch.autograd.grad(0.5 * ((value(t) - z) ** 2).sum(), t)[0])
        h = 1e-7
        difference = float(0.5 * ((value(h) - z) ** 2).sum() - 0.5 * ((value(0.0) - z) ** 2).sum()) / h
        price = float(
            fl.project(z, [fl.DemographicParity("g", 0.0)], sensitive_features=features).multipliers[
                "DemographicParity('g')"
            ]
        )
        assert price == pytest.approx(-difference, rel=1e-4)
        assert slope == pytest.approx(difference, rel=1e-4)
        moved = torch.func.jacrev(value)(torch.tensor(0.0, dtype=DOUBLE))
        torch.testing.assert_close(moved, (value(h) - value(0.0)) / h, atol=1e-4, rtol=1e-4)


def test_one_tolerance_for_several_constraints() -> None:
    rng = np.random.default_rng(3)
    z, features = torch.tensor(rng.normal(size=20)), {"a": rng.integers(0, 2, 20), "b": rng.integers(0, 3, 20)}

    def value(t: Tensor) -> Tensor:
        both = [fl.DemographicParity("a", t), fl.EqualizedOdds("b", 2 * t)]
        return fl.project(z, both, sensitive_features=features, y=np.arange(20) % 2, bounds=(-1.5, 1.5)).value

    t = torch.tensor(0.05, dtype=DOUBLE, requires_grad=True)
    assert gradcheck(value, (t,), check_forward_ad=True)
    forward = torch.func.jacfwd(value)(t.detach())
    torch.testing.assert_close(forward, torch.func.jacrev(value)(t.detach()))
    assert forward.abs().max() > 0


def test_tolerances_in_float32_and_shared() -> None:
    t = torch.tensor(0.1, requires_grad=True)
    z = torch.tensor([0.9, 0.7, 0.2, 0.4])
    fl.project(z, [fl.DemographicParity("g", t)], sensitive_features={"g": [0, 0, 1, 1]}).value[0].backward()
    assert t.grad is not None
    assert t.grad.dtype == torch.float32
    assert float(t.grad) == pytest.approx(0.5)


def test_forward_mode_sees_a_dual_tolerance_and_dual_bounds() -> None:
    """A dual tensor does not require a gradient; its tangent must not get lost."""
    z = torch.tensor([0.9, 0.1], dtype=DOUBLE)
    with forward_ad.dual_level():
        t = forward_ad.make_dual(torch.tensor(0.1, dtype=DOUBLE), torch.tensor(1.0, dtype=DOUBLE))
        out = fl.project(z, [fl.DemographicParity("g", t)], sensitive_features={"g": [0, 1]}).value
        torch.testing.assert_close(forward_ad.unpack_dual(out).tangent, torch.tensor([0.5, -0.5], dtype=DOUBLE))
        low = forward_ad.make_dual(torch.tensor(0.2, dtype=DOUBLE), torch.tensor(1.0, dtype=DOUBLE))
        out = fl.project(z, [], bounds=(low, None)).value
        torch.testing.assert_close(forward_ad.unpack_dual(out).tangent, torch.tensor([0.0, 1.0], dtype=DOUBLE))


# --- bounds


@pytest.mark.parametrize("per_sample", [False, True])
def test_bounds_take_a_gradient(per_sample: bool) -> None:
    checked = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n = 8
        z = torch.tensor(rng.normal(size=n), requires_grad=True)
        shape = (n,) if per_sample else ()
        low = torch.tensor(-0.5 - 0.3 * rng.random(shape), requires_grad=True)
        high = torch.tensor(0.4 + 0.3 * rng.random(shape), requires_grad=True)
        features = {"g": rng.integers(0, 3, n)}
        t = torch.tensor(0.1, dtype=DOUBLE, requires_grad=True)

        def value(z: Tensor, low: Tensor, high: Tensor, t: Tensor, features: Any = features) -> Tensor:
            rules = [fl.DemographicParity("g", t)]
            return fl.project(z, rules, sensitive_features=features, bounds=(low, high)).value

        inputs = (z, low, high, t)
        plain = tuple(i.detach() for i in inputs)

        def of_all(e: Tensor, plain: Any = plain, value: Any = value) -> Tensor:
            return value(*(i + e[j] for j, i in enumerate(plain)))

        def of_scores(e: Tensor, plain: Any = plain, value: Any = value) -> Tensor:
            return value(plain[0] + e, *plain[1:])

        if not (_smooth(of_all, torch.zeros(4, dtype=DOUBLE)) and _smooth(of_scores, torch.zeros(n, dtype=DOUBLE))):
            continue
        assert gradcheck(value, inputs, check_forward_ad=True)
        assert gradgradcheck(value, inputs)
        J = torch.func.jacfwd(value, argnums=(0, 1, 2, 3))(*(i.detach() for i in inputs))
        R = torch.func.jacrev(value, argnums=(0, 1, 2, 3))(*(i.detach() for i in inputs))
        for forward, reverse in zip(J, R, strict=True):
            torch.testing.assert_close(forward, reverse)
        checked += 1
        if checked == 6:
            return
    pytest.fail(f"only {checked} points with margin")


def test_margin_moves_with_the_bounds() -> None:
    low = torch.tensor(0.0, dtype=DOUBLE, requires_grad=True)
    value = fl.project(torch.tensor([-1.0, 0.5], dtype=DOUBLE), [], bounds=(low, 1.0), margin=0.01).value
    torch.testing.assert_close(value.detach(), torch.tensor([0.01, 0.5], dtype=DOUBLE))
    value.sum().backward()
    assert float(low.grad) == 1.0  # type: ignore[arg-type]


# --- corners


def test_gradient_of_equality_rows() -> None:
    """At tolerance 0 the Jacobian averages out the differences of groups, even where no multiplier is needed."""
    for z in ([1.0, 1.0, 1.0, 1.0], [1.0, 3.0, 2.0, 2.0]):
        J = torch.autograd.functional.jacobian(
            lambda z: fl.project(z, [fl.DemographicParity("g", 0.0)], sensitive_features={"g": [0, 0, 1, 1]}).value,
            torch.tensor(z, dtype=DOUBLE),
        )
        row = torch.tensor([0.5, 0.5, -0.5, -0.5], dtype=DOUBLE)
        torch.testing.assert_close(J, torch.eye(4, dtype=DOUBLE) - torch.outer(row, row))


def test_a_cell_that_is_clipped_whole_has_no_gradient() -> None:
    z = torch.tensor([5.0, 6.0, 0.2, 0.3, 0.4], dtype=DOUBLE, requires_grad=True)
    result = fl.project(
        z, [fl.DemographicParity("g", 0.9)], sensitive_features={"g": [0, 0, 1, 1, 1]}, bounds=(0.0, 1.0)
    )
    (v,) = torch.autograd.grad(result.value @ torch.arange(5.0, dtype=DOUBLE), z)
    assert v.tolist()[:2] == [0.0, 0.0]
    assert torch.isfinite(v).all()
    tight = fl.project(
        z, [fl.DemographicParity("g", 0.0)], sensitive_features={"g": [0, 0, 1, 1, 1]}, bounds=(0.9, 1.0)
    )
    assert torch.isfinite(torch.autograd.grad(tight.value.sum(), z)[0]).all()


def test_everything_clipped() -> None:
    z = torch.tensor([5.0, 6.0, -7.0], requires_grad=True)
    value = fl.project(z, [fl.DemographicParity("g", 1.0)], sensitive_features={"g": [0, 0, 1]}, bounds=(0, 1)).value
    assert value.tolist() == [1.0, 1.0, 0.0]
    value.sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_absent_and_unknown_groups_have_finite_gradients(dtype: torch.dtype) -> None:
    columns = {"g": torch.tensor([-1, 0, 0, -1]), "h": [None, None, None, None], "k": ["x", "x", "y", None]}
    rules = [fl.DemographicParity(n, 0.0) for n in columns] + [fl.EqualizedOdds(("g", "k"), 0.0)]
    z = torch.tensor([0.1, 0.9, 0.4, 7.0], dtype=dtype, requires_grad=True)
    value = fl.project(z, rules, sensitive_features=columns, y=[0, 0, 1, 1], bounds=(0, 1)).value
    value.square().sum().backward()
    assert z.grad is not None
    assert z.grad.dtype == dtype
    assert torch.isfinite(z.grad).all()
    assert torch.isfinite(value).all()


@settings(max_examples=60)
@given(seed=seeds)
def test_float32_gradients_are_finite_and_close_to_float64(seed: int) -> None:
    problem = random_problem(seed)
    v = torch.tensor(np.random.default_rng(seed).normal(size=problem.n))
    grads = []
    for dtype in (torch.float32, torch.float64):
        z = torch.tensor(problem.scores, dtype=torch.float32).to(dtype).requires_grad_()
        (grad,) = torch.autograd.grad(problem.project(z, dtype=dtype).value, z, v.to(dtype))
        assert grad.dtype == dtype
        assert torch.isfinite(grad).all()
        grads.append(grad.double())
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-5)


def test_tiny_and_huge_upstream_gradients() -> None:
    """diffcp returns exactly zero below about 1e-8; the formula is linear in v at every size."""
    z = torch.tensor([0.9, 0.7, 0.2, 0.4], dtype=DOUBLE, requires_grad=True)
    value = fl.project(z, [fl.DemographicParity("g", 0.1)], sensitive_features={"g": [0, 0, 1, 1]}).value
    v = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=DOUBLE)
    (one,) = torch.autograd.grad(value, z, v, retain_graph=True)
    for size in (1e-30, 1e-9, 1e12):
        (other,) = torch.autograd.grad(value, z, v * size, retain_graph=True)
        torch.testing.assert_close(other / size, one)


def test_groups_of_very_different_size() -> None:
    """One member against 1e5 of which only a few are free: the small curvature must not be taken for zero."""
    n = 100_000
    z = torch.full((n + 1,), 5.0, dtype=DOUBLE)
    z[:3] = torch.tensor([0.2, 0.3, 0.5])
    z[-1] = 0.5
    groups = {"g": (torch.arange(n + 1) == n).long(), "h": (torch.arange(n + 1) % 7 == 0).long()}
    rules = [fl.DemographicParity("g", 0.1), fl.DemographicParity("h", 0.0)]

    def f(z: Tensor) -> Tensor:
        return fl.project(z, rules, sensitive_features=groups, bounds=(0.0, 1.0)).value

    leaf = z.clone().requires_grad_()
    value = f(leaf)
    gap = float(value[:-1].mean() - value[-1])
    assert gap == pytest.approx(0.1, abs=1e-10)
    v = torch.zeros_like(z)
    v[0], v[-1] = 1.0, 1.0
    (g,) = torch.autograd.grad(value, leaf, v)
    h = 1e-6
    step = torch.zeros_like(z)
    step[0] = h
    assert float(g[0]) == pytest.approx(float(((f(z + step) - f(z - step)) @ v) / (2 * h)), abs=1e-6)
    step[0], step[-1] = 0.0, h
    assert float(g[-1]) == pytest.approx(float(((f(z + step) - f(z - step)) @ v) / (2 * h)), abs=1e-6)


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1e6])
def test_rows_of_very_different_size(size: float) -> None:
    """A covariance with incomes in cents beside a parity: neither may vanish from the derivative."""
    rng = np.random.default_rng(0)
    n = 40
    g = rng.integers(0, 3, n)
    income = size * (rng.normal(size=n) + g)
    z = torch.tensor(rng.random(n) + 0.3 * g)
    rules = [fl.DemographicParity("g", 0.01), fl.CovarianceBound("income", 1e-3 * size)]

    def f(z: Tensor) -> Tensor:
        return fl.project(z, rules, sensitive_features={"g": g, "income": income}).value

    assert len(fl.project(z, rules, sensitive_features={"g": g, "income": income}).active) >= 2
    assert gradcheck(f, (z.requires_grad_(),))


def test_non_contiguous_scores_and_leaves() -> None:
    base = torch.randn(12, 3, dtype=DOUBLE)
    groups = {"g": np.arange(12) % 3}
    rules = [fl.DemographicParity("g", 0.05)]
    column = base[:, 1].detach().requires_grad_()
    assert not column.is_contiguous()
    value = fl.project(column, rules, sensitive_features=groups, bounds=(-1, 1)).value
    plain = base[:, 1].clone().requires_grad_()
    expected = fl.project(plain, rules, sensitive_features=groups, bounds=(-1, 1)).value
    assert torch.equal(value, expected)
    value.pow(2).sum().backward()
    expected.pow(2).sum().backward()
    assert column.grad is not None
    assert plain.grad is not None
    torch.testing.assert_close(column.grad, plain.grad)
    flipped = fl.project(base.flip(0).T[1], rules, sensitive_features={"g": groups["g"][::-1].copy()}, bounds=(-1, 1))
    torch.testing.assert_close(flipped.value.flip(0), expected.detach())


def test_columns_of_scores_are_independent() -> None:
    z = torch.randn(15, 3, dtype=DOUBLE, requires_grad=True)
    groups, rules = {"g": np.arange(15) % 2}, [fl.DemographicParity("g", 0.1)]
    value = fl.project(z, rules, sensitive_features=groups).value
    for j in range(3):
        alone = fl.project(z.detach()[:, j], rules, sensitive_features=groups).value
        torch.testing.assert_close(value.detach()[:, j], alone)
    (g,) = torch.autograd.grad(value[:, 1].pow(2).sum(), z)
    assert (g[:, [0, 2]] == 0).all()
    assert (g[:, 1] != 0).any()


def test_the_result_does_not_share_memory_with_the_scores() -> None:
    z = torch.tensor([0.1, 0.2], dtype=DOUBLE)
    value = fl.project(z, [fl.DemographicParity("g", 1.0)], sensitive_features={"g": [0, 1]}).value
    value += 1.0
    assert z.tolist() == [0.1, 0.2]


def test_double_backward_through_a_training_step() -> None:
    """Meta-learning: the gradient of a loss after one gradient step."""
    w = torch.tensor([0.3, -0.2], dtype=DOUBLE, requires_grad=True)
    x = torch.tensor([[1.0, 2.0], [0.5, -1.0], [2.0, 0.1], [-1.0, 1.0]], dtype=DOUBLE)
    rules, groups = [fl.DemographicParity("g", 0.05)], {"g": [0, 0, 1, 1]}

    def after(w: Tensor) -> Tensor:
        def loss(w: Tensor) -> Tensor:
            value = fl.project((x @ w).sigmoid(), rules, sensitive_features=groups, bounds=(0, 1)).value
            return ((value - torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=DOUBLE)) ** 2).sum()

        (g,) = torch.autograd.grad(loss(w), w, create_graph=True)
        return loss(w - 0.1 * g)

    assert gradcheck(after, (w,))


# --- the two implementations of a pass


@settings(max_examples=60)
@given(seed=seeds)
def test_numpy_and_torch_passes_agree(seed: int) -> None:
    problem = random_problem(seed)
    v = torch.tensor(np.random.default_rng(seed).normal(size=problem.n))
    outcomes = []
    for host in (frozenset({"cpu"}), frozenset()):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fairlayer.passes._ON_HOST", host)
            z = torch.tensor(problem.scores, requires_grad=True)
            result = problem.project(z)
            (grad,) = torch.autograd.grad(result.value, z, v)
            outcomes.append((result, grad))
    (numpy, g0), (tensor, g1) = outcomes
    kinds = {type(result.columns[0].solver_passes).__name__ for result in (numpy, tensor)}  # type: ignore[attr-defined]
    assert len(kinds) == 2
    torch.testing.assert_close(tensor.value, numpy.value, atol=1e-11 * max(1.0, problem.size), rtol=1e-11)
    torch.testing.assert_close(g1, g0, atol=1e-7, rtol=1e-7)
    assert tensor.certificate.holds
    if len(problem.rules) > 1:  # prices of constraints that overlap are not unique
        return
    for name, price in numpy.multipliers.items():
        assert float(tensor.multipliers[name]) == pytest.approx(float(price), rel=1e-6, abs=1e-9 * problem.size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_batches(dtype: torch.dtype) -> None:
    n = 200_000
    rng = np.random.default_rng(0)
    groups = {"g": rng.integers(0, 4, n), "h": (rng.random(n) < 1e-4).astype(int)}
    z = torch.tensor(rng.random(n) + 0.2 * groups["g"], dtype=dtype, requires_grad=True)
    rules = [fl.DemographicParity("g", 0.01), fl.DemographicParity("h", 0.0)]
    result = fl.project(z, rules, sensitive_features=groups, bounds=(0.0, 1.0))
    assert result.certificate.holds
    y = result.value.detach().double().numpy()
    means = [y[groups["g"] == k].mean() for k in range(4)]
    assert max(means) - min(means) <= 0.01 + (1e-6 if dtype == torch.float32 else 1e-10)
    result.value.sum().backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


@pytest.mark.slow
def test_ten_million_scores() -> None:
    n = 10_000_000
    z = torch.rand(n, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    g = (torch.arange(n) % 3 == 0).long()
    z = z + 0.1 * g
    result = fl.project(z, [fl.DemographicParity("g", 0.01)], sensitive_features={"g": g}, bounds=(0.0, 1.0))
    assert result.certificate.holds
    y = result.value.double()
    assert abs(float(y[g == 1].mean() - y[g == 0].mean())) <= 0.01 + 1e-6


def test_truth_is_where_the_gradient_is_taken() -> None:
    """The points used above are not trivial: most are moved by a rule and clipped somewhere."""
    problems = [p for kind in SOLO_KINDS for p in _points(kind, count=2)]
    moved = [np.abs(p.project().value.numpy() - p.scores).max() > 1e-6 for p in problems]
    clipped = [p.bounds is not None for p in problems]
    assert all(moved)
    assert any(clipped)
    assert all(truth.violation(p, r, p.project().value.numpy()) < 1e-9 for p in problems for r in p.rules)


def test_relaxed_projection_has_the_gradient_of_its_value() -> None:
    """Where limits were widened, the gradient w.r.t. the scores still holds (it does not depend on them)."""
    rules = [fl.MinimumRate("g", 0.8), fl.BoundedGroupLoss("g", 0.1, loss=lambda labels: (0 * labels, 1 + 0 * labels))]

    def f(z: Tensor) -> Tensor:
        return fl.project(
            z, rules, sensitive_features={"g": [0, 0, 0, 1, 1]}, y=[0] * 5, bounds=(0, 1), on_infeasible="relax"
        ).value

    z = torch.tensor([0.1, 0.4, 0.3, 0.8, 0.5], dtype=DOUBLE, requires_grad=True)
    assert gradcheck(f, (z,))
