"""FairDataModule: a known data set or a table of your own, split, encoded, in stratified batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import distributed
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from fairlayer.data import (
    READERS,
    DataSplit,
    Encoder,
    StratifiedBatchSampler,
    Table,
    TensorTable,
    consecutive_batches,
    inspect_table,
    parse_cut,
    read_data_set,
    read_frame,
    split_rows,
)
from fairlayer.data.batches import joint_codes
from fairlayer.data.table import usual_positive
from fairlayer.data.tensors import tensor_table
from fairlayer.errors import DataError, FairlayerWarning

__all__ = ["FairDataModule", "SampleDataModule"]

Batch = dict[str, Any]


class SampleDataModule(LightningDataModule):
    """Rows that are tensors already: stratified batches to train on, consecutive ones to evaluate.

    The state of the sampler travels in checkpoints, so that a resumed fit sees the batches it would have seen.

    Args:
        train: rows to train on; those with the same groups and the same binary label are one stratum.
        valid: rows to validate on.
        test: rows to test on, if any.
        batch_size: see `StratifiedBatchSampler`.
        seed: the seed of the batches.

    Example:
        >>> import numpy as np
        >>> rows = TensorTable(torch.rand(64, 2), torch.rand(64).round(), {"sex": np.array(["F", "M"] * 32)})
        >>> data = SampleDataModule(rows, rows, batch_size=16)
        >>> len(data.train_dataloader()), len(data.val_dataloader())
        (4, 4)
    """

    def __init__(
        self,
        train: TensorTable,
        valid: TensorTable,
        test: TensorTable | None = None,
        *,
        batch_size: int = 1024,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.parts = {"train": train, "valid": valid, "test": test}
        self.batch_size = batch_size
        self.sampler = StratifiedBatchSampler(strata_of(train), batch_size, seed=seed)

    @property
    def all_groups(self) -> dict[str, Any]:
        """The sensitive features of all rows."""
        parts = [part for part in self.parts.values() if part is not None]
        return {name: np.concatenate([part.sensitive[name] for part in parts]) for name in parts[0].sensitive}

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return each row once, every batch with its share of each stratum."""
        return _loader(self.parts["train"], self.sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the rows in order."""
        return self._in_order("valid")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the rows in order."""
        return self._in_order("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the test rows."""
        return self._in_order("test")

    def state_dict(self) -> dict[str, Any]:
        """Return where the sampler stands."""
        return self.sampler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.sampler.load_state_dict(state_dict)

    def _in_order(self, name: str) -> DataLoader[Batch]:
        sample = self.parts[name]
        if sample is None:
            raise DataError(f"the {name} rows were asked for, but none were given. Pass {name}=.")
        return _loader(sample, _InOrder(len(sample), self.batch_size))


class FairDataModule(LightningDataModule):
    """A data set by name, or a CSV or parquet table, ready for `FairLightningModule`.

    Args:
        data: one of the known data sets ("lending", "adult", ...), or the path of a table.
        sensitive_features: the names of the features that are carried with each batch; those of a known data set where
            not given.
        target: column to predict (tables).
        positive: its value that counts as 1; by default "1" beside "0", or "True" beside "False"; of no use for
            regression.
        task: "classification" or "regression" (tables).
        drop: columns that are not features.
        categorical: columns of codes, not of amounts.
        cuts: groups cut from a number, as `age=25,59`, which makes `age_group`.
        split_column: column with train / test (/ valid); else a random split.
        drop_sensitive: keep the sensitive columns out of the features.
        batch_size: the batch size of training.
        seed: the seed of the split and of the batches.

    Example:
        >>> data = FairDataModule("lending", sensitive_features=["sex"], batch_size=500)
        >>> batch = next(iter(data.train_dataloader()))
        >>> data.width, sorted(batch), list(batch["sensitive_features"])
        (17, ['sensitive_features', 'x', 'y'], ['sex'])
    """

    def __init__(
        self,
        data: str,
        *,
        sensitive_features: Sequence[str] = (),
        target: str | None = None,
        positive: str | None = None,
        task: str = "classification",
        drop: Sequence[str] = (),
        categorical: Sequence[str] = (),
        cuts: Sequence[str] = (),
        split_column: str | None = None,
        drop_sensitive: bool = False,
        batch_size: int = 1024,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.data, self.names = data, tuple(sensitive_features)
        self.target, self.positive, self.task = target, positive, task
        self.drop, self.categorical, self.cuts = tuple(drop), tuple(categorical), tuple(cuts)
        self.split_column, self.drop_sensitive = split_column, drop_sensitive
        self.batch_size, self.seed = batch_size, seed

    @cached_property
    def table(self) -> Table:
        """The table with its roles."""
        return read_data_set(self.data) if self.data in READERS else self._own_table()

    @cached_property
    def split(self) -> DataSplit:
        """The rows of each part."""
        return split_rows(self.table, seed=self.seed)

    @cached_property
    def encoder(self) -> Encoder:
        """Fitted on the training rows."""
        names = self.table.features(drop_sensitive=self.drop_sensitive)
        return Encoder.fit(self.table.frame.iloc[self.split.train], names, categorical=self.table.categorical)

    @cached_property
    def rows(self) -> SampleDataModule:
        """The parts as tensors."""
        whole = tensor_table(self.table, self.encoder, self.names or self.table.sensitive)
        train, valid, test = (whole.take(rows) for rows in (self.split.train, self.split.valid, self.split.test))
        return SampleDataModule(train, valid, test, batch_size=self.batch_size, seed=self.seed)

    @property
    def width(self) -> int:
        """Number of encoded features."""
        return self.encoder.width

    @property
    def all_groups(self) -> dict[str, Any]:
        """The sensitive features of all rows."""
        return self.rows.all_groups

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return stratified batches."""
        return self.rows.train_dataloader()

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the rows in order."""
        return self.rows.val_dataloader()

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the rows in order."""
        return self.rows.test_dataloader()

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the test rows."""
        return self.rows.test_dataloader()

    def state_dict(self) -> dict[str, Any]:
        """Return where the sampler stands."""
        return self.rows.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.rows.load_state_dict(state_dict)

    def _own_table(self) -> Table:
        if self.target is None:
            raise DataError(f"the table '{self.data}' was given without a target. Pass target=, the column to predict.")
        frame = read_frame(self.data)
        known = self.target in frame.columns and self.positive is None
        positive = usual_positive(frame[self.target]) if known else self.positive
        table = Table(
            Path(self.data).name,
            frame,
            target=self.target,
            positive=None if self.task == "regression" else positive,
            sensitive=self.names,
            cuts=tuple(parse_cut(text) for text in self.cuts),
            split=self.split_column,
            not_features=self.drop,
            categorical=self.categorical,
        )
        found = inspect_table(table)
        for note in found.notes(table):
            warnings.warn(note.partition(" (--")[0].rstrip(".") + ".", FairlayerWarning, stacklevel=3)
        return found.applied(table)


class _InOrder:
    """Rows in their own order; each batch is shared by all processes, so that they take equally many steps."""

    def __init__(self, n: int, batch_size: int) -> None:
        running = distributed.is_available() and distributed.is_initialized()
        self.rank, self.ranks = (distributed.get_rank(), distributed.get_world_size()) if running else (0, 1)
        self.parts = consecutive_batches(n, batch_size * self.ranks)

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[list[int]]:
        return (np.array_split(np.arange(part.start, part.stop), self.ranks)[self.rank].tolist() for part in self.parts)


class _Shared(DistributedSampler[list[int]]):
    """Batches that are shared by the processes already, which this class tells Lightning: it leaves them alone."""

    def __init__(self, batches: StratifiedBatchSampler | _InOrder) -> None:
        self.batches = batches  # all that a DistributedSampler holds is for rows, and is not needed

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def set_epoch(self, epoch: int) -> None:
        if isinstance(self.batches, StratifiedBatchSampler):
            self.batches.set_epoch(epoch)


class _SampleRows(Dataset[Batch]):
    """A sample that is indexed by a whole batch at once."""

    def __init__(self, sample: TensorTable) -> None:
        self.sample = sample

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, rows: list[int]) -> Batch:
        part = self.sample.take(rows)
        return {"x": part.x, "y": part.y, "sensitive_features": part.sensitive}


def strata_of(sample: TensorTable) -> Any:
    """Return a code per row: rows with the same groups and the same binary label have the same."""
    columns = [column for column in sample.sensitive.values() if column.dtype.kind != "f"]
    if bool(((sample.y == 0) | (sample.y == 1)).all()):
        columns.append(sample.y.numpy())
    return joint_codes(columns or [torch.zeros(len(sample)).numpy()])


def _loader(sample: TensorTable | None, batches: StratifiedBatchSampler | _InOrder) -> DataLoader[Batch]:
    assert sample is not None  # the train rows are always there, the others were asked for by name
    return DataLoader(_SampleRows(sample), batch_size=None, sampler=_Shared(batches), collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch
