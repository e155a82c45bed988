"""Old gaps, repaid inside the tolerance: by how much each group is to aim lower or higher within its band.

Only what gaps inside the buckets of a stream have made is repaid. With m_gk the mean of group g in bucket k, and w_k
the share of all samples in the bucket, the standardised mean of a group is sum_k w_k m_gk over the buckets in which it
occurs: what its mean would be, had every group come at the same times. A change of mix leaves it where it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.streaming.control.bands import Band
from fairlayer.streaming.counts.history import batch_of
from fairlayer.streaming.counts.windows import Bucket

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

__all__ = ["debts_of"]


def debts_of(stream: Machine, bands: list[Band], repair: float | None, recent: float) -> list[Band]:
    """Return the bands, aiming by what is owed where something is repaid.

    Args:
        stream: the stream whose buckets are read.
        bands: the bands. The debt of spreads of plain means is known; others stay as they are.
        repair: samples over which the gap of everything is repaid; None for none. Where the window is held
            (`hold="window"`), its gap is repaid over a quarter of it.
        recent: samples that count as recent.
    """
    windows, held = stream.windows, stream.setting.hold == "window"
    if repair is None and not held:
        return bands
    stream.history.flush()
    buckets = windows.latest() if held else [windows.before, *windows.buckets]
    buckets = [bucket for bucket in buckets if bucket.samples]
    if not buckets:
        return bands
    counts, means = _standardised(buckets, len(stream.history.cells))
    total = float(counts.sum())
    horizon = max(total / 4.0, 1.0) if repair is None else repair
    owed = {}
    for constraint in stream.constraints:
        if constraint.needs_labels:
            continue
        cells = np.flatnonzero(counts)
        batch = batch_of(stream.history, stream.vocabulary, cells, weights=counts[cells])
        for statement in constraint.statements(batch):
            v = statement.members(statement.means.of(means[cells]))
            sizes = np.abs(statement.matrix) @ statement.means.counts
            for name, value, size in zip(statement.names, v.tolist(), sizes.tolist(), strict=True):
                owed[constraint.name, name] = (value, size)
    return [_owing(band, owed, horizon, recent) for band in bands]


def _owing(band: Band, owed: dict[tuple[str, str], tuple[float, float]], horizon: float, recent: float) -> Band:
    found = [owed.get((band.owner, name)) for name in band.names]
    if band.lower is not None or band.ratio != 1.0 or any(each is None or not each[1] for each in found):
        return band
    values, sizes = np.array([each for each in found if each is not None]).T
    over = _over(values, sizes, band.tolerance)
    share = np.maximum(band.size / max(recent, 1e-9), 1e-9)
    most = band.tolerance + np.where(np.isfinite(band.slack), band.slack, 0.0)
    return band.with_room(band.slack, 0.0, np.clip(over * sizes / (horizon * share), -most, most))


def _over(values: FloatArray, sizes: FloatArray, tolerance: float) -> FloatArray:
    """Return how far each value lies above (> 0) or below the nearest band of this width, by counts."""
    low, high = float(values.min()) - tolerance, float(values.max())
    for _ in range(60):
        middle = 0.5 * (low + high)
        above, below = np.maximum(values - middle - tolerance, 0.0), np.maximum(middle - values, 0.0)
        if sizes @ above > sizes @ below:
            low = middle
        else:
            high = middle
    return np.asarray(above - below)


def _standardised(buckets: list[Bucket], k: int) -> tuple[FloatArray, FloatArray]:
    """Return the count of each cell, and its mean had all cells come at the same times."""
    counts, sums = np.zeros((len(buckets), k)), np.zeros((len(buckets), k))
    for j, bucket in enumerate(buckets):
        wide = bucket.sums.shape[1]
        counts[j, :wide], sums[j, :wide] = bucket.of("count"), bucket.of("emitted")
    weights = counts.sum(axis=1, keepdims=True) * (counts > 0)
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    return counts.sum(axis=0), (weights * means).sum(axis=0) / np.maximum(weights.sum(axis=0), 1e-9)
