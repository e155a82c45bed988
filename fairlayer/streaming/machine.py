"""The machine of a stream: it reads cells, asks the policy, and counts what is emitted.

    state, emitted = policy(state, new scores; what was counted)
    counts of everything, of recent scores, of buckets

It knows no kind of policy. Nothing is counted before everything that can fail has been computed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Batch, Measured
from fairlayer.groups import Groups, Vocabulary
from fairlayer.projection.assembly import assemble
from fairlayer.streaming.cells import cells_of
from fairlayer.streaming.control.correction import Frame, measure_past
from fairlayer.streaming.control.lease import Lease
from fairlayer.streaming.control.single import clip
from fairlayer.streaming.counts.history import History, batch_of
from fairlayer.streaming.counts.sketch import Sketch
from fairlayer.streaming.counts.windows import Windows
from fairlayer.streaming.labels.pending import Waiting
from fairlayer.streaming.phases import Phase, PhaseRule
from fairlayer.streaming.policies.base import LARGEST_SQUARE, Answer, Call, Labelled, State
from fairlayer.streaming.setting import Setting
from fairlayer.streaming.transition import Event, Transition

__all__ = ["Machine"]

_FIRST_BUCKET = 100.0
_MOST_EVENTS = 200


class Machine:
    """State and step of one stream. Not thread-safe by itself; `InferenceState` guards it.

    Args:
        setting: what is asked of the stream.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting, self.policy, self.constraints = setting, setting.policy, setting.constraints
        self.bounds, self.memory, self.geometry = setting.bounds, setting.memory, setting.geometry
        self.features = setting.features
        self.history = History(self.features, self._new_sketch())
        labelled = any(constraint.needs_labels for constraint in self.constraints)
        low, high = self._range()
        self.windows = Windows(
            setting.window,
            first=_FIRST_BUCKET,
            labelled=labelled,
            threshold=0.5 * (low + high),
            bounds=self.bounds,
        )
        self.history.listeners.append(self._to_windows)
        self.own: State = self.policy.begin()
        self.revision = 0  # counts the times that the policy's state was computed anew
        self.rule = PhaseRule()
        self.entered = self.phase()  # the phase of what is in the journal
        self.vocabulary = Vocabulary()
        self.transition: Transition | None = None
        self.events: list[Event] = []
        self.now: float | None = None  # the caller's clock at the call under way
        self.lease: Lease | None = None  # how far a worker of several may go without telling the others
        self.lost_labels = 0  # predictions that waited for a label and had to make room
        self.scratch: dict[str, Any] = {}  # what a policy derives from the counts, dropped when cells change
        self._frame: Frame | None = None

    # ---- what a policy reads

    @property
    def samples(self) -> float:
        """Predictions emitted so far."""
        return self.rule.samples

    @property
    def frame(self) -> Frame:
        """The counts and constraints as the general step reads them."""
        if self._frame is None:
            self._frame = Frame(self.history, self.constraints, self.vocabulary, self.bounds)
        return self._frame

    @property
    def transition_room(self) -> float:
        """The room above every limit that a transition leaves, in prediction units."""
        return 0.0 if self.transition is None else self.transition.largest(self.rule.samples)

    def note(self, kind: str, text: str) -> None:
        """Note an event."""
        self.events.append(Event(self.rule.samples, self.windows.at, kind, text))
        del self.events[:-_MOST_EVENTS]

    # ---- steps

    def step(self, groups: Groups, raw: FloatArray) -> FloatArray:
        """Emit predictions for a batch, by the policy.

        Raises:
            InfeasibleConstraintsError: the constraints contradict each other for any predictions.
        """
        cells = cells_of(self, groups)
        held = None if self.now is not None else self.step_many(cells, raw)
        if held is not None:
            return held.copy()
        self.prepare(cells, raw)
        answer = self.policy.answer(self.own, self, cells, raw)
        if self.lease is not None:
            answer = answer._replace(emitted=self.lease.kept(self.history, cells, answer.emitted))
        return self._commit(cells, raw, answer)

    def step_large(self, groups: Groups, raw: FloatArray, projected: FloatArray) -> FloatArray:
        """Emit a batch that meets the constraints by itself, as far as the policy lets it."""
        cells = cells_of(self, groups)
        self.prepare(cells, raw)
        return self._commit(cells, raw, self.policy.answer_large(self.own, self, cells, raw, projected))

    def step_one(self, cell: int, raw: float) -> float | None:
        """Emit one prediction where the policy has a short way, else None (and nothing has changed)."""
        if self.lease is not None:
            return None
        if self.rule.samples >= self.own.get("next_refresh", math.inf):
            self.prepare(np.array([cell]), np.array([raw]))
        found = self.policy.answer_one(self.own, self, cell, raw)
        if found is None:
            return None
        emitted, correction, widening = found
        if self.now is not None:
            self.tick(self.now)
        self.history.emit_one(cell, raw, emitted)
        rule = self.rule
        rule.observe(1.0, correction, widening)
        if rule.cold:
            self.look_for_groups([cell])
        return emitted

    def step_many(self, cells: IntArray, scores: np.ndarray[Any, Any]) -> FloatArray | None:
        """Emit a batch where the policy has a short way, else None (and nothing has changed).

        None, too, where a score is not finite. A cell one past the last stands for a sample of a cell that the stream
        has not met. The predictions are the journal's own: copy them before the next step.
        """
        history, n, own = self.history, len(cells), self.own
        if n > history.longest_draft or self.lease is not None:
            return None
        due, large = self.rule.samples >= own.get("next_refresh", math.inf), n >= own.get("wait", math.inf)
        rested = due and not large and self.policy.rests(own, self)
        if large or (due and not rested):
            if not self.takes(cells, scores):
                return None  # before anything is solved, so that a call that raises changes nothing
            self.prepare(cells, np.asarray(scores, dtype=np.float64))
        raw, emitted = history.draft(n)
        raw[:] = scores
        found = self.policy.answer_many(self.own, self, Call(cells, raw), emitted)
        if found is None:
            return None
        if rested and own["next_refresh"] > 0.0:  # it is 0 where the scores of the call tell of a change
            own["next_refresh"] = self.rule.samples + own["wait"]  # type: ignore[index]
        emitted = history.emit_draft(cells)
        self.rule.observe(float(n), *found)
        if self.rule.cold:
            self.look_for_groups(cells.tolist())
        return emitted

    def takes(self, cells: IntArray, scores: np.ndarray[Any, Any]) -> bool:
        """Return whether the short ways can take a call: its scores are finite, and its cells have been met."""
        return float(scores.dot(scores)) < LARGEST_SQUARE and int(np.maximum.reduce(cells)) < len(self.history.cells)

    def absorb(self, groups: Groups, raw: FloatArray, emitted: FloatArray) -> None:
        """Count predictions that were made elsewhere, as they are."""
        cells = cells_of(self, groups)
        self.prepare(cells, raw)
        self._commit(cells, raw, Answer(emitted, raw))

    def check_labels(self, groups: Groups, labels: FloatArray) -> None:
        """Let the constraints refuse labels of a few samples, as those of a batch, before they are counted.

        Raises:
            LabelValueError: a constraint cannot read them.
        """
        labelled = [constraint for constraint in self.constraints if constraint.needs_labels]
        assemble(labelled, Batch(groups, len(labels), labels=labels), on_empty="skip")

    def estimates(self, cells: IntArray, raw: FloatArray) -> FloatArray:
        """Return the policy's label estimates."""
        return self.policy.estimate_labels(self.own, self, cells, raw)

    def observe_labels(self, waiting: Waiting, labels: FloatArray) -> None:
        """Count labels (n,) of predictions that waited for them."""
        cells = self.history.locate(waiting.codes)
        labelled = Labelled(cells, waiting.raw, waiting.emitted, waiting.estimates, labels)
        self.history.label(cells, waiting.emitted, labels)
        self.windows.label(labelled, waiting.numbers, len(self.history.cells))
        self.own = self.policy.count_labels(self.own, self, labelled)

    def warm_start(self, groups: Groups, raw: FloatArray) -> None:
        """Feed raw scores to the sketch, as if the stream had begun with them; nothing is counted as emitted."""
        cells = cells_of(self, groups)
        self.history.sketch.add(cells, raw)
        self.own = {**self.own, "next_refresh": 0.0}

    def tick(self, at: float) -> None:
        """Take note of the time of the samples that are about to be counted."""
        if self.windows.begins_bucket(at):
            self.history.flush()
        self.windows.tick(at)

    # ---- what it knows

    @property
    def shifts(self) -> FloatArray:
        """How far each cell's raw scores are moved down."""
        return self.policy.shifts(self.own, self)

    def measured(self) -> dict[str, Measured | None]:
        """Return what each constraint says about everything emitted."""
        return measure_past(self.history, self.vocabulary, self.constraints)

    def unseen(self) -> bool:
        """Return whether some group that a constraint compares has emitted nothing yet, or it compares nothing."""
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
        return self.rule.phase(self.policy.settle)

    def enter(self, phase: Phase) -> None:
        """Count what comes under this phase, once what came before was summed up under the last."""
        self.history.flush()
        self.entered = phase

    # ---- internals

    def _range(self) -> tuple[float, float]:
        """Return the range in which raw scores are expected."""
        low, high = (
            (0.0 if self.bounds[0] is None else self.bounds[0]),
            (1.0 if self.bounds[1] is None else self.bounds[1]),
        )
        return low, high if high > low else low + 1.0

    def _new_sketch(self) -> Sketch:
        between = None not in self.bounds and self.bounds[0] != self.bounds[1]
        return Sketch(*self._range(), memory=self.memory, arcsine=between, latest=self.policy.latest)

    def _to_windows(self, cells: IntArray, raw: FloatArray, emitted: FloatArray) -> None:
        self.windows.add(cells, raw, emitted, self.entered, len(self.history.cells))

    def prepare(self, cells: IntArray, raw: FloatArray) -> None:
        """Let the policy solve anew, where that is due."""
        if self.transition is not None and not self.transition.left(self.rule.samples):
            self.transition = None
        state = self.policy.prepare(self.own, self, cells, raw)
        if state is not self.own:
            self.take_on(state)

    def take_on(self, state: State) -> None:
        """Go on with a state that the policy has computed anew."""
        self.own = state
        self.revision += 1
        weights = np.add.reduce(self.history.sketch.counts, axis=1) + 1e-300
        self.rule.forward = float(np.abs(self.shifts).dot(weights)) / float(np.add.reduce(weights))

    def look_for_groups(self, cells: list[int]) -> None:
        """See whether all groups have been met, after a step with samples of these cells while some had not."""
        met = self.scratch.setdefault("met", set())
        if not met.issuperset(cells):
            met.update(cells)
            self.rule.cold = self.unseen()

    def _commit(self, cells: IntArray, raw: FloatArray, answer: Answer) -> FloatArray:
        emitted = answer.emitted
        if answer.state is not None:
            self.own = answer.state
            self.revision += 1
        if self.now is not None:
            self.tick(self.now)
        self.history.emit(cells, raw, emitted)
        self.own = self.policy.count(self.own, self, cells, raw, emitted)
        correction = float(np.abs(emitted - clip(answer.start, self.bounds)).mean())
        self.rule.observe(float(len(cells)), correction, answer.widening)
        if self.rule.cold:
            self.rule.cold = self.unseen()
        return emitted

    def forget_frame(self) -> None:
        """Read the counts anew where the frame is asked for next."""
        self._frame = None

    def forget_derived(self) -> None:
        """Drop all that was derived from counts, cells and constraints."""
        self._frame = None
        self.scratch.clear()
