"""What the processes of a group must have in common."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from fairlayer.collective import Ranks, RanksDifferError
from fairlayer.edge.bounds import Box
from fairlayer.errors import EmptyBatchError
from fairlayer.groups import Groups

__all__ = ["check_alike"]


def check_alike(
    ranks: Ranks, constraints: Sequence[str], columns: Sequence[Tensor], box: Box, groups: Groups, **given: Any
) -> None:
    """Check what all processes must have in common, before any of them relies on it.

    Raises:
        RanksDifferError: they differ.
        EmptyBatchError: no process has any samples.
    """
    vocabulary = groups.vocabulary
    mine: dict[str, Any] = {
        "columns of scores": len(columns),
        "precision of the scores": "float64" if columns[0].dtype == torch.float64 else "float32 or less",
        "constraints": tuple(constraints),
        "bounds": tuple("per sample" if isinstance(b, Tensor) else b for b in (box.lower, box.upper)),
        "known categories": {name: vocabulary.categories[name] for name in sorted(vocabulary.categories)},
        "categories may be added": vocabulary.open,
        **{name: "given" if value is not None else "not given" for name, value in given.items()},
    }
    found = ranks.gather(np.array([len(columns[0]), zlib.crc32(repr(mine).encode())], dtype=np.float64), "settings")
    if (found[:, 1] != found[0, 1]).any():
        _raise_different(mine, ranks)
    if not found[:, 0].any():
        raise EmptyBatchError(
            f"the batch is empty: none of the {len(found)} processes has any scores. Skip such a batch on all of them."
        )


def _raise_different(mine: dict[str, Any], ranks: Ranks) -> NoReturn:
    everywhere = ranks.objects(mine, "different settings")
    for what in mine:
        values = [their[what] for their in everywhere]
        if any(value != values[0] for value in values):
            raise RanksDifferError(
                f"all processes of a process_group must agree on the {what}, but have, in the order of their ranks: "
                f"{'; '.join(map(str, values))}. Give the same on every rank, or use process_group=None."
            )
    raise RanksDifferError("the processes of a process_group were given different settings.")
