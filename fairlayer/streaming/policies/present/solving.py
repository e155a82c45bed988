"""The shifts of the present: the nearest ones that bring recent raw scores into every band, solved when that is due."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Batch
from fairlayer.fused.book import (
    BASE,
    COUNT,
    RAW,
    SHORT,
    SLOPE,
    SOLVED_AWAY,
    SOLVED_COUNT,
    SOLVED_MEAN,
    SOLVED_SIZE,
    SOLVED_SPREAD,
)
from fairlayer.groups import Groups
from fairlayer.streaming.control.bands import Band, bands_of, solve_bands
from fairlayer.streaming.control.debt import debts_of
from fairlayer.streaming.control.guard import LABEL_0, LABEL_1, Guards
from fairlayer.streaming.control.parities import ScoreRows, folded, parities_of, solve_parities
from fairlayer.streaming.control.single import clip
from fairlayer.streaming.policies.base import State
from fairlayer.streaming.policies.present.changes import (
    LEAST_SPREAD,
    OLDER,
    SURELY,
    far_means,
    renew,
    renewed,
)
from fairlayer.streaming.policies.present.quick import Feed, Quick, quick_feed, quick_of
from fairlayer.streaming.policies.present.state import (
    FIRST_WAIT,
    guards,
    labels_told,
    lightened,
    reads_labels,
    roomy,
    scale,
)

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine
    from fairlayer.streaming.policies.present.policy import Present

__all__ = ["solved"]

_LONGER, _SHARE = 1.15, 16.0  # growth of the wait between solutions; memory over the longest
_FARTHEST = 10.0  # the largest shift in geometries of probabilities, in log-odds
_UNMET = 0.25, 1e-3  # of the tolerance, and in prediction units: what may be missed without being SATURATED
_TO_TELL = 1e-9  # weight of a point that only tells what pull a cell has

Block = tuple[IntArray, FloatArray]


class _Points(NamedTuple):
    """Recent raw scores: the bins of the sketch.

    Args:
        cell: (p,) of each.
        score: (p,) the mean raw score.
        weight: (p,) how many recent samples it stands for.
        estimate: (p,) of the label.
    """

    cell: IntArray
    score: FloatArray
    weight: FloatArray
    estimate: FloatArray


def solved(policy: Present, state: State, stream: Machine, block: Block | None) -> State:
    """Return the state after a solution; a block is learnt from before it is answered."""
    parities = _only_parities(policy, state, stream)
    quick = quick_of(policy, state, stream, 0 if block is None else len(block[1])) if parities else None
    book = state["book"].copy()
    if quick is None:
        feed = (_feed_of_parities if parities else _feed_of_statements)(policy, state, stream, block, book)
    else:
        limit = _FARTHEST if stream.geometry.bounded else 0.0
        settings = policy.doubt, policy.trust, limit
        feed = quick_feed(quick, state, stream, block, settings=settings, book=book)
    again = renewed(state, stream)
    if again:
        renew(book, _far_means(policy, quick, stream, feed.spread))
    wait = min(_LONGER * state["wait"], max(FIRST_WAIT, (stream.memory or 1e3) / _SHARE))
    new: State = {
        **state,
        "book": book,
        "shifts": feed.shifts,
        "prices": feed.prices,
        "reference": stream.samples if again else state["reference"],
        "wait": wait,
        "next_refresh": stream.samples + wait,
        "solved": stream.samples,
        "noise": 0.0 if policy.guard is None else policy.guard * feed.inner,
        "unmet": feed.unmet if feed.unmet > max(1e-9, _UNMET[0] * feed.widest) + _UNMET[1] else 0.0,
    }
    found = stream.scratch["guards"] = roomy(guards(new, stream), new, stream)
    new = lightened(new, stream)
    if quick is not None:
        quick.renew(new, stream, found)
    return new


def _only_parities(policy: Present, state: State, stream: Machine) -> bool:
    """Return whether nothing but parities of plain means is asked, and each of their members has been met."""
    if stream.transition is not None or policy.repair is not None or stream.setting.hold is not None:
        return False
    found = guards(state, stream)
    return found.complete and found.met


def _far_means(policy: Present, quick: Quick | None, stream: Machine, spread: float) -> FloatArray:
    if quick is None:
        return far_means(stream, spread, policy.cut)
    sketch, far = stream.history.sketch, np.empty((3, len(stream.history.cells)))
    numbers = np.array([policy.cut, LEAST_SPREAD, OLDER, SHORT[0], SURELY[0], SHORT[1], SURELY[1]])
    quick.points.far_means(sketch.counts, sketch.totals, sketch.borrowed, sketch.weight, spread, numbers, far)
    return far


def _feed_of_parities(policy: Present, state: State, stream: Machine, block: Block | None, book: FloatArray) -> Feed:
    """Solve for parities of plain means in NumPy, into a book."""
    found, k, labelled = guards(state, stream), len(stream.history.cells), reads_labels(stream)
    tells = 2 if labelled else 1
    score, weight = stream.history.sketch.rows(tells)
    cell = np.arange(k)
    if block is not None:
        more = folded(*block, k, score.shape[1])
        cell, score, weight = (np.concatenate(parts) for parts in zip((cell, score, weight), more, strict=True))
    recent, mean, spread = _moments(score.reshape(-1), weight.reshape(-1))
    inner = _inner_spread(stream, score.reshape(-1), weight.reshape(-1), spread)
    _means_now(book, cell, score, weight, spread)
    # Points of no weight, last in the row of each cell, tell what pull it has at the label estimates 0 and 1.
    score[:k, -tells:], weight[:k, -tells:] = mean, _TO_TELL
    estimate = None
    if labelled:
        estimate = scale(stream).read(state["curve"], cell[:, None], score)
        estimate[:k, -2], estimate[:k, -1] = 0.0, 1.0

    def slacks(parity: int, size: FloatArray) -> FloatArray:
        if found.needs_labels[parity]:
            size = np.minimum(size, _told(state, found, parity) + policy.trust * size)
        slack = policy.doubt * inner / np.sqrt(np.maximum(size, 1e-6))
        slack[size <= 1e-6] = np.inf
        return np.asarray(slack)

    parities = parities_of(found, ScoreRows(cell, score, weight, estimate), slacks)
    t, unmet = solve_parities(
        parities, _coordinates(stream, score), _answers(stream), **_from_before(state, stream, spread)
    )
    shifts: dict[str, float] = {}
    pulls, prices = np.zeros((2, k)), _no_prices(stream)
    for each, kind, member, first in zip(t, found.kind.tolist(), found.member, found.start.tolist(), strict=False):
        here = np.where(member >= 0, each.take(member - first, mode="clip"), 0.0)
        pulls[0] += 0.0 if kind == LABEL_1 else here
        pulls[1] += 0.0 if kind == LABEL_0 else here
    for parity, each in zip(parities, t, strict=True):
        prices[parity.owner] += float((np.maximum(each, 0.0) / parity.unit).sum()) / max(recent, 1e-9)
        shifts |= dict(zip(parity.members, each.tolist(), strict=True))
    book[BASE], book[SLOPE] = pulls[0], pulls[1] - pulls[0]
    return Feed(shifts, prices, unmet, found.widest, spread, inner)


def _feed_of_statements(policy: Present, state: State, stream: Machine, block: Block | None, book: FloatArray) -> Feed:
    """Solve for any statements in NumPy, into a book."""
    cell, score, weight = stream.history.sketch.points()
    if block is not None:
        cell, score = np.append(cell, block[0]), np.append(score, block[1])
        weight = np.append(weight, np.ones(len(block[0])))
    labelled, k, n = reads_labels(stream), len(stream.history.cells), len(cell)
    recent, mean, spread = _moments(score, weight)
    inner = _inner_spread(stream, score, weight, spread)
    _means_now(book, cell, score, weight, spread)
    # Points of no weight, last, tell what pull each cell has at the label estimates 0 and 1.
    halves = 2 if labelled else 1
    many = n + halves * k
    points = _Points(np.empty(many, dtype=np.int64), np.empty(many), np.empty(many), np.zeros(many))
    points.cell[:n], points.score[:n], points.weight[:n] = cell, score, weight
    points.cell[n:], points.score[n:], points.weight[n:] = np.arange(halves * k) % max(k, 1), mean, _TO_TELL
    if labelled and k:
        points.estimate[:n] = scale(stream).read(state["curve"], cell, score)
        points.estimate[n + k :] = 1.0
    bands = _bands(policy, state, stream, points, inner)
    x, step = _coordinates(stream, points.score), _answers(stream)

    def answer(which: IntArray, pulls: FloatArray) -> FloatArray:
        return step(x[which][:, None], pulls)

    found = solve_bands(bands, answer, len(x), **_from_before(state, stream, spread))
    pulls = found.pulls[n:].reshape(halves, k)
    prices = _no_prices(stream)
    shifts: dict[str, float] = {}
    for band, t in zip(bands, found.shifts, strict=True):
        prices[band.owner] += float((np.maximum(t, 0.0) / band.unit).sum()) / max(recent, 1e-9)
        shifts |= {f"{band.owner}/{name}": each for name, each in zip(band.names, t.tolist(), strict=True)}
    book[BASE], book[SLOPE] = pulls[0], pulls[1] - pulls[0] if labelled else 0.0
    return Feed(shifts, prices, found.unmet, max((band.tolerance for band in bands), default=0.0), spread, inner)


def _moments(score: FloatArray, weight: FloatArray) -> tuple[float, float, float]:
    """Return how many recent samples there are, their mean, and their standard deviation."""
    recent = float(np.add.reduce(weight))
    if not recent > 0.0:
        return recent, 0.0, 1e-6
    mean = float(weight.dot(score)) / recent
    away = score - mean
    away *= away
    return recent, mean, math.sqrt(max(float(weight.dot(away)) / recent, 1e-12))


def _inner_spread(stream: Machine, score: FloatArray, weight: FloatArray, spread: float) -> float:
    """Return the standard deviation of scores that are cut off at the bounds; `spread` where all lie inside."""
    low, high = stream.bounds
    if (low is None or np.minimum.reduce(score, initial=low) >= low) and (
        high is None or np.maximum.reduce(score, initial=high) <= high
    ):
        return spread
    return _moments(clip(score, stream.bounds), weight)[2]


def _means_now(book: FloatArray, cell: IntArray, score: FloatArray, weight: FloatArray, spread: float) -> None:
    """Write down what a solution knows of each cell: the mean and the number of its points, and the spread."""
    k, total = book.shape[1], weight * score
    if weight.ndim == 2:
        weight, total = np.add.reduce(weight, axis=1), np.add.reduce(total, axis=1)
    size = np.bincount(cell, weight, k)
    mean = np.bincount(cell, total, k) / np.maximum(size, 1e-300)
    book[SOLVED_SIZE], book[SOLVED_MEAN], book[SOLVED_SPREAD], book[SOLVED_COUNT] = size, mean, spread, book[COUNT]
    book[SOLVED_AWAY] = book[RAW] - mean * book[COUNT]


def _told(state: State, found: Guards, parity: int) -> FloatArray:
    """Return how many labels have come of each member of a parity, of the kind that it reads."""
    total, positive = labels_told(state)
    come = (total, positive, total - positive)[int(found.kind[parity])]
    rows, member, starts = found.layouts[parity]
    return np.bincount(member, come[rows], len(starts)).astype(np.float64, copy=False)


def _answers(stream: Machine) -> Callable[[FloatArray, FloatArray], FloatArray]:
    """Return the function from coordinates and pulls to predictions."""
    value, (low, high) = stream.geometry.value, stream.bounds
    return lambda x, pulls: value(x, pulls, low, high)


def _from_before(state: State, stream: Machine, spread: float) -> dict[str, Any]:
    """Return where a solution begins, and how far it may go."""
    sketch = stream.history.sketch
    limit = _FARTHEST if stream.geometry.bounded else max(sketch.high - sketch.low, spread)
    return {"limit": limit, "before": state["shifts"]}


def _no_prices(stream: Machine) -> dict[str, float]:
    return {constraint.name: 0.0 for constraint in stream.constraints}


def _bands(policy: Present, state: State, stream: Machine, points: _Points, inner: float) -> list[Band]:
    """Return the band of every statement, with slack, the room of a transition, and debt."""
    cell, values, weights, estimate = points
    if not len(cell) or not len(stream.history.cells):
        return []
    codes = stream.history.codes()[cell]
    columns = {name: codes[:, j] for j, name in enumerate(stream.history.features)}
    groups = Groups.from_codes(columns, stream.vocabulary)
    batch = Batch(groups, len(cell), label_probabilities=estimate, weights=weights)
    batch.raw_scores = lambda: values
    known = _labels_at(state, len(cell))
    found: list[Band] = []
    for constraint in stream.constraints:
        for statement in constraint.statements(batch):
            room = 0.0
            if stream.transition is not None:
                excess = statement.excess(statement.means.of(values))
                room = stream.transition.room(constraint.name, stream.samples, excess or 0.0)
            for band in bands_of(constraint.name, statement, weights):
                size = band.size
                if constraint.needs_labels:
                    told = np.bincount(band.member, weights=known[band.points], minlength=len(size))
                    size = np.minimum(size, told + policy.trust * size)
                with np.errstate(divide="ignore"):
                    slack = np.where(size > 1e-6, policy.doubt * inner / np.sqrt(size), np.inf)
                found.append(band.with_room(slack, room))
    return debts_of(stream, found, policy.repair, float(weights.sum()))


def _labels_at(state: State, points: int) -> FloatArray:
    """Return the labels that have come of each cell, by kind, at the points that stand for it and its label."""
    total, positive = labels_told(state)
    found = np.zeros(points)
    last = np.concatenate([total - positive, positive])
    found[max(points - len(last), 0) :] = last[-points:] if points else last
    return found


def _coordinates(stream: Machine, values: FloatArray) -> FloatArray:
    """Return raw scores in the coordinate of the geometry."""
    low, high = stream.bounds
    inside = np.clip(values, low, high) if stream.geometry.bounded else values
    return np.asarray(stream.geometry.coordinates(torch.from_numpy(inside), from_logits=False, margin=0.0).numpy())
