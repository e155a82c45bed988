"""The inference state machine: a step takes raw scores and cells, emits predictions, and counts them.

    target = raw - feed_forward[cell]           the projection of the sketch, re-solved as the stream grows
    emitted = correct(target, history)          hard, soft, or per batch: the policy

Small batches under plain parity constraints take a short way on group sums; everything else the general one, the
core's projection with the history folded in. Nothing is counted before everything that can fail has been computed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Batch, Constraint, Measured
from fairlayer.errors import CategoryError, ConstraintDefinitionError, InfeasibleConstraintsError, SolverError
from fairlayer.groups import Groups, Vocabulary
from fairlayer.projection.assembly import assemble
from fairlayer.solve.quadratic import ClashingFaces
from fairlayer.streaming.correction import (
    Frame,
    excess,
    feed_forward,
    feedback,
    hard_step,
    large_step,
    measure_past,
    soft_step,
)
from fairlayer.streaming.history import History, batch_of
from fairlayer.streaming.per_batch import PerBatchDual
from fairlayer.streaming.phases import Phase, PhaseRule
from fairlayer.streaming.policy import Anytime, PerBatch, Policy, Tracking
from fairlayer.streaming.single import SpreadSums, clip
from fairlayer.streaming.sketch import Sketch

__all__ = ["Machine"]

_FIRST_REFRESH, _REFRESH_SHARE = 8, 8
_LARGEST_SQUARE = 1e200  # sum of squares that no finite scores reach
_LABEL_RATE = 0.1  # feedback rate for label-based constraints under a hard policy, which has none of its own


class Machine:
    """State and step of one stream. Not thread-safe by itself; `InferenceState` guards it.

    Args:
        constraints: what must hold for the pooled means of everything emitted.
        bounds: of every prediction, numbers or None.
        policy: how.
        half_life: samples after which the feed-forward forgets half; None for never.
    """

    def __init__(
        self,
        constraints: Sequence[Constraint],
        bounds: tuple[float | None, float | None],
        policy: Policy,
        half_life: float | None,
    ) -> None:
        self.constraints, self.bounds, self.policy, self.half_life = tuple(constraints), bounds, policy, half_life
        self.settle = 1000 if isinstance(policy, PerBatch) else policy.settle
        self.features = tuple(dict.fromkeys(name for c in constraints for name in c.features))
        low, high = (0.0 if bounds[0] is None else bounds[0]), (1.0 if bounds[1] is None else bounds[1])
        self.history = History(self.features, Sketch(low, high if high > low else low + 1.0, half_life=half_life))
        self.shifts = np.zeros(0)
        self.prices: dict[str, float] = {}
        self.next_refresh = 0.0
        self.revision = 0  # counts the times that the feed-forward, or the dual, was computed anew
        self.dual = PerBatchDual()
        self.rule = PhaseRule()
        self.vocabulary = Vocabulary()
        self._sums: SpreadSums | None = None
        self._plain = True  # whether `_sums` may exist
        self._frame: Frame | None = None
        self.arrears: Callable[[], None] | None = None  # counts what was emitted elsewhere, see `lend`

    # ---- steps

    def step(self, groups: Groups, raw: FloatArray) -> FloatArray:
        """Emit predictions for a batch, by the policy.

        Raises:
            InfeasibleConstraintsError: the constraints contradict each other for any predictions.
        """
        cells = self._cells(groups)
        if isinstance(self.policy, PerBatch):
            emitted = self.dual.step(self._frame_now(), cells, raw, self.policy)
            self.revision += 1
            return self._commit(cells, raw, raw, emitted, 0.0)
        held = self.step_many(cells, raw)
        if held is not None:
            return held.copy()
        self._refresh()
        target = self.target(raw - self.shifts[cells])
        emitted, widening = self._correct(cells, target)
        return self._commit(cells, raw, target, emitted, widening)

    def step_large(self, groups: Groups, raw: FloatArray, projected: FloatArray) -> FloatArray:
        """Emit a batch that meets the constraints by itself, where the pooled means then hold too.

        Otherwise emit the predictions nearest to the raw scores under which the batch and the pool both meet them; if
        none do, the pool goes first.
        """
        cells = self._cells(groups)
        frame = self._frame_now()
        if isinstance(self.policy, PerBatch) or not frame.unlabelled:
            return self._commit(cells, raw, raw, projected, 0.0)
        self._refresh()
        slack = max(self.policy.slack(self.rule.samples + len(cells)), 0.0)
        if excess(frame, cells, projected) <= slack + 1e-9:
            return self._commit(cells, raw, projected, projected, 0.0)
        target = projected if frame.labelled else raw
        emitted, widening = large_step(frame, cells, target, slack)
        return self._commit(cells, raw, projected, emitted, widening)

    def step_one(self, cell: int, raw: float) -> float | None:
        """Emit one prediction where group sums suffice, else None (and nothing has changed)."""
        policy = self.policy
        sums = self._sums or self.group_sums()
        if sums is None or isinstance(policy, PerBatch):
            return None
        samples = self.rule.samples
        if samples >= self.next_refresh:
            self._refresh()
        target = raw - float(self.shifts[cell])
        soft = isinstance(policy, Tracking)
        if soft:
            target = min(max(target, sums.low - policy.limit), sums.high + policy.limit)  # type: ignore[union-attr]
        interval = sums.interval(cell, policy.slack(samples + 1.0))
        if interval is None:
            return None
        low, high = interval
        start = emitted = min(max(target, sums.low), sums.high)
        if not low <= emitted <= high:
            end = low if emitted < low else high
            if isinstance(policy, Tracking):
                k = sums.stiffness(cell, policy.rate) if policy.implicit else None
                if k is None:
                    return None
                end = (target + k * end) / (1.0 + k)
                ends = sums.interval(cell, policy.cap(samples + 1.0))
                if ends is None:
                    return None
                end = min(max(end, ends[0]), ends[1])
            emitted = min(max(end, sums.low), sums.high)
        stuck = 0.0
        if emitted in (sums.low, sums.high) and not low <= emitted <= high:
            low, high = sums.interval(cell, max(policy.slack(samples + 1.0), 0.0)) or interval
            stuck = max(low - emitted, emitted - high)  # of the limits themselves, not of what is kept inside them
        fresh = self.rule.cold and sums.new_to(cell)
        self.history.emit_one(cell, raw, emitted)
        sums.add(cell, 1.0, emitted)
        self.rule.observe(1.0, abs(emitted - start), stuck)
        if fresh:
            self.rule.cold = self.unseen()
        return emitted

    def step_many(self, cells: IntArray, scores: np.ndarray[Any, Any]) -> FloatArray | None:
        """Emit a batch by the feed-forward alone where every spread then holds, else None (and nothing has changed).

        None, too, where a score is not finite. A cell one past the last stands for a sample of a cell that the stream
        has not met. The predictions are the journal's own: copy them before the next step.
        """
        sums, history = self._sums or self.group_sums(), self.history
        k, n, samples = len(history.cells), len(cells), self.rule.samples
        if sums is None or n > history.longest_draft or isinstance(self.policy, PerBatch):
            return None
        if samples >= self.next_refresh:
            if not (np.isfinite(scores).all() and cells.max() < k):
                return None  # before anything changes
            self._refresh()
        raw, emitted = history.draft(n)
        raw[:] = scores
        counts = np.bincount(cells, minlength=k + 1).tolist()
        if counts[k] or not raw.dot(raw) < _LARGEST_SQUARE:
            return None
        np.subtract(raw, self.shifts[cells], out=emitted)
        np.maximum(emitted, sums.box[0], out=emitted)
        np.minimum(emitted, sums.box[1], out=emitted)
        fresh = self.rule.cold and any(sums.new_to(cell) for cell, count in enumerate(counts) if count)
        totals = np.bincount(cells, emitted, k).tolist()
        if not sums.add_if_held(counts, totals, self.policy.slack(samples + n)):
            return None
        history.emit_draft(cells)
        self.rule.observe(float(n), 0.0, 0.0)
        if fresh:
            self.rule.cold = self.unseen()
        return emitted

    def absorb(self, groups: Groups, raw: FloatArray, emitted: FloatArray) -> None:
        """Count predictions that were made elsewhere, as they are."""
        cells = self._cells(groups)
        if not isinstance(self.policy, PerBatch):
            self._refresh()
        self._commit(cells, raw, raw, emitted, 0.0)

    def check_labels(self, groups: Groups, labels: FloatArray) -> None:
        """Let the constraints refuse labels of a few samples, as those of a batch, before they are counted.

        Raises:
            LabelValueError: a constraint cannot read them.
        """
        labelled = [constraint for constraint in self.constraints if constraint.needs_labels]
        assemble(labelled, Batch(groups, len(labels), labels=labels), on_empty="skip")

    def observe_labels(self, codes: IntArray, emitted: FloatArray, labels: FloatArray) -> None:
        """Count labels of earlier predictions, made for samples with these codes."""
        self.history.label(self.history.locate(codes), emitted, labels)
        if any(constraint.needs_labels for constraint in self.constraints):
            self.next_refresh = 0.0

    def warm_start(self, groups: Groups, raw: FloatArray) -> None:
        """Feed raw scores to the sketch, as if the stream had begun with them; nothing is counted as emitted."""
        self.history.sketch.add(self._cells(groups), raw)
        self.next_refresh = 0.0

    def lend(self, collect: Callable[[], None]) -> None:
        """Leave the group sums to steps elsewhere, until `catch_up` has these counted by `collect`."""
        self._sums, self.arrears = None, collect

    def catch_up(self) -> None:
        """Count what was emitted elsewhere; to be called before anything else reads or steps."""
        collect, self.arrears = self.arrears, None
        if collect is not None:
            collect()

    # ---- what it knows

    def measured(self) -> dict[str, Measured | None]:
        """Return what each constraint says about everything emitted."""
        return measure_past(self._frame_now())

    def group_sums(self) -> SpreadSums | None:
        """Return the sums of plain groups; None where these do not suffice, or are lent."""
        if self._sums is None and self._plain and self.arrears is None:
            self._sums = SpreadSums.of(self._frame_now())
            self._plain = self._sums is not None
        return self._sums

    def unseen(self) -> bool:
        """Whether some group that a constraint compares has emitted nothing yet, or it compares nothing."""
        counts = self.history.sums["count"]
        rows = np.flatnonzero(counts)
        if not len(rows):
            return bool(self.constraints)
        batch = batch_of(self.history, self.vocabulary, rows, weights=counts[rows])
        unlabelled = [c for c in self.constraints if not c.needs_labels]
        assembly = assemble(unlabelled, batch, on_empty="skip")
        return bool(assembly.absent) or len(set(assembly.owners)) < len(unlabelled)

    def phase(self) -> Phase:
        """Return the phase of the stream."""
        return self.rule.phase(self.settle)

    def adopt(self, vocabulary: Vocabulary) -> None:
        """Take on categories; cells keep their meaning, under new codes where the order changed.

        Raises:
            CategoryError: a category that the stream has met is not among them.
        """
        old, new = self.vocabulary.categories, vocabulary.categories
        if all(tuple(words) == tuple(new.get(name, ()))[: len(words)] for name, words in old.items()):
            self.vocabulary = vocabulary.closed()
            self._frame = None
            return
        self.history.recode([self.recoded(codes, old, new) for codes in self.history.cells])
        self.vocabulary = vocabulary.closed()
        self._frame, self._sums, self._plain = None, None, True

    def recoded(
        self, codes: tuple[int, ...], old: Mapping[str, Sequence[Any]], new: Mapping[str, Sequence[Any]]
    ) -> tuple[int, ...]:
        """Return the codes under new categories of what the codes mean under old ones.

        Raises:
            CategoryError: a category is not among the new ones.
        """
        recoded = []
        for name, code in zip(self.features, codes, strict=True):
            category = None if code < 0 else old[name][code]
            if category is not None and category not in new.get(name, ()):
                raise CategoryError(
                    f"the stream has met {name}={category!r}, which the new categories {list(new.get(name, ()))} lack. "
                    "Call reset_inference_state(), or fit_categories(...) on data that has it."
                )
            recoded.append(-1 if category is None else list(new[name]).index(category))
        return tuple(recoded)

    # ---- internals

    def _frame_now(self) -> Frame:
        if self._frame is None:
            self._frame = Frame(self.history, self.constraints, self.vocabulary, self.bounds)
        return self._frame

    def _cells(self, groups: Groups) -> IntArray:
        codes = [groups.column(name).codes for name in self.features]
        if any(column is None for column in codes):
            raise ConstraintDefinitionError(
                "a stream needs a category per sample, but some sensitive feature is a soft membership. "
                "Take the most likely category, or project larger batches."
            )
        if groups.vocabulary.categories != self.vocabulary.categories:
            self.adopt(groups.vocabulary)
        table = np.stack([c for c in codes if c is not None], axis=1) if codes else np.zeros((groups.n, 0), np.int64)
        return self.locate(table)

    def locate(self, codes: IntArray) -> IntArray:
        """Return the cell of each row of codes (n, features), meeting new ones."""
        known = len(self.history.cells)
        cells = self.history.locate(codes)
        if len(self.history.cells) > known:
            self.shifts = np.append(self.shifts, np.zeros(len(self.history.cells) - known))
            self._sums, self._plain, self.next_refresh = None, True, 0.0
        return cells

    def _refresh(self) -> None:
        """Solve for the feed-forward anew once the stream has grown by an eighth."""
        if self.rule.samples >= self.next_refresh and not isinstance(self.policy, PerBatch):
            self.solve(self.rule.samples)

    def solve(self, samples: float) -> None:
        """Solve for the feed-forward of a stream of so many samples."""
        policy, frame, sketch = self.policy, self._frame_now(), self.history.sketch
        assert not isinstance(policy, PerBatch)
        try:
            shifts, prices = feed_forward(frame, policy.inset(max(samples, sketch.total(), 1.0)))
            if frame.labelled:
                rate = policy.rate if isinstance(policy, Tracking) else _LABEL_RATE
                shifts = shifts + feedback(frame, rate, 0.0, labelled=True)
        except SolverError as error:  # a request must not fail for it: what is held does not depend on it
            warnings.warn(f"the feed-forward of a stream stays as it was: {error}", stacklevel=2)
            shifts, prices = self.shifts, self.prices
        self.prices = prices
        self.shifts = np.clip(shifts, -policy.limit, policy.limit) if isinstance(policy, Tracking) else shifts
        weights = sketch.counts.sum(axis=1) + 1e-300
        self.rule.forward = float(np.abs(self.shifts).dot(weights) / weights.sum())
        recent = samples if self.half_life is None else min(samples, self.half_life)
        self.next_refresh = samples + max(_FIRST_REFRESH, recent // _REFRESH_SHARE)
        self.revision += 1

    def target(self, target: FloatArray) -> FloatArray:
        """Keep a soft step's target within `limit` of the bounds, so that its shift can always saturate."""
        if not isinstance(self.policy, Tracking):
            return target
        low, high = self.bounds
        limit = self.policy.limit
        return clip(target, (None if low is None else low - limit, None if high is None else high + limit))

    def _correct(self, cells: IntArray, target: FloatArray) -> tuple[FloatArray, float]:
        policy, frame = self.policy, self._frame_now()
        assert not isinstance(policy, PerBatch)
        slack, start = policy.slack(self.rule.samples + len(cells)), clip(target, self.bounds)
        if not frame.unlabelled or excess(frame, cells, start) <= slack:
            return start, 0.0
        try:
            if isinstance(policy, Anytime):
                return hard_step(frame, cells, target, slack)
            emitted = self._soft(policy, cells, target, slack)
            cap = policy.cap(self.rule.samples + len(cells))
            if excess(frame, cells, emitted) > cap + 1e-12:
                return hard_step(frame, cells, emitted, cap)
        except ClashingFaces as clash:
            raise InfeasibleConstraintsError(
                f"no stream of predictions can meet {', '.join(c.name for c in self.constraints)} together "
                f"({len(clash.faces)} statements clash). Loosen one of them."
            ) from None
        stuck = self.at_bounds(emitted)
        return emitted, max(excess(frame, cells, emitted) - max(slack, 0.0), 0.0) if stuck else 0.0

    def at_bounds(self, emitted: FloatArray) -> bool:
        """Whether every prediction is at a bound."""
        return bool(np.isin(emitted, [bound for bound in self.bounds if bound is not None]).all())

    def _soft(self, policy: Tracking, cells: IntArray, target: FloatArray, slack: float) -> FloatArray:
        if policy.implicit:
            return soft_step(self._frame_now(), cells, target, slack, policy.rate)
        return clip(target - feedback(self._frame_now(), policy.rate, slack, labelled=False)[cells], self.bounds)

    def _commit(
        self, cells: IntArray, raw: FloatArray, target: FloatArray, emitted: FloatArray, widening: float
    ) -> FloatArray:
        self.history.emit(cells, raw, emitted)
        if self._sums is not None:
            k = len(self.history.cells)
            counts, totals = np.bincount(cells, minlength=k).tolist(), np.bincount(cells, emitted, k).tolist()
            self._sums.add_if_held(counts, totals, np.inf)
        self.rule.observe(float(len(cells)), float(np.abs(emitted - clip(target, self.bounds)).mean()), widening)
        if self.rule.cold:
            self.rule.cold = self.unseen()
        return emitted

    # ---- state

    def to_state(self) -> dict[str, Any]:
        """Return tensors and plain containers, loadable with `weights_only=True`."""
        return {
            "history": self.history.to_state(),
            "shifts": torch.from_numpy(self.shifts.copy()),
            "prices": dict(self.prices),
            "next_refresh": self.next_refresh,
            "dual": self.dual.to_state(),
            "rule": self.rule.to_state(),
            "vocabulary": self.vocabulary.to_state(),
            "features": list(self.features),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `to_state` returned."""
        if tuple(state["features"]) != self.features:
            raise ConstraintDefinitionError(
                f"the saved stream is over the features {state['features']}, but this model's constraints read "
                f"{list(self.features)}. Load it into a model with the same constraints."
            )
        self.history.load_state(state["history"])
        self.shifts = state["shifts"].cpu().double().numpy().copy()
        self.prices = {name: float(price) for name, price in state["prices"].items()}
        self.next_refresh = float(state["next_refresh"])
        self.dual.load_state(state["dual"])
        self.rule.load_state(state["rule"])
        self.vocabulary = Vocabulary.from_state(state["vocabulary"])
        self._frame, self._sums, self._plain = None, None, True

    def mark(self) -> tuple[int, Vocabulary, FloatArray, float, dict[str, float], float]:
        """Return what a failing step may have changed; counts are not among it."""
        rule = self.rule.forward
        return len(self.history.cells), self.vocabulary, self.shifts, self.next_refresh, self.prices, rule

    def restore(self, mark: tuple[int, Vocabulary, FloatArray, float, dict[str, float], float]) -> None:
        """Undo a failing step."""
        known, vocabulary, self.shifts, self.next_refresh, self.prices, self.rule.forward = mark
        self.history.forget_cells(known)
        if vocabulary.categories != self.vocabulary.categories:
            self.adopt(vocabulary)
        self._frame, self._sums, self._plain = None, None, True

    def merge(self, other: Machine, sign: float = 1.0) -> None:
        """Add the history of another stream under the same categories (take it off, for sign -1)."""
        if other.vocabulary.categories and self.vocabulary.categories != other.vocabulary.categories:
            if self.vocabulary.categories:
                raise ConstraintDefinitionError(
                    f"streams with different categories cannot be merged: {dict(self.vocabulary.categories)} and "
                    f"{dict(other.vocabulary.categories)}. Call fit_categories(...) before streaming."
                )
            self.vocabulary = other.vocabulary
        self.history.merge(other.history, sign)
        self.shifts = np.zeros(len(self.history.cells))
        self.rule.samples += sign * other.rule.samples
        self.next_refresh, self._frame, self._sums, self._plain = 0.0, None, None, True
        self.rule.cold = self.unseen()
