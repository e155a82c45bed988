"""Which rows go into which batch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import Sampler

from fairlayer.data.errors import ColumnError
from fairlayer.errors import CheckpointError, ShapeError
from fairlayer.groups import read_column
from fairlayer.groups.encoding import encode_values

__all__ = ["StratifiedBatchSampler", "consecutive_batches", "joint_codes"]


class StratifiedBatchSampler(Sampler[list[int]]):
    """Batches that each hold every stratum in its own proportion; each row appears exactly once per epoch.

    The strata, each shuffled, are laid end to end and dealt like cards over R * B batches, R the number of replicas
    and B = max(1, floor(n / (R * batch_size))) batches for each. A stratum of n_s rows is a run of the deck, so
    every batch has floor(n_s / (R B)) or ceil(n_s / (R B)) rows of it, batch sizes differ by at most one, and the
    tail is spread over the batches. A stratum with fewer rows than there are batches is in as many batches as it has
    rows, once each, and missing from the others; `thin_strata` counts such strata, larger batches help.

    Every iteration is another epoch, unless `set_epoch` names one: the same epoch is then the same on every call.
    Over several replicas, each row goes to exactly one of them, and each gets B batches. They must iterate in step,
    or call `set_epoch`, for they deal from the same deck.

    Args:
        strata: code of each row, for example `joint_codes([group, label])`; missing (NaN, None) is a stratum.
        batch_size: smallest mean size of a batch (of each replica's batches).
        seed: the same seed gives the same epochs; the same on every replica.
        num_replicas: number of processes that share the rows; None asks torch.distributed when first used.
        rank: which of them this is; None likewise.

    Raises:
        ColumnError: no rows, fewer rows than replicas, a batch size below 1, or a rank outside the replicas.

    With Lightning on several devices, set `Trainer(use_distributed_sampler=False)`: it cannot shard a batch sampler
    itself, and stops with an error otherwise. It calls `set_epoch` here by itself. Accelerate (and with it the
    trainer of transformers) shards batch samplers itself: give it one with `num_replicas=1, rank=0`.

    Example:
        >>> sampler = StratifiedBatchSampler([0] * 90 + [1] * 10, batch_size=20, seed=0)
        >>> [sum(row >= 90 for row in batch) for batch in sampler]
        [2, 2, 2, 2, 2]
    """

    def __init__(
        self,
        strata: Sequence[int] | NDArray[Any] | torch.Tensor,
        batch_size: int,
        *,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        codes = _distinct("strata", strata, "one code per row")
        if not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise ColumnError(
                f"batch_size={batch_size} was asked for; a batch has a whole number of rows, one or more."
            )
        if len(codes) == 0:
            raise ColumnError("strata are empty; one code per row is needed (joint_codes makes one column of several).")
        self.rows_of = [np.flatnonzero(codes == code) for code in np.unique(codes)]
        self.n, self.batch_size, self.seed = len(codes), batch_size, seed
        self.epoch: int | None = None
        self.random = np.random.default_rng(seed)
        self._replicas, self._rank = num_replicas, rank
        self._before = self.random.bit_generator.state  # from which the epoch under way was dealt
        self._done = 0  # batches of it that were handed out
        self._skip = 0  # batches of the next iteration that were handed out before a resume
        if num_replicas is not None or rank is not None:
            self._place()

    @property
    def batches(self) -> int:
        """Number of batches of this replica in an epoch."""
        return max(1, self.n // (self._place()[0] * self.batch_size))

    @property
    def thin_strata(self) -> int:
        """Number of strata with fewer rows than there are batches: some batches go without them."""
        return sum(len(rows) < self.batches * self._place()[0] for rows in self.rows_of)

    @property
    def sampler(self) -> StratifiedBatchSampler:
        """Itself: where Lightning looks for `set_epoch`."""
        return self

    def __len__(self) -> int:
        return self.batches

    def set_epoch(self, epoch: int) -> None:
        """Deal that epoch from now on, which depends on the seed and its number alone."""
        if epoch != self.epoch:
            self.epoch, self._done, self._skip = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Return where the sampler stands: the epoch, and how many of its batches were handed out.

        A DataLoader with workers takes batches ahead of the training step; those count as handed out.
        """
        state = self._before if self._done else self.random.bit_generator.state
        return {"epoch": self.epoch, "random": json.dumps(state), "done": self._done or self._skip}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there: the next iteration yields the rest of that epoch.

        Raises:
            CheckpointError: it is not what `state_dict` returned; nothing has changed.
        """
        before = self.random.bit_generator.state
        try:
            epoch, done = state["epoch"], int(state["done"])
            self.random.bit_generator.state = json.loads(state["random"])
        except (KeyError, TypeError, ValueError) as error:
            self.random.bit_generator.state = before
            raise CheckpointError(
                f"this is not the state of a StratifiedBatchSampler ({error!r}): it holds {sorted(map(str, state))}. "
                "Pass what state_dict() returned, or begin the epoch anew."
            ) from error
        self.epoch, self._skip, self._done = epoch, done, 0

    def __iter__(self) -> Iterator[list[int]]:
        mine = self._deal()
        if self._skip >= len(mine):  # that epoch was through
            mine = self._deal()
            self._skip = 0
        first, self._skip = self._skip, 0
        for self._done, batch in enumerate(mine[first:], first + 1):
            yield batch.tolist()
        self._done = 0

    def _deal(self) -> list[NDArray[np.int64]]:
        """Return this replica's batches of the next epoch, or of the one that was set."""
        replicas, rank = self._place()
        total = self.batches * replicas
        self._before = self.random.bit_generator.state
        random = self.random if self.epoch is None else np.random.default_rng([self.seed, self.epoch])
        deck = np.concatenate([random.permutation(rows) for rows in self.rows_of])
        dealt = [random.permutation(deck[first::total]) for first in random.permutation(total)]
        return dealt[rank::replicas]

    def _place(self) -> tuple[int, int]:
        """Return (number of replicas, rank)."""
        running = dist.is_available() and dist.is_initialized()
        replicas = self._replicas if self._replicas is not None else (dist.get_world_size() if running else 1)
        rank = self._rank if self._rank is not None else (dist.get_rank() if running else 0)
        if not 0 <= rank < replicas:
            raise ColumnError(f"rank={rank} of num_replicas={replicas} was asked for; ranks are 0 to {replicas - 1}.")
        if self.n < replicas:
            raise ColumnError(f"{self.n} rows cannot be shared by {replicas} replicas; give at least one row to each.")
        return replicas, rank


def consecutive_batches(n: int, batch_size: int) -> list[slice]:
    """Return the rows in order; a tail shorter than `batch_size` joins the batch before it, so no row is dropped.

    Args:
        n: the number of rows.

    Example:
        >>> [(s.start, s.stop) for s in consecutive_batches(700, 256)]
        [(0, 256), (256, 700)]
    """
    starts = range(0, max(1, n // batch_size) * batch_size, batch_size)
    stops = [*starts[1:], n]
    return [slice(start, stop) for start, stop in zip(starts, stops, strict=True)]


def joint_codes(columns: Sequence[Any]) -> NDArray[np.int64]:
    """Return one integer per distinct combination of the columns' values (None, missing, counts as a value).

    Args:
        columns: tensors, arrays, series or lists (n,).

    Raises:
        ColumnError: no columns, or lengths that differ.

    Example:
        >>> joint_codes([np.array(["a", "b", "a"]), np.array([0.0, 0.0, 1.0])]).tolist()
        [0, 2, 1]
    """
    needed = "one or more columns (n,) of the same rows"
    codes = [_distinct(f"column {place}", each, needed) for place, each in enumerate(columns)]
    if len({len(each) for each in codes}) != 1:
        raise ColumnError(f"joint_codes needs {needed}, but their lengths are {[len(each) for each in codes]}.")
    joint = np.zeros(len(codes[0]), dtype=np.int64)
    for each in codes:
        joint = np.unique(joint * (int(each.max(initial=0)) + 1) + each, return_inverse=True)[1]
    return joint


def _distinct(name: str, column: Any, needed: str) -> NDArray[np.int64]:
    """Return one code per distinct value of a column.

    Raises:
        ColumnError: it is not a column.
    """
    try:
        return encode_values(name, read_column(name, column))
    except ShapeError as error:
        raise ColumnError(f"{needed} is needed, but {error}") from error
