"""The inference state machine: a step takes raw scores and groups, emits predictions, and updates the state whole.

    target = raw - feed_forward[cell]           the projection of the sketch, re-solved as the stream grows
    emitted = correct(target, history)          hard, soft, or per batch: the policy

Nothing is changed before everything that can fail has been computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fairlayer._typing import FloatArray, IntArray
from fairlayer.assembly import assemble
from fairlayer.constraints import Constraint
from fairlayer.errors import ConstraintDefinitionError, InfeasibleConstraintsError
from fairlayer.groups import Groups, Vocabulary
from fairlayer.solve.quadratic import ClashingFaces
from fairlayer.streaming.correction import Frame, feed_forward, feedback, hard_step, pooled_gaps, soft_step
from fairlayer.streaming.history import History, batch_of
from fairlayer.streaming.per_batch import PerBatchDual
from fairlayer.streaming.phases import Phase, PhaseRule
from fairlayer.streaming.policy import Anytime, PerBatch, Policy, Tracking
from fairlayer.streaming.single import SpreadSums
from fairlayer.streaming.sketch import Sketch

__all__ = ["Machine"]

_FIRST_REFRESH, _REFRESH_SHARE = 8, 32


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
        self.features = tuple(dict.fromkeys(name for c in constraints for name in c.features))
        low, high = (0.0 if bounds[0] is None else bounds[0]), (1.0 if bounds[1] is None else bounds[1])
        self.history = History(self.features, Sketch(low, high if high > low else low + 1.0, half_life=half_life))
        self.shifts = np.zeros(0)
        self.prices: dict[str, float] = {}
        self.next_refresh = 0.0
        self.dual = PerBatchDual()
        self.rule = PhaseRule()
        self.vocabulary = Vocabulary()
        self._sums: SpreadSums | None = None
        self._frame: Frame | None = None

    # ---- steps

    def step(self, groups: Groups, raw: FloatArray) -> FloatArray:
        """Emit predictions for a batch, by the policy.

        Raises:
            InfeasibleConstraintsError: the constraints contradict each other for any predictions.
        """
        cells = self._cells(groups)
        if isinstance(self.policy, PerBatch):
            emitted = self.dual.step(self._frame_now(), cells, raw, self.policy)
            return self._commit(cells, raw, raw, emitted, 0.0)
        self._refresh()
        target = raw - self.shifts[cells]
        emitted, widening = self._correct(self._frame_now(), cells, target)
        return self._commit(cells, raw, target, emitted, widening)

    def step_one(self, cell: int, raw: float) -> float | None:
        """Emit one prediction where plain sums suffice, else None (and nothing has changed)."""
        policy, sums = self.policy, self._sums
        if sums is None or self.rule.cold or isinstance(policy, PerBatch):
            return None
        samples = self.rule.samples
        if samples >= self.next_refresh:
            self._refresh()
        target = raw - float(self.shifts[cell])
        slack = policy.slack(samples + 1.0)
        interval = sums.interval(cell, slack)
        if interval is None:
            return None
        low, high = interval
        emitted = min(max(target, sums.low), sums.high)
        if not low <= emitted <= high:
            end = low if emitted < low else high
            if isinstance(policy, Tracking):
                k = sums.stiffness(cell, policy.rate) if policy.implicit else None
                if k is None:
                    return None
                end = (target + k * end) / (1.0 + k)
            emitted = min(max(end, sums.low), sums.high)
        self.history.emit_one(cell, raw, emitted)
        sums.add(cell, 1.0, emitted)
        self.rule.observe(1.0, abs(emitted - min(max(target, sums.low), sums.high)), abs(target - raw), 0.0)
        return emitted

    def absorb(self, groups: Groups, raw: FloatArray, emitted: FloatArray) -> None:
        """Count predictions that were made elsewhere (a large batch projected by itself)."""
        cells = self._cells(groups)
        self._refresh()
        self._commit(cells, raw, raw, emitted, 0.0)

    def observe_labels(self, cells: IntArray, emitted: FloatArray, labels: FloatArray) -> None:
        """Count labels of earlier predictions."""
        self.history.label(cells, emitted, labels)
        self.next_refresh = 0.0

    def warm_start(self, groups: Groups, raw: FloatArray) -> None:
        """Feed raw scores to the sketch, as if the stream had begun with them; nothing is counted as emitted."""
        cells = self._cells(groups)
        self.history.sketch.add(cells, raw)
        self.next_refresh = 0.0

    # ---- what it knows

    def pooled_gaps(self) -> dict[str, float | None]:
        """Return the pooled gap of each constraint."""
        return pooled_gaps(self._frame_now())

    def cell_of(self, codes: tuple[int, ...]) -> int | None:
        """Return a known cell by its codes."""
        return self.history.index.get(codes)

    def unseen(self) -> bool:
        """Whether some group that a constraint compares has emitted nothing yet."""
        counts = self.history.sums["count"]
        rows = np.flatnonzero(counts)
        if not len(rows):
            return bool(self.constraints)
        ones = np.zeros(len(rows)) if any(c.needs_labels for c in self.constraints) else None
        batch = batch_of(self.history, self.vocabulary, rows, weights=counts[rows], labels=ones)
        unlabelled = [c for c in self.constraints if not c.needs_labels]
        return bool(assemble(unlabelled, batch, on_empty="skip").absent)

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
            self.vocabulary = groups.vocabulary.closed()
            self._frame = self._sums = None
        known = len(self.history.cells)
        table = np.stack([c for c in codes if c is not None], axis=1) if codes else np.zeros((groups.n, 0), np.int64)
        cells = self.history.locate(table)
        if len(self.history.cells) > known:
            self.shifts = np.append(self.shifts, np.zeros(len(self.history.cells) - known))
            self._sums, self.next_refresh = None, 0.0
        return cells

    def _refresh(self) -> None:
        """Solve for the feed-forward anew once the stream has grown by a thirty-second."""
        samples = self.rule.samples
        if samples < self.next_refresh:
            return
        frame, policy = self._frame_now(), self.policy
        assert not isinstance(policy, PerBatch)
        effective = max(samples, float(self.history.sketch.counts.sum()) / self.history.sketch.weight, 1.0)
        shifts, self.prices = feed_forward(frame, policy.inset(effective))
        rate = policy.rate if isinstance(policy, Tracking) else 0.1
        if frame.labelled:
            shifts = shifts + feedback(frame, rate, 0.0, labelled=True)
        limit = policy.limit if isinstance(policy, Tracking) else np.inf
        self.shifts = np.clip(shifts, -limit, limit)
        recent = samples if self.half_life is None else min(samples, self.half_life)
        self.next_refresh = samples + max(_FIRST_REFRESH, recent // _REFRESH_SHARE)

    def _correct(self, frame: Frame, cells: IntArray, target: FloatArray) -> tuple[FloatArray, float]:
        policy = self.policy
        assert not isinstance(policy, PerBatch)
        slack = policy.slack(self.rule.samples + len(cells))
        clipped = self._clip(target)
        if self._sums is None:
            self._sums = SpreadSums.of(frame)
        if not frame.unlabelled or (self._sums is not None and self._sums.hold(cells, clipped, slack)):
            return clipped, 0.0
        try:
            if isinstance(policy, Anytime):
                return hard_step(frame, cells, target, slack)
            if policy.implicit:
                return soft_step(frame, cells, target, slack, policy.rate), 0.0
            return self._clip(target - feedback(frame, policy.rate, slack, labelled=False)[cells]), 0.0
        except ClashingFaces as clash:
            raise InfeasibleConstraintsError(
                f"no stream of predictions can meet {', '.join(c.name for c in self.constraints)} together "
                f"({len(clash.faces)} statements clash). Loosen one of them."
            ) from None

    def _clip(self, values: FloatArray) -> FloatArray:
        low, high = self.bounds
        values = values if low is None else np.maximum(values, low)
        return values if high is None else np.minimum(values, high)

    def _commit(
        self, cells: IntArray, raw: FloatArray, target: FloatArray, emitted: FloatArray, widening: float
    ) -> FloatArray:
        self.history.emit(cells, raw, emitted)
        if self._sums is not None:
            for cell, value in zip(cells.tolist(), emitted.tolist(), strict=True):
                self._sums.add(cell, 1.0, value)
        clipped = self._clip(target)
        correction, forward = float(np.abs(emitted - clipped).mean()), float(np.abs(target - raw).mean())
        self.rule.observe(float(len(cells)), correction, forward, widening)
        if self.rule.cold and not self.unseen():
            self.rule.cold = False
        return emitted

    def phase(self) -> Phase:
        """Return the phase of the stream."""
        settle = 1000 if isinstance(self.policy, PerBatch) else self.policy.settle
        return self.rule.phase(settle)

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
        self._frame = self._sums = None

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
        self.next_refresh, self._frame, self._sums = 0.0, None, None
        self.rule.cold = self.unseen()
