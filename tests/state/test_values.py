"""Results and streams that are no modules, through the ways in which people keep them: pickle, copies, state_dict."""

from __future__ import annotations

import copy
import io
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pytest
import torch
from torch import Tensor

import fairlayer as fl
from fairlayer import errors
from fairlayer.decisions import DecisionRule, DecisionStream
from fairlayer.tensor_state import from_tensor, to_tensor

SCORES = torch.linspace(0.05, 0.95, 12, dtype=torch.float64)
SEX = ["F", "F", "M"] * 4
FEATURES = {"sex": SEX}
Y = (torch.arange(12) % 3 == 0).float()
PARITY = fl.DemographicParity("sex", tolerance=0.02)


def through_joblib(value: Any) -> Any:
    file = io.BytesIO()
    joblib.dump(value, file)
    return joblib.load(io.BytesIO(file.getvalue()))


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "deepcopy": copy.deepcopy,
    "joblib": through_joblib,
    "torch.save": lambda value: torch.load(saved(value), weights_only=False),
}
every_copy = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)


def saved(value: Any) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file)
    return io.BytesIO(file.getvalue())


# ---- results


PROJECTIONS: dict[str, Callable[[Tensor], fl.Projection]] = {
    "euclidean": lambda z: fl.project(z, PARITY, sensitive_features=FEATURES, bounds=(0.0, 1.0)),
    "entropic": lambda z: fl.project(z, PARITY, sensitive_features=FEATURES, geometry="entropic"),
    "logits": lambda z: fl.project(z, PARITY, sensitive_features=FEATURES, geometry="entropic", from_logits=True),
    "bins": lambda z: fl.project(z, fl.GroupCalibration("sex", 0.2), sensitive_features=FEATURES, y=Y),
    "widened": lambda z: fl.project(
        z,
        [fl.DemographicParity("sex", 0.0), fl.MinimumRate("sex", 0.99)],
        sensitive_features=FEATURES,
        bounds=(0.0, 0.5),
        on_infeasible="relax",
    ),
    "simplex": lambda z: fl.project(
        torch.stack([z, 1.0 - z], dim=1), PARITY, sensitive_features=FEATURES, bounds="simplex"
    ),
    "pairs": lambda z: fl.project(z, fl.LipschitzFairness(pairs=([0, 3], [11, 8], [0.1, 0.1]))),
}


def said(result: fl.Projection) -> list[Any]:
    prices = {name: price.tolist() for name, price in result.multipliers.items()}
    return [repr(result), result.value.tolist(), result.certificate.holds, result.shift.tolist(), prices, result.active]


@every_copy
@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_projection_is_kept_whole_but_for_its_graph(name: str, copied: Callable[[Any], Any]) -> None:
    scores = SCORES.clone().requires_grad_() * 1.0
    result, read_before = PROJECTIONS[name](scores), PROJECTIONS[name](scores)
    expected = said(read_before)
    for given in (result, read_before, result.detached()):  # before anything of it is read, and afterwards
        again = copied(given)
        assert said(again) == expected
        assert not again.value.requires_grad
    assert result.value.requires_grad


def test_a_result_of_the_reference_says_that_it_cannot_be_copied() -> None:
    pytest.importorskip("cvxpylayers")
    result = fl.project(SCORES, PARITY, sensitive_features=FEATURES, backend="cvxpylayers")
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(errors.BackendError, match=r'neither copied nor pickled.*backend="exact"'):
            copied(result)
    model = fl.FairProjection(PARITY, backend="cvxpylayers")
    model(SCORES, sensitive_features=FEATURES)
    assert torch.equal(copy.deepcopy(model)(SCORES, sensitive_features=FEATURES), result.value)


@every_copy
def test_decisions_rules_and_paths_are_kept(copied: Callable[[Any], Any]) -> None:
    decided = fl.decide(SCORES, PARITY, sensitive_features=FEATURES)
    path = fl.fairness_path(SCORES, PARITY, [0.0, 0.1], sensitive_features=FEATURES)
    for value in (decided, decided.rule, path):
        assert repr(copied(value)) == repr(value)
    assert copied(decided.rule) == decided.rule
    assert torch.equal(copied(decided).decisions, decided.decisions)


RULE = DecisionRule.fit(
    SCORES, fl.EqualizedOdds("sex", 0.0), sensitive_features=FEATURES, y=Y, randomised=True, sample_weight=Y + 1
)


def test_a_rule_travels_as_json() -> None:
    assert DecisionRule.from_dict(json.loads(json.dumps(RULE.to_dict()))) == RULE


