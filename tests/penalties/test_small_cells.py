"""Penalties do not pay for the noise of small cells: against populations whose gap is known."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fairlayer as fl
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.penalties import Penalty, penalise

CELLS, ROWS = 2, 12


def batch(random: np.random.Generator, gap: float, rows: int = ROWS, cells: int = CELLS) -> tuple[Tensor, np.ndarray]:
    """Scores of sd .25 in every cell; the last cell is higher by the gap."""
    group = np.repeat(np.arange(cells), rows)
    scores = 0.4 + 0.25 * random.normal(size=len(group)) + gap * (group == cells - 1)
    return torch.tensor(scores), group


def parity() -> fl.DemographicParity:
    return fl.DemographicParity("g", tolerance=0.0)


@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_the_corrected_square_of_a_small_batch_is_the_true_square_on_average(gap: float) -> None:
    random = np.random.default_rng(0)
    found, plain = [], []
    for _ in range(4000):
        scores, group = batch(random, gap)
        given = {"sensitive_features": {"g": group}}
        found.append(float(penalise(scores, parity(), norm="corrected", **given)))
        plain.append(float(penalise(scores, parity(), **given)))
    assert abs(np.mean(found) - gap**2) < 0.003
    assert np.mean(plain) - gap**2 > 0.008  # the variance of the gap, 2 * .25^2 / 12, is what small cells add


@pytest.mark.parametrize("norm", ["squared", "variance", "corrected"])
def test_the_mean_gradient_is_that_of_a_large_batch(norm: str) -> None:
    """Along the direction that shrinks every score towards a constant, the plug-in's gradient is mostly noise."""
    gap, steps = 0.1, 1500

    def slope(penalty: nn.Module, scores: Tensor, group: np.ndarray) -> float:
        """d penalty / d t of scores * (1 + t), which only the size of the gap decides."""
        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        loss = penalty(scores * (1 + t), sensitive_features={"g": group})
        return float(torch.autograd.grad(loss, t)[0])

    random = np.random.default_rng(1)
    expected = slope(Penalty(parity()), *batch(random, gap, rows=100_000))
    penalty = Penalty(parity(), norm)
    each = [slope(penalty, *batch(random, gap)) for _ in range(steps)]
    plain = [slope(Penalty(parity()).eval(), *batch(random, gap)) for _ in range(300)]
    assert np.mean(each[100:]) == pytest.approx(expected, rel=0.05, abs=4 * np.std(each) / steps**0.5)
    assert np.mean(plain) > 1.4 * expected


def test_the_size_comes_from_earlier_batches_and_the_gradient_from_this_one() -> None:
    penalty, given = Penalty(parity(), decay=0.5), {"sensitive_features": {"g": [0, 0, 1]}}
    penalty(torch.tensor([0.0, 0.2, 0.6]), **given)  # means .1 and .6: no past, so its own gap
    scores = torch.tensor([0.5, 0.5, 0.4], requires_grad=True)
    loss = penalty(scores, **given)
    loss.backward()
    assert loss.item() == pytest.approx(0.5**2)  # the gap of the running means is what is shown
    assert scores.grad.tolist() == pytest.approx([-0.5, -0.5, 1.0])  # 2 * .5 * d(mean_1 - mean_0)
    third = penalty(torch.tensor([0.5, 0.5, 0.4]), **given)
    first_mean, second_mean = (0.5 * 0.2 + 1.0) / 3, (0.5 * 0.6 + 0.4) / 1.5
    assert third.item() == pytest.approx((second_mean - first_mean) ** 2)


def test_evaluation_measures_the_batch_and_teaches_nothing() -> None:
    penalty, given = Penalty(parity()), {"sensitive_features": {"g": [0, 1]}}
    penalty(torch.tensor([0.1, 0.6]), **given)
    before = penalty.state_dict()["running._extra_state"].clone()
    penalty.eval()
    assert penalty(torch.tensor([0.2, 0.3]), **given).item() == pytest.approx(0.01)
    assert torch.equal(penalty.state_dict()["running._extra_state"], before)


