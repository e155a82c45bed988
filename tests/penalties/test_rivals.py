"""Other libraries' statistics and optimisers, used through the adapters, against direct calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fairlayer as fl
from fairlayer.errors import MissingLabelsError, ShapeError
from fairlayer.penalties import AugmentedLagrangian, Excess, cooper_problem, dual_optimizer, fairret_penalty
from fairlayer.penalties.lagrangian import controlled_update

pytestmark = pytest.mark.rival


# --- fairret

STATISTICS = ["PositiveRate", "TruePositiveRate", "PositivePredictiveValue", "FalseOmissionRate", "FScore", "Accuracy"]


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("name", STATISTICS)
def test_fairret_gives_what_a_direct_call_gives(name: str, logits: bool) -> None:
    statistics, losses = pytest.importorskip("fairret.statistic"), pytest.importorskip("fairret.loss")
    statistic = getattr(statistics, name)()
    scores = (torch.randn(40) if logits else torch.rand(40)).requires_grad_()
    a, y = torch.arange(40) % 3, torch.randint(0, 2, (40,))
    for loss in (losses.NormLoss, losses.LSELoss):
        ours = fairret_penalty(statistic, "a", loss=loss, logits=logits)(scores, sensitive_features={"a": a}, y=y)
        sens = torch.nn.functional.one_hot(a).float()
        labels = () if name == "PositiveRate" else (y[:, None].float(),)
        direct = loss(statistic)(scores[:, None], sens, *labels, pred_as_logit=logits)
        assert ours.item() == pytest.approx(direct.item(), rel=1e-5)
        ours_grad, direct_grad = (torch.autograd.grad(value, scores)[0] for value in (ours, direct))
        assert torch.allclose(ours_grad, direct_grad, atol=1e-6)


def test_fairret_with_intersections_and_stacked_statistics() -> None:
    statistics, losses = pytest.importorskip("fairret.statistic"), pytest.importorskip("fairret.loss")
    stacked = statistics.StackedLinearFractionalStatistic(statistics.TruePositiveRate(), statistics.FalsePositiveRate())
    scores, y = torch.rand(60), torch.randint(0, 2, (60,))
    a, b = torch.arange(60) % 2, torch.arange(60) % 3
    ours = fairret_penalty(stacked, ("a", "b"))(scores, sensitive_features={"a": a, "b": b}, y=y)
    sens = torch.nn.functional.one_hot(a * 3 + b).float()
    assert ours.item() == pytest.approx(
        losses.NormLoss(stacked)(scores[:, None], sens, y[:, None].float(), pred_as_logit=False).item(), rel=1e-5
    )


def test_fairret_leaves_out_groups_on_which_the_statistic_is_not_defined() -> None:
    statistics = pytest.importorskip("fairret.statistic")
    scores, a = torch.tensor([0.2, 0.6, 0.9, 0.5]), torch.tensor([0, 0, 1, 2])
    penalty = fairret_penalty(statistics.TruePositiveRate(), "a")
    found = penalty(scores, sensitive_features={"a": a}, y=[1, 1, 1, 0])  # group 2 has no positive
    overall = (0.2 + 0.6 + 0.9) / 3
    assert found.item() == pytest.approx(abs(0.4 / overall - 1) + abs(0.9 / overall - 1), rel=1e-5)


@pytest.mark.parametrize("loss", ["NormLoss", "LSELoss"])
def test_fairret_is_0_where_only_people_of_unknown_group_have_a_statistic(loss: str) -> None:
    statistics, losses = pytest.importorskip("fairret.statistic"), pytest.importorskip("fairret.loss")
    scores = torch.tensor([0.2, 0.6, 0.9], requires_grad=True)
    penalty = fairret_penalty(statistics.TruePositiveRate(), "a", loss=getattr(losses, loss))
    found = penalty(scores, sensitive_features={"a": [0, 1, -1]}, y=[0, 0, 1])
    found.backward()
    assert found.item() == 0.0
    assert scores.grad is not None
    assert scores.grad.tolist() == [0.0] * 3


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize(
    ("a", "y"),
    [([0, 0, 0, 0], [0, 1, 0, 1]), ([0, 0, 1, 1], [0, 1, 0, 0]), ([0, 0, 1, 1], [0, 0, 0, 0]), ([-1] * 4, [1] * 4)],
)
@pytest.mark.parametrize("scores", [[0.1, 0.4, 0.8, 0.3], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
def test_fairret_is_finite_where_groups_or_labels_are_absent(
    name: str, a: list[int], y: list[int], scores: list[float]
) -> None:
    statistics = pytest.importorskip("fairret.statistic")
    given = torch.tensor(scores, requires_grad=True)
    loss = fairret_penalty(getattr(statistics, name)(), "a")(given, sensitive_features={"a": a}, y=y)
    loss.backward()
    assert torch.isfinite(loss)
    assert given.grad is not None
    assert torch.isfinite(given.grad).all()


def test_fairret_errors() -> None:
    statistics = pytest.importorskip("fairret.statistic")
    penalty = fairret_penalty(statistics.FScore(), "a")
    with pytest.raises(MissingLabelsError, match="FScore looks at labels"):
        penalty(torch.rand(2), sensitive_features={"a": [0, 1]})
    with pytest.raises(ShapeError, match="one score per sample"):
        penalty(torch.rand(2, 2), sensitive_features={"a": [0, 1]}, y=[0, 1])


# --- Lagrangian methods of other libraries


def task() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(0, 2, (300,), generator=generator)
    x = torch.randn(300, 3, generator=generator) + a[:, None]
    y = (x.sum(dim=1) + torch.randn(300, generator=generator) > 1.5).float()
    return x, a, y


class Run:
    """A linear classifier with its loss, and its gap before and after."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.x, self.a, self.y = task()
        self.net = torch.nn.Linear(3, 1)
        self.excess = Excess(fl.DemographicParity("a", tolerance=0.05)).fit_categories({"a": [0, 1]})
        optimizer = torch.optim.Adam(self.net.parameters(), lr=0.05)
        for _ in range(100):
            optimizer.zero_grad()
            self.evaluate()[0].backward()
            optimizer.step()
        self.before = self.gap()

    def evaluate(self) -> tuple[torch.Tensor, torch.Tensor]:
        scores = torch.sigmoid(self.net(self.x).squeeze(-1))
        loss = torch.nn.functional.binary_cross_entropy(scores, self.y)
        return loss, self.excess(scores, sensitive_features={"a": self.a})

    def gap(self) -> float:
        scores = torch.sigmoid(self.net(self.x).squeeze(-1))
        return abs(scores[self.a == 0].mean() - scores[self.a == 1].mean()).item()


