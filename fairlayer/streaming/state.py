"""The public face of a stream: thread-safe, savable, mergeable."""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import host_float64
from fairlayer._notebook import table_html
from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Constraint, Measured
from fairlayer.edge import (
    OnceWarner,
    Stated,
    as_constraints,
    feature_names,
    nothing_to_compare,
    read_groups,
    read_per_sample,
)
from fairlayer.errors import (
    FairlayerError,
    ParameterError,
    ShapeError,
)
from fairlayer.geometry import Geometry, geometry_of
from fairlayer.geometry.probabilities import check_probabilities
from fairlayer.groups import Groups, Vocabulary, cell_name
from fairlayer.streaming.entrance import as_scores_again, flat, probabilities, read_bounds, sigmoid, streamable
from fairlayer.streaming.in_place import reads_in_place, step_in_place
from fairlayer.streaming.lookup import CellLookup
from fairlayer.streaming.machine import Machine
from fairlayer.streaming.pending import Pending, Waiting, read_ids
from fairlayer.streaming.phases import Phase
from fairlayer.streaming.policies import Policy, as_policy
from fairlayer.streaming.report import StreamReport, report_of
from fairlayer.streaming.setting import Setting, as_memory, as_window
from fairlayer.streaming.trace import Trace
from fairlayer.streaming.transition import Event

__all__ = ["InferenceState"]

_ENOUGH = 100  # samples after which a stream should have met more than one group
_EXACT = (torch.float32, torch.float64)
_FLOATS = frozenset((*_EXACT, torch.float16, torch.bfloat16))
_NUMPY: dict[torch.dtype, Any] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}


