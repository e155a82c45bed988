"""Two small modules: a multilayer perceptron, and a network that some columns of its input are kept from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from fairlayer._keywords import explained
from fairlayer.errors import ParameterError, ShapeError

__all__ = ["WithoutColumns", "mlp"]

Emits = Literal["probabilities", "logits", "numbers"]
_EMITS: tuple[Emits, ...] = ("probabilities", "logits", "numbers")


@explained
def mlp(
    in_features: int,
    hidden: Sequence[int] = (64, 32),
    *,
    out_features: int = 1,
    emits: Emits = "probabilities",
    dropout: float = 0.0,
) -> nn.Sequential:
    """Return a multilayer perceptron with ReLUs, ready to be a backbone: x (n, in_features) -> scores.

    Args:
        in_features: columns of x.
        hidden: width of each hidden layer; () for a linear model.
        out_features: scores per row; of one the output is (n,), of k it is (n, k).
        emits: "probabilities" ends in a sigmoid (of several scores, in a softmax), for the bounds (0, 1) or "simplex";
            "logits" for `from_logits=True`; "numbers" for a regression. The last two end in a linear layer.
        dropout: share of the hidden units that each training step leaves out.

    Raises:
        ParameterError: a width below 1, a share outside [0, 1), or something else to emit.

    Example:
        >>> import torch, fairlayer as fl
        >>> model = fl.FairModel(mlp(5, (16,)), fl.DemographicParity("sex", tolerance=0.02), bounds=(0.0, 1.0))
        >>> model(torch.randn(8, 5), sensitive_features=torch.arange(8) % 2).shape
        torch.Size([8])
    """
    sizes = (in_features, *hidden)
    if min(*sizes, out_features, 1) < 1 or not 0.0 <= dropout < 1.0 or emits not in _EMITS:
        raise ParameterError(
            f"mlp({in_features}, {tuple(hidden)}, out_features={out_features}, emits={emits!r}, dropout={dropout}): "
            f"widths are at least 1, dropout is in [0, 1), and emits is one of {', '.join(_EMITS)}."
        )
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
    layers.append(nn.Linear(sizes[-1], out_features))
    if out_features == 1:
        layers.append(nn.Flatten(0))
    if emits == "probabilities":
        layers.append(nn.Sigmoid() if out_features == 1 else nn.Softmax(dim=1))
    return nn.Sequential(*layers)


class WithoutColumns(nn.Module):
    """A module that is shown x (n, d) without some of its columns; further arguments go through.

    Example:
        >>> import torch
        >>> WithoutColumns(nn.Identity(), (0, -1))(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        tensor([[2., 3.]])
    """

    def __init__(self, inner: nn.Module, columns: Sequence[int]) -> None:
        super().__init__()
        self.inner, self.columns = inner, tuple(columns)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the module makes of the other columns.

        Raises:
            ShapeError: x is not a tensor (n, d) with these columns.
        """
        width = x.shape[1] if isinstance(x, Tensor) and x.ndim == 2 else 0
        if not all(-width <= i < width for i in self.columns):
            raise ShapeError(
                f"the columns {self.columns} of x are kept from the network, which needs a tensor (n, d) that has "
                f"them, but x is {tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__}."
            )
        hidden = {i % width for i in self.columns}
        return self.inner(x[:, [i for i in range(width) if i not in hidden]], *args, **kwargs)

    def extra_repr(self) -> str:
        """Show the columns."""
        return f"columns={self.columns}"
