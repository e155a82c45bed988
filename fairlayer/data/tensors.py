"""Rows as tensors: what a training loop takes batches of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fairlayer.data.encoder import Encoder
from fairlayer.data.table import Table

__all__ = ["TensorTable", "tensor_table"]


@dataclass(frozen=True)
class TensorTable:
    """Features (n, width), labels (n,) and sensitive features of the same n rows.

    Example:
        >>> import torch
        >>> sample = TensorTable(torch.rand(3, 2), torch.tensor([0.0, 1.0, 1.0]), {"sex": np.array(["F", "M", "M"])})
        >>> sample.take(np.array([0, 2])).sensitive["sex"].tolist()
        ['F', 'M']
    """

    x: torch.Tensor
    y: torch.Tensor
    sensitive: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Sequence[int] | NDArray[np.int64] | slice) -> TensorTable:
        """Return the rows given, in that order."""
        index = rows if isinstance(rows, slice) else np.asarray(rows)
        at = index if isinstance(index, slice) else torch.as_tensor(index)
        return TensorTable(self.x[at], self.y[at], {name: column[index] for name, column in self.sensitive.items()})


def tensor_table(
    table: Table, encoder: Encoder, names: Sequence[str], *, continuous: Sequence[str] = ()
) -> TensorTable:
    """Return the whole table, encoded; `names` are the sensitive features to carry.

    Args:
        encoder: the encoder that was fitted to the training rows.
        continuous: names of sensitive columns that are kept as numbers.

    Example:
        >>> from fairlayer.data import Encoder
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"age": [20, 40, 60], "sex": ["F", "M", "F"], "paid": [0, 1, 1]})
        >>> table = Table("people", frame, target="paid", positive="1", sensitive=("sex",))
        >>> sample = tensor_table(table, Encoder.fit(frame, ["age"]), ["sex"])
        >>> sample.x.shape, sample.y.tolist(), list(sample.sensitive["sex"])
        (torch.Size([3, 1]), [0.0, 1.0, 1.0], ['F', 'M', 'F'])
    """
    return TensorTable(
        torch.from_numpy(encoder.encode(table.frame)),
        torch.from_numpy(table.labels()),
        table.sensitive_features(names, continuous=continuous),
    )
