"""AUC and its interval against scikit-learn and the bootstrap; what leakage refuses, and what it leaves out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import fairlayer as fl
from fairlayer.adversarial import AdversaryDefinitionError, LeakageError, activations, leakage
from fairlayer.adversarial.auc import area_under_curve, mean_auc
from fairlayer.errors import EmptyBatchError, NonFiniteScoresError, ShapeError

metrics = pytest.importorskip("sklearn.metrics")


@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(2, 40), st.sampled_from([1, 3, 1000]))
def test_auc_is_scikit_learns(seed: int, m: int, k: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    positive = random.permutation(np.arange(m + k) < m)
    score = random.integers(0, levels, m + k) / levels  # with ties
    found = area_under_curve(positive, score)
    assert found.value == pytest.approx(metrics.roc_auc_score(positive, score), abs=1e-12)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0


def test_variance_is_delongs() -> None:
    random = np.random.default_rng(0)
    positive = np.arange(60) < 25
    score = random.normal(size=60) + positive
    # DeLong, DeLong, Clarke-Pearson (1988): placements written out pair by pair
    wins = (score[positive][:, None] > score[~positive]).astype(float)
    variance = wins.mean(1).var(ddof=1) / 25 + wins.mean(0).var(ddof=1) / 35
    assert (area_under_curve(positive, score).influence ** 2).sum() == pytest.approx(variance, rel=1e-12)


def test_interval_of_a_mean_of_aucs_is_the_bootstraps() -> None:
    random = np.random.default_rng(0)
    groups = random.integers(0, 3, 600)
    score = random.normal(size=(600, 3)) + 0.7 * np.eye(3)[groups]

    def mean_of(rows: np.ndarray) -> float:
        return float(np.mean([metrics.roc_auc_score(groups[rows] == g, score[rows, g]) for g in range(3)]))

    drawn = [mean_of(random.integers(0, 600, 600)) for _ in range(250)]
    found = mean_auc([area_under_curve(groups == g, score[:, g]) for g in range(3)])
    assert (found.influence**2).sum() ** 0.5 == pytest.approx(np.std(drawn), rel=0.15)


@pytest.mark.parametrize("probe", ["linear", "trees", "network"])
def test_finds_what_is_there_and_nothing_else(probe: str) -> None:
    random = np.random.default_rng(1)
    race = np.array(["A", "B", "C"])[random.integers(0, 3, 1500)]
    noise = random.normal(size=(1500, 4))
    shown = noise.copy()
    shown[:, 1] += 2.0 * (race == "B")
    nothing, something = (leakage(x, {"race": race}, on="race", probe=probe) for x in (noise, shown))
    assert nothing.low < 0.5 < nothing.high
    assert something.low > 0.6
    of_b = something.groups[1]
    assert (of_b.name, of_b.count) == ("race=B", pytest.approx((race == "B").sum() / 2, abs=1))
    # nothing can do better than the score itself: N(0, 1) against N(2, 1), AUC = Phi(2 / sqrt 2) = 0.921
    assert 0.86 < of_b.auc < 0.95
    assert something.samples + something.fitted == 1500
    assert str(something).startswith("race: AUC 0.")


def test_two_groups_have_one_auc() -> None:
    random = np.random.default_rng(0)
    sex = random.integers(0, 2, 600)
    found = leakage(torch.tensor(sex + random.normal(size=600)), {"sex": sex}, on="sex", probe="linear")
    assert found.groups[0].auc == pytest.approx(found.groups[1].auc)
    assert found.auc == pytest.approx(found.groups[0].auc)
    assert (found.low, found.high) == pytest.approx((found.groups[0].low, found.groups[0].high))


def test_small_and_unknown_groups_are_named_and_left_out() -> None:
    race = ["A"] * 100 + ["B"] * 100 + ["C"] * 19 + [None] * 31
    found = leakage(np.arange(250.0), {"race": race}, on="race", probe="linear")
    assert found.unsupported == (("race=C", 19),)
    assert [group.name for group in found.groups] == ["race=A", "race=B"]
    assert found.samples + found.fitted == 200


def test_intersections() -> None:
    sex, race = ["F", "M"] * 100, ["A"] * 100 + ["B"] * 100
    found = leakage(np.arange(200.0), {"sex": sex, "race": race}, on=("sex", "race"), probe="linear")
    assert found.on == "sex & race"
    assert len(found.groups) == 4


def test_errors() -> None:
    sex = np.arange(100) % 2
    good = np.random.default_rng(0).normal(size=(100, 2))
    with pytest.raises(LeakageError, match=r"two groups of at least 20.*sex=0 100"):
        leakage(good, {"sex": np.zeros(100, dtype=int)}, on="sex")
    with pytest.raises(LeakageError, match="counts are: none"):
        leakage(good, {"sex": [None] * 100}, on="sex")
    with pytest.raises(LeakageError, match=r"probe='forest'.*'linear', 'trees', 'network'"):
        leakage(good, {"sex": sex}, on="sex", probe="forest")
    with pytest.raises(LeakageError, match="share between 0 and 1"):
        leakage(good, {"sex": sex}, on="sex", held_out=1.0)
    with pytest.raises(LeakageError, match="fewer than two samples"):
        leakage(good, {"sex": sex}, on="sex", held_out=0.02)
    with pytest.raises(LeakageError, match="membership given is soft"):
        leakage(good, {"sex": np.full((100, 2), 0.5)}, on="sex")
    with pytest.raises(ShapeError, match=r"100 rows.*99 entries"):
        leakage(good, {"sex": sex[1:]}, on="sex")
    with pytest.raises(ShapeError, match="not empty"):
        leakage(good[:0], {"sex": sex[:0]}, on="sex")
    with pytest.raises(NonFiniteScoresError, match="drop those samples"):
        leakage(np.full(100, np.nan), {"sex": sex}, on="sex")


def test_activations() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 1))
    x = torch.randn(5000, 3)
    truth = net[0](x).detach()
    assert torch.allclose(activations(net, x, at="0"), truth, atol=1e-6)
    assert torch.equal(activations(net, x.split(700), at="1"), torch.cat([net[0](b) for b in x.split(700)]).detach())
    assert net.training
    assert not net[1]._forward_hooks
    model = fl.FairModel(net, [fl.DemographicParity("sex", 0.1)])
    assert torch.allclose(activations(model, x, at="backbone.0"), truth, atol=1e-6)
    with pytest.raises(EmptyBatchError, match="Give at least one batch"):
        activations(net, [], at="0")
    with pytest.raises(AdversaryDefinitionError, match="no submodule of that name"):
        activations(net, x, at="9")
