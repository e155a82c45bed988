"""Every module that remembers something, through every way in which people save, load, copy and average modules."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import fairlayer as fl
from fairlayer import errors
from fairlayer.adversarial import Adversary
from fairlayer.distillation import AmortisedModel, AmortisedShifts
from fairlayer.distillation.cells import CellMap
from fairlayer.distillation.parts import ShiftTable
from fairlayer.integrations.huggingface import states_as_tensors
from fairlayer.penalties import AugmentedLagrangian, Excess, Penalty
from fairlayer.tensor_state import to_tensor

X = torch.linspace(-2.0, 2.0, 36).reshape(12, 3)
SEX = ["M", "F", "F"] * 4
AGE = {"age": np.linspace(20.0, 60.0, 12)}
PARITY = fl.DemographicParity("sex", tolerance=0.02)
FEATURES = {"sex": SEX}


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())


@dataclass(frozen=True)
class Subject:
    """A kind of module: how to build a fresh one, what it learns, and what a user can see of it afterwards."""

    build: Callable[[], nn.Module]
    learn: Callable[[Any], object]
    seen: Callable[[Any], object]


# ---- FairModel with a stream that has run, with pending labels


def model() -> fl.FairModel:
    return fl.FairModel(net(), [PARITY, fl.EqualOpportunity("sex", tolerance=0.05)], bounds=(0.0, 1.0)).eval()


def run_stream(fair: fl.FairModel) -> None:
    fair.fit_categories(FEATURES)
    for i in range(12):
        fair(X[i : i + 1], sensitive_features={"sex": SEX[i : i + 1]}, inference=True, ids=[f"request {i}"])
    fair.observe_labels(["request 1", "request 3"], [1, 0])


def of_model(fair: fl.FairModel) -> object:
    stream = fair.inference_state
    counted = (stream.samples, stream.counts(), stream.pooled_gap(), stream.phase, stream.multipliers, stream.shifts())
    following = [
        fair(X[i : i + 2], sensitive_features={"sex": SEX[i : i + 2]}, inference=True).detach() for i in (0, 4, 7)
    ]
    stream.observe_labels(["request 5"], [1])  # a label that was pending
    return fair.projection.vocabulary, counted, following, stream.counts()


class TrackingModel(fl.FairModel):
    """A class for each policy, so that a test finds how to build one."""


class AnytimeModel(fl.FairModel): ...


class PerBatchModel(fl.FairModel): ...


def with_policy(kind: type[fl.FairModel], policy: str) -> Callable[[], nn.Module]:
    return lambda: kind(net(), [PARITY], bounds=(0.0, 1.0), policy=policy).eval()


def run_unlabelled_stream(fair: fl.FairModel) -> None:
    fair.fit_categories(FEATURES)
    for i in range(12):
        fair(X[i : i + 1], sensitive_features={"sex": SEX[i : i + 1]}, inference=True)


def of_policy(fair: fl.FairModel) -> object:
    stream = fair.inference_state
    counted = (stream.samples, stream.counts(), stream.pooled_gap(), stream.phase, stream.multipliers, stream.shifts())
    following = [
        fair(X[i : i + 2], sensitive_features={"sex": SEX[i : i + 2]}, inference=True).detach() for i in (0, 4, 7)
    ]
    return fair.projection.vocabulary, counted, following, stream.counts()


# ---- a layer inside a user's own module


class Mine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.fair = net(), fl.FairProjection([PARITY], bounds=(0.0, 1.0))

    def forward(self, x: Tensor, sex: Any) -> Tensor:
        projected: Tensor = self.fair(self.net(x), sensitive_features={"sex": sex})
        return projected


def of_mine(mine: Mine) -> object:
    return mine.fair.vocabulary, mine(X, SEX).detach()


# ---- penalties


def learn_lagrangian(lagrangian: AugmentedLagrangian) -> None:
    for _ in range(3):
        lagrangian(X[:, 0], sensitive_features=FEATURES)
        lagrangian.update()


def of_lagrangian(lagrangian: AugmentedLagrangian) -> object:
    named = lagrangian.named_multipliers()
    term = lagrangian(X[:, 0], sensitive_features=FEATURES).detach()
    lagrangian.update()
    return lagrangian.reader.vocabulary, named, term, lagrangian.named_multipliers()


def of_penalty(penalty: Penalty) -> object:
    return penalty.reader.vocabulary, penalty(X[:, 0], sensitive_features=FEATURES).detach()


def of_excess(excess: Excess) -> object:
    return excess.names, excess.size, excess(X[:, 0], sensitive_features=FEATURES).detach()


# ---- an adversary that reads groups and numbers


def adversary() -> Adversary:
    data = {"sex": ["F", "M"] * 6, "age": np.linspace(30.0, 40.0, 12)}  # another mean than what it learns
    with torch.device("cpu"):
        return Adversary(nn.Linear(3, 2), on=["sex", "age"], sensitive_features=data, example=X, continuous=("age",))


def learn_adversary(reader: Adversary) -> None:
    taught = Adversary(
        nn.Linear(3, 2), on=["sex", "age"], sensitive_features={**FEATURES, **AGE}, example=X, continuous=("age",)
    )
    reader.load_state_dict(taught.state_dict())
    reader.advance(0.5)


def of_adversary(reader: Adversary) -> object:
    groups = reader._read_groups({**FEATURES, **AGE}, 12)  # the model is not part of the state
    outputs = reader(torch.linspace(0, 1, 24).reshape(12, 2))
    losses = [head.loss(output, groups).detach() for head, output in zip(reader.heads, outputs, strict=True)]
    return reader.vocabulary, reader.strength, [output.detach() for output in outputs], losses


# ---- fixed shifts


def amortised() -> AmortisedModel:
    nothing = ShiftTable(np.zeros((1, 1, 1)), np.zeros(1), np.zeros(1, dtype=bool))
    return AmortisedModel(net(), AmortisedShifts(CellMap((), ()), nothing))


def learn_shifts(fixed: AmortisedModel) -> None:
    fair = fl.FairModel(net(), [PARITY], bounds=(0.0, 1.0))
    fixed.load_state_dict(fair.amortised([(X, FEATURES)]).state_dict())


def of_amortised(fixed: AmortisedModel) -> object:
    return fixed.shifts.to_dict(), fixed(X, cells=fixed.encode(FEATURES)).detach(), repr(fixed.shifts)


def of_running(layer: fl.FairProjection) -> object:
    scores = torch.linspace(0.0, 1.0, 12, dtype=torch.float64)
    return layer.vocabulary, layer(scores, sensitive_features=FEATURES).detach()


class RunningLayer(fl.FairProjection):
    """A layer that learns shifts while labels are shown."""


def learn_running(layer: RunningLayer) -> None:
    scores = torch.linspace(0.0, 1.0, 12, dtype=torch.float64)
    for _ in range(5):
        layer.train()(scores, sensitive_features=FEATURES, y=torch.tensor([1.0, 0.0, 0.0] * 4, dtype=torch.float64))
    layer.eval()


SUBJECTS = {
    "model": Subject(model, run_stream, of_model),
    "model that tracks": Subject(with_policy(TrackingModel, "tracking"), run_unlabelled_stream, of_policy),
    "model, any time": Subject(with_policy(AnytimeModel, "anytime"), run_unlabelled_stream, of_policy),
    "model, per batch": Subject(with_policy(PerBatchModel, "per_batch"), run_unlabelled_stream, of_policy),
    "running layer": Subject(
        lambda: RunningLayer([fl.MeanResidualParity("sex", 0.05)]).eval(), learn_running, of_running
    ),
    "layer": Subject(Mine, lambda mine: mine(X, SEX), of_mine),
    "penalty": Subject(lambda: Penalty(PARITY), lambda p: p(X[:, 0], sensitive_features=FEATURES), of_penalty),
    "lagrangian": Subject(lambda: AugmentedLagrangian(PARITY), learn_lagrangian, of_lagrangian),
    "excess": Subject(lambda: Excess(PARITY), lambda e: e.fit_categories(FEATURES), of_excess),
    "adversary": Subject(adversary, learn_adversary, of_adversary),
    "amortised": Subject(amortised, learn_shifts, of_amortised),
}


# ---- ways to save and load: (what has learnt, a fresh one, a folder) -> what was loaded


def through_torch(old: nn.Module, new: nn.Module, folder: Path) -> nn.Module:
    torch.save(old.state_dict(), folder / "state.pt")
    assert (
        str(new.load_state_dict(torch.load(folder / "state.pt", weights_only=True)))
        == "<All keys matched successfully>"
    )
    return new


def through_safetensors_file(old: nn.Module, new: nn.Module, folder: Path) -> nn.Module:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(old.state_dict(), folder / "state.safetensors")
    new.load_state_dict(safetensors.load_file(folder / "state.safetensors"))
    return new


def through_safetensors_model(old: nn.Module, new: nn.Module, folder: Path) -> nn.Module:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_model(old, str(folder / "state.safetensors"))
    assert safetensors.load_model(new, str(folder / "state.safetensors")) == (set(), [])
    return new


def through_dcp(old: nn.Module, new: nn.Module, folder: Path) -> nn.Module:
    from torch.distributed import checkpoint

    checkpoint.save({"model": old.state_dict()}, checkpoint_id=folder, no_dist=True)
    state = new.state_dict()
    checkpoint.load({"model": state}, checkpoint_id=folder, no_dist=True)
    new.load_state_dict(state)
    return new


def through_dcp_state_dict(old: nn.Module, new: nn.Module, folder: Path) -> nn.Module:
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

    checkpoint.save(get_model_state_dict(old), checkpoint_id=folder, no_dist=True)
    state = get_model_state_dict(new)
    checkpoint.load(state, checkpoint_id=folder, no_dist=True)
    set_model_state_dict(new, state)
    return new


def through_accelerate(old: nn.Module, new: nn.Module, folder: Path) -> nn.Module:
    accelerator = pytest.importorskip("accelerate").Accelerator(cpu=True)
    accelerator.prepare(old)
    accelerator.save_state(str(folder))
    accelerator.free_memory()
    accelerator.prepare(new)
    accelerator.load_state(str(folder))
    accelerator.free_memory()
    return new


def through_from_pretrained(old: nn.Module, new: nn.Module, folder: Path) -> nn.Module:
    transformers = pytest.importorskip("transformers")

    class Config(transformers.PretrainedConfig):  # type: ignore[name-defined,misc]
        model_type = "with-a-layer"

    class Holder(transformers.PreTrainedModel):  # type: ignore[name-defined,misc]
        config_class = Config

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.head, self.held = nn.Linear(1, 1), type_of(new)()  # a model has parameters
            self.post_init()

    holder = Holder(Config())
    holder.held = old
    holder.save_pretrained(folder)
    loaded, report = Holder.from_pretrained(folder, output_loading_info=True)
    assert not any(report[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    held: nn.Module = loaded.held
    return held


def type_of(module: nn.Module) -> Callable[[], nn.Module]:
    return next(s.build for s in SUBJECTS.values() if type(s.build()) is type(module))


def through_deepcopy(old: nn.Module, new: nn.Module, folder: Path) -> nn.Module:
    return copy.deepcopy(old)


def through_pickle(old: nn.Module, new: nn.Module, folder: Path) -> nn.Module:
    again: nn.Module = pickle.loads(pickle.dumps(old))
    return again


KEEPING = [
    through_torch,
    through_safetensors_file,
    through_safetensors_model,
    through_dcp,
    through_dcp_state_dict,
    through_accelerate,
    through_from_pretrained,
    through_deepcopy,
    through_pickle,
]


def learnt(name: str) -> nn.Module:
    torch.manual_seed(0)
    module = SUBJECTS[name].build()
    SUBJECTS[name].learn(module)
    return module


def same(one: object, other: object) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))  # type: ignore[arg-type]
    return bool(one == other)


every_subject = pytest.mark.parametrize("name", SUBJECTS)


@every_subject
def test_a_fresh_module_has_not_learnt(name: str) -> None:
    """Or the tests below could not fail."""
    torch.manual_seed(1)
    subject, fresh = SUBJECTS[name], SUBJECTS[name].build()
    try:
        found = subject.seen(fresh)
    except errors.FairlayerError:  # a category, or an id, that it does not know
        return
    assert not same(found, subject.seen(learnt(name)))


@every_subject
@pytest.mark.parametrize("way", KEEPING, ids=lambda way: way.__name__)
def test_kept(name: str, way: Callable[[nn.Module, nn.Module, Path], nn.Module], tmp_path: Path) -> None:
    if way in (through_deepcopy, through_pickle) and name == "adversary":
        pytest.skip("an adversary holds a hook on a model that is not its own")
    old = learnt(name)
    torch.manual_seed(1)
    new = way(old, SUBJECTS[name].build(), tmp_path)
    assert same(SUBJECTS[name].seen(new.train(old.training)), SUBJECTS[name].seen(old))


@every_subject
def test_a_state_dict_holds_tensors_only_and_nothing_of_ours_is_a_buffer(name: str) -> None:
    module = learnt(name)
    assert all(type(value) is Tensor or type(value) is nn.Parameter for value in module.state_dict().values())
    assert not list(module.buffers())
    sizes = {key: value.shape for key, value in SUBJECTS[name].build().state_dict().items()}
    assert {key: value.shape for key, value in module.state_dict().items()} == sizes


@every_subject
@pytest.mark.parametrize("move", [nn.Module.half, nn.Module.double, lambda m: m.to(torch.bfloat16), lambda m: m.cpu()])
def test_casts_leave_what_was_learnt(name: str, move: Callable[[nn.Module], nn.Module]) -> None:
    module = learnt(name)
    before = {key: value for key, value in module.state_dict().items() if key.endswith("_extra_state")}
    after = move(module).state_dict()
    assert before
    assert all(torch.equal(after[key], value) for key, value in before.items())


@every_subject
def test_strict_or_not_into_a_module_that_has_learnt_something_else(name: str) -> None:
    if name == "model":
        other = model()
        other(X[:2], sensitive_features={"sex": ["F", "X"]}, inference=True)
    else:
        other = learnt(name)
    for strict in (True, False):
        old = learnt(name)
        other.load_state_dict(old.state_dict(), strict=strict)
        assert same(SUBJECTS[name].seen(other.train(old.training)), SUBJECTS[name].seen(old))
    without = {key: value for key, value in old.state_dict().items() if not key.endswith("_extra_state")}
    kept = other.state_dict()
    other.load_state_dict(without, strict=False)
    assert all(torch.equal(other.state_dict()[key], value) for key, value in kept.items() if key not in without)
    with pytest.raises(RuntimeError, match=r"Missing key.*_extra_state"):
        other.load_state_dict(without)


# ---- loops that average


AVERAGED = ["model", "layer", "amortised", "lagrangian", "penalty", "excess", "running layer", "model that tracks"]


@pytest.mark.parametrize("name", AVERAGED)
def test_averaged_models_are_unharmed(name: str) -> None:
    module = nn.ModuleList([nn.Linear(1, 1), learnt(name)])  # a model has parameters
    averaged = AveragedModel(module, use_buffers=True)
    for _ in range(3):
        averaged.update_parameters(module)
    assert same(SUBJECTS[name].seen(averaged.module[1]), SUBJECTS[name].seen(learnt(name)))  # type: ignore[index]


@pytest.mark.parametrize("name", AVERAGED)
def test_loops_over_parameters_and_buffers_are_unharmed(name: str) -> None:
    module, expected = SUBJECTS[name].build(), learnt(name)
    ema = learnt(name)
    SUBJECTS[name].learn(module)  # learns more than the copy, which keeps what it has
    with torch.no_grad():
        for e, p in zip(ema.parameters(), expected.parameters(), strict=True):
            e.lerp_(p, 0.1)
        for e, b in zip(ema.buffers(), module.buffers(), strict=True):
            e.lerp_(b, 0.1)
    assert same(SUBJECTS[name].seen(ema), SUBJECTS[name].seen(expected))


@pytest.mark.parametrize("name", AVERAGED)
def test_in_place_loops_over_a_state_dict_are_unharmed(name: str) -> None:
    """As timm's ModelEmaV2: what they write into is a copy of the state, so the averaged model keeps its own."""
    ema, module, expected = learnt(name), SUBJECTS[name].build(), learnt(name)
    module.load_state_dict({**module.state_dict(), **dict(expected.named_parameters())})
    with torch.no_grad():
        for e, v in zip(ema.state_dict().values(), module.state_dict().values(), strict=True):
            e.copy_(0.999 * e + (1.0 - 0.999) * v)
    assert same(states_of(ema), states_of(expected))


