"""Which rows go into which batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from fairlayer.data.errors import ColumnError

__all__ = ["StratifiedBatchSampler", "consecutive_batches", "joint_codes"]


class StratifiedBatchSampler(Sampler[list[int]]):
    """Batches that each hold every stratum in its own proportion; each row appears exactly once per epoch.

    The strata, each shuffled, are laid end to end and dealt like cards over B = max(1, floor(n / batch_size))
    batches. A stratum of n_s rows is a run of the deck, so every batch has floor(n_s / B) or ceil(n_s / B)
    rows of it (at least one as soon as n_s >= B), batch sizes differ by at most one, and the tail is spread
    over the batches.

    Args:
        strata: integer code of each row (see `joint_codes`).
        batch_size: smallest mean size of a batch.
        seed: the same seed gives the same epochs.

    Example:
        >>> sampler = StratifiedBatchSampler([0] * 90 + [1] * 10, batch_size=20, seed=0)
        >>> [sum(row >= 90 for row in batch) for batch in sampler]
        [2, 2, 2, 2, 2]
    """

    def __init__(self, strata: Sequence[int] | NDArray[Any] | torch.Tensor, batch_size: int, *, seed: int = 0) -> None:
        if batch_size < 1:
            raise ColumnError(f"batch_size={batch_size} was asked for; a batch has at least one row.")
        codes = np.asarray(strata)
        self.rows_of = [np.flatnonzero(codes == code) for code in np.unique(codes)]
        self.batches = max(1, len(codes) // batch_size)
        self.random = np.random.default_rng(seed)

    def __len__(self) -> int:
        return self.batches

    @property
    def thin_strata(self) -> int:
        """Number of strata with fewer rows than there are batches: some batches go without them."""
        return sum(len(rows) < self.batches for rows in self.rows_of)

    def __iter__(self) -> Iterator[list[int]]:
        deck = np.concatenate([self.random.permutation(rows) for rows in self.rows_of])
        for first in self.random.permutation(self.batches):
            yield self.random.permutation(deck[first :: self.batches]).tolist()


def consecutive_batches(n: int, batch_size: int) -> list[slice]:
    """Rows in order; a tail shorter than `batch_size` joins the batch before it, so no row is dropped.

    Example:
        >>> [(s.start, s.stop) for s in consecutive_batches(700, 256)]
        [(0, 256), (256, 700)]
    """
    starts = range(0, max(1, n // batch_size) * batch_size, batch_size)
    stops = [*starts[1:], n]
    return [slice(start, stop) for start, stop in zip(starts, stops, strict=True)]


def joint_codes(columns: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """One integer per distinct combination of the columns' values (None, missing, counts as a value).

    Example:
        >>> joint_codes([np.array(["a", "b", "a"]), np.array([0.0, 0.0, 1.0])]).tolist()
        [0, 2, 1]
    """
    codes = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        each = np.unique(column.astype(str), return_inverse=True)[1]
        codes = np.unique(codes * (int(each.max(initial=0)) + 1) + each, return_inverse=True)[1]
    return codes
