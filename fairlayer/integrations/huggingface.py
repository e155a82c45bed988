"""A name from when the states of layers were not tensors."""

from __future__ import annotations

from torch import nn

from fairlayer._keywords import explain_public

__all__ = ["states_as_tensors"]


def states_as_tensors(model: nn.Module) -> nn.Module:
    """Return the model as it is: every `state_dict` holds tensors only; see `fairlayer.tensor_state`.

    Example:
        >>> import torch, fairlayer as fl
        >>> model = fl.FairModel(torch.nn.Linear(3, 1), [fl.DemographicParity("sex", 0.1)])
        >>> states_as_tensors(model) is model
        True
    """
    return model


explain_public(__name__)
