"""The solution of several problems as a function of their scores, which torch follows.

At the multipliers that were found one step of Newton's method, written in torch, changes nothing; but its derivative is
that of the solution, by the implicit function theorem. Newton's method squares an error, so that a second step makes
the second derivative exact too, where the geometry has one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer.geometry import Geometry
from fairlayer.passes import Cells
from fairlayer.projection.many.layout import Layout

__all__ = ["followed"]


def followed(  # noqa: PLR0917 - a solved batch
    x: Tensor, multipliers: Any, layout: Layout, cells: Cells, geometry: Geometry, lower: Any, upper: Any
) -> Tensor:
    """Return the predictions (n,) in float64.

    Args:
        x: coordinates of all samples, (n,).
        multipliers: (b, m), as found.
        layout: the rows.
        cells: of all samples.
        geometry: on the box.
        lower: None or a number.
        upper: likewise.
    """
    place = x.device
    rows = layout.rows

    def here(array: Any) -> Tensor:
        return torch.as_tensor(np.asarray(array)).to(place)

    matrix, limit, at = here(rows.matrix), here(np.where(np.isfinite(rows.limit), rows.limit, 0.0)), here(rows.place)
    active = here(((multipliers > 0.0) | layout.equality) & np.isfinite(rows.limit)).to(torch.float64)
    prices = here(multipliers)
    counts = here(np.append(cells.counts, 1.0))
    codes = here(np.full(len(x), rows.cells) if cells.codes is None else cells.codes)
    weights = None if cells.weights is None else here(cells.weights)

    def means(values: Tensor) -> Tensor:
        whole = values if weights is None else values * weights
        sums = torch.zeros(rows.cells + 1, dtype=torch.float64, device=place).index_add(0, codes, whole)
        return torch.cat([(sums / counts)[:-1], sums.new_zeros(1)])

    def answer(price: Tensor) -> tuple[Tensor, Any]:
        of_cells = torch.einsum("bm,bmc->bc", price, matrix)
        flat = torch.zeros(rows.cells + 1, dtype=torch.float64, device=place)
        nu = flat.index_add(0, at.reshape(-1), of_cells.reshape(-1))
        pull = torch.cat([(nu / counts)[:-1], nu.new_zeros(1)]).index_select(0, codes)
        return geometry.step(x, pull, lower, upper)

    for _ in range(2 if geometry.smooth else 1):
        value, free = answer(prices)
        left = active * (torch.einsum("bmc,bc->bm", matrix, means(value)[at]) - limit)
        weight = geometry.weigh(value, x, free, torch.ones_like(value))
        metric = (means(weight) / counts)[at]
        square = torch.einsum("bmc,bc,bnc->bmn", matrix, metric, matrix)
        square = square * active[:, :, None] * active[:, None, :]
        diagonal = torch.diagonal(square, dim1=1, dim2=2).detach().clamp(min=1e-300) ** -0.5
        scale = diagonal[:, :, None] * diagonal[:, None, :] * active[:, :, None] * active[:, None, :]
        inverse = torch.linalg.pinv(square * scale, rtol=1e-11, hermitian=True) * scale
        prices = prices + torch.einsum("bmn,bn->bm", inverse, left)
    return answer(prices)[0]
