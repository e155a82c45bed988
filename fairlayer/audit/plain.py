"""Histograms as plain lists: only the bins that are used, since most are empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.audit.counting import BINS
from fairlayer.audit.slots import LABELS

__all__ = ["dense", "sparse"]


def sparse(histogram: FloatArray) -> dict[str, Any]:
    """Return the places of the bins in use, with their weights and scores."""
    flat = histogram.reshape(-1, 2)
    used = np.flatnonzero(flat.any(axis=1))
    return {"place": used.tolist(), "weight": flat[used, 0].tolist(), "score": flat[used, 1].tolist()}


def dense(held: Mapping[str, Any], cells: int) -> FloatArray:
    """Rebuild the histogram (cells, labels, bins, 2) that `sparse` wrote."""
    flat = np.zeros((cells * LABELS * BINS, 2))
    flat[np.array(held["place"], dtype=np.int64)] = np.column_stack([held["weight"], held["score"]])
    return flat.reshape(cells, LABELS, BINS, 2)