@pytest.mark.parametrize("formulation", ["Lagrangian", "AugmentedLagrangian"])
@pytest.mark.parametrize("optimiser", ["SimultaneousOptimizer", "AlternatingDualPrimalOptimizer"])
def test_cooper_comes_near_the_tolerance(formulation: str, optimiser: str) -> None:
    cooper = pytest.importorskip("cooper")
    if formulation == "AugmentedLagrangian" and optimiser == "SimultaneousOptimizer":
        pytest.skip("Cooper wants an alternating optimiser for its augmented Lagrangian")
    run = Run()
    settings: dict[str, Any] = {"formulation_type": getattr(cooper.formulations, formulation)}
    if formulation == "AugmentedLagrangian":
        settings["penalty_coefficient"] = cooper.penalty_coefficients.DensePenaltyCoefficient(torch.tensor(10.0))
    problem = cooper_problem(run.excess, run.evaluate, **settings)
    primal = torch.optim.Adam(run.net.parameters(), lr=0.02)
    dual = torch.optim.SGD(problem.dual_parameters(), lr=0.03, maximize=True)
    both = getattr(cooper.optim, optimiser)(problem, primal, dual)
    for _ in range(400):
        both.roll()
    assert run.before > 0.2
    assert run.gap() < 0.08  # of 0.05 allowed


@pytest.mark.parametrize(
    ("kind", "settings"), [("ALM", {"lr": 0.1, "penalty": 10.0}), ("nuPI", {"ki": 0.1, "kp": 10.0})]
)
def test_humancompatible_comes_near_the_tolerance(kind: str, settings: dict[str, float]) -> None:
    dual_optim = pytest.importorskip("humancompatible.train.dual_optim")
    run = Run()
    dual = dual_optimizer(run.excess, getattr(dual_optim, kind), **settings)
    primal = torch.optim.Adam(run.net.parameters(), lr=0.02)
    for _ in range(400):
        primal.zero_grad()
        dual.forward_update(*run.evaluate()).backward()
        primal.step()
    assert run.before > 0.2
    assert run.gap() < 0.08  # of 0.05 allowed


def test_switching_methods_take_the_same_vector() -> None:
    dual_optim = pytest.importorskip("humancompatible.train.dual_optim")
    run = Run()
    dual = dual_optimizer(run.excess, dual_optim.SSG)
    primal = torch.optim.SGD(run.net.parameters(), lr=0.1)
    for _ in range(400):
        primal.zero_grad()
        dual.forward_update(*run.evaluate()).backward()
        primal.step()
    assert run.gap() < 0.08  # of 0.05 allowed


@pytest.mark.parametrize("smoothing", [0.0, 0.4])
def test_the_update_is_coopers(smoothing: float) -> None:
    cooper = pytest.importorskip("cooper")
    theirs = torch.nn.Parameter(torch.full((4,), 5.0))
    optimizer = cooper.optim.nuPI(
        [theirs],
        lr=1.0,
        Kp=0.7,
        Ki=0.3,
        ema_nu=smoothing,
        init_type=cooper.optim.nuPIInitType.ZEROS,
        maximize=True,
    )
    ours, mean = theirs.detach().clone(), torch.zeros(4)
    for excess in torch.randn(10, 4) * 0.1:
        theirs.grad = excess.clone()
        optimizer.step()
        ours, mean = controlled_update(ours, excess, mean, integral=0.3, proportional=0.7, smoothing=smoothing)
        assert ours.tolist() == pytest.approx(theirs.tolist(), abs=1e-5)


def test_the_update_is_that_of_humancompatible() -> None:
    dual_optim = pytest.importorskip("humancompatible.train.dual_optim")
    lagrangian = AugmentedLagrangian(fl.DemographicParity("a", 0.1), integral=0.3, proportional=0.7)
    excess = Excess(fl.DemographicParity("a", 0.1)).fit_categories({"a": [0, 1]})
    theirs = dual_optimizer(excess, dual_optim.nuPI, ki=0.3, kp=0.7, nu=0.0)
    for _ in range(10):
        scores, features = torch.rand(20), {"a": torch.arange(20) % 2}
        lagrangian(scores, sensitive_features=features)
        lagrangian.update()
        theirs.update(excess(scores, sensitive_features=features))
        found = list(lagrangian.named_multipliers().values())
        assert found == pytest.approx(theirs.duals.tolist(), abs=1e-6)
