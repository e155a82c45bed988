"""A trained model with fixed shifts in place of its layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fairlayer._typing import called_like
from fairlayer.constraints import Constraint
from fairlayer.distillation.errors import NoFixedShiftError
from fairlayer.distillation.shifts import AmortisedShifts
from fairlayer.distillation.without_layer import as_scores
from fairlayer.edge import feature_names
from fairlayer.errors import MissingSensitiveFeatureError
from fairlayer.tensor_state import check_states

__all__ = ["AmortisedModel", "single_feature"]


class AmortisedModel(nn.Module):
    """A backbone and fixed shifts: no layer at inference, and with a proxy no group either.

        forward(x, cells=c) = clip(scores(x) + shift[c], lower, upper)
        forward(x)          = clip(scores(x) + sum_g proxy(x)[g] * shift[g], lower, upper)        with a proxy

    `FairModel.amortised(loader)` makes it.

    Args:
        scores: module whose output is scores, or has them as `.logits`.
        shifts: the fixed shifts.
        proxy: module from the same input to the probability of each group (n, groups), for shifts on one feature.

    Example:
        >>> import torch, fairlayer as fl
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Sigmoid())
        >>> model = fl.FairModel(net, [fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0))
        >>> x, sex = torch.randn(64, 3), ["F", "M"] * 32
        >>> fixed = model.amortised([(x, {"sex": sex})])
        >>> layered = model(x, sensitive_features={"sex": sex})
        >>> bool(torch.allclose(fixed(x, cells=fixed.encode({"sex": sex})), layered, atol=1e-6))
        True
    """

    def __init__(self, scores: nn.Module, shifts: AmortisedShifts, proxy: nn.Module | None = None) -> None:
        super().__init__()
        self.scores = scores
        self.shifts = shifts
        self.proxy = proxy

    def encode(self, sensitive_features: Any) -> Tensor:
        """Return the cell of each sample; see `AmortisedShifts.encode`."""
        return self.shifts.encode(sensitive_features)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        check_states(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(
        self, *args: Any, cells: Tensor | None = None, label_probabilities: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """Return predictions, of the shape of the scores.

        Args:
            *args: passed to the backbone, and to the proxy.
            cells: what `encode` returns; not with a proxy.
            label_probabilities: estimates of the labels where the shifts depend on them; the raw scores, cut off at
                the bounds, where none are given.
            **kwargs: passed to the backbone, and to the proxy.

        Raises:
            MissingSensitiveFeatureError: neither cells nor a proxy.
        """
        scores = as_scores(self.scores(*args, **kwargs))
        if self.shifts.by_label and label_probabilities is None:
            label_probabilities = scores.clamp(self.shifts.lower.to(scores.dtype), self.shifts.upper.to(scores.dtype))
        if self.proxy is not None:
            cells = _with_unknown(self.proxy(*args, **kwargs))
        if cells is None:
            raise MissingSensitiveFeatureError(
                "these shifts need the groups: pass cells=model.encode(sensitive_features), or make the model with a "
                "proxy (FairModel.amortised(loader, proxy=...))."
            )
        shifted: Tensor = self.shifts(scores, cells, label_probabilities)
        return shifted

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

        __getattr__: None  # type: ignore[assignment, misc]  # an attribute that nobody defines is an error


def single_feature(constraints: Sequence[Constraint]) -> str:
    """Return the one feature of constraints that a proxy can serve.

    Raises:
        NoFixedShiftError: there is not exactly one.
    """
    names = feature_names(constraints)
    if len(names) != 1:
        raise NoFixedShiftError(
            f"a proxy stands for one sensitive feature, but these constraints read {list(names)}. Give the groups, or "
            "join the features into one column."
        )
    return names[0]


def _with_unknown(membership: Tensor) -> Tensor:
    """Return probabilities of cells: those of the groups, and 0 for "unknown"."""
    return torch.cat([membership, membership.new_zeros(membership.shape[0], 1)], dim=1)
