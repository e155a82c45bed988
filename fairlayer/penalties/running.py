"""Running means of what a penalty bounds, so that its size is not made of the noise of small cells.

The square of a measured gap d is too large by the variance of d, which in a cell of a dozen rows is most of it, and a
penalty that pays for noise ends with constant predictions. The gradient of f(v) is J_f(v) dv: its first factor is taken
from the running means of earlier batches, its second from this batch,

    M_i = S_i / N_i        S_i <- kept_i S_i + n_i v_i        N_i <- kept_i N_i + n_i         (after use)
    penalty = f(M),        gradient = sum_i f'_i(M) dv_i      kept_i = min(decay, 128 / N_i)

with v_i the members of a statement (group means, as a rule) and n_i the samples behind each. The noise of M and that of
dv are independent, so that on average nothing but the gap pulls, up to the lag.

A lag makes a gap swing: the penalty still pulls when the gap has passed zero. So M looks back no further than it has
to: over at most 128 samples of earlier batches, of which the mean is hardly noise, and 1 / (1 - decay) batches. A
member with 128 samples in this batch, or without a past, is its own M.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fairlayer._arrays import host_float64, outside_transforms, plain_tensor
from fairlayer._typing import FloatArray
from fairlayer.penalties.means import Bounded
from fairlayer.tensor_state import PAGE, read_tensor, to_tensor

__all__ = ["RunningMeans"]

_ROOM = 4 * PAGE
ENOUGH = 128.0  # samples of which the mean is hardly noise


class RunningMeans(nn.Module):
    """The running mean of each member of each statement.

    Args:
        decay: what a batch's weight is multiplied by with each further batch.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}

    def loss(
        self, keys: Sequence[str], measured: Sequence[Bounded], norm: Callable[[Sequence[Bounded]], list[Tensor]]
    ) -> list[Tensor]:
        """Return the norm of the running means, whose gradient goes through this batch; then count the batch.

        Args:
            keys: a name for each statement, the same in every batch.
            measured: the statements with the values of this batch.
            norm: a function from statements with values to parts of a loss.
        """
        with outside_transforms():
            here = [host_float64(plain_tensor(m.values)) for m in measured]
            before = [self._before(key, m, values) for key, m, values in zip(keys, measured, here, strict=True)]
            with torch.enable_grad():
                means = [
                    torch.tensor(b, dtype=m.values.dtype, device=m.values.device, requires_grad=True)
                    for b, m in zip(before, measured, strict=True)
                ]
                parts = norm([m._replace(values=mean) for m, mean in zip(measured, means, strict=True)])
                total = sum(part.sum() for part in parts)
                slopes = (
                    torch.autograd.grad(total, means, allow_unused=True, retain_graph=True)
                    if isinstance(total, Tensor) and total.requires_grad
                    else [None] * len(means)
                )
            for key, m, values in zip(keys, measured, here, strict=True):
                self._count(key, m, values)
        found = list(parts)  # with the graph of tolerances that take a gradient
        for slope, m in zip(slopes, measured, strict=True):
            if slope is not None:
                at = torch.as_tensor(m.present, device=m.values.device)
                pull = (slope * torch.where(at, m.values, 0.0)).sum()
                found.append(pull - pull.detach())
        return found

    def _before(self, key: str, measured: Bounded, values: FloatArray) -> FloatArray:
        behind = _samples_behind(measured)
        return np.array(
            [
                self._sums[name] / self._weights[name] if n < ENOUGH and self._weights.get(name, 0.0) > 0 else value
                for name, value, n in zip(_names(key, measured), values.tolist(), behind.tolist(), strict=True)
            ]
        )

    def _count(self, key: str, measured: Bounded, values: FloatArray) -> None:
        weights = _samples_behind(measured)
        for name, value, weight in zip(_names(key, measured), values.tolist(), weights.tolist(), strict=True):
            added = weight * value if weight > 0 else 0.0  # a member of nobody has no value
            before = self._weights.get(name, 0.0)
            kept = min(self.decay, ENOUGH / before) if before > 0 else 0.0
            self._sums[name] = kept * self._sums.get(name, 0.0) + added
            self._weights[name] = kept * before + weight

    def get_extra_state(self) -> Tensor:
        """Return the running sums as one tensor; see `fairlayer.tensor_state`."""
        return to_tensor("running means", {"sums": self._sums, "weights": self._weights}, room=_ROOM)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the running sums.

        Raises:
            CheckpointError: it is no such tensor, or was changed; the sums are as before.
        """
        self._sums, self._weights = self._read_state(state)

    def _read_state(self, state: Tensor) -> tuple[dict[str, float], dict[str, float]]:
        return read_tensor("running means", state, lambda s: (dict(s["sums"]), dict(s["weights"])))


def _names(key: Hashable, measured: Bounded) -> list[str]:
    return [f"{key}: {name}" for name in measured.statement.names]


def _samples_behind(measured: Bounded) -> FloatArray:
    """Return the samples that each member reads; 0 where it says nothing."""
    statement = measured.statement
    read = (np.asarray(statement.matrix) != 0) @ statement.means.counts
    return np.where(measured.present, read, 0.0)
