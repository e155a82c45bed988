"""Rows -> the sums that a table holds, in one pass; and its histograms as plain lists."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.audit.cells import CellMembership
from fairlayer.audit.ranks import RankedRows
from fairlayer.audit.reading import AuditRows
from fairlayer.audit.slots import DECISIONS, LABELS, NEGATIVE, POSITIVE, UNLABELLED

__all__ = ["BINS", "COARSE", "OWN", "count_histogram", "count_sums", "dense", "edges", "put_in_order", "sparse"]

COARSE = 10  # bins of the calibration error
FINE = 20  # bins of the histogram in each of them
BINS = COARSE * FINE

# The names of the table's own sums; what a caller adds is called otherwise.
OWN = ("rows", "weight", "label", "score", "residual", "residual_size", "log_loss")

_TINY = float(np.finfo(np.float64).eps)  # the log loss keeps probabilities this far from 0 and 1, as scikit-learn does


def edges() -> FloatArray:
    """Return the edges of the histogram's bins; a score on an edge belongs to the bin below, as in scikit-learn."""
    coarse = np.linspace(0.0, 1.0, COARSE + 1)
    fine = [np.linspace(low, high, FINE + 1)[:-1] for low, high in itertools.pairwise(coarse)]
    return np.append(np.concatenate(fine), 1.0)


def _statistics(rows: AuditRows, share: FloatArray) -> dict[str, FloatArray]:
    """Return the numbers that are added up, one per row."""
    w = rows.weights
    y = np.where(rows.label_slots == UNLABELLED, 0.0, rows.labels)
    numbers = {"rows": share, "weight": w, "weight_squares": w**2, "label": w * y, "label_squares": w * y**2}
    for name, value in rows.values.items():
        numbers |= {name: w * value, f"{name}_squares": w * value**2}
    s = rows.scores
    if s is None:
        return numbers
    numbers |= {"score": w * s, "score_squares": w * s**2}
    r = np.where(rows.label_slots == UNLABELLED, 0.0, y - s)
    numbers |= {
        "residual": w * r,
        "residual_squares": w * r**2,
        "residual_fourths": w * r**4,
        "residual_size": w * np.abs(r),
    }
    classes = (rows.label_slots == NEGATIVE) | (rows.label_slots == POSITIVE)
    p = np.clip(np.where(y == 1, s, 1 - s), _TINY, 1 - _TINY)
    loss = np.where(classes, -np.log(p), 0.0)
    return numbers | {"log_loss": w * loss, "log_loss_squares": w * loss**2}


def count_sums(rows: AuditRows, cells: CellMembership) -> dict[str, FloatArray]:
    """Return name -> (cells, labels, decisions), the weighted sums of every number of a row."""
    place = (cells.cell * LABELS + rows.label_slots) * DECISIONS + rows.decision_slots
    size, shape = len(cells.codes) * LABELS * DECISIONS, (len(cells.codes), LABELS, DECISIONS)
    return {
        name: np.bincount(place, weights=number, minlength=size).reshape(shape).astype(np.float64)
        for name, number in _statistics(rows, cells.share).items()
    }


def count_histogram(rows: AuditRows, cells: CellMembership) -> FloatArray:
    """Return (cells, labels, bins, 2): the weight of the rows in each bin, and their weighted scores."""
    assert rows.scores is not None
    place = (cells.cell * LABELS + rows.label_slots) * BINS + np.searchsorted(edges()[1:-1], rows.scores)
    size, shape = len(cells.codes) * LABELS * BINS, (len(cells.codes), LABELS, BINS)
    weights = np.bincount(place, weights=rows.weights, minlength=size).reshape(shape)
    scores = np.bincount(place, weights=rows.weights * rows.scores, minlength=size).reshape(shape)
    return np.stack([weights, scores], axis=-1)


def put_in_order(rows: AuditRows, cells: CellMembership) -> RankedRows | None:
    """Return the labelled rows in the order of their scores; None without scores."""
    return None if rows.scores is None else RankedRows.of(rows.scores, cells.cell, rows.label_slots, rows.weights)


def sparse(histogram: FloatArray) -> dict[str, Any]:
    """Return the places of the bins in use, since most are empty, with their weights and scores."""
    flat = histogram.reshape(-1, 2)
    used = np.flatnonzero(flat.any(axis=1))
    return {"place": used.tolist(), "weight": flat[used, 0].tolist(), "score": flat[used, 1].tolist()}


def dense(held: Mapping[str, Any], cells: int) -> FloatArray:
    """Rebuild the histogram (cells, labels, bins, 2) that `sparse` wrote."""
    flat = np.zeros((cells * LABELS * BINS, 2))
    flat[np.array(held["place"], dtype=np.int64)] = np.column_stack([held["weight"], held["score"]])
    return flat.reshape(cells, LABELS, BINS, 2)
