"""Kernels between the samples of a batch, and the two statistics made of them. Time and memory are O(n^2)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gaussian_kernel", "hsic_biased", "hsic_unbiased", "mmd_from_pool"]

_SAMPLED = 256  # samples whose distances give the median: sorting all n^2 would cost more than the kernel


def gaussian_kernel(x: Tensor, bandwidth: float | None) -> Tensor:
    """Return `K_ij = exp(-|x_i - x_j|^2 / (2 bandwidth^2))`, shape (n, n).

    Args:
        x: (n, d).
        bandwidth: None takes the median distance between two samples of this batch (of at most 256 evenly spaced
            ones), as a constant (detached); the root mean square distance where most are tied, 1 where all are.

    Source: Gretton et al. (2012), "A kernel two-sample test", section 8 (median heuristic).

    Example:
        >>> gaussian_kernel(torch.tensor([[0.0], [1.0]]), 1.0)
        tensor([[1.0000, 0.6065],
                [0.6065, 1.0000]])
    """
    squared = _squared_distances(x)
    scale = _median_square(squared.detach()) if bandwidth is None else bandwidth**2
    return torch.exp(squared / (-2.0 * scale))


def hsic_biased(K: Tensor, L: Tensor) -> Tensor:
    """Return `tr(K H L H) / (n - 1)^2`, H centring; 0 for fewer than 2 samples.

    Source: Gretton et al. (2005), "Measuring statistical dependence with Hilbert-Schmidt norms", definition 2.
    """
    n = len(K)
    if n < 2:
        return (K * 0.0).sum()
    centred = K - K.mean(dim=0, keepdim=True) - K.mean(dim=1, keepdim=True) + K.mean()  # H K H
    return (centred * L).sum() / (n - 1) ** 2


def hsic_unbiased(K: Tensor, L: Tensor) -> Tensor:
    """Return the estimate whose expectation is the HSIC; may be negative; 0 for fewer than 4 samples.

    With diagonals set to 0, K' and L':

        [tr(K'L') + 1'K'1 1'L'1 / ((n-1)(n-2)) - 2/(n-2) 1'K'L'1] / (n (n-3))

    Source: Song et al. (2012), "Feature selection via dependence maximization" (HSIC_1).
    """
    n = len(K)
    if n < 4:
        return (K * 0.0).sum()
    off = 1.0 - torch.eye(n, dtype=K.dtype, device=K.device)
    # the estimate does not change when L is shifted by a constant; around 0 it cancels least
    K, L = K * off, (L - (L * off).sum() / (n * (n - 1))) * off
    product = K.sum() * L.sum() / ((n - 1) * (n - 2))
    mixed = K.sum(dim=0) @ L.sum(dim=1) * (2.0 / (n - 2))
    return ((K * L).sum() + product - mixed) / (n * (n - 3))


def mmd_from_pool(K: Tensor, membership: Tensor) -> Tensor:
    """Return `(w_g - 1/n)' K (w_g - 1/n)`, the squared MMD of each present group g from all samples (biased, >= 0).

    Args:
        K: (n, n).
        membership: (n, groups), w_g being its column g divided by the column's sum.

    Source: Gretton et al. (2012), "A kernel two-sample test", equation 5.
    """
    sizes = membership.sum(dim=0)
    shares = membership[:, sizes > 0] / sizes[sizes > 0]
    difference = shares - 1.0 / max(1, len(K))
    return (difference * (K @ difference)).sum(dim=0)


def _squared_distances(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return (x - x.T).square()
    centred = x - x.detach().mean(dim=0)  # |a - b|^2 = |a|^2 + |b|^2 - 2 ab cancels least around 0
    norms = centred.square().sum(dim=1)
    return (norms[:, None] + norms[None, :] - 2.0 * centred @ centred.T).clamp_min(0.0)


def _median_square(squared: Tensor) -> Tensor:
    n = len(squared)
    if n < 2:
        return squared.new_ones(())
    some = squared[:: -(-n // _SAMPLED), :: -(-n // _SAMPLED)]
    row, column = torch.triu_indices(len(some), len(some), offset=1, device=squared.device)
    pairs = some[row, column]
    median, mean = pairs.median(), pairs.mean()
    scale = torch.where(median > 0, median, mean)
    return torch.where(scale > 0, scale, torch.ones_like(scale))
