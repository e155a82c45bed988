"""The augmented Lagrangian against the exact solution of convex problems, and its state."""

from __future__ import annotations

import copy
import io

import numpy as np
import pandas as pd
import pytest
import torch

import fairlayer as fl
from fairlayer.errors import ConstraintDefinitionError, NonFiniteScoresError, ShapeError
from fairlayer.penalties import AugmentedLagrangian, Excess
from fairlayer.penalties.lagrangian import NothingObservedError, augmented_term, controlled_update
from tests.core import truth
from tests.core.problems import SOLO_KINDS, Problem, solo_problem


def minimised(problem: Problem, lagrangian: AugmentedLagrangian, rounds: int) -> torch.Tensor:
    """Minimise 1/2 |y - z|^2 under the constraints by the method of multipliers, the inner problem by L-BFGS."""
    z = torch.tensor(problem.scores)
    y = z.clone().requires_grad_()
    given = {"sensitive_features": problem.features or None, "y": problem.labels}
    for _ in range(rounds):
        inner = torch.optim.LBFGS(
            [y], max_iter=60, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
        )

        def closure(inner: torch.optim.Optimizer = inner) -> torch.Tensor:
            inner.zero_grad()
            loss = (y - z).square().sum() / 2 + lagrangian(y, **given)
            loss.backward()
            return loss

        inner.step(closure)
        lagrangian(y, **given)
        lagrangian.update()
    return y.detach()


def binned(kind: str) -> bool:
    return kind == "GroupCalibration"  # its bins are those of the raw score, which move with y here


@pytest.mark.parametrize("kind", [kind for kind in SOLO_KINDS if not binned(kind)])
def test_it_converges_to_the_solution_of_the_convex_program(kind: str) -> None:
    problem = solo_problem(kind, 3, bounded=False, n=20)
    lagrangian = AugmentedLagrangian(problem.constraints(), augmentation=300.0, integral=300.0, proportional=0.0)
    found = minimised(problem, lagrangian, 20)
    exact = truth.interior_point(problem, refine=True)
    assert np.abs(problem.scores - exact).max() > 1e-4  # the constraint has something to do
    assert found.numpy() == pytest.approx(exact, abs=2e-5)


def test_its_multipliers_are_the_prices_of_the_projection() -> None:
    problem = solo_problem("EqualizedOdds", 4, bounded=False, n=30)
    lagrangian = AugmentedLagrangian(problem.constraints(), augmentation=200.0, integral=200.0, proportional=0.0)
    minimised(problem, lagrangian, 20)
    price = float(problem.project().multipliers[problem.constraints()[0].name])
    assert price > 1e-3
    assert sum(lagrangian.named_multipliers().values()) == pytest.approx(price, rel=1e-3)


def test_the_term_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    e, m, rho = rng.normal(size=20), np.abs(rng.normal(size=20)), 1.7
    by_hand = ((np.maximum(m + rho * e, 0) ** 2 - m**2) / (2 * rho)).sum()
    assert augmented_term(torch.tensor(e), torch.tensor(m), rho).item() == pytest.approx(by_hand)
    assert augmented_term(torch.tensor(e), torch.tensor(m), 0.0).item() == pytest.approx((m * e).sum())
    given = torch.tensor(e, requires_grad=True)
    augmented_term(given, torch.tensor(m), rho).backward()
    assert given.grad is not None
    assert given.grad.numpy() == pytest.approx(np.maximum(m + rho * e, 0))


def test_the_update_without_smoothing_reads_the_change_of_the_excess() -> None:
    lagrangian = AugmentedLagrangian(fl.MinimumRate("a", 0.5), integral=2.0, proportional=3.0)
    expected, before = 0.0, None
    for score in (0.1, 0.3, 0.9, 0.2):
        lagrangian(torch.full((2,), score), sensitive_features={"a": [0, 0]})
        lagrangian.update()
        e = 0.5 - score
        change = 0.0 if before is None else e - before
        expected, before = max(0.0, expected + 2.0 * e + 3.0 * change), e
        assert list(lagrangian.named_multipliers().values()) == [pytest.approx(expected)]


