"""The backbone of a trained model as a plain module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fairlayer._typing import called_like
from fairlayer.errors import OutputError

__all__ = ["ScoresOf", "WithoutLayer", "as_scores"]


class WithoutLayer(nn.Module):
    """Scores cut off at the bounds, and no layer: no constraint is enforced, no group is read.

        forward(x) = clip(scores(x), lower, upper)        of log-odds: sigmoid or softmax first

    `FairModel.without_layer()` makes it. It is what the projection does where no constraint acts, so a backbone
    trained through the layer keeps what it has learnt; `remaining_gap` measures what is left.

    Args:
        scores: module whose output is scores, or has them as `.logits`.
        bounds: (lower, upper), each a number or None.
        squash: what makes predictions of the scores first: "none", "sigmoid" or "softmax" (over the last dimension).

    Example:
        >>> import torch, fairlayer as fl
        >>> net = torch.nn.Linear(3, 1)
        >>> model = fl.FairModel(net, [fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0))
        >>> plain = model.without_layer()
        >>> bool(((plain(torch.randn(64, 3)) >= 0) & (plain(torch.randn(64, 3)) <= 1)).all())
        True
    """

    def __init__(self, scores: nn.Module, bounds: tuple[float | None, float | None], *, squash: str = "none") -> None:
        super().__init__()
        self.scores = scores
        self.bounds = bounds
        self.squash = squash

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return predictions, of the shape of the scores."""
        scores = as_scores(self.scores(*args, **kwargs))
        if self.squash != "none":
            scores = torch.sigmoid(scores) if self.squash == "sigmoid" else torch.softmax(scores, dim=-1)
        low, high = self.bounds
        return scores if low is None and high is None else scores.clamp(low, high)

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

        __getattr__: None  # type: ignore[assignment, misc]  # an attribute that nobody defines is an error

    def extra_repr(self) -> str:
        """Show the bounds."""
        return f"bounds={self.bounds}"


class ScoresOf(nn.Module):
    """The method `scores` of a model as a module's forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return `model.scores(...)`."""
        return self.model.scores(*args, **kwargs)  # type: ignore[operator]


def as_scores(output: Any) -> Tensor:
    """Return a backbone's output as scores.

    Raises:
        OutputError: it is not a tensor and has no tensor `.logits`.
    """
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, torch.Tensor):
        return logits
    raise OutputError(
        f"the backbone returned {type(output).__name__}, but scores must be a tensor (n,), (n, 1) or (n, k), or have "
        "such `.logits`. Subclass FairModel and define scores(self, ...) to pick them."
    )
