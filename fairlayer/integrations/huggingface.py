"""Layers inside Hugging Face models: their states as tensors, which is all that safetensors keeps."""

from __future__ import annotations

import io
from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["states_as_tensors"]

_NAME = "_extra_state"  # torch's name for what is no parameter and no buffer


def states_as_tensors(model: nn.Module) -> nn.Module:
    """Let a model's `state_dict` hold the categories and streams of its layers as bytes in tensors; return the model.

    `transformers.Trainer` saves checkpoints with safetensors, which takes tensors only and refuses anything else.
    Checkpoints without bytes (saved before) load as well.

    Example:
        >>> import torch, fairlayer as fl
        >>> net = torch.nn.Linear(3, 1)
        >>> model = states_as_tensors(fl.FairModel(net, [fl.DemographicParity("sex", 0.1)]))
        >>> scores = model(torch.rand(4, 3), sensitive_features={"sex": ["F", "M", "F", "M"]})
        >>> all(isinstance(value, torch.Tensor) for value in model.state_dict().values())
        True
        >>> again = states_as_tensors(fl.FairModel(torch.nn.Linear(3, 1), [fl.DemographicParity("sex", 0.1)]))
        >>> again.load_state_dict(model.state_dict())
        <All keys matched successfully>
        >>> again.projection.vocabulary.categories["sex"]
        ('F', 'M')
    """
    model.register_state_dict_post_hook(_encode)  # type: ignore[no-untyped-call]
    model.register_load_state_dict_pre_hook(_decode)  # type: ignore[no-untyped-call]
    return model


def _encode(module: nn.Module, state: MutableMapping[str, Any], *rest: Any) -> None:
    for name, value in state.items():
        if name.endswith(_NAME) and not isinstance(value, Tensor):
            file = io.BytesIO()
            torch.save(value, file)
            state[name] = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def _decode(module: nn.Module, state: MutableMapping[str, Any], *rest: Any) -> None:
    for name, value in state.items():
        if name.endswith(_NAME) and isinstance(value, Tensor):
            file = io.BytesIO(value.cpu().numpy().tobytes())
            state[name] = torch.load(file, weights_only=True)
