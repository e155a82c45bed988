"""Training, validation and test rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairlayer.data.columns import as_text
from fairlayer.data.errors import ColumnError, listed
from fairlayer.data.table import Table

__all__ = ["DataSplit", "split_rows"]

Rows = NDArray[np.int64]
_NAMES = {"train": "train", "valid": "valid", "validation": "valid", "test": "test"}


@dataclass(frozen=True)
class DataSplit:
    """Row numbers of the three parts; `origin` says where the split comes from.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"sex": ["F", "M"] * 50, "paid": [0, 1, 1, 0] * 25})
        >>> found = split_rows(Table("people", frame, target="paid", positive="1", sensitive=("sex",)))
        >>> len(found.train), len(found.valid), len(found.test), found.origin
        (52, 18, 30, 'random rows, seed 0')
    """

    train: Rows
    valid: Rows
    test: Rows
    origin: str


def split_rows(table: Table, *, seed: int = 0, test_share: float = 0.3, valid_share: float = 0.25) -> DataSplit:
    """Return the table's own split where it has one, else a seeded one; validation rows come out of training rows.

    Args:
        seed: the seed of the random split.
        test_share: the share of test rows.
        valid_share: the share of validation rows in the rest.

    Raises:
        ColumnError: the split column has other values than train / valid / test, or a part would be empty.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"sex": ["F", "M"] * 50, "paid": [0, 1, 1, 0] * 25})
        >>> table = Table("people", frame, target="paid", positive="1", sensitive=("sex",))
        >>> len(split_rows(table, seed=1, test_share=0.5).test)
        50
    """
    if table.split is not None:
        split = _own_split(table, table.split, np.random.default_rng(seed), valid_share)
    else:
        split = _seeded_split(len(table.frame), np.random.default_rng(seed), test_share, valid_share)
        split = DataSplit(split.train, split.valid, split.test, f"random rows, seed {seed}")
    _check_parts(split)
    return split


def _seeded_split(n: int, random: np.random.Generator, test_share: float, valid_share: float) -> DataSplit:
    rows = random.permutation(n)
    tests = round(n * test_share)
    valids = round((n - tests) * valid_share)
    return DataSplit(rows[tests + valids :], rows[tests : tests + valids], rows[:tests], "")


def _own_split(table: Table, column: str, random: np.random.Generator, valid_share: float) -> DataSplit:
    names = as_text(table.frame[column])
    unknown = {str(name) for name in names} - _NAMES.keys()
    if unknown:
        raise ColumnError(
            f"split column '{column}' holds {listed(sorted(unknown), 6)}; its values are to be 'train', "
            "'test' and, if wanted, 'valid'. Rename them, or name another column (--split-column)."
        )
    parts = np.array([_NAMES[name] for name in names])
    train, valid, test = (np.flatnonzero(parts == name) for name in ("train", "valid", "test"))
    if len(valid) == 0:
        train = random.permutation(train)
        taken = round(len(train) * valid_share)
        train, valid = train[taken:], train[:taken]
    return DataSplit(train, valid, test, f"column '{column}'")


def _check_parts(split: DataSplit) -> None:
    sizes = {name: len(getattr(split, name)) for name in ("train", "valid", "test")}
    if min(sizes.values()) == 0:
        raise ColumnError(
            f"the rows split into {sizes}; each part needs at least one row. Give more rows, or another split column."
        )