def test_running_means_travel_in_the_state() -> None:
    penalty, given = Penalty(fl.EqualizedOdds("g", tolerance=0.0)), {"sensitive_features": {"g": [0, 0, 1, 1]}}
    y = torch.tensor([0.0, 1.0, 0.0, 1.0])
    penalty(torch.tensor([0.1, 0.6, 0.3, 0.4]), y=y, **given)
    other, third = Penalty(fl.EqualizedOdds("g", tolerance=0.0)), copy.deepcopy(penalty)
    other.load_state_dict(penalty.state_dict())
    scores = torch.tensor([0.5, 0.5, 0.5, 0.5])
    values = [each(scores, y=y, **given).item() for each in (penalty, other, third)]
    assert values[0] == values[1] == values[2] > 0


def test_an_absent_group_pulls_on_nobody_and_is_remembered() -> None:
    penalty = Penalty(parity())
    penalty(torch.tensor([0.1, 0.6]), sensitive_features={"g": ["a", "b"]})
    scores = torch.tensor([0.9, 0.9], requires_grad=True)
    penalty(scores, sensitive_features={"g": ["a", "a"]}).backward()
    assert scores.grad.tolist() == [0.0, 0.0]
    found = penalty(torch.tensor([0.5, 0.5]), sensitive_features={"g": ["a", "b"]})
    assert found.item() == pytest.approx((0.6 - (0.95 * 0.1 + 1.8) / 2.95) ** 2, rel=1e-4)


def test_a_row_about_an_absent_group_is_not_remembered() -> None:
    penalty = Penalty(fl.Affine([[1.0, -1.0]], upper=0.0, on="g"))
    penalty(torch.tensor([0.6, 0.1]), sensitive_features={"g": ["a", "b"]})
    penalty(torch.tensor([0.9, 0.9]), sensitive_features={"g": ["a", "a"]})  # says nothing about a - b
    found = penalty(torch.tensor([0.2, 0.2]), sensitive_features={"g": ["a", "b"]})
    assert found.item() == pytest.approx(0.5**2)


@pytest.mark.parametrize("group", [[0, 0, 1, 1], [1, 1, 0, 0]])
def test_of_a_ratio_the_noise_of_the_higher_group_is_scaled_as_its_mean_is(group: list[int]) -> None:
    """Half of the mean .9 is .05 above the mean .4; the two means have the variances .1^2 and .3^2."""
    scores = torch.tensor([0.8, 1.0, 0.1, 0.7], dtype=torch.float64)
    found = penalise(scores, fl.DisparateImpactRatio("g", 0.5), norm="corrected", sensitive_features={"g": group})
    assert found.item() == pytest.approx(0.05**2 - 0.5**2 * 0.1**2 - 0.3**2)


def test_a_group_of_one_sample_has_no_variance_and_is_left_out() -> None:
    scores, group = torch.tensor([0.8, 1.0, 0.1, 0.7, 5.0], dtype=torch.float64), {"g": [0, 0, 1, 1, 2]}
    found = penalise(scores, parity(), norm="corrected", sensitive_features=group)
    assert found.item() == pytest.approx(0.5**2 - 0.1**2 - 0.3**2)
    floor = penalise(scores, fl.MinimumRate("g", 0.6), norm="corrected", sensitive_features=group)
    assert floor.item() == pytest.approx(0.2**2 - 0.3**2)  # of the two others one is below the floor


def test_a_tolerance_that_takes_a_gradient_still_does() -> None:
    tolerance = torch.tensor(0.1, requires_grad=True)
    penalty = Penalty(fl.DemographicParity("g", tolerance), "hinge")
    for _ in range(2):
        penalty(torch.tensor([0.1, 0.6]), sensitive_features={"g": [0, 1]}).backward()
    assert tolerance.grad.item() == pytest.approx(-2.0)


def test_what_cannot_be_corrected_is_named() -> None:
    soft = {"g": np.array([[0.5, 0.5], [1.0, 0.0]])}
    with pytest.raises(ConstraintDefinitionError, match="memberships are soft"):
        penalise(torch.tensor([0.1, 0.6]), parity(), norm="corrected", sensitive_features=soft)
    with pytest.raises(ConstraintDefinitionError, match="decay must be in"):
        Penalty(parity(), decay=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("size", [400, 100])
def test_eight_cells_of_a_few_rows_do_not_ruin_the_model(size: int) -> None:
    """Eight cells, six of them rare, the group hidden: small batches do not lose what large ones can reach."""
    full, small = _accuracy(6000, 300), _accuracy(size, 15 * 6000 // size)
    assert small >= full - 2.0


def _accuracy(size: int, steps: int) -> float:
    """Best accuracy on large fresh cells at a decision gap of at most 6 points, over four weights of the penalty."""
    shares = np.array([0.41, 0.41, *[0.03] * 6])
    offsets = np.array([0.0, 0.9, 0.3, 0.5, 0.2, 0.7, 0.4, 0.6])

    def draw(counts: np.ndarray, seed: int) -> tuple[Tensor, Tensor, np.ndarray]:
        random = np.random.default_rng(seed)
        group = np.repeat(np.arange(8), counts)
        signal = random.normal(size=len(group))
        proxy = offsets[group] + 0.3 * random.normal(size=len(group))
        y = random.uniform(size=len(group)) < 1 / (1 + np.exp(-1.6 * signal - 2.0 * (proxy - 0.45)))
        x = np.stack([signal, proxy, random.normal(size=len(group))], axis=1)
        return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32), group

    x, y, group = draw(np.random.default_rng(0).multinomial(6000, shares), 0)
    fresh, labels, groups = draw(np.full(8, 5000), 1)
    best = 0.0
    for weight in (1.0, 3.0, 10.0, 30.0):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 1), nn.Flatten(0), nn.Sigmoid())
        penalty, optimiser = Penalty(parity()), torch.optim.Adam(net.parameters(), 5e-3)
        generator = torch.Generator().manual_seed(0)
        for _ in range(steps):
            i = torch.randperm(6000, generator=generator)[:size]
            scores = net(x[i])
            loss = nn.functional.binary_cross_entropy(scores, y[i])
            loss = loss + weight * penalty(scores, sensitive_features={"g": group[i.numpy()]})
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            decided = (net(fresh) >= 0.5).numpy()
        rates = [decided[groups == g].mean() for g in range(8)]
        if max(rates) - min(rates) <= 0.06:
            best = max(best, 100 * float((decided == labels.numpy()).mean()))
    return best


@pytest.mark.parametrize("norm", ["squared", "hinge"])
@pytest.mark.parametrize("rows", [60, 400])
def test_the_gap_of_large_cells_does_not_swing(norm: str, rows: int) -> None:
    """Full batches: a memory of 20 of them pulls long after the gap is closed, and the gap swings without end."""
    torch.manual_seed(0)
    group = np.repeat([0, 1], rows)
    x = torch.randn(2 * rows, 3) + torch.tensor(group)[:, None]
    y = (x.sum(dim=1) + torch.randn(2 * rows) > 1.5).float()
    net = nn.Linear(3, 1)
    penalty, optimiser = Penalty(parity(), norm), torch.optim.Adam(net.parameters(), lr=0.02)
    gaps = []
    for _ in range(200):
        scores = torch.sigmoid(net(x).squeeze(-1))
        loss = nn.functional.binary_cross_entropy(scores, y)
        loss = loss + (20.0 if norm == "squared" else 2.0) * penalty(scores, sensitive_features={"g": group})
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        gaps.append(float((scores[group == 1].mean() - scores[group == 0].mean()).detach()))
    assert np.ptp(gaps[120:]) < (0.15 if rows < 128 else 0.02)
