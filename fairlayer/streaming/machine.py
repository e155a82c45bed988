"""The machine of a stream: it reads cells, asks the policy, and counts what is emitted.

    state, emitted = policy(state, new scores; what was counted)
    counts of everything, of recent scores, of buckets

It knows no kind of policy. Nothing is counted before everything that can fail has been computed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Batch, Measured
from fairlayer.errors import CategoryError, ConstraintDefinitionError
from fairlayer.groups import Groups, Vocabulary
from fairlayer.projection.assembly import assemble
from fairlayer.streaming.correction import Frame, measure_past
from fairlayer.streaming.history import History, batch_of
from fairlayer.streaming.lease import Lease
from fairlayer.streaming.pending import Waiting
from fairlayer.streaming.phases import Phase, PhaseRule
from fairlayer.streaming.policies.base import Answer, Call, Labelled, State
from fairlayer.streaming.setting import Setting
from fairlayer.streaming.single import clip
from fairlayer.streaming.sketch import Sketch
from fairlayer.streaming.transition import Event, Transition, changed_limits, limits_of
from fairlayer.streaming.windows import Windows

__all__ = ["Machine"]

_LARGEST_SQUARE = 1e200  # sum of squares that no finite scores reach
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
        cells = self._cells(groups)
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
        cells = self._cells(groups)
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
        if n >= own.get("wait", math.inf) or self.rule.samples >= own.get("next_refresh", math.inf):
            if not self.takes(cells, scores):
                return None  # before anything is solved, so that a call that raises changes nothing
            self.prepare(cells, np.asarray(scores, dtype=np.float64))
        raw, emitted = history.draft(n)
        raw[:] = scores
        found = self.policy.answer_many(self.own, self, Call(cells, raw), emitted)
        if found is None:
            return None
        history.emit_draft(cells)
        self.rule.observe(float(n), *found)
        if self.rule.cold:
            self.look_for_groups(np.unique(cells).tolist())
        return emitted

    def takes(self, cells: IntArray, scores: np.ndarray[Any, Any]) -> bool:
        """Return whether the short ways can take a call: its scores are finite, and its cells have been met."""
        return float(scores.dot(scores)) < _LARGEST_SQUARE and int(np.maximum.reduce(cells)) < len(self.history.cells)

    def absorb(self, groups: Groups, raw: FloatArray, emitted: FloatArray) -> None:
        """Count predictions that were made elsewhere, as they are."""
        cells = self._cells(groups)
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
        cells = self._cells(groups)
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
        self._forget_derived()

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

    # ---- changes on a live stream

    def changed(self, setting: Setting, over: float | None) -> tuple[Machine, Callable[[tuple[int, ...]], Any]]:
        """Return a machine under another setting that has counted all that this one has, and how codes are recoded.

        Features that no constraint reads any more are left out of the cells; new ones are unknown for what was counted.
        """
        new = Machine(setting)
        places = [self.features.index(name) if name in self.features else None for name in new.features]
        words = self.vocabulary.categories
        if words:
            new.vocabulary = Vocabulary({name: words.get(name, ()) for name in new.features}, open=False)

        def recode(codes: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(-1 if place is None else codes[place] for place in places)

        self.history.flush()
        codes = [recode(cell) for cell in self.history.cells]
        rows = new.history.locate(np.array(codes, dtype=np.int64).reshape(len(codes), len(new.features)))
        new.history.take_over(self.history, rows)
        new.windows.take_over(self.windows, rows, len(new.history.cells))
        new.rule.load_state(self.rule.to_state())
        new.events, new.lost_labels = list(self.events), self.lost_labels
        new.own = setting.policy.taken_over(setting.policy.grow(new.own, new), self.own, new, rows)
        new.begin_transition(limits_of(self.constraints), over)
        new.rule.cold = new.unseen()
        return new, recode

    def begin_transition(self, before: Mapping[str, Sequence[Any]], over: float | None = None) -> None:
        """Begin the way from the limits held before to those of the constraints, where they differ."""
        extra = changed_limits(before, self.constraints)
        gone = [name for name in before if name not in {c.name for c in self.constraints}]
        if (not extra and not gone) or not self.rule.samples:
            return
        asked = self.setting.transition if over is None else over
        length = self.policy.transition_length(self) if asked is None else asked
        self.transition = Transition(extra, self.rule.samples, float(length))
        self.rule.changing_until = self.rule.samples + float(length)
        self.own = {**self.own, "next_refresh": 0.0}
        said = [*(f"{name} is new or changed" for name in extra), *(f"{name} is gone" for name in gone)]
        self.note("limits changed", f"{'; '.join(said)}; reached after {length:g} predictions")

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
        self.windows.add(cells, raw, emitted, self.phase(), len(self.history.cells))

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
            self.own = self.policy.grow(self.own, self)
            self.scratch.clear()
        return cells

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

    def _forget_derived(self) -> None:
        self._frame = None
        self.scratch.clear()

    # ---- state

    def to_state(self) -> dict[str, Any]:
        """Return tensors and plain containers, loadable with `weights_only=True`."""
        self.history.flush()
        return {
            "history": self.history.to_state(),
            "policy": {name: _saved(value) for name, value in self.own.items()},
            "windows": self.windows.to_state(),
            "rule": self.rule.to_state(),
            "vocabulary": self.vocabulary.to_state(),
            "features": list(self.features),
            "limits": limits_of(self.constraints),
            "policy_name": self.policy.name,
            "transition": None if self.transition is None else list(self.transition),
            "events": [list(event) for event in self.events],
            "lost_labels": self.lost_labels,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `to_state` returned; limits that have changed since are reached by a transition."""
        if tuple(state["features"]) != self.features:
            raise ConstraintDefinitionError(
                f"the saved stream is over the features {state['features']}, but this model's constraints read "
                f"{list(self.features)}. Load it into a model with the same constraints, then change them with "
                "change_constraints(...)."
            )
        self.history.load_state(state["history"])
        self.rule.load_state(state["rule"])
        self.vocabulary = Vocabulary.from_state(state["vocabulary"])
        self.windows.load_state(state["windows"])
        self._forget_derived()
        saved = {name: _loaded(value) for name, value in state["policy"].items()}
        if state["policy_name"] == self.policy.name:
            self.own = self.policy.loaded(saved, self)
        else:
            self.own = self.policy.grow(self.policy.begin(), self)
        self.transition = None if state["transition"] is None else Transition(*state["transition"])
        self.events = [Event(*event) for event in state["events"]]
        self.lost_labels = int(state["lost_labels"])
        self.begin_transition(state["limits"])

    def mark(self) -> tuple[int, Vocabulary, State, float]:
        """Return what a failing step may have changed; counts are not among it."""
        return len(self.history.cells), self.vocabulary, self.own, self.rule.forward

    def restore(self, mark: tuple[int, Vocabulary, State, float]) -> None:
        """Undo a failing step."""
        known, vocabulary, self.own, self.rule.forward = mark
        self.history.forget_cells(known)
        if vocabulary.categories != self.vocabulary.categories:
            self.adopt(vocabulary)
        self._forget_derived()

    def merge(self, other: Machine) -> None:
        """Add all that another stream has counted, recent scores too."""
        rows = self._joined(other)
        self.history.merge(other.history)
        self.history.sketch.merge(other.history.sketch, rows)
        self.rule.samples += other.rule.samples
        self.own = self.policy.merged(self.own, other.own, self, rows)
        self._after_merger("merged", f"{other.rule.samples:g} predictions of another stream")

    def hear(self, others: Sequence[tuple[Machine, Machine | None]]) -> None:
        """Add what each other replica has counted since its base (its second part), and learn its recent scores."""
        added = 0.0
        placed = []
        for other, base in others:
            rows = self._joined(other)
            placed.append((other, rows))
            self.history.merge(other.history)
            added += other.rule.samples
            if base is not None:
                self._joined(base)
                self.history.merge(base.history, sign=-1.0)
                added -= base.rule.samples
        self.rule.samples += added
        self.history.sketch.hear([(other.history.sketch, rows) for other, rows in placed])
        self.own = self.policy.heard(self.own, self, placed)
        self._after_merger("synchronised", f"{len(others)} replicas, {added:g} predictions that were not known here")

    def _joined(self, other: Machine) -> IntArray:
        """Return the cell here of each cell of another stream.

        Raises:
            ConstraintDefinitionError: it has other categories.
        """
        if other.vocabulary.categories and self.vocabulary.categories != other.vocabulary.categories:
            if self.vocabulary.categories:
                raise ConstraintDefinitionError(
                    f"streams with different categories cannot be merged: {dict(self.vocabulary.categories)} and "
                    f"{dict(other.vocabulary.categories)}. Call fit_categories(...) before streaming."
                )
            self.vocabulary = other.vocabulary
        other.history.flush()
        self.history.flush()
        return self.locate(other.history.codes())

    def _after_merger(self, kind: str, text: str) -> None:
        self._forget_derived()
        self.rule.cold = self.unseen()
        self.note(kind, text)


def _saved(value: Any) -> Any:
    """Return an array as a tensor, and lists and dicts of numbers as copies."""
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else copy.deepcopy(value)


def _loaded(value: Any) -> Any:
    return value.cpu().numpy().copy() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