def test_a_group_that_is_absent_keeps_its_multiplier() -> None:
    lagrangian = AugmentedLagrangian(fl.MinimumRate("a", 0.5), integral=1.0, proportional=0.0)
    for a in ([0, 1], [0, 0], [1, 1], [2, 0]):
        scores = torch.full((2,), 0.25, requires_grad=True)
        lagrangian(scores, sensitive_features={"a": a}).backward()
        lagrangian.update()
        assert scores.grad is not None
        assert torch.isfinite(scores.grad).all()
    found = lagrangian.named_multipliers()
    assert found == {f"MinimumRate('a'): lower limit on [a={k}]": m for k, m in ((0, 0.75), (1, 0.5), (2, 0.25))}


def test_multipliers_stay_with_their_faces_when_a_later_group_comes_between_them() -> None:
    lagrangian = AugmentedLagrangian(fl.DemographicParity("a", 0.0), integral=1.0, proportional=0.0)
    means = {0: 0.1, 1: 0.3, 2: 0.9}
    for a in ([0, 1], [0, 1, 2]):
        lagrangian(torch.tensor([means[k] for k in a]), sensitive_features={"a": a})
        lagrangian.update()
    for i, j in ((0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)):
        batches = 2 if {i, j} == {0, 1} else 1
        found = lagrangian.named_multipliers()[f"DemographicParity('a'): mean[a={i}] - mean[a={j}]"]
        assert found == pytest.approx(batches * max(0.0, means[i] - means[j]))


def test_after_a_step_the_multipliers_move_once_and_only_if_a_batch_was_seen() -> None:
    lagrangian = AugmentedLagrangian(fl.MinimumRate("a", 0.5), integral=1.0, proportional=0.0)
    lagrangian.after_step()
    lagrangian(torch.full((2,), 0.25), sensitive_features={"a": [0, 0]})
    for _ in range(2):
        lagrangian.after_step()
        assert list(lagrangian.named_multipliers().values()) == [0.25]


def test_a_reset_forgets_the_batch_that_no_update_was_made_from() -> None:
    lagrangian = AugmentedLagrangian(fl.MinimumRate("a", 0.5))
    lagrangian(torch.full((2,), 0.25), sensitive_features={"a": [0, 0]})
    lagrangian.reset()
    with pytest.raises(NothingObservedError):
        lagrangian.update()


def test_state_travels_and_resets() -> None:
    odds = fl.EqualizedOdds("a", 0.01)
    lagrangian = AugmentedLagrangian([odds, fl.DemographicParity("a", 0.0)], proportional=1.0, smoothing=0.5)
    for _ in range(5):
        scores, a = torch.rand(20), torch.randint(0, 3, (20,))
        lagrangian(scores, sensitive_features={"a": a}, y=torch.randint(0, 2, (20,)))
        lagrangian.update()
    file = io.BytesIO()
    torch.save(lagrangian.state_dict(), file)
    file.seek(0)
    other = AugmentedLagrangian([odds, fl.DemographicParity("a", 0.0)], proportional=1.0, smoothing=0.5)
    other.load_state_dict(torch.load(file, weights_only=True))
    third = copy.deepcopy(lagrangian)
    batch = {"sensitive_features": {"a": [2, 1, 0]}, "y": [1, 0, 1]}
    for module in (lagrangian, other, third):
        module(torch.tensor([0.1, 0.5, 0.8]), **batch)
        module.update()
    assert lagrangian.named_multipliers() == other.named_multipliers() == third.named_multipliers()
    assert any(lagrangian.named_multipliers().values())
    lagrangian.reset()
    assert not any(lagrangian.named_multipliers().values())
    assert any(other.named_multipliers().values())


def test_it_is_a_part_of_a_model() -> None:
    class Learner(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(2, 1)
            self.lagrangian = AugmentedLagrangian(fl.DemographicParity("a", 0.0))

    learner = Learner().to(torch.float64)
    assert len(list(learner.parameters())) == 2  # the multipliers are not the optimiser's
    learner.lagrangian(learner.net(torch.rand(4, 2, dtype=torch.float64)), sensitive_features={"a": [0, 1, 0, 1]})
    learner.lagrangian.update()
    fresh = Learner().to(torch.float64)
    fresh.load_state_dict(learner.state_dict())
    assert fresh.lagrangian.named_multipliers() == learner.lagrangian.named_multipliers()


def test_bad_input_and_evaluation_change_nothing() -> None:
    lagrangian = AugmentedLagrangian(fl.DemographicParity("a", 0.0))
    with pytest.raises(NothingObservedError, match="no batch went through it in training mode"):
        lagrangian.update()
    lagrangian(torch.tensor([0.1, 0.9]), sensitive_features={"a": [0, 1]})
    lagrangian.update()
    before = lagrangian.named_multipliers()
    with pytest.raises(NonFiniteScoresError):
        lagrangian(torch.tensor([float("nan"), 0.9]), sensitive_features={"a": [0, 5]})
    lagrangian.eval()
    lagrangian(torch.tensor([0.1, 0.9]), sensitive_features={"a": [0, 1]})
    with pytest.raises(NothingObservedError):
        lagrangian.update()
    assert lagrangian.named_multipliers() == before
    assert lagrangian.reader.vocabulary.categories == {"a": (0, 1)}
    for wrong in ({"augmentation": -1.0}, {"integral": 0.0}, {"proportional": float("nan")}, {"smoothing": 1.0}):
        with pytest.raises(ConstraintDefinitionError, match=f"{next(iter(wrong))} must be in"):
            AugmentedLagrangian(fl.DemographicParity("a", 0.0), **wrong)


def test_it_trains_a_network_to_the_tolerance() -> None:
    torch.manual_seed(0)
    a = torch.randint(0, 2, (400,))
    x = torch.randn(400, 3) + a[:, None]
    y = (x.sum(dim=1) + torch.randn(400) > 1.5).float()
    net = torch.nn.Linear(3, 1)
    lagrangian = AugmentedLagrangian(fl.DemographicParity("a", 0.05), augmentation=10.0, integral=0.5)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(400):
        scores = torch.sigmoid(net(x).squeeze(-1))
        loss = torch.nn.functional.binary_cross_entropy(scores, y) + lagrangian(scores, sensitive_features={"a": a})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lagrangian.update()
    gap = abs(scores[a == 0].mean() - scores[a == 1].mean()).item()
    assert gap == pytest.approx(0.05, abs=0.005)  # as far as allowed, and no further


# --- the vector of excesses


def test_excess_names_every_face_and_holds_exactly_at_or_below_zero() -> None:
    for kind in SOLO_KINDS:
        problem = solo_problem(kind, 1, bounded=False, n=25)
        excess = Excess(problem.constraints())
        given = {"sensitive_features": problem.features or None, "y": problem.labels}
        raw = excess(torch.tensor(problem.scores), **given)
        assert len(excess.names) == len(set(excess.names)) == len(raw)
        worst = max((truth.violation(problem, rule, problem.scores) for rule in problem.rules), default=0.0)
        assert max(0.0, raw.max().item() if len(raw) else 0.0) == pytest.approx(max(0.0, worst), abs=1e-9)


def test_categories_are_learnt_from_any_way_of_giving_groups() -> None:
    codes = torch.tensor([0, 1, 1])
    for features in (codes, {"a": codes}, pd.DataFrame({"a": codes.numpy()})):
        excess = Excess(fl.DemographicParity("a", 0.1)).fit_categories(features)
        assert excess.names == (
            "DemographicParity('a'): mean[a=0] - mean[a=1]",
            "DemographicParity('a'): mean[a=1] - mean[a=0]",
        )


def test_excess_has_the_size_of_its_categories() -> None:
    excess = Excess([fl.EqualizedOdds("a", 0.1), fl.MinimumRate("b", 0.2)])
    with pytest.raises(ShapeError, match="fit_categories"):
        _ = excess.size
    excess.fit_categories({"a": ["x", "y", "z"], "b": [0, 1, 0]}, y=[0, 1, 0])
    assert excess.size == 2 * 6 + 2
    out = excess(torch.tensor([0.3, 0.7]), sensitive_features={"a": ["x", "y"], "b": [1, 1]}, y=[1, 1])
    assert out.shape == (14,)
    assert sum(bool(v) for v in out) == 3  # two pairs given label 1, one floor


def test_the_recursion() -> None:
    multipliers, mean = controlled_update(
        torch.tensor([1.0, 0.1]),
        torch.tensor([0.5, -2.0]),
        torch.tensor([0.1, 0.0]),
        integral=0.2,
        proportional=0.5,
        smoothing=0.25,
    )
    assert multipliers.tolist() == pytest.approx([1.0 + 0.1 + 0.5 * 0.75 * 0.4, 0.0])
    assert mean.tolist() == pytest.approx([0.25 * 0.1 + 0.75 * 0.5, -1.5])
