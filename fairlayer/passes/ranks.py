"""Passes over a batch of which each process of a group holds a part.

Cells count the samples of all processes, so what one process measures is its share of the means, and the shares add
up: one exchange of s and K per pass.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from fairlayer._typing import FloatArray
from fairlayer.collective import Ranks
from fairlayer.passes.base import WHOLE, Passes, Point, WholeBatch

__all__ = ["RankPasses"]


class RankPasses:
    """Passes over the parts of all processes.

    Args:
        here: passes over the part of this process, in cells that count the samples of all.
        ranks: the processes.
    """

    def __init__(self, here: Passes, ranks: Ranks) -> None:
        self.here, self.ranks = here, ranks
        self.scores, self.cells, self.geometry = here.scores, here.cells, here.geometry
        self.lower, self.upper = here.lower, here.upper
        self.parts, self.least_floor = ranks.size, here.least_floor
        self._counts, self._sizes = ranks.gather(np.array([here.n, here.size]), "size of the batch").T

    def at(self, nu: FloatArray | None) -> Point:
        """See `Passes.at`; K comes with it in the same exchange."""
        part = self.here.at(nu)
        metric = part.curvature
        split = len(part.statistics)
        subject = f"pass at {0 if nu is None else zlib.crc32(nu.tobytes())}"
        whole = self.ranks.total(np.append(part.statistics, metric), subject)
        curvature = whole[split:].reshape(metric.shape)
        return part.counted(whole[:split], lambda: curvature)

    @property
    def runs(self) -> Sequence[slice]:
        """See `Passes.runs`."""
        return self.here.runs

    def widest_metric(self) -> FloatArray:
        """See `Passes.widest_metric`."""
        return self._widest

    def forget(self) -> None:
        """See `Passes.forget`."""
        self.here.forget()

    def pull(self, nu: FloatArray, run: slice = WHOLE) -> Any:
        """See `Passes.pull`."""
        return self.here.pull(nu, run)

    def measure(self, value: Any, *, weighted: bool = True) -> FloatArray:
        """See `Passes.measure`."""
        return self.together(self.here.measure(value, weighted=weighted))

    def sums(self, value: Any, run: slice, *, weighted: bool = True) -> FloatArray:
        """See `Passes.sums`."""
        return self.here.sums(value, run, weighted=weighted)

    def together(self, statistics: FloatArray) -> FloatArray:
        """See `Passes.together`."""
        return self.ranks.total(statistics, "statistics")

    def whole_batch(self) -> WholeBatch:
        """See `Passes.whole_batch`; every process gets the parts of all."""
        return WholeBatch.joined(self.ranks.objects(self.here.whole_batch(), "samples of an infeasible batch"))

    def magnitudes(self, point: Point) -> FloatArray:
        """See `Passes.magnitudes`."""
        return self.ranks.total(self.here.magnitudes(point), "magnitudes")

    def lowest(self, nus: FloatArray) -> FloatArray:
        """See `Passes.lowest`."""
        return self.ranks.total(self.here.lowest(nus), "lowest statistics")

    def total(self, sums: torch.Tensor) -> torch.Tensor:
        """See `Passes.total`."""
        whole: torch.Tensor = _Total.apply(sums, self.ranks)  # type: ignore[no-untyped-call]
        return whole

    @property
    def n(self) -> int:
        """See `Passes.n`."""
        return int(self._counts.sum())

    @property
    def size(self) -> float:
        """See `Passes.size`."""
        return float(self._sizes.max())

    def export(self, point: Point, dtype: torch.dtype) -> torch.Tensor:
        """See `Passes.export`."""
        return self.here.export(point, dtype)

    def as_tensor(self, array: Any) -> torch.Tensor:
        """See `Passes.as_tensor`."""
        return self.here.as_tensor(array)

    def from_tensor(self, tensor: torch.Tensor) -> Any:
        """See `Passes.from_tensor`."""
        return self.here.from_tensor(tensor)

    @cached_property
    def _widest(self) -> FloatArray:
        return self.ranks.total(self.here.widest_metric(), "metric of all samples")


class _Total(torch.autograd.Function):
    """The sum over processes. Each process's loss counts, so that upstreams are summed in their turn."""

    @staticmethod
    def forward(ctx: Any, sums: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        ctx.ranks = ranks
        return torch.from_numpy(ranks.total(sums.detach().cpu().numpy(), "sums")).to(sums.device)

    @staticmethod
    def backward(ctx: Any, *upstreams: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _Total.apply(upstreams[0], ctx.ranks), None  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> torch.Tensor:
        whole: torch.Tensor = _Total.apply(tangents[0], ctx.ranks)  # type: ignore[no-untyped-call]
        return whole