def states_of(module: nn.Module) -> list[Tensor]:
    return [value for key, value in module.state_dict().items() if key.endswith("_extra_state")]


@pytest.mark.parametrize("name", AVERAGED)
@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999, 0.9999])
@pytest.mark.parametrize("cut", [False, True], ids=["in floats", "cut to whole numbers"])
def test_averages_of_equal_states_load(name: str, decay: float, cut: bool) -> None:
    module = learnt(name)
    shadow = {key: value.detach().clone() for key, value in module.state_dict().items()}
    for _ in range(100):
        for key, value in module.state_dict().items():
            average = shadow[key] * decay + (1.0 - decay) * value
            shadow[key] = average.to(value.dtype) if cut else average
    again = SUBJECTS[name].build()
    again.load_state_dict(shadow)
    assert same(states_of(again), states_of(module))


@every_subject
@pytest.mark.parametrize("drift", [-1.0, -0.999, -0.01, 0.01, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_guard_takes_what_rounding_leaves(name: str, drift: float, dtype: torch.dtype) -> None:
    module, again = learnt(name), SUBJECTS[name].build()
    drifted = {k: v.to(dtype) + drift if k.endswith("_extra_state") else v for k, v in module.state_dict().items()}
    again.load_state_dict(drifted)
    assert same(states_of(again), states_of(module))


@pytest.mark.parametrize("name", AVERAGED)
@pytest.mark.parametrize("cut", [False, True], ids=["in floats", "cut to whole numbers"])
def test_averages_of_different_states_are_refused_and_nothing_is_loaded(name: str, cut: bool) -> None:
    module, fresh, other = learnt(name), SUBJECTS[name].build(), learnt(name)
    nothing = {key: value.clone() for key, value in fresh.state_dict().items()}
    shadow = {}
    for key, value in module.state_dict().items():
        average = 0.9 * nothing[key] + 0.1 * value
        shadow[key] = average.to(value.dtype) if cut else average
    before = states_of(other)
    with pytest.raises(errors.CheckpointError, match=r"averages.*copy the entries whose name ends in '_extra_state'"):
        other.load_state_dict(shadow)
    assert same(states_of(other), before)


def test_a_fair_model_loads_whole_or_not_at_all() -> None:
    old, new = learnt("model"), learnt("model")
    for key in ("_extra_state", "projection._extra_state"):
        bad = {name: value.clone() for name, value in model().state_dict().items()}
        bad[key][60] ^= 0b10
        with pytest.raises(errors.CheckpointError, match="its checksum does not fit"):
            new.load_state_dict(bad)
        assert same(list(new.state_dict().values()), list(old.state_dict().values()))
    fresh = model()
    foreign = fl.FairModel(net(), [fl.DemographicParity("race", 0.1)], bounds=(0.0, 1.0)).eval()
    foreign(X[:1], sensitive_features={"race": ["a"]}, inference=True)
    with pytest.raises(errors.ConstraintDefinitionError):
        fresh.load_state_dict(foreign.state_dict())
    assert torch.equal(fresh.state_dict()["_extra_state"], model().state_dict()["_extra_state"])


# ---- what no state is


def on(feature: str) -> dict[str, Callable[[], nn.Module]]:
    parity = fl.DemographicParity(feature, tolerance=0.02)
    return {
        "layer": lambda: fl.FairProjection([parity]),
        "model": lambda: fl.FairModel(net(), [parity], bounds=(0.0, 1.0)),
        "running layer": lambda: fl.FairProjection([fl.MeanResidualParity(feature, 0.05)]),
        "penalty": lambda: Penalty(parity),
        "lagrangian": lambda: AugmentedLagrangian(parity),
        "excess": lambda: Excess(parity),
    }


def taught(kind: str, feature: str) -> nn.Module:
    module: Any = on(feature)[kind]()
    if kind == "model":
        module(X, sensitive_features={feature: SEX})
    else:
        module(X[:, 0], sensitive_features={feature: SEX}, **({"y": X[:, 0] > 0} if kind == "running layer" else {}))
    return module


@pytest.mark.parametrize("kind", on("sex"))
def test_the_state_of_other_constraints_is_refused_and_changes_nothing(kind: str) -> None:
    module = taught(kind, "sex")
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(errors.CheckpointError, match=r"is about .*race.*, but this module is about .*sex.*Load it"):
        module.load_state_dict(taught(kind, "race").state_dict())
    assert same(list(module.state_dict().values()), list(before.values()))


@every_subject
@pytest.mark.parametrize("what", ["truncated", "NaN", "foreign"])
def test_a_bad_state_of_any_part_changes_nothing_at_all(name: str, what: str) -> None:
    """Also where it is read last, and weights of the backbone come first."""
    module, source = SUBJECTS[name].build(), learnt(name)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    for key in [key for key in before if key.endswith("_extra_state")]:
        bad = {k: v + 0.5 if v.is_floating_point() else v for k, v in source.state_dict().items()}
        good = bad[key]
        bad[key] = {
            "truncated": good[:64],
            "NaN": torch.full(good.shape, torch.nan),
            "foreign": to_tensor("of nobody", {}),
        }[what]
        with pytest.raises(errors.CheckpointError, match=r"checksum does not fit|holds one of kind 'of nobody'"):
            module.load_state_dict(bad)
        if name != "layer":  # a module of the user's own, whose weights torch loads first
            assert same(list(module.state_dict().values()), list(before.values())), key


@every_subject
def test_a_state_without_what_is_looked_for_is_of_another_version(name: str) -> None:
    for module in SUBJECTS[name].build().modules():
        if not hasattr(module, "_read_state"):
            continue
        with pytest.raises(errors.CheckpointError) as caught:
            module.set_extra_state(to_tensor("?", {}))
        kind = str(caught.value).split("'")[1]
        with pytest.raises(errors.CheckpointError, match=r"holds \[\], which cannot be read.*another version"):
            module.set_extra_state(to_tensor(kind, {}))


def test_a_checkpoint_of_an_earlier_version_is_named() -> None:
    stream = learnt("model").inference_state.state_dict()  # type: ignore[operator,union-attr]
    words = {"categories": {"sex": ["F", "M"]}, "open": False}
    fair = model()
    earlier: dict[str, Any] = {
        **fair.state_dict(),
        "_extra_state": {"stream": stream},
        "projection._extra_state": words,
    }
    with pytest.raises(errors.CheckpointError, match=r"is a dict, as an earlier version.*strict=False.*fit_categories"):
        fair.load_state_dict(earlier)
    # the remedy that the message names
    fair.load_state_dict({k: v for k, v in earlier.items() if not k.endswith("_extra_state")}, strict=False)
    fair.fit_categories(FEATURES)
    fair.inference_state.load_state_dict(earlier["_extra_state"]["stream"])
    assert fair.inference_state.samples == 12

    file = io.BytesIO()
    torch.save(words, file)
    octets = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
    with pytest.raises(errors.CheckpointError, match="written by states_as_tensors of an earlier version"):
        fair.projection.set_extra_state(octets)


@pytest.mark.parametrize("name", SUBJECTS)
def test_dicts_are_refused_by_every_module(name: str) -> None:
    for module in SUBJECTS[name].build().modules():
        if "set_extra_state" in dir(type(module)) and type(module).set_extra_state is not nn.Module.set_extra_state:
            with pytest.raises(errors.CheckpointError, match="as an earlier version of fairlayer wrote it"):
                module.set_extra_state({"faces": []})


def test_the_state_of_another_kind_of_module_is_named() -> None:
    with pytest.raises(
        errors.CheckpointError, match="'vocabulary' was asked for, but this tensor holds one of kind 'sh"
    ):
        fl.FairProjection([PARITY]).set_extra_state(to_tensor("shifts", {}))


def test_pretrained_weights_without_a_layer_load_into_a_model_with_one(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")

    class Config(transformers.PretrainedConfig):  # type: ignore[name-defined,misc]
        model_type = "plain"

    class Plain(transformers.PreTrainedModel):  # type: ignore[name-defined,misc]
        config_class = Config

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.net = net()
            self.post_init()

    class Layered(Plain):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.fair = fl.FairProjection([PARITY], bounds=(0.0, 1.0))
            self.post_init()

    Plain(Config()).save_pretrained(tmp_path)
    layered = Layered.from_pretrained(tmp_path)
    assert not layered.fair.vocabulary.categories
    layered.fair(layered.net(X), sensitive_features=FEATURES)
    again = Layered(Config())
    again.load_state_dict(layered.state_dict())
    assert again.fair.vocabulary.categories == {"sex": ("F", "M")}


# ---- distributed checkpoints of a state that has outgrown the room


def test_a_state_that_has_outgrown_its_room_loads_into_tensors_of_the_saved_size(tmp_path: Path) -> None:
    from torch.distributed import checkpoint

    many = [f"municipality number {i:05d}" for i in range(2000)]
    old, new = fl.FairProjection([PARITY]), fl.FairProjection([PARITY])
    old.fit_categories({"sex": many})
    assert len(old.state_dict()["_extra_state"]) > len(new.state_dict()["_extra_state"])
    checkpoint.save(old.state_dict(), checkpoint_id=tmp_path, no_dist=True)
    with pytest.raises((ValueError, checkpoint.CheckpointException), match=r"Size mismatch.*_extra_state"):
        checkpoint.load(new.state_dict(), checkpoint_id=tmp_path, no_dist=True)
    saved = checkpoint.FileSystemReader(tmp_path).read_metadata().state_dict_metadata
    state = {name: torch.empty(saved[name].size, dtype=value.dtype) for name, value in new.state_dict().items()}
    checkpoint.load(state, checkpoint_id=tmp_path, no_dist=True)
    new.load_state_dict(state)
    assert new.vocabulary == old.vocabulary
    plain = fl.FairProjection([PARITY])
    plain.load_state_dict(old.state_dict())
    assert plain.vocabulary == old.vocabulary


# ---- exporters


class WithCells(nn.Module):
    def __init__(self, fixed: nn.Module) -> None:
        super().__init__()
        self.fixed = fixed

    def forward(self, x: Tensor, cells: Tensor) -> Tensor:
        moved: Tensor = self.fixed(x, cells=cells)
        return moved


def exported(module: nn.Module, *inputs: Tensor) -> list[Any]:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    file = io.BytesIO()
    torch.onnx.export(module, inputs, file, dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    found: list[Any] = session.run(None, {name: given.numpy() for name, given in zip(names, inputs, strict=True)})
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_older_onnx_exporter_takes_what_has_no_layer_and_names_the_layer() -> None:
    fair = learnt("model")
    [plain] = exported(fair.without_layer(), X)  # type: ignore[operator]
    np.testing.assert_allclose(plain, fair.raw_scores(X).detach(), atol=1e-6)  # type: ignore[operator]
    fixed = learnt("amortised")
    cells = fixed.encode(FEATURES)  # type: ignore[operator]
    [moved] = exported(WithCells(fixed.eval()), X, cells)
    np.testing.assert_allclose(moved, fixed(X, cells=cells).detach(), atol=1e-6)

    class Called(nn.Module):
        def __init__(self, inside: nn.Module, **options: Any) -> None:
            super().__init__()
            self.inside, self.options = inside, options

        def forward(self, scores: Tensor, sex: Tensor) -> Tensor:
            moved: Tensor = self.inside(scores, sensitive_features={"sex": sex}, **self.options)
            return moved

    layer, served = fl.FairProjection([PARITY]), fl.FairModel(net(), [PARITY], bounds=(0.0, 1.0)).eval()
    sex = torch.arange(12) % 2
    for inside, given in ((layer, X[:, 0]), (served, X)):
        with pytest.raises(errors.TracingError, match=r"dynamo=False.*Export model.amortised\(loader\)"):
            torch.onnx.export(Called(inside), (given, sex), io.BytesIO(), dynamo=False)
    with pytest.raises(errors.TracingError, match=r"torch.jit.trace.*cannot record"):
        torch.jit.trace(Called(served, inference=True), (X, sex))


# ---- states_as_tensors, and the scripts that users sent


def test_states_as_tensors_does_nothing() -> None:
    module = Mine()
    assert states_as_tensors(module) is module
    assert not module._state_dict_hooks
    assert not module._load_state_dict_pre_hooks


TRANSFORMERS = """
import tempfile
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
import fairlayer as fl
from fairlayer.integrations.huggingface import states_as_tensors

class Config(PretrainedConfig):
    model_type = "tiny"

class Model(PreTrainedModel):
    config_class = Config
    def __init__(self, config):
        super().__init__(config)
        self.head = nn.Linear(3, 1)
        self.layer = fl.FairProjection([fl.DemographicParity("sex", 0.02)], bounds=(0, 1))
        self.post_init()
        states_as_tensors(self)
    def forward(self, x, sex):
        return self.layer(torch.sigmoid(self.head(x)), sensitive_features={"sex": sex})

model = Model(Config())
model(torch.rand(4, 3), ["F", "M", "F", "M"])
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    again = Model.from_pretrained(folder)
assert again.layer.vocabulary.categories == {"sex": ("F", "M")}
"""

ACCELERATE = """
import tempfile
import torch
from accelerate import Accelerator
import fairlayer as fl
from fairlayer.integrations.huggingface import states_as_tensors

accelerator = Accelerator(cpu=True)
net = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Sigmoid())
model = states_as_tensors(fl.FairModel(net, [fl.DemographicParity("sex", 0.02)], bounds=(0, 1)))
model = accelerator.prepare(model)
model(torch.randn(4, 3), sensitive_features={"sex": ["F", "M", "F", "M"]})
with tempfile.TemporaryDirectory() as folder:
    accelerator.save_state(folder)
    model.projection.vocabulary = type(model.projection.vocabulary)()
    accelerator.load_state(folder)
assert model.projection.vocabulary.categories == {"sex": ("F", "M")}
"""


@pytest.mark.parametrize(("library", "script"), [("transformers", TRANSFORMERS), ("accelerate", ACCELERATE)])
def test_scripts_as_users_write_them(library: str, script: str) -> None:
    pytest.importorskip(library)
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_another_tolerance_than_that_of_the_checkpoint_is_told_and_kept() -> None:
    def model(tolerance: Any) -> fl.FairModel:
        return fl.FairModel(net(), [fl.DemographicParity("sex", tolerance), fl.MinimumRate("sex", 0.1)], bounds=(0, 1))

    saved = model(0.02)
    saved(X, sensitive_features=FEATURES)
    other = model(0.5)
    with pytest.warns(errors.FairlayerWarning, match=r"DemographicParity\('sex'\) at 0.02, but this layer has 0.5"):
        other.load_state_dict(saved.state_dict())
    assert other.constraints[0].limit == 0.5
    assert other.projection.vocabulary.categories["sex"] == ("F", "M")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(0.02).load_state_dict(saved.state_dict())
        model(nn.Parameter(torch.tensor(0.3))).load_state_dict(saved.state_dict())
        copy.deepcopy(saved).load_state_dict(saved.state_dict())
