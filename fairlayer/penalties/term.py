"""What a training loop asks of a penalty."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fairlayer.constraints import Constraint
from fairlayer.tensor_state import check_states

__all__ = ["LossTerm"]


class LossTerm(nn.Module, ABC):
    """A term of the loss that looks at sensitive features; every penalty of this package is one.

        loss = task loss + weight * term(scores, sensitive_features=..., y=...)

    A loop calls `fit_categories` once before training, the term itself in each step, and `after_step` once after each
    step of the optimiser. A penalty of one's own defines `forward`, and of the others what it needs.

    Example:
        >>> import torch
        >>> class Highest(LossTerm):
        ...     def forward(self, scores, *, sensitive_features=None, y=None):
        ...         return scores.max()
        >>> Highest()(torch.tensor([0.2, 0.9]))
        tensor(0.9000)
    """

    __call__: Callable[..., Tensor]
    if TYPE_CHECKING:
        __getattr__: None  # type: ignore[assignment, misc]  # an attribute that nobody defines is an error

    @abstractmethod
    def forward(self, scores: Tensor, *, sensitive_features: Any = None, y: Any = None) -> Tensor:
        """Return the term of a batch, 0-d."""

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """The constraints whose tolerances a schedule may change; a term without tolerances has none."""
        return ()

    def fit_categories(self, sensitive_features: Any) -> None:
        """Learn the categories of the training data; a term that keeps no categories only checks its columns."""

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        check_states(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def after_step(self) -> None:
        """Do what is due after a step of the optimiser; a term without multipliers has nothing to do."""
