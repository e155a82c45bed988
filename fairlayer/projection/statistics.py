"""B and its transpose as torch operations that autograd and torch.func can follow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fairlayer.passes import Cells

__all__ = ["TorchStatistics"]


class TorchStatistics:
    """The statistics of a batch, in torch, without the tricks of the passes.

    Args:
        cells: the statistics.
        device: where the batch is.
        total: a function from sums over the samples here to sums over those of all processes.
    """

    def __init__(self, cells: Cells, device: torch.device, total: Callable[[Tensor], Tensor]) -> None:
        self.total, self.classes = total, cells.classes
        self.codes = None if cells.codes is None else torch.from_numpy(cells.codes).to(device)
        self.counts = torch.from_numpy(cells.counts).to(device)
        self.dense = None if cells.dense is None else torch.from_numpy(np.asarray(cells.dense)).to(device)
        self.dense_class = None if cells.dense_class is None else torch.from_numpy(cells.dense_class).to(device)
        self.weights = None if cells.weights is None else torch.from_numpy(cells.weights).to(device)

    def weighted(self, value: Tensor) -> Tensor:
        """Return each sample's numbers times its weight."""
        if self.weights is None:
            return value
        return value * (self.weights if value.ndim == 1 else self.weights[:, None])

    def measure(self, value: Tensor, *, weighted: bool = True) -> Tensor:
        """Return B y of values (n,) or (n, k); not `weighted`: of one sample per row."""
        whole = self.weighted(value) if weighted else value
        parts = []
        if self.codes is not None:
            sums = torch.zeros((len(self.counts) + 1, *whole.shape[1:]), dtype=whole.dtype, device=whole.device)
            means = sums.index_add(0, self.codes, whole)[:-1]
            means = (means if means.ndim == 1 else means.T) / self.counts
            parts.append(means.reshape(-1))
        if self.dense is not None:
            rows = whole if self.dense_class is None else whole.index_select(1, self.dense_class).T
            parts.append(self.dense @ rows if self.dense_class is None else (self.dense * rows).sum(dim=1))
        return self.total(parts[0] if len(parts) == 1 else torch.cat(parts))

    def pull(self, nu: Tensor) -> Tensor:
        """Return B~' nu, of shape (n,) or (n, k)."""
        k, m = self.classes, len(self.counts)
        prices, dense = nu[: k * m], nu[k * m :]
        pull = None
        if self.codes is not None:
            table = torch.nn.functional.pad(prices.reshape(k, m) / self.counts, (0, 1)).T
            pull = table.index_select(0, self.codes)
            pull = pull if self.dense_class is not None or k > 1 else pull[:, 0]
        if self.dense is None:
            assert pull is not None
            return pull
        if self.dense_class is None:
            return dense @ self.dense if pull is None else pull + dense @ self.dense
        place = torch.nn.functional.one_hot(self.dense_class, k).to(nu.dtype)  # (d, k)
        rows = (self.dense * dense[:, None]).T @ place
        return rows if pull is None else pull + rows
