"""Gradient reversal: the identity forwards, minus strength times the gradient backwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from fairlayer._typing import called_like
from fairlayer.tensor_state import moved, read_tensor, to_tensor

__all__ = ["GradientReversal", "gradient_reversal"]


def gradient_reversal(x: Tensor, strength: Tensor | float) -> Tensor:
    """Return x, and reverse the gradient on its way back.

        forward: x        backward: -strength * gradient

    Args:
        x: finite, any shape.
        strength: a number, or a 0-d tensor; takes no gradient itself.

    The factor -strength is the derivative in every mode: forward mode has it too, and a second backward pass once more.

    Source: Ganin and Lempitsky (2015), section 3.2; Ganin et al. (2016).

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> gradient_reversal(x, 0.5).sum().backward()
        >>> x.grad
        tensor([-0.5000, -0.5000])
    """
    if isinstance(strength, Tensor):
        strength = strength.detach().to(device=x.device, dtype=x.dtype)
    # x - x.detach() is exactly 0 and has derivative 1; unlike an autograd.Function with a forward mode, it compiles.
    constant = x.detach()
    return constant - strength * (x - constant)


class GradientReversal(nn.Module):
    """`gradient_reversal` as a layer, whose strength travels in the `state_dict`.

    Args:
        strength: the factor; set it anew with `set_strength`.

    Example:
        >>> import torch
        >>> layer = GradientReversal(strength=2.0)
        >>> layer(torch.ones(3)).tolist(), float(layer.strength)
        ([1.0, 1.0, 1.0], 2.0)
    """

    strength: Tensor

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = torch.tensor(float(strength), device="cpu")

    def set_strength(self, strength: float) -> None:
        """Use another strength from now on; graphs built before keep the old one."""
        self.strength = torch.full_like(self.strength, strength)

    def forward(self, x: Tensor) -> Tensor:
        """Return x, with the gradient reversed."""
        return gradient_reversal(x, self.strength)

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

        __getattr__: None  # type: ignore[assignment, misc]  # an attribute that nobody defines is an error

    def get_extra_state(self) -> Tensor:
        """Return the strength as a tensor; see `fairlayer.tensor_state`."""
        return to_tensor("strength", {"strength": float(self.strength)})

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the strength.

        Raises:
            CheckpointError: it is no such tensor, or was changed; the strength is as before.
        """
        self.set_strength(self._read_state(state))

    def _read_state(self, state: Tensor) -> float:
        return read_tensor("strength", state, lambda saved: float(saved["strength"]))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.strength = moved(self.strength, fn)
        return self

    def extra_repr(self) -> str:
        """Show the strength."""
        return f"strength={float(self.strength):g}"
