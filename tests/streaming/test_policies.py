"""Policies are objects: the machine knows none of their classes, and a user's own works everywhere."""

from __future__ import annotations

import ast
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer import errors
from fairlayer.streaming import Answer, Policy, register_policy
from fairlayer.streaming.policies import policy_names
from tests.streaming.streams import lending, one, tensor

PARITY = fl.DemographicParity("sex", 0.02)
ROOM = Path(fl.__file__).parent / "streaming"


@register_policy
class Leaky(Policy):
    """Half of the pooled gap is closed at each call: a policy with a state of its own."""

    name = "leaky, of a test"
    geometries = None

    def begin(self) -> Any:
        return {"means": np.zeros(0), "calls": 0.0, "by name": {"first": 1.0}}

    def grow(self, state: Any, stream: Any) -> Any:
        new = len(stream.history.cells) - len(state["means"])
        return {**state, "means": np.append(state["means"], np.full(new, 0.5))}

    def answer(self, state: Any, stream: Any, cells: Any, raw: Any) -> Answer:
        emitted = np.clip(0.5 * raw + 0.5 * state["means"][cells], 0, 1)
        return Answer(emitted, raw, state={**state, "calls": state["calls"] + 1.0})

    def count(self, state: Any, stream: Any, cells: Any, raw: Any, emitted: Any) -> Any:
        means = state["means"].copy()
        np.add.at(means, cells, 0.05 * (emitted - means[cells]))
        return {**state, "means": means}


def test_a_policy_from_outside_streams_saves_and_reports() -> None:
    first, second = (fl.InferenceState([PARITY], bounds=(0.0, 1.0), policy=Leaky.name) for _ in range(2))
    scores, sex = lending(0, 300)
    for score, code in zip(scores, sex, strict=True):
        first.emit(one(score), {"sex": [int(code)]})
    first.emit(tensor(scores[:5]), {"sex": sex[:5].tolist()})
    assert first.samples == first.report().samples == 305
    assert first.state_dict()["machine"]["policy"]["calls"] == 301.0
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert float(second.emit(one(0.3), {"sex": [0]})) == float(first.emit(one(0.3), {"sex": [0]}))
    second.merge(first)
    assert second.samples == 612
    model = fl.FairModel(torch.nn.Identity(), [PARITY], bounds=(0.0, 1.0), policy=Leaky()).eval()
    model(one(0.3), sensitive_features={"sex": [0]}, inference=True)
    assert model.inference_state.samples == 1


def test_a_failing_policy_changes_nothing() -> None:
    class Failing(Policy):
        name = "failing"

        def answer(self, state: Any, stream: Any, cells: Any, raw: Any) -> Answer:
            raise RuntimeError("no answer")

    stream = fl.InferenceState([PARITY], bounds=(0.0, 1.0), policy=Failing())
    with pytest.raises(RuntimeError, match="no answer"):
        stream.emit(one(0.5), {"sex": [0]})
    assert stream.samples == 0
    assert stream.counts() == {}


def test_names_are_kept_apart() -> None:
    assert {"present", "tracking", "anytime", "per_batch", Leaky.name} <= set(policy_names())

    class Other(Policy):
        name = "present"

        def answer(self, state: Any, stream: Any, cells: Any, raw: Any) -> Answer:
            return Answer(raw, raw)

    with pytest.raises(errors.ConstraintDefinitionError, match="another policy"):
        register_policy(Other)
    with pytest.raises(errors.ConstraintDefinitionError, match="has no name"):
        register_policy(type("Nameless", (Policy,), {"answer": Other.answer}))
    with pytest.raises(errors.ConstraintDefinitionError, match="'present'"):
        fl.InferenceState([PARITY], policy="steady")
    with pytest.raises(errors.ConstraintDefinitionError, match="derived from Policy"):
        fl.InferenceState([PARITY], policy=object())  # type: ignore[arg-type]


@pytest.mark.parametrize("path", sorted(ROOM.rglob("*.py")), ids=lambda path: path.name)
def test_nobody_asks_for_the_class_of_a_policy(path: Path) -> None:
    """Where kinds of policies differ, they are asked: no `isinstance` names one."""
    kinds = {"Anytime", "Tracking", "PerBatch", "Present"}
    asked = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            asked += [each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name) and each.id in kinds]
    assert not asked