class InferenceState:
    """What a stream of predictions has done so far, and the step that extends it.

    Args:
        constraints: what must hold: for the present means under the policy "present", for the pooled means of all
            predictions since the last reset under "tracking" and "anytime".
        bounds: of every prediction, numbers or None.
        policy: "present", "tracking", "anytime", "per_batch", the name of a registered policy, or a policy object.
        memory: samples that count as recent: one weighs `exp(-k / memory)` after k others. None is 1,000 for
            "present", and everything for the others.
        geometry: "euclidean", "entropic" or "likelihood", or an object, see `project`; only "present" takes others
            than the first.
        from_logits: whether scores are log-odds; the raw prediction is then the sigmoid of the score.
        window: over which gaps are reported: a number of samples, a timedelta, or a text such as "30d". A time is read
            on the clock that the caller passes with `at=`.
        hold: "window" to hold the gap of the window too (policy "present"); None to report it only.
        transition: samples over which a changed limit is reached; None for what the policy says.

    Many threads may use one object: each call is one step of some serial order. A call that raises leaves the state
    as it was.

    Example:
        >>> import torch, fairlayer as fl
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> stream = fl.InferenceState([parity], bounds=(0.0, 1.0), policy="anytime")
        >>> for score, sex in [(0.9, "F"), (0.2, "M"), (0.8, "F")]:
        ...     y = stream.emit(torch.tensor([score]), {"sex": [sex]})
        >>> round(stream.pooled_gap()["DemographicParity('sex')"], 6), stream.phase.value
        (0.05, 'warming')
        >>> stream.report().samples
        3
    """

    def __init__(
        self,
        constraints: Stated,
        *,
        bounds: tuple[float | None, float | None] | None = None,
        policy: str | Policy = "present",
        memory: float | None = None,
        geometry: str | Geometry = "euclidean",
        from_logits: bool = False,
        window: Any = None,
        hold: str | None = None,
        transition: float | None = None,
    ) -> None:
        held = streamable(as_constraints(constraints))
        rule = geometry_of(geometry)
        box = read_bounds(bounds, rule)
        if from_logits and not rule.takes_logits:
            raise ParameterError(
                f"geometry={rule.name!r} moves the scores themselves, so from_logits=True has no meaning there. Use "
                "geometry='entropic' (or 'likelihood'), or pass probabilities."
            )
        self._setting = Setting(
            held,
            box,
            as_policy(policy),
            as_memory(memory),
            rule,
            from_logits,
            as_window(window),
            hold,
            None if transition is None else float(transition),
        )
        # Scores that the short ways take: finite ones, and for a geometry of probabilities those in [0, 1].
        self._least, self._most = (0.0, 1.0) if rule.bounded else (-1e100, 1e100)
        self._lock = threading.Lock()
        self._syncing = threading.Lock()  # one sync at a time; requests do not take it
        self._resets = 0
        self._machine = Machine(self._setting)
        self._pending = Pending()
        self._base: dict[str, Any] | None = None
        self._callbacks: list[Callable[[Phase, Phase], None]] = []
        self._changes: list[tuple[Phase, Phase]] = []
        self._once = OnceWarner()
        self._untold: dict[str, str] = {}  # constraint -> what is to be said of it, once the lock is free
        self.reset()

    # ---- steps

    def emit(
        self,
        scores: Tensor,
        sensitive_features: Any,
        *,
        ids: Sequence[str | int] | None = None,
        y: Any = None,
        vocabulary: Vocabulary | None = None,
        at: float | None = None,
    ) -> Tensor:
        """Return predictions for raw scores (n,) or (n, 1), detached, and count them.

        Args:
            scores: raw scores.
            sensitive_features: see `project`.
            ids: one per sample, to deliver labels later with `observe_labels`.
            y: labels, where they are known at once.
            vocabulary: known categories; while it is open, those that the stream has met are known too.
            at: seconds on the caller's clock, never less than before; needed where the window is a time.

        Raises:
            NonFiniteScoresError, ShapeError, CategoryError, ...: bad input; the state is unchanged.
        """
        if ids is None and y is None and isinstance(scores, Tensor):
            emitted = self.emit_simply(scores, sensitive_features, at=at)
            if emitted is not None:
                return emitted
        return self._general(scores, None, sensitive_features, ids=ids, y=y, vocabulary=vocabulary, at=at)

    def emit_simply(
        self, scores: Tensor, features: Any, limit: float = math.inf, at: float | None = None
    ) -> Tensor | None:
        """Emit fewer than `limit` samples where known categories and group sums suffice.

        None where it needs `emit`, and nothing has changed. Each attribute of a tensor is read once: they cost.
        """
        shape, dtype = scores.shape, scores.dtype
        if (len(shape) != 1 and (len(shape) != 2 or shape[1] != 1)) or dtype not in _FLOATS:
            return None
        n = shape[0]
        if not 0 < n < limit:
            return None
        if reads_in_place(scores, dtype):
            emitted = self._in_place(scores, n, features, at, wide=dtype is torch.float64)
            if emitted is not None:
                return emitted
        kept = dtype if dtype in _EXACT else torch.float32
        if n == 1:
            return self._one(scores, shape, kept, features, at)
        return self._many(scores, shape, kept, features, at)

    def _in_place(self, scores: Tensor, n: int, features: Any, at: float | None, *, wide: bool) -> Tensor | None:
        with self._lock:
            machine = self._machine
            if at is not None or machine.windows.clocked:
                machine.windows.check(at)
            machine.now = at
            emitted = step_in_place(machine, scores, n, self._lookup, features, wide=wide)
            if emitted is None:
                return None
            self._keep_watch()
        if self._changes or self._untold:
            self._tell()
        return emitted

    def _one(
        self, scores: Tensor, shape: torch.Size, dtype: torch.dtype, features: Any, at: float | None
    ) -> Tensor | None:
        raw = scores.item()
        if self._setting.from_logits:
            raw = sigmoid(raw)
        if not self._least <= raw <= self._most:
            return None
        with self._lock:
            if at is not None or self._machine.windows.clocked:
                self._machine.windows.check(at)
            cell = self._lookup.one(features)
            self._machine.now = at
            value = None if cell is None else self._machine.step_one(cell, raw)
            if value is None:
                return None
            self._keep_watch()
        if self._changes or self._untold:
            self._tell()
        return torch.full(shape, value, dtype=dtype, device=scores.device)

    def _many(
        self, scores: Tensor, shape: torch.Size, dtype: torch.dtype, features: Any, at: float | None
    ) -> Tensor | None:
        if at is not None or self._machine.windows.clocked:
            return None  # the general way keeps the time
        try:
            raw, device = scores.numpy().ravel(), None
        except (RuntimeError, TypeError):  # of another device or precision, or with a graph
            raw, device = host_float64(scores).reshape(-1), scores.device
        if self._setting.geometry.bounded:
            raw = probabilities(raw, self._setting.from_logits)
            if not (raw.min() >= 0.0 and raw.max() <= 1.0):
                return None
        with self._lock:
            cells = self._lookup.many(features, len(raw))
            emitted = None if cells is None else self._machine.step_many(cells, raw)
            if emitted is None:
                return None
            result = emitted.astype(_NUMPY[dtype])  # a copy
            self._keep_watch()
        if self._changes or self._untold:
            self._tell()
        tensor = torch.from_numpy(result.reshape(shape))
        return tensor if device is None else tensor.to(device)

    def settle(
        self,
        scores: Tensor,
        projected: Tensor,
        sensitive_features: Any,
        *,
        ids: Sequence[str | int] | None = None,
        y: Any = None,
        vocabulary: Vocabulary | None = None,
        at: float | None = None,
    ) -> Tensor:
        """Return and count a large batch that was projected by itself.

        The policies that hold pooled means return it where these then hold too. Otherwise they return the nearest
        predictions under which both hold; where there are none, the pooled means are held and the batch is not. Other
        policies return it as it is.
        """
        return self._general(scores, flat(projected), sensitive_features, ids=ids, y=y, vocabulary=vocabulary, at=at)

    def absorb(
        self,
        scores: Tensor,
        emitted: Tensor,
        sensitive_features: Any,
        vocabulary: Vocabulary | None = None,
        *,
        ids: Sequence[str | int] | None = None,
        at: float | None = None,
    ) -> None:
        """Count predictions that were made elsewhere, as they are; those with ids wait for their labels."""
        raw, values = self._raw(scores), flat(emitted)
        keys = None if ids is None else read_ids(ids, len(raw))
        if len(raw) != len(values):
            raise ShapeError(f"there are {len(raw)} scores, but {len(values)} predictions. Give one for each score.")
        with self._lock:
            groups = self._read(sensitive_features, len(raw), vocabulary)
            self._machine.windows.check(at)
            self._whole(lambda: self._machine.absorb(groups, raw, values), at)
            if keys is not None:
                self._wait_for_labels(keys, groups, raw, values)
            self._after_step()
        self._tell()

    def observe_labels(self, ids: Sequence[str | int], y: Any) -> None:
        """Deliver the labels of earlier predictions.

        Raises:
            ShapeError: an id does not wait for a label, or lengths differ; the state is unchanged.
            LabelValueError: a constraint cannot read such labels; the state is unchanged.
        """
        keys = read_ids(ids)
        labels = read_per_sample("y", y, (len(keys),))
        if labels is None:
            raise ShapeError(f"there are {len(keys)} ids, but no labels (y is None). Give one label per id.")
        if not keys:
            return
        with self._lock:
            found = self._pending.find(keys)
            self._machine.check_labels(self._groups(found.codes), labels[:, 0])
            self._pending.drop(keys)
            self._machine.observe_labels(found, labels[:, 0])

    def warm_start(self, scores: Tensor, sensitive_features: Any, vocabulary: Vocabulary | None = None) -> None:
        """Let the feed-forward begin from raw scores of validation data; nothing counts as emitted."""
        raw = self._raw(scores)
        with self._lock:
            groups = self._read(sensitive_features, len(raw), vocabulary)
            self._whole(lambda: self._machine.warm_start(groups, raw))
            self._know()

    def change_constraints(self, constraints: Stated, *, over: float | None = None) -> None:
        """Hold other constraints, or the same with other limits, from now on; what was counted stays.

        The limits are reached in a straight line over the next `over` predictions, during which the phase is CHANGING.
        A constraint that was not held before begins at the gap that raw scores have now.

        Args:
            constraints: all that are to be held.
            over: samples; None for `transition`, or what the policy says: its memory for "present".

        Raises:
            ConstraintDefinitionError: a stream cannot hold one of them; nothing has changed.

        Example:
            >>> stream = InferenceState([], bounds=(0.0, 1.0))
            >>> from fairlayer.constraints import DemographicParity
            >>> stream.change_constraints([DemographicParity("sex", tolerance=0.1)], over=500)
            >>> stream.constraints
            (DemographicParity('sex', tolerance=0.1),)
        """
        setting = self._setting.with_constraints(streamable(as_constraints(constraints)))
        with self._lock:
            machine, recode = self._machine.changed(setting, over)
            self._pending.recode(recode)
            self._setting, self._machine = setting, machine
            self._base = None
            self._know()
            self._after_step()
        self._tell()

    def adopt(self, vocabulary: Vocabulary) -> None:
        """Take on categories; what was counted and what waits for labels keep their meaning.

        Raises:
            CategoryError: the stream has met a category that is not among them; the state is unchanged.
        """
        with self._lock:
            self._whole(lambda: self._machine.adopt(vocabulary))
            self._know()

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._machine = Machine(self._setting)
            self._pending = Pending()
            self._trace = Trace()
            self._resets += 1
            self._last_phase = self._machine.phase()
            self._base = None
            self._know()

    # ---- what it knows

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """The constraints that it holds."""
        return self._setting.constraints

    @property
    def policy(self) -> Policy:
        """The policy."""
        return self._setting.policy

    @property
    def phase(self) -> Phase:
        """CHANGING, COLD, WARMING, STEADY, SATURATED or DRIFTING."""
        with self._locked() as machine:
            return machine.phase()

    @property
    def samples(self) -> int:
        """Predictions emitted since the last reset."""
        with self._locked() as machine:
            return int(machine.rule.samples)

    @property
    def multipliers(self) -> dict[str, float]:
        """Price of each constraint per sample: minus d mean(d(y, z)) / d tolerance, from the feed-forward."""
        with self._locked() as machine:
            return machine.policy.prices(machine.own, machine)

    @property
    def per_batch_gap(self) -> float:
        """Sample-weighted mean of per-batch gaps (kept by the "per_batch" policy only)."""
        with self._locked() as machine:
            samples, total = (float(machine.own.get(name, 0.0)) for name in ("samples", "weighted_gaps"))
            return total / samples if samples else 0.0

    @property
    def events(self) -> tuple[Event, ...]:
        """The latest things that happened: changed limits, new categories, sudden changes, lost labels, mergers."""
        with self._locked() as machine:
            return tuple(machine.events)

    @property
    def waiting_labels(self) -> int:
        """Predictions with an id whose label has not come."""
        with self._locked():
            return len(self._pending)

    def report(self) -> StreamReport:
        """Return the stream bucket by bucket, its window, and everything since the reset; `print` shows a table."""
        with self._locked() as machine:
            return report_of(machine, self._cell_names(), waiting=len(self._pending))

    def shifts(self) -> dict[str, float]:
        """Return how far the feed-forward moves each cell, in the unit of the geometry (added to the raw score)."""
        with self._locked() as machine:
            return dict(zip(self._cell_names(), (-machine.shifts).tolist(), strict=True))

    def counts(self) -> dict[str, int]:
        """Return predictions emitted per cell."""
        with self._locked() as machine:
            counts = machine.history.sums["count"].astype(int).tolist()
            return dict(zip(self._cell_names(), counts, strict=True))

    def pooled_gap(self) -> dict[str, float | None]:
        """Return the number that each constraint bounds, of the pooled means of everything emitted.

        For a parity that is the largest difference of pooled group means, for a ratio the lowest over the highest, for
        a floor the lowest mean; see `Constraint.measure`. None where nothing compares.
        """
        return {name: None if found is None else found.value for name, found in self.measured().items()}

    def measured(self) -> dict[str, Measured | None]:
        """Return the same with limit, direction and counts; None before anything was emitted."""
        with self._locked() as machine:
            return machine.measured()

    def meters(self) -> dict[str, dict[str, float]]:
        """Return the parts of `state_dict()["machine"]` that counting emitted predictions again cannot rebuild."""
        with self._locked() as machine:
            return {"rule": machine.rule.to_state(), "policy": machine.policy.meters(machine.own)}

    def mean_squared_change(self) -> float:
        """Return the mean of (emitted - raw)^2 over everything emitted."""
        with self._locked() as machine:
            sums = machine.history.sums
            return float(sums["moved"].sum() / max(sums["count"].sum(), 1.0))

    def on_phase_change(self, callback: Callable[[Phase, Phase], None]) -> None:
        """Call `callback(before, after)` whenever the phase changes, after the step that changed it."""
        self._callbacks.append(callback)

    def __repr__(self) -> str:
        return f"InferenceState({self.policy.name}, {self.samples} predictions, phase {self.phase.value})"

    def _repr_html_(self) -> str:
        rows = [
            (name, number.value, f"{'>=' if number.at_least else '<='} {number.limit:.4g}", number.statement)
            for name, number in self.measured().items()
            if number is not None
        ]
        title = f"Stream of {self.samples} predictions, policy {self.policy.name}, phase {self.phase.value}"
        head = ("constraint", "of everything emitted", "limit", "what it compares")
        waiting = self.waiting_labels
        return table_html(title, head, rows, note=f"{waiting} predictions wait for a label." if waiting else "")

    def plot(self, axes: Any = None) -> Any:
        """Draw pooled gap against tolerance, shift per cell and phase over the stream; return the figure."""
        from fairlayer.streaming.plot import plot_trace

        with self._locked() as machine:
            points = self._trace.until_now(machine, machine.phase())
            return plot_trace(points, machine.constraints, self.policy, axes)

    def plot_report(self, axes: Any = None) -> Any:
        """Draw raw and emitted gap per bucket with the band that is held, shares moved and at a bound, and phases."""
        from fairlayer.streaming.plot import plot_report

        return plot_report(self.report(), axes)

    # ---- state as data

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state as tensors and plain containers, loadable with `weights_only=True`."""
        with self._locked() as machine:
            saved = {"machine": machine.to_state(), "pending": self._pending.to_state()}
            return saved if self._base is None else {**saved, "base": self._base}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ConstraintDefinitionError: it belongs to other features; the state is unchanged.
            ParameterError: it is no such state, or one of another version; the state is unchanged.
        """
        machine, pending = Machine(self._setting), Pending()
        try:
            machine.load_state(state["machine"])
            pending.load_state(state["pending"])
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, FairlayerError):
                raise
            raise ParameterError(
                f"this is not the state of a stream, or one that another version wrote ({error!r}). Pass what "
                "state_dict() returned, or begin anew."
            ) from error
        with self._lock:
            self._machine, self._pending, self._base = machine, pending, state.get("base")
            self._resets += 1
            self._trace = Trace()
            self._know()
            self._last_phase = machine.phase()

    def merge(self, other: InferenceState) -> None:
        """Add what another replica has emitted: pooled sums become those of one process that saw both streams."""
        state = other.state_dict()["machine"]
        addition = self._loaded(state)
        with self._lock:
            self._whole(lambda: self._machine.merge(addition))
            self._know()

    def sync(self, group: Any = None) -> None:
        """Learn what every replica of a torch.distributed group has emitted, on all of them.

        Each replica publishes its own counts and recent scores, and adds what the others have counted since their last
        sync. Requests are answered meanwhile; a peer that is late keeps this call waiting, and no request.
        """
        from torch import distributed

        with self._syncing:
            with self._lock:
                own, base, reset = self._machine.to_state(), self._base, self._resets
            token = uuid.uuid4().hex
            everyone: list[Any] = [None] * distributed.get_world_size(group)
            distributed.all_gather_object(everyone, (token, own, base), group=group)
            others = [
                (self._loaded(state), None if before is None else self._loaded(before))
                for name, state, before in everyone
                if name != token
            ]
            known = self._loaded(own)
            known.hear(others)
            with self._lock:
                if self._resets != reset:
                    return  # the stream that was published is no more
                self._whole(lambda: self._machine.hear(others))
                self._base = known.to_state()
                self._know()

    def __getstate__(self) -> dict[str, Any]:
        return {"setting": self._setting, "state": self.state_dict()}

    def __setstate__(self, saved: Mapping[str, Any]) -> None:
        setting = saved["setting"]
        self.__init__(  # type: ignore[misc]
            setting.constraints,
            bounds=setting.bounds,
            policy=setting.policy,
            memory=setting.memory,
            geometry=setting.geometry,
            from_logits=setting.from_logits,
            window=setting.window,
            hold=setting.hold,
            transition=setting.transition,
        )
        self.load_state_dict(saved["state"])

    # ---- internals

    def _general(
        self,
        scores: Tensor,
        projected: FloatArray | None,
        features: Any,
        *,
        ids: Sequence[str | int] | None,
        y: Any,
        vocabulary: Vocabulary | None,
        at: float | None = None,
    ) -> Tensor:
        raw = self._raw(scores)
        keys = None if ids is None else read_ids(ids, len(raw))
        labels = read_per_sample("y", y, tuple(scores.shape))
        with self._lock:
            groups = self._read(features, len(raw), vocabulary)
            machine = self._machine
            if labels is not None:
                machine.check_labels(groups, labels[:, 0])
            machine.windows.check(at)
            if projected is None:
                emitted = self._whole(lambda: machine.step(groups, raw), at)
            else:
                emitted = self._whole(lambda: machine.step_large(groups, raw, projected), at)
            if keys is not None and labels is None:
                self._wait_for_labels(keys, groups, raw, emitted)
            if labels is not None:
                machine.history.flush()
                machine.observe_labels(self._waiting(groups, raw, emitted), labels[:, 0])
            self._after_step()
        self._tell()
        return as_scores_again(emitted, scores)

    def _raw(self, scores: Tensor) -> FloatArray:
        """Return raw predictions (n,): the scores, or their sigmoid.

        Raises:
            ProbabilityError: the geometry moves probabilities, and these are none.
        """
        raw, setting = flat(scores), self._setting
        if not setting.geometry.bounded:
            return raw
        raw = probabilities(raw, setting.from_logits)
        check_probabilities(float(raw.min()), float(raw.max()), setting.geometry.name)
        return np.clip(raw, 0.0, 1.0)

    def _wait_for_labels(self, keys: Sequence[str | int], groups: Groups, raw: FloatArray, emitted: FloatArray) -> None:
        machine = self._machine
        lost = self._pending.add(keys, self._waiting(groups, raw, emitted))
        if lost and not machine.lost_labels:
            machine.note("labels lost", f"more than {self._pending.limit} predictions wait; the oldest make room")
        machine.lost_labels += lost

    def _waiting(self, groups: Groups, raw: FloatArray, emitted: FloatArray) -> Waiting:
        machine, codes = self._machine, self._codes(groups)
        estimates = machine.estimates(machine.history.locate(codes), raw)
        return Waiting(codes, raw, emitted, estimates, np.full(len(raw), machine.windows.number))

    def _read(self, features: Any, n: int, vocabulary: Vocabulary | None) -> Groups:
        """Read every feature before anything changes, so that a bad one changes nothing."""
        names = feature_names(self._setting.constraints)
        groups = read_groups(features, self._setting.constraints, n, self._vocabulary(vocabulary))
        for name in names:
            groups.column(name)
        return groups

    @contextmanager
    def _locked(self) -> Iterator[Machine]:
        with self._lock:
            yield self._machine

    def _whole(self, step: Callable[[], Any], at: float | None = None) -> Any:
        """Run a step so that it changes the machine whole or not at all; `at` was checked."""
        machine = self._machine
        mark, before = machine.mark(), machine.vocabulary
        try:
            machine.now = at
            result = step()
        except BaseException:
            machine.restore(mark)
            raise
        if machine.vocabulary is not before:
            old, new = before.categories, machine.vocabulary.categories
            self._pending.recode(lambda codes: machine.recoded(codes, old, new))
        return result

    def _codes(self, groups: Groups) -> Any:
        columns = [groups.column(name).codes for name in self._machine.features]
        if not columns:
            return np.zeros((groups.n, 0), dtype=np.int64)
        return np.stack([codes for codes in columns if codes is not None], axis=1)

    def _groups(self, codes: IntArray) -> Groups:
        """Return the reverse of `_codes`."""
        machine = self._machine
        return Groups.from_codes({name: codes[:, j] for j, name in enumerate(machine.features)}, machine.vocabulary)

    def _after_step(self) -> None:
        """Book-keeping of a step that may have met new categories."""
        machine, lookup = self._machine, self._lookup
        if machine.vocabulary is not lookup.vocabulary or len(machine.history.cells) != lookup.size:
            self._know()
        self._keep_watch()

    def _keep_watch(self) -> None:
        """Book-keeping of a step: trace and phase. Callbacks wait until the lock is free."""
        machine = self._machine
        rule = machine.rule
        phase = rule.phase(machine.policy.settle)
        if machine.revision != self._trace.revision:
            self._trace.record(machine, phase)
            self._untold |= self._without_comparison()
        if phase is not self._last_phase:
            self._changes.append((self._last_phase, phase))
            self._last_phase = phase

    def _without_comparison(self) -> dict[str, str]:
        """Return what to say of constraints that compare nothing, once there are samples enough to tell."""
        machine, said = self._machine, {}
        words = machine.vocabulary.categories
        for constraint in machine.constraints if machine.rule.samples >= _ENOUGH else ():
            tables = [words.get(name, ()) for name in constraint.on]
            few = bool(constraint.on) and math.prod(map(len, tables)) < 2
            found = machine.measured()[constraint.name] if few else None
            if few and (found is None or found.value is None):
                groups = [cell_name(constraint.on, tables, [0] * len(tables))] if all(tables) else []
                unknown = machine.history.sums["count"][machine.history.codes().min(axis=1) < 0].sum()
                said[constraint.name] = nothing_to_compare(constraint, groups, int(unknown))
            elif constraint.needs_labels and not len(self._pending) and self._unlabelled(constraint):
                said[constraint.name] = (
                    f"{constraint.name} looks at labels, but of {machine.rule.samples:.0f} predictions of this stream "
                    "none has a label and none waits for one, so that nothing is bounded. Pass ids= with each request "
                    "and deliver labels with observe_labels(ids, y) when they come, or pass y= where they are known."
                )
        return said

    def _unlabelled(self, constraint: Constraint) -> bool:
        found = self._machine.measured()[constraint.name]
        return found is None or found.value is None

    def _tell(self) -> None:
        """Say what the steps before have left to say, without the lock."""
        while self._untold:
            name, text = self._untold.popitem()
            self._once.warn(f"compare {name}", text)
        while True:
            try:
                before, after = self._changes.pop(0)
            except IndexError:  # none, or another thread was faster
                return
            for callback in self._callbacks:
                callback(before, after)

    def _vocabulary(self, given: Vocabulary | None) -> Vocabulary:
        """Return what a step knows: a closed vocabulary as it is; else what the stream has met comes first."""
        met = self._machine.vocabulary.categories
        if given is not None and not given.open:
            return given
        words = dict(met)
        for name, categories in ({} if given is None else given.categories).items():
            old = words.get(name, ())
            words[name] = old + tuple(category for category in categories if category not in old)
        return Vocabulary(words, open=True)

    def _know(self) -> None:
        machine = self._machine
        self._lookup = CellLookup(machine.features, machine.vocabulary, machine.history.cells)

    def _loaded(self, state: Mapping[str, Any]) -> Machine:
        machine = Machine(self._setting)
        machine.load_state(state)
        return machine

    def _cell_names(self) -> list[str]:
        machine = self._machine
        words = [machine.vocabulary.categories.get(name, ()) for name in machine.features]
        return [cell_name(machine.features, words, cell) for cell in machine.history.cells]
