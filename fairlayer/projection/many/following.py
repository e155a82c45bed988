"""The solution of problems as a function of their scores, which torch follows.

At the multipliers that were found one step of Newton's method, written in torch, changes nothing; but its derivative is
that of the solution, by the implicit function theorem. Newton's method squares an error, so that a second step makes
the second derivative exact too, where the geometry has one. All tensors may have leading dimensions, seen or hidden by
torch.vmap.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairlayer.geometry import Geometry
from fairlayer.passes import Cells
from fairlayer.projection.many.layout import Layout

__all__ = ["Terms", "followed", "terms_of"]


class Terms(NamedTuple):
    """All that a solution depends on besides the scores, in torch.

    Args:
        multipliers: the multipliers as found, (..., m).
        active: which rows hold, as 0 and 1, (..., m).
        matrix: rows over the cells of a problem, (..., m, c).
        limit: 0 where there is no row, (..., m).
        codes: cell of each sample among those of its problem, c for none, (..., n).
        counts: samples per cell, 1 for none, (..., c + 1).
        weights: how many samples each row stands for, (..., n), or None.
    """

    multipliers: Tensor
    active: Tensor
    matrix: Tensor
    limit: Tensor
    codes: Tensor
    counts: Tensor
    weights: Tensor | None


def terms_of(multipliers: Any, layout: Layout, cells: Cells, device: torch.device) -> Terms:
    """Return the terms of b problems of equally many places."""
    rows = layout.rows
    b, _, width = rows.matrix.shape
    local = np.full(rows.cells + 1, width)
    problem, position = np.nonzero(rows.place < rows.cells)
    local[rows.place[problem, position]] = position
    codes = np.full(b, width) if cells.codes is None else local[cells.codes]
    there = np.isfinite(rows.limit)
    counts = np.append(cells.counts, 1.0)[np.append(rows.place, np.full((b, 1), rows.cells), axis=1)]

    def here(array: Any) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array)).to(device)

    return Terms(
        here(multipliers),
        here((((multipliers > 0.0) | layout.equality) & there).astype(np.float64)),
        here(rows.matrix),
        here(np.where(there, rows.limit, 0.0)),
        here(codes.reshape(b, -1)),
        here(counts),
        None if cells.weights is None else here(cells.weights.reshape(b, -1)),
    )


def followed(x: Tensor, terms: Terms, geometry: Geometry, lower: Any, upper: Any) -> Tensor:
    """Return the predictions (..., n) in float64.

    Args:
        x: coordinates, (..., n).
        terms: what else the solution depends on.
        geometry: the geometry on the box.
        lower: None or a number.
        upper: likewise.
    """
    prices, active, matrix, limit, codes, counts, weights = terms

    def means(values: Tensor) -> Tensor:
        whole = values if weights is None else values * weights
        sums = (counts * 0.0).scatter_add(-1, codes, whole)
        return (sums / counts)[..., :-1]

    def answer(price: Tensor) -> tuple[Tensor, Any]:
        shift = torch.einsum("...m,...mc->...c", price, matrix)
        shift = torch.cat([shift / counts[..., :-1], shift[..., :1] * 0.0], dim=-1)
        return geometry.step(x, shift.gather(-1, codes), lower, upper)

    for _ in range(2 if geometry.smooth else 1):
        value, free = answer(prices)
        left = active * (torch.einsum("...mc,...c->...m", matrix, means(value)) - limit)
        weight = geometry.weigh(value, x, free, torch.ones_like(value))
        metric = means(weight) / counts[..., :-1]
        square = torch.einsum("...mc,...c,...nc->...mn", matrix, metric, matrix)
        square = square * active[..., :, None] * active[..., None, :]
        diagonal = torch.diagonal(square, dim1=-2, dim2=-1).detach().clamp(min=1e-300) ** -0.5
        scale = diagonal[..., :, None] * diagonal[..., None, :] * active[..., :, None] * active[..., None, :]
        inverse = torch.linalg.pinv(square * scale, rtol=1e-11, hermitian=True) * scale
        prices = prices + torch.einsum("...mn,...n->...m", inverse, left)
    return answer(prices)[0]
