"""The adversary's wiring: what it reads, whose gradient it reverses, what it keeps, and what it refuses."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import fairlayer as fl
from fairlayer.adversarial import Adversary, AdversaryDefinitionError, CaptureError, ScheduleError, constant, dann
from fairlayer.errors import (
    CategoryError,
    LabelValueError,
    MissingLabelsError,
    MissingSensitiveFeatureError,
    NonFiniteScoresError,
    OutputError,
    ShapeError,
)

n = 24
SEX = np.array(["F", "M"] * (n // 2))
RACE = np.arange(n) % 3
AGE = np.linspace(18.5, 80.25, n)
ALL = {"sex": SEX, "race": RACE, "age": AGE}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.head(torch.tanh(self.backbone(x)))).squeeze(1)


def batch() -> Tensor:
    return torch.randn(n, 3)


def adversary_on(model: nn.Module, on: Any = "sex", *, at: str | None = "backbone.2", **options: Any) -> Adversary:
    return Adversary(model, on=on, sensitive_features=ALL, example=torch.randn(2, 3), at=at, **options)


def gradients(parameters: Any) -> list[Tensor]:
    return [p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in parameters]


def test_loss_and_gradients_are_those_of_the_head_written_by_hand() -> None:
    net, x = Net(), batch()
    adversary = adversary_on(net, schedule=constant(0.3))
    net(x)
    loss = adversary.loss(ALL)
    loss.backward()
    reversed_, heads = gradients(net.backbone.parameters()), gradients(adversary.heads.parameters())
    net.zero_grad()
    adversary.zero_grad()
    by_hand = cross_entropy(adversary.heads[0].network(net.backbone(x)), torch.as_tensor(np.arange(n) % 2))
    by_hand.backward()
    assert torch.equal(loss, by_hand)
    for ours, theirs in zip(heads, gradients(adversary.heads.parameters()), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(reversed_, gradients(net.backbone.parameters()), strict=True):
        assert torch.allclose(ours, -0.3 * theirs, rtol=1e-5, atol=1e-9)


def test_the_model_is_not_owned_and_not_changed() -> None:
    net = Net()
    before, keys = net(batch().fill_(1.0)), set(net.state_dict())
    adversary = adversary_on(net)
    owned = {id(p) for p in net.parameters()}
    assert not owned & {id(p) for p in adversary.parameters()}
    assert set(net.state_dict()) == keys
    assert torch.equal(net(torch.ones(n, 3)), before)
    adversary.remove()
    assert not net.backbone[2]._forward_hooks


def test_the_example_leaves_no_trace() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    net[2].eval()
    state = copy.deepcopy(net.state_dict())
    adversary = adversary_on(net, at="1")
    assert all(torch.equal(net.state_dict()[key], state[key]) for key in state)
    assert [m.training for m in net] == [True, True, False, True]
    with pytest.raises(CaptureError, match="no forward of the model has run"):
        adversary.loss(ALL)


def test_on_the_prediction() -> None:
    net = Net()
    adversary = adversary_on(net, at=None, hidden=())
    assert adversary.heads[0].network[0].in_features == 1
    net(batch())
    adversary.loss(ALL).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.head.parameters())


def test_several_features_numbers_and_intersections() -> None:
    net = Net()
    adversary = adversary_on(net, ["sex", "race", "age", ("sex", "race")], continuous=["age"])
    assert adversary.names == ("sex", "race", "age", "sex & race")
    x = batch()
    net(x)
    losses = adversary.losses(ALL)
    sex, race, age, both = (head.network(net.backbone(x)) for head in adversary.heads)
    codes = torch.as_tensor((SEX == "M").astype(int))
    assert torch.allclose(losses["sex"], cross_entropy(sex, codes))
    assert torch.allclose(losses["race"], cross_entropy(race, torch.as_tensor(RACE)))
    assert torch.allclose(losses["sex & race"], cross_entropy(both, codes * 3 + torch.as_tensor(RACE)))
    standard = torch.as_tensor((AGE - AGE.mean()) / AGE.std()).float()
    assert torch.allclose(losses["age"], (age.squeeze(1) - standard).square().mean(), rtol=1e-4)
    net(x)
    assert torch.allclose(adversary.loss(ALL), sum(losses.values(), torch.zeros(())))


def test_a_whole_number_column_can_be_continuous() -> None:
    years = {"age": np.arange(n)}
    net = Net()
    adversary = Adversary(
        net, on="age", sensitive_features=years, example=batch(), at="backbone.2", continuous=("age",)
    )
    net(batch())
    assert adversary.heads[0].network[-1].out_features == 1
    assert torch.isfinite(adversary.loss(years))


@pytest.mark.parametrize("age", [torch.full((4,), float("nan")), torch.tensor([float("nan"), 20.0, 30.0, 40.0])])
def test_unknown_and_absent_groups_count_in_no_loss(age: Tensor) -> None:
    net = Net()
    adversary = adversary_on(net, ["sex", "race", "age"], continuous=["age"])
    x = torch.randn(4, 3)
    net(x)
    losses = adversary.losses({"sex": ["F"] * 4, "race": [None] * 4, "age": age})
    alone = cross_entropy(adversary.heads[0].network(net.backbone(x)), torch.zeros(4, dtype=torch.long))
    assert torch.allclose(losses["sex"], alone)
    assert losses["race"].item() == 0.0
    sum(losses.values(), torch.zeros(())).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.backbone.parameters() if p.grad is not None)


def test_soft_membership() -> None:
    net, x = Net(), batch()
    soft = torch.softmax(torch.randn(n, 2), dim=1)
    soft[3] = float("nan")  # unknown
    adversary = Adversary(net, on="sex", sensitive_features={"sex": soft}, example=x, at="backbone.2")
    net(x)
    loss = adversary.loss({"sex": soft})
    known = [i for i in range(n) if i != 3]
    by_hand = cross_entropy(adversary.heads[0].network(net.backbone(x))[known], soft[known])
    assert torch.allclose(loss, by_hand, atol=1e-6)


def test_given_the_label_a_linear_head_reads_within_each_label() -> None:
    net, x, y = Net(), batch(), torch.randint(0, 2, (n,))
    adversary = adversary_on(net, given_label=True, hidden=())
    net(x)
    loss = adversary.loss(ALL, y)
    h = net.backbone(x)
    weight, bias = adversary.heads[0].network[0].weight, adversary.heads[0].network[0].bias
    # [h, y, y h] W': within label 0 the weights are W_h, within label 1 they are W_h + W_yh with another bias
    zero = h @ weight[:, :4].T + bias
    one = h @ (weight[:, :4] + weight[:, 5:]).T + bias + weight[:, 4]
    by_hand = cross_entropy(torch.where(y[:, None] == 1, one, zero), torch.as_tensor((SEX == "M").astype(int)))
    assert torch.allclose(loss, by_hand, atol=1e-6)


def test_label_forms_and_errors() -> None:
    net = Net()
    adversary = adversary_on(net, given_label=True)

    def loss(y: Any) -> Tensor:
        net(torch.ones(n, 3))
        return adversary.loss(ALL, y)

    label = torch.arange(n) % 2
    same = [loss(y) for y in (label, label.float(), label.double()[:, None], label.numpy(), label.tolist())]
    assert all(torch.allclose(each, same[0]) for each in same)
    assert torch.isfinite(loss(torch.randn(n)))
    with pytest.raises(MissingLabelsError, match="Pass y=labels"):
        loss(None)
    with pytest.raises(ShapeError, match="y must have shape"):
        loss(torch.zeros(3))
    with pytest.raises(NonFiniteScoresError, match="y holds NaN"):
        loss(torch.full((n,), float("nan")))
    with pytest.raises(LabelValueError, match="one adversary per class"):
        loss(torch.arange(n))


def test_an_output_is_read_once() -> None:
    net = Net()
    adversary = adversary_on(net)
    with pytest.raises(CaptureError, match="no forward of the model has run since it was built"):
        adversary.loss(ALL)
    net(batch())
    adversary.loss(ALL)
    with pytest.raises(CaptureError, match=r"already read.*Call the\s+model on each batch"):
        adversary.loss(ALL)


def test_bad_input_changes_nothing() -> None:
    net = Net()
    adversary = adversary_on(net)
    net(torch.ones(n, 3))
    with pytest.raises(ShapeError, match=f"gave {n} samples at the submodule 'backbone.2'.*have 2 entries"):
        adversary.loss({"sex": ["F", "M"]})
    with pytest.raises(CategoryError, match="'X'"):
        adversary.loss({"sex": ["X"] * n})
    with pytest.raises(MissingSensitiveFeatureError, match="'sex'"):
        adversary.loss({"gender": SEX})
    assert torch.isfinite(adversary.loss(ALL))  # the output of the forward is still there
    with pytest.raises(ScheduleError):
        adversary.advance(1.5)
    assert adversary.strength == pytest.approx(0.1)


def test_without_gradient() -> None:
    """A pass without gradient serves the heads alone: the inner steps of alternating updates, or validation."""
    net = Net()
    adversary = adversary_on(net)
    with torch.no_grad():
        net(batch())
    adversary.loss(ALL).backward()
    assert all(p.grad is None for p in net.parameters())
    assert all(p.grad is not None for p in adversary.parameters())
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            net.eval()(batch())
            assert not adversary.loss(ALL).requires_grad


def test_changed_in_place() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 1))
    with pytest.raises(CaptureError, match=r"changed in place.*inplace=False"):
        adversary_on(net, at="0")
    behind = adversary_on(net, at="1")
    net(batch())
    assert torch.isfinite(behind.loss(ALL))
    net[1].register_forward_hook(lambda module, inputs, output: output.add_(1.0))  # after the adversary's hook
    net(batch())
    with pytest.raises(CaptureError, match="changed in place"):
        behind.loss(ALL)


def test_state_round_trip() -> None:
    net = Net()
    adversary = adversary_on(net, ["sex", "age"], continuous=["age"], schedule=dann())
    adversary.advance(0.5)
    buffer = io.BytesIO()
    torch.save(adversary.state_dict(), buffer)
    buffer.seek(0)
    other = adversary_on(net, ["sex", "age"], continuous=["age"], schedule=dann())
    other.load_state_dict(torch.load(buffer, weights_only=True))
    net(torch.ones(n, 3))
    assert torch.equal(adversary.loss(ALL), other.loss(ALL))
    assert other.strength == adversary.strength > 0


def test_loaded_heads_keep_the_meaning_of_their_outputs() -> None:
    net = Net()
    old = Adversary(net, on="sex", sensitive_features={"sex": ["A", "M"]}, example=batch(), at="backbone.2")
    new = Adversary(net, on="sex", sensitive_features={"sex": ["M", "Z"]}, example=batch(), at="backbone.2")
    new.load_state_dict(old.state_dict())
    net(torch.ones(2, 3))
    column = {"sex": ["A", "M"]}
    assert torch.equal(new.loss(column), old.loss(column))
    with pytest.raises(CategoryError, match="Build it with the same on="):
        adversary_on(net, "race").load_state_dict(old.state_dict(), strict=False)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.adversary = adversary_on(self.net)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_stay_connected_to_their_own_model(duplicate: Any) -> None:
    pair = Pair()
    pair.net(batch())  # a live graph is in the hook, which no copy can take along
    twin = duplicate(pair)
    assert len(list(twin.parameters())) == len(list(pair.parameters()))
    with pytest.raises(CaptureError, match="no forward of the model"):
        twin.adversary.loss(ALL)
    x = batch()
    twin.net(x)
    twin.adversary.loss(ALL).backward()
    assert all(p.grad is None for p in pair.parameters())
    assert twin.net.backbone[0].weight.grad is not None
    assert torch.isfinite(pair.adversary.loss(ALL))
    twin.adversary.remove()
    pair.net(x)
    assert torch.isfinite(pair.adversary.loss(ALL))
    twin.net(x)
    with pytest.raises(CaptureError, match="was removed"):
        twin.adversary.loss(ALL)


def test_a_copy_of_the_model_alone_does_not_feed_the_adversary() -> None:
    net = Net()
    adversary = adversary_on(net)
    average = copy.deepcopy(net)
    average(batch())
    with pytest.raises(CaptureError):
        adversary.loss(ALL)


def test_context_manager_removes_the_hook() -> None:
    net = Net()
    with adversary_on(net) as adversary:
        net(batch())
        adversary.loss(ALL)
    net(batch())
    with pytest.raises(CaptureError, match=r"was removed from the submodule 'backbone.2'"):
        adversary.loss(ALL)


@pytest.mark.parametrize("at", ["backbone.backbone.2", "backbone", None])
def test_fair_model(at: str | None) -> None:
    parity = fl.DemographicParity("sex", tolerance=0.01)
    model = fl.FairModel(Net(), [parity, fl.EqualOpportunity("race", 0.3)], bounds=(0.0, 1.0))
    adversary = adversary_on(model, at=at)
    y = torch.arange(n) % 2
    scores = model(batch(), sensitive_features=ALL, y=y)
    (scores.mean() + adversary.loss(ALL)).backward()
    assert model.last_projection is not None
    assert model.last_projection.certificate.holds
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)

    def forward(self, *, values: Tensor) -> dict[str, Tensor]:
        return {"states": self.inner(values)[:, None, :].expand(-1, 5, -1), "logits": values.sum(1)}


def test_structured_outputs_and_keyword_inputs() -> None:
    net = nn.ModuleDict({"encoder": Encoder()})["encoder"]
    first = Adversary(
        net,
        on="sex",
        sensitive_features=ALL,
        example={"values": torch.ones(1, 3)},
        read=lambda output: output["states"][:, 0],
    )
    logits = Adversary(net, on="sex", sensitive_features=ALL, example={"values": torch.ones(1, 3)})
    net(values=batch())
    assert first.heads[0].network[0].in_features == 4
    assert logits.heads[0].network[0].in_features == 1
    assert torch.isfinite(first.loss(ALL) + logits.loss(ALL))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    net = Net().to(dtype)
    adversary = Adversary(
        net,
        on=["sex", "age"],
        sensitive_features=ALL,
        example=batch().to(dtype),
        at="backbone.2",
        continuous=["age"],
        given_label=True,
    )
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert all(p.dtype == wide for p in adversary.parameters())
    net(batch().to(dtype))
    loss = adversary.loss(ALL, torch.arange(n) % 2)
    loss.backward()
    assert loss.dtype == wide
    assert all(p.grad is None or p.grad.dtype == dtype for p in net.parameters())


def test_autocast() -> None:
    net = Net()
    adversary = adversary_on(net, ["sex", "age"], continuous=["age"])
    with torch.autocast("cpu", torch.bfloat16):
        net(batch())
        loss = adversary.loss(ALL)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_compiled_model() -> None:
    net = Net()
    adversary = adversary_on(net)
    compiled = torch.compile(net, backend="aot_eager")
    x = batch()
    compiled(x)
    loss = adversary.loss(ALL)
    net(x)
    assert torch.allclose(loss, adversary.loss(ALL))
    loss.backward()
    assert net.backbone[0].weight.grad is not None


def test_definition_errors() -> None:
    net = Net()
    with pytest.raises(AdversaryDefinitionError, match=r"at='body.7'.*It has: 'backbone', 'backbone.0'"):
        adversary_on(net, at="body.7")
    with pytest.raises(AdversaryDefinitionError, match=r"'age' holds fractional numbers.*continuous="):
        adversary_on(net, "age")
    with pytest.raises(AdversaryDefinitionError, match=r"continuous=\['race'\] was given, but 'race' is not an entry"):
        adversary_on(net, "sex", continuous=["race"])
    with pytest.raises(AdversaryDefinitionError, match="at least two categories"):
        Adversary(net, on="sex", sensitive_features={"sex": ["F"] * 4}, example=batch())
    with pytest.raises(AdversaryDefinitionError, match="two distinct finite numbers"):
        Adversary(net, on="a", sensitive_features={"a": [1.0] * 4}, example=batch(), continuous=["a"])
    for on in ([], "", ["sex", "sex"], [("sex", 3)]):
        with pytest.raises(AdversaryDefinitionError, match="one head each"):
            adversary_on(net, on)
    with pytest.raises(MissingSensitiveFeatureError, match="'zip'"):
        adversary_on(net, "zip")
    assert not net.backbone[2]._forward_hooks


def test_outputs_that_cannot_be_read() -> None:
    class Idle(Net):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Linear(1, 1)

    with pytest.raises(AdversaryDefinitionError, match="'unused' did not run"):
        adversary_on(Idle(), at="unused")
    with pytest.raises(OutputError, match=r"Pass read="):
        adversary_on(nn.Sequential(nn.LSTM(3, 4)), at="0")
