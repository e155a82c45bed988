"""Sums over cells on a device: no host is asked, and no two neighbouring samples add to the same number.

Samples go in turn to so many lanes, each with a sum per cell, so that a device need not queue up its additions, and no
sum is of more numbers than its digits can hold. `torch.bincount` would ask the host for the largest code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Lanes"]

_MOST = 1_024
_TOGETHER = 65_536  # sums that all lanes have together, for many cells


class Lanes(NamedTuple):
    """Where each sample adds up.

    Args:
        slots: (n,), the place of each sample's sum among those of all lanes.
        lanes: number of lanes.
        cells: number of cells; a sample of code `cells` is in none.
    """

    slots: Tensor
    lanes: int
    cells: int

    @staticmethod
    def of(codes: Tensor, cells: int) -> Lanes:
        """Share samples with cells (n,), int64, out among lanes."""
        n = codes.numel()
        count = max(1, min(_MOST, _TOGETHER // (cells + 1), n // 64))
        slots = torch.arange(n, device=codes.device).remainder_(count).mul_(cells + 1).add_(codes)
        return Lanes(slots, count, cells)

    def sums(self, value: Tensor) -> Tensor:
        """Return the sum over each cell, (cells,), of values (n,)."""
        added = value.new_zeros(self.lanes * (self.cells + 1)).index_add_(0, self.slots, value)
        return added.reshape(self.lanes, self.cells + 1).sum(dim=0).narrow(0, 0, self.cells)