def cell(**changed: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {**state, "cells": [{**state["cells"][0], **changed}, *state["cells"][1:]]}


@pytest.mark.parametrize(
    "bad",
    [
        lambda state: {},
        lambda state: {key: value for key, value in state.items() if key != "cells"},
        lambda state: {**state, "features": ["sex", "race"]},
        lambda state: {**state, "cells": [*state["cells"], state["cells"][0]]},
        lambda state: {**state, "cells": 3},
        cell(thresholds=[math.nan], weights=[1.0]),
        cell(thresholds=[0.4, 0.6], weights=[0.5, 0.5]),
        cell(thresholds=[0.5], weights=[]),
        cell(thresholds=[0.5], weights=[1.5]),
        cell(thresholds=[0.5], weights=[math.nan]),
        cell(thresholds=["half"], weights=[1.0]),
        cell(categories=[]),
        cell(count=None),
    ],
)
def test_what_is_no_rule_is_named(bad: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    with pytest.raises(errors.CheckpointError, match=r"not a rule as DecisionRule.to_dict\(\) writes it.*fit the rule"):
        DecisionRule.from_dict(bad(RULE.to_dict()))


# ---- a stream of decisions, half-way


POLICIES = ["anytime", "present", "tracking", "per_batch"]
every_policy = pytest.mark.parametrize("policy", POLICIES)


def stream(policy: str = "anytime", **options: Any) -> DecisionStream:
    rule = DecisionRule.fit(torch.linspace(0.0, 1.0, 600), PARITY, sensitive_features={"sex": SEX * 50})
    return DecisionStream(rule, PARITY, policy=policy, **options)


def answers(run: DecisionStream, start: int, stop: int) -> list[int]:
    scores, found = torch.rand(stop, generator=torch.Generator().manual_seed(3)), []
    for i in range(start, stop):
        found += run.decide(scores[i : i + 1] * (0.6 if i % 3 else 1.0), {"sex": [SEX[i % 12]]}).tolist()
    return found


def half_way(policy: str) -> DecisionStream:
    run = stream(policy)
    answers(run, 0, 80)
    return run


def through(way: str, old: DecisionStream, new: DecisionStream, folder: Path) -> DecisionStream:
    if way in COPIES:
        copied: DecisionStream = COPIES[way](old)
        return copied
    state: dict[str, Any] = old.state_dict()
    if way == "weights_only":
        state = torch.load(saved(state), weights_only=True)
    elif way == "safetensors":
        library = pytest.importorskip("safetensors.torch")
        library.save_file(state, folder / "a.safetensors")
        state = library.load_file(folder / "a.safetensors")
    elif way == "distributed":
        from torch.distributed import checkpoint

        checkpoint.save(state, checkpoint_id=folder, no_dist=True)
        state = new.state_dict()
        checkpoint.load(state, checkpoint_id=folder, no_dist=True)
    elif way == "accelerate":
        accelerator = pytest.importorskip("accelerate").Accelerator(cpu=True)
        accelerator.register_for_checkpointing(old)
        accelerator.save_state(str(folder))
        other = type(accelerator)(cpu=True)
        other.register_for_checkpointing(new)
        other.load_state(str(folder))
        return new
    new.load_state_dict(state)
    return new


@every_policy
@pytest.mark.parametrize("way", [*COPIES, "weights_only", "safetensors", "distributed", "accelerate"])
def test_a_stream_of_decisions_goes_on_alike(policy: str, way: str, tmp_path: Path) -> None:
    old = half_way(policy)
    new = through(way, old, stream(policy), tmp_path)
    assert (new.counts(), new.selected(), new.gaps()) == (old.counts(), old.selected(), old.gaps())
    following = answers(old, 80, 200)
    assert answers(new, 80, 200) == following
    assert 0 < sum(following) < 120
    assert (new.counts(), new.selected(), new.gaps()) == (old.counts(), old.selected(), old.gaps())


def test_a_fresh_stream_answers_otherwise() -> None:
    """Or the test above could not fail."""
    assert any(answers(stream(policy), 80, 200) != answers(half_way(policy), 80, 200) for policy in POLICIES)


@every_policy
def test_the_state_of_a_stream_of_decisions_is_one_tensor_of_one_size(policy: str) -> None:
    [state] = half_way(policy).state_dict().values()
    assert type(state) is Tensor
    assert state.shape == stream(policy).state_dict()["decision_stream"].shape


def altered(**changed: Any) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    def change(state: dict[str, Tensor]) -> dict[str, Tensor]:
        held = from_tensor("decision stream", state["decision_stream"])
        kept = {key: value for key, value in {**held, **changed}.items() if value is not None}
        return {"decision_stream": to_tensor("decision stream", kept)}

    return change


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        (lambda s: {}, errors.CheckpointError, "not the state of a DecisionStream: it holds"),
        (lambda s: {"count": 1, "left": {}}, errors.CheckpointError, "an earlier version wrote"),
        (lambda s: {"decision_stream": s["decision_stream"][:99]}, errors.CheckpointError, "checksum does not fit"),
        (lambda s: {"decision_stream": s["decision_stream"] * math.nan}, errors.CheckpointError, "checksum does not"),
        (altered(left=None), errors.CheckpointError, "KeyError.'left'"),
        (altered(stream=None), errors.CheckpointError, "KeyError.'stream'"),
        (altered(stream={"machine": 1}), errors.ParameterError, "not the state of a stream"),
        (altered(count=[1.0]), errors.CheckpointError, "counts of shapes"),
        (altered(count=[math.nan, 1.0]), errors.CheckpointError, "counts that are not numbers"),
        (altered(left={"x": math.nan}), errors.CheckpointError, "rests beyond half a person"),
        (altered(cells=["sex=X", "sex=M"]), errors.ConstraintDefinitionError, "has the cells .*X.*, but this one has"),
        (altered(constraints=["Other"]), errors.ConstraintDefinitionError, "has the constraints .*Other.*, but this"),
    ],
)
def test_a_bad_state_of_a_stream_is_named_and_changes_nothing(bad: Any, error: type[Exception], text: str) -> None:
    run = half_way("anytime")
    before = run.state_dict()["decision_stream"]
    with pytest.raises(error, match=text):
        run.load_state_dict(bad(half_way("per_batch").state_dict()))
    assert torch.equal(run.state_dict()["decision_stream"], before)
