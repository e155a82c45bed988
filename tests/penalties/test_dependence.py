"""HSIC and MMD against their definitions, written as loops."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch

from fairlayer.errors import (
    CategoryError,
    ConstraintDefinitionError,
    EmptyBatchError,
    LabelValueError,
    MissingLabelsError,
    NonFiniteScoresError,
    ShapeError,
)
from fairlayer.penalties import HSIC, MMD
from fairlayer.penalties.kernels import gaussian_kernel

Kernel = np.ndarray


def gaussian(x: np.ndarray, bandwidth: float | None = None) -> Kernel:
    x = x.reshape(len(x), -1)
    distances = np.linalg.norm(x[:, None] - x[None, :], axis=-1)
    if bandwidth is None:
        pairs = np.sort(distances[np.triu_indices(len(x), 1)] ** 2)
        bandwidth = np.sqrt(pairs[(len(pairs) - 1) // 2])  # torch's median: the lower of the two in the middle
    return np.exp(-(distances**2) / (2 * bandwidth**2))


def same(*columns: list[Any]) -> Kernel:
    rows = list(zip(*columns, strict=True))
    return np.array([[float(a == b) for b in rows] for a in rows])


def hsic(K: Kernel, L: Kernel) -> float:
    n = len(K)
    H = np.eye(n) - 1 / n
    return float(np.trace(K @ H @ L @ H)) / (n - 1) ** 2


def hsic_over_quadruples(K: Kernel, L: Kernel) -> float:
    """The U-statistic, one distinct quadruple after the other."""
    terms = [K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q]) for i, j, q, r in permutations(range(len(K)), 4)]
    return float(np.mean(terms))


def mmd(K: Kernel, codes: np.ndarray) -> float:
    distances = []
    for code in np.unique(codes):
        here = codes == code
        distances.append(K[np.ix_(here, here)].mean() + K.mean() - 2 * K[here].mean())
    return float(np.mean(distances))


@pytest.fixture
def batch() -> tuple[np.ndarray, list[int], list[str]]:
    rng = np.random.default_rng(3)
    a = rng.integers(0, 3, 9).tolist()
    return rng.random(9), a, rng.choice(["u", "v"], 9).tolist()


def of(module: Any, x: np.ndarray, features: dict[str, Any], y: Any = None) -> float:
    return float(module(torch.tensor(x), sensitive_features=features, y=y))


@pytest.mark.parametrize("bandwidth", [None, 0.3])
def test_hsic_is_its_definition(batch: Any, bandwidth: float | None) -> None:
    x, a, b = batch
    found = of(HSIC("a", bandwidth=bandwidth), x, {"a": a})
    assert found == pytest.approx(hsic(gaussian(x, bandwidth), same(a)))
    found = of(HSIC(("a", "b"), bandwidth=bandwidth), x, {"a": a, "b": b})
    assert found == pytest.approx(hsic(gaussian(x, bandwidth), same(a, b)))


def test_unbiased_hsic_is_the_mean_over_quadruples(batch: Any) -> None:
    x, a, _ = batch
    found = of(HSIC("a", estimator="unbiased"), x, {"a": a})
    assert found == pytest.approx(hsic_over_quadruples(gaussian(x), same(a)))


def test_hsic_of_representations_and_of_an_amount(batch: Any) -> None:
    _, a, _ = batch
    z = np.random.default_rng(0).normal(size=(9, 4))
    ages = np.random.default_rng(1).random(9) * 60
    assert of(HSIC("a"), z, {"a": a}) == pytest.approx(hsic(gaussian(z), same(a)))
    found = of(HSIC("age", continuous="age"), z, {"age": ages})
    assert found == pytest.approx(hsic(gaussian(z), gaussian(ages)))


def test_mmd_is_its_definition(batch: Any) -> None:
    x, a, b = batch
    assert of(MMD("a"), x, {"a": a}) == pytest.approx(mmd(gaussian(x), np.array(a)))
    crossed = np.array([f"{i}{j}" for i, j in zip(a, b, strict=True)])
    assert of(MMD(("a", "b")), x, {"a": a, "b": b}) == pytest.approx(mmd(gaussian(x), crossed))
    soft = np.eye(3)[a]
    assert of(MMD("a"), x, {"a": soft}) == pytest.approx(mmd(gaussian(x), np.array(a)))
    assert of(HSIC("a"), x, {"a": soft}) == pytest.approx(hsic(gaussian(x), same(a)))


def test_given_the_label_it_is_the_mean_over_labels(batch: Any) -> None:
    x, a, _ = batch
    a, y = np.array(a), np.array([0, 1, 1, 0, 2, 1, 0, 1, 0])
    parts: dict[str, float] = {"hsic": 0.0, "mmd": 0.0}
    for label in (0, 1, 2):
        here = y == label
        if here.sum() > 1:
            parts["hsic"] += here.mean() * hsic(gaussian(x[here]), same(a[here].tolist()))
            parts["mmd"] += here.mean() * mmd(gaussian(x[here]), a[here])
    assert of(HSIC("a", given_label=True), x, {"a": a}, y) == pytest.approx(parts["hsic"])
    assert of(MMD("a", given_label=True), x, {"a": a}, y) == pytest.approx(parts["mmd"])


def test_samples_of_unknown_group_take_no_part(batch: Any) -> None:
    x, a, _ = batch
    unknown = {"a": [*a, None, None]}
    longer = np.append(x, [7.0, -3.0])
    for module in (HSIC("a"), MMD("a"), HSIC("a", estimator="unbiased")):
        assert of(module, longer, unknown) == pytest.approx(of(module, x, {"a": a}))


def test_where_most_scores_are_tied_the_bandwidth_is_the_root_mean_square_distance() -> None:
    x = np.array([0.0, 0.0, 0.0, 0.0, 0.2])  # of ten distances six are 0, and four are .2
    found = gaussian_kernel(torch.tensor(x)[:, None], None)
    assert found.numpy() == pytest.approx(gaussian(x, bandwidth=0.2 * np.sqrt(0.4)))
    assert gaussian_kernel(torch.zeros(3, 1), None).tolist() == [[1.0] * 3] * 3


def test_it_sees_what_a_mean_does_not() -> None:
    """Equal means, different spreads: demographic parity of mean scores holds, dependence does not."""
    rng = np.random.default_rng(0)
    narrow, wide = 0.5 + 0.05 * rng.normal(size=100), 0.5 + 0.3 * rng.normal(size=100)
    x = np.concatenate([narrow - narrow.mean(), wide - wide.mean()])
    features = {"a": [0] * 100 + [1] * 100}
    shuffled = {"a": rng.permutation(features["a"])}
    assert of(HSIC("a"), x, features) > 10 * of(HSIC("a", estimator="unbiased"), x, shuffled)
    assert of(MMD("a"), x, features) > 5 * of(MMD("a"), x, shuffled)


@pytest.mark.parametrize("module", [HSIC("a", bandwidth=0.5), HSIC("a", bandwidth=0.5, estimator="unbiased")])
def test_gradient_of_hsic(module: HSIC) -> None:
    features = {"a": [0, 1, 1, 0, 2, 2]}
    for shape in ((6,), (6, 1), (6, 3)):
        x = torch.rand(shape, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda z: module(z, sensitive_features=features), (x,))


def test_gradient_of_mmd() -> None:
    x = torch.rand(6, dtype=torch.float64, requires_grad=True)
    features, y = {"a": [0, 1, 1, 0, 2, 2]}, [0, 1, 0, 1, 1, 0]
    module = MMD("a", bandwidth=0.5, given_label=True)
    assert torch.autograd.gradcheck(lambda z: module(z, sensitive_features=features, y=y), (x,))


@pytest.mark.parametrize("module", [HSIC("a"), HSIC("a", estimator="unbiased"), MMD("a")], ids=["b", "u", "mmd"])
@pytest.mark.parametrize("codes", [[0, 0, 0, 0, 0], [-1] * 5, [0, -1, -1, -1, -1], [0, 1, -1, -1, -1], [0, 0, 0, 0, 1]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_little_to_compare_gives_a_finite_value_and_gradient(module: Any, codes: list[int], dtype: torch.dtype) -> None:
    for scores in (torch.rand(5), torch.full((5,), 0.3)):
        given = scores.to(dtype).requires_grad_()
        loss = module(given, sensitive_features={"a": codes})
        loss.backward()
        assert torch.isfinite(loss)
        assert loss.dtype == torch.float32
        assert given.grad is not None
        assert torch.isfinite(given.grad).all()
        if len(set(codes) - {-1}) < 2:
            assert loss.item() == pytest.approx(0.0, abs=1e-7)


def test_errors() -> None:
    two = {"a": [0, 1]}
    with pytest.raises(ShapeError, match="found list"):
        HSIC("a")([0.1, 0.2], sensitive_features=two)
    with pytest.raises(EmptyBatchError):
        MMD("a")(torch.zeros(0), sensitive_features={"a": []})
    with pytest.raises(NonFiniteScoresError):
        MMD("a")(torch.tensor([0.1, torch.inf]), sensitive_features=two)
    with pytest.raises(ShapeError, match="3 scores, but the sensitive features have 2"):
        HSIC("a")(torch.rand(3), sensitive_features=two)
    with pytest.raises(MissingLabelsError, match="MMD conditions on the label"):
        MMD("a", given_label=True)(torch.rand(2), sensitive_features=two)
    with pytest.raises(LabelValueError, match=r"holds \[0.5\]"):
        MMD("a", given_label=True)(torch.rand(2), sensitive_features=two, y=[0.5, 1.0])
    with pytest.raises(CategoryError, match="fractional"):
        HSIC("a")(torch.rand(2), sensitive_features={"a": [0.5, 1.2]})
    with pytest.raises(ConstraintDefinitionError, match="must be among"):
        HSIC("a", continuous="age")
    with pytest.raises(ConstraintDefinitionError, match="bandwidth must be"):
        MMD("a", bandwidth=0.0)
