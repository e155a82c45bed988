"""A machine as tensors and plain containers, and back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fairlayer.errors import ConstraintDefinitionError, FairlayerError, ParameterError
from fairlayer.groups import Vocabulary
from fairlayer.streaming.changing import begin_transition
from fairlayer.streaming.labels.pending import Pending
from fairlayer.streaming.machine import Machine
from fairlayer.streaming.setting import Setting
from fairlayer.streaming.transition import Event, Transition, limits_of

__all__ = ["load_stream", "loaded", "machine_state"]


def machine_state(machine: Machine) -> dict[str, Any]:
    """Return tensors and plain containers, loadable with `weights_only=True`."""
    machine.history.flush()
    return {
        "history": machine.history.to_state(),
        "policy": {name: _saved(value) for name, value in machine.own.items()},
        "windows": machine.windows.to_state(),
        "rule": machine.rule.to_state(),
        "vocabulary": machine.vocabulary.to_state(),
        "features": list(machine.features),
        "limits": limits_of(machine.constraints),
        "policy_name": machine.policy.name,
        "transition": None if machine.transition is None else list(machine.transition),
        "events": [list(event) for event in machine.events],
        "lost_labels": machine.lost_labels,
    }


def _load(machine: Machine, state: Mapping[str, Any]) -> None:
    """Restore what `machine_state` returned; limits that have changed since are reached by a transition."""
    if tuple(state["features"]) != machine.features:
        raise ConstraintDefinitionError(
            f"the saved stream is over the features {state['features']}, but this model's constraints read "
            f"{list(machine.features)}. Load it into a model with the same constraints, then change them with "
            "change_constraints(...)."
        )
    machine.history.load_state(state["history"])
    machine.rule.load_state(state["rule"])
    machine.vocabulary = Vocabulary.from_state(state["vocabulary"])
    machine.windows.load_state(state["windows"])
    machine.forget_derived()
    saved = {name: _array(value) for name, value in state["policy"].items()}
    if state["policy_name"] == machine.policy.name:
        machine.own = machine.policy.loaded(saved, machine)
    else:
        machine.own = machine.policy.grow(machine.policy.begin(), machine)
    machine.transition = None if state["transition"] is None else Transition(*state["transition"])
    machine.events = [Event(*event) for event in state["events"]]
    machine.lost_labels = int(state["lost_labels"])
    begin_transition(machine, state["limits"])


def load_stream(setting: Setting, state: Mapping[str, Any]) -> tuple[Machine, Pending]:
    """Return a new machine, and what waits for labels, of what `InferenceState.state_dict` returned.

    Raises:
        ConstraintDefinitionError: it belongs to other features.
        ParameterError: it is no such state, or one of another version.
    """
    pending = Pending()
    try:
        machine = loaded(setting, state["machine"])
        pending.load_state(state["pending"])
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, FairlayerError):
            raise
        raise ParameterError(
            f"this is not the state of a stream, or one that another version wrote ({error!r}). Pass what "
            "state_dict() returned, or begin anew."
        ) from error
    return machine, pending


def loaded(setting: Setting, state: Mapping[str, Any]) -> Machine:
    """Return a new machine with what `machine_state` returned."""
    machine = Machine(setting)
    _load(machine, state)
    return machine


def _saved(value: Any) -> Any:
    """Return an array as a tensor, and lists and dicts of numbers as copies."""
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else copy.deepcopy(value)


def _array(value: Any) -> Any:
    return value.cpu().numpy().copy() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
