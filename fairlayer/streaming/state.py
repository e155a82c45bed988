"""The public face of a stream: thread-safe, savable, mergeable."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import host_float64
from fairlayer._keywords import explained
from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Constraint, Measured
from fairlayer.edge import (
    Box,
    OnceWarner,
    Stated,
    as_columns,
    as_constraints,
    feature_names,
    nothing_to_compare,
    plain_bounds,
    read_groups,
    read_per_sample,
)
from fairlayer.errors import (
    ConstraintDefinitionError,
    FairlayerError,
    NonFiniteScoresError,
    ParameterError,
    ShapeError,
)
from fairlayer.groups import Groups, Vocabulary, cell_name
from fairlayer.streaming.lookup import CellLookup
from fairlayer.streaming.machine import Machine
from fairlayer.streaming.non_blocking import NonBlocking
from fairlayer.streaming.pending import Pending, read_ids
from fairlayer.streaming.phases import Phase
from fairlayer.streaming.policy import PerBatch, Policy, as_half_life, as_policy
from fairlayer.streaming.trace import Trace

__all__ = ["InferenceState"]

_ENOUGH = 100  # samples after which a stream should have met more than one group
_EXACT = (torch.float32, torch.float64)
_FLOATS = frozenset((*_EXACT, torch.float16, torch.bfloat16))
_NUMPY: dict[torch.dtype, Any] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}


class InferenceState:
    """What a stream of predictions has done so far, and the step that extends it.

    Args:
        constraints: what must hold for the pooled means of all predictions emitted since the last reset.
        bounds: of every prediction, numbers or None.
        policy: "anytime", "tracking", "per_batch", or a policy object.
        half_life: samples after which the feed-forward forgets half; None for never.
        non_blocking: whether calls with scores on a CUDA device do not wait for it, where that can be (a warning says
            where not). Bad samples are then emitted as NaN, and the error comes with the next question to this object;
            see "On an accelerator" in docs/streaming.md. On the CPU it changes nothing.

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
    """

    @explained
    def __init__(
        self,
        constraints: Stated,
        *,
        bounds: tuple[float | None, float | None] | None = None,
        policy: str | Policy = "tracking",
        half_life: float | None = None,
        non_blocking: bool = False,
    ) -> None:
        held = as_constraints(constraints)
        unheld = [constraint.name for constraint in held if not constraint.streamable]
        if unheld:
            raise ConstraintDefinitionError(
                f"{', '.join(unheld)} cannot be held in a stream, which knows pooled group means only. Project batches "
                "of at least b_tau, or use constraints on groups."
            )
        box = Box.read(bounds, 0.0, torch.zeros(1))
        self._arguments = (held, plain_bounds((box.lower, box.upper), 0.0), as_policy(policy), as_half_life(half_life))
        self.non_blocking = non_blocking
        self._lock = threading.Lock()
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
    ) -> Tensor:
        """Return predictions for raw scores (n,) or (n, 1), detached, and count them.

        Args:
            scores: raw scores.
            sensitive_features: see `project`.
            ids: one per sample, to deliver labels later with `observe_labels`.
            y: labels, where they are known at once.
            vocabulary: known categories; while it is open, those that the stream has met are known too.

        Raises:
            NonFiniteScoresError, ShapeError, CategoryError, ...: bad input; the state is unchanged.
        """
        if ids is None and y is None and isinstance(scores, Tensor):
            emitted = self.emit_simply(scores, sensitive_features)
            if emitted is not None:
                return emitted
        return self._general(scores, None, sensitive_features, ids=ids, y=y, vocabulary=vocabulary)

    def emit_simply(self, scores: Tensor, features: Any, limit: float = math.inf) -> Tensor | None:
        """Emit fewer than `limit` samples where known categories and group sums suffice.

        None where it needs `emit`, and nothing has changed. Each attribute of a tensor is read once: they cost.
        """
        shape, dtype = scores.shape, scores.dtype
        if (len(shape) != 1 and (len(shape) != 2 or shape[1] != 1)) or dtype not in _FLOATS:
            return None
        if not 0 < shape[0] < limit:
            return None
        if self.non_blocking and scores.is_cuda:
            emitted = self._on_device(scores, features)
            if emitted is not None or self._on_devices.closed is None:
                return emitted
        kept = dtype if dtype in _EXACT else torch.float32
        if shape[0] == 1:
            return self._one(scores, shape, kept, features)
        return self._many(scores, shape, kept, features)

    def _on_device(self, scores: Tensor, features: Any) -> Tensor | None:
        with self._lock:
            emitted = self._on_devices.emit(self._machine, self._lookup, scores, features)
            self._after_step()
        self._tell()
        return emitted

    def _one(self, scores: Tensor, shape: torch.Size, dtype: torch.dtype, features: Any) -> Tensor | None:
        raw = scores.item()
        if not -1e100 < raw < 1e100:
            return None
        with self._lock:
            cell = self._lookup.one(features)
            value = None if cell is None else self._machine.step_one(cell, raw)
            if value is None:
                return None
            self._keep_watch()
        if self._changes or self._untold:
            self._tell()
        return torch.full(shape, value, dtype=dtype, device=scores.device)

    def _many(self, scores: Tensor, shape: torch.Size, dtype: torch.dtype, features: Any) -> Tensor | None:
        try:
            raw, device = scores.numpy().ravel(), None
        except (RuntimeError, TypeError):  # of another device or precision, or with a graph
            raw, device = host_float64(scores).reshape(-1), scores.device
        with self._lock:
            cells = self._lookup.many(features, len(raw))
            emitted = None if cells is None else self._machine.step_many(cells, raw)
            if emitted is None:
                return None
            result = emitted.astype(_NUMPY[dtype])  # a copy
            self._keep_watch()
        if self._changes or self._untold:
            self._tell()
        result.shape = shape
        tensor = torch.from_numpy(result)
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
    ) -> Tensor:
        """Return and count a large batch: as it was projected by itself where the pooled means then hold.

        Otherwise the nearest predictions under which both hold; if none do, the pool goes first.
        """
        return self._general(scores, _flat(projected), sensitive_features, ids=ids, y=y, vocabulary=vocabulary)

    def absorb(
        self,
        scores: Tensor,
        emitted: Tensor,
        sensitive_features: Any,
        vocabulary: Vocabulary | None = None,
        *,
        ids: Sequence[str | int] | None = None,
    ) -> None:
        """Count predictions that were made elsewhere, as they are; those with ids wait for their labels."""
        raw, values = _flat(scores), _flat(emitted)
        keys = None if ids is None else read_ids(ids, len(raw))
        if len(raw) != len(values):
            raise ShapeError(f"there are {len(raw)} scores, but {len(values)} predictions. Give one for each score.")
        with self._lock:
            groups = self._read(sensitive_features, len(raw), vocabulary)
            self._whole(lambda: self._machine.absorb(groups, raw, values))
            if keys is not None:
                self._pending.add(keys, self._codes(groups), values)
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
            self._catch_up()
            codes, emitted = self._pending.find(keys)
            self._machine.check_labels(self._groups(codes), labels[:, 0])
            self._pending.drop(keys)
            self._machine.observe_labels(codes, emitted, labels[:, 0])

    def warm_start(self, scores: Tensor, sensitive_features: Any, vocabulary: Vocabulary | None = None) -> None:
        """Let the feed-forward begin from raw scores of validation data; nothing counts as emitted."""
        raw = _flat(scores)
        with self._lock:
            groups = self._read(sensitive_features, len(raw), vocabulary)
            self._whole(lambda: self._machine.warm_start(groups, raw))
            self._know()

    def adopt(self, vocabulary: Vocabulary) -> None:
        """Take on categories; what was counted and what waits for labels keep their meaning.

        Raises:
            CategoryError: the stream has met a category that is not among them; the state is unchanged.
        """
        with self._lock:
            self._catch_up()
            self._on_devices.know(vocabulary)
            self._whole(lambda: self._machine.adopt(vocabulary))
            self._know()

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._machine = Machine(*self._arguments)
            self._on_devices = NonBlocking()
            self._pending = Pending()
            self._trace = Trace()
            self._last_phase = self._machine.phase()
            self._base: dict[str, Any] | None = None
            self._know()

    # ---- what it knows

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """The constraints that it holds."""
        return self._arguments[0]

    @property
    def policy(self) -> Policy:
        """The policy."""
        return self._arguments[2]

    @property
    def phase(self) -> Phase:
        """COLD, WARMING, STEADY, SATURATED or DRIFTING."""
        with self._up_to_date() as machine:
            return machine.phase()

    @property
    def samples(self) -> int:
        """Predictions emitted since the last reset."""
        with self._up_to_date() as machine:
            return int(machine.rule.samples)

    @property
    def multipliers(self) -> dict[str, float]:
        """Price of each constraint per sample: minus d mean(1/2 (y - z)^2) / d tolerance, from the feed-forward."""
        with self._up_to_date() as machine:
            if isinstance(self.policy, PerBatch):
                return {constraint.name: machine.dual.multiplier for constraint in machine.constraints}
            return dict(machine.prices)

    @property
    def per_batch_gap(self) -> float:
        """Sample-weighted mean of per-batch gaps (kept by the "per_batch" policy only)."""
        with self._up_to_date() as machine:
            return machine.dual.average_gap

    def shifts(self) -> dict[str, float]:
        """Return how far the feed-forward moves each cell, in prediction units (added to the raw score)."""
        with self._up_to_date() as machine:
            return dict(zip(self._cell_names(), (-machine.shifts).tolist(), strict=True))

    def counts(self) -> dict[str, int]:
        """Return predictions emitted per cell."""
        with self._up_to_date() as machine:
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
        with self._up_to_date() as machine:
            return machine.measured()

    def meters(self) -> dict[str, dict[str, float]]:
        """Return the parts of `state_dict()["machine"]` that counting emitted predictions again cannot rebuild."""
        with self._up_to_date() as machine:
            return {"rule": machine.rule.to_state(), "dual": machine.dual.to_state()}

    def mean_squared_change(self) -> float:
        """Return the mean of (emitted - raw)^2 over everything emitted."""
        with self._up_to_date() as machine:
            sums = machine.history.sums
            return float(sums["moved"].sum() / max(sums["count"].sum(), 1.0))

    def on_phase_change(self, callback: Callable[[Phase, Phase], None]) -> None:
        """Call `callback(before, after)` whenever the phase changes, after the step that changed it."""
        self._callbacks.append(callback)

    def plot(self, axes: Any = None) -> Any:
        """Draw pooled gap against tolerance, shift per cell and phase over the stream; return the figure."""
        from fairlayer.streaming.plot import plot_trace

        with self._up_to_date() as machine:
            points = self._trace.until_now(machine, machine.phase(), self._cell_names())
            return plot_trace(points, machine.constraints, self.policy, axes)

    # ---- state as data

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state as tensors and plain containers, loadable with `weights_only=True`."""
        with self._up_to_date() as machine:
            saved = {"machine": machine.to_state(), "pending": self._pending.to_state()}
            return saved if self._base is None else {**saved, "base": self._base}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ConstraintDefinitionError: it belongs to other features; the state is unchanged.
            ParameterError: it is no such state, or one of another version; the state is unchanged.
        """
        machine, pending = Machine(*self._arguments), Pending()
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
            self._on_devices, self._trace = NonBlocking(), Trace()
            self._know()
            self._last_phase = machine.phase()

    def merge(self, other: InferenceState) -> None:
        """Add what another replica has emitted: pooled sums become those of one process that saw both streams."""
        state = other.state_dict()["machine"]
        addition = Machine(*self._arguments)
        addition.load_state(state)
        with self._lock:
            self._catch_up()
            self._machine.merge(addition)
            self._know()

    def sync(self, group: Any = None) -> None:
        """Add what every replica of a torch.distributed group has emitted since its last sync, on all of them."""
        from torch import distributed

        with self._lock:
            self._catch_up()
            own = self._machine.to_state()
            everyone: list[Any] = [None] * distributed.get_world_size(group)
            distributed.all_gather_object(everyone, (own, self._base), group=group)
            total = Machine(*self._arguments)
            if self._base is not None:
                total.load_state(self._base)
            for state, base in everyone:
                total.merge(self._loaded(state))
                if base is not None:
                    total.merge(self._loaded(base), sign=-1.0)
            self._machine, self._base = total, total.to_state()
            self._know()

    def __getstate__(self) -> dict[str, Any]:
        return {"arguments": self._arguments, "non_blocking": self.non_blocking, "state": self.state_dict()}

    def __setstate__(self, saved: Mapping[str, Any]) -> None:
        constraints, bounds, policy, half_life = saved["arguments"]
        self.__init__(constraints, bounds=bounds, policy=policy, half_life=half_life)  # type: ignore[misc]
        self.non_blocking = saved.get("non_blocking", False)
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
    ) -> Tensor:
        if self.non_blocking and scores.is_cuda:
            self._on_devices.explain_what_is_given(ids=ids, y=y, projected=projected)
        raw = _flat(scores)
        keys = None if ids is None else read_ids(ids, len(raw))
        labels = read_per_sample("y", y, tuple(scores.shape))
        with self._lock:
            groups = self._read(features, len(raw), vocabulary)
            machine = self._machine
            if labels is not None:
                machine.check_labels(groups, labels[:, 0])
            if projected is None:
                emitted = self._whole(lambda: machine.step(groups, raw))
            else:
                emitted = self._whole(lambda: machine.step_large(groups, raw, projected))
            codes = self._codes(groups)
            if keys is not None and labels is None:
                self._pending.add(keys, codes, emitted)
            if labels is not None:
                machine.observe_labels(codes, emitted, labels[:, 0])
            self._after_step()
        self._tell()
        return _as_scores(emitted, scores)

    def _read(self, features: Any, n: int, vocabulary: Vocabulary | None) -> Groups:
        """Read every feature before anything changes, so that a bad one changes nothing."""
        self._catch_up()
        self._on_devices.know(vocabulary)
        names = feature_names(self._arguments[0])
        groups = read_groups(features, self._arguments[0], n, self._vocabulary(vocabulary))
        for name in names:
            groups.column(name)
        return groups

    def _catch_up(self) -> None:
        """Count what was emitted on a device."""
        if self._machine.arrears is not None:
            self._machine.catch_up()
            self._after_step()

    @contextmanager
    def _up_to_date(self) -> Iterator[Machine]:
        """Lock the machine once everything is counted and, if a device found bad samples, has been said."""
        with self._lock:
            self._catch_up()
            self._on_devices.complain()
            yield self._machine
        self._tell()

    def _whole(self, step: Callable[[], Any]) -> Any:
        """Run a step so that it changes the machine whole or not at all."""
        machine = self._machine
        mark, before = machine.mark(), machine.vocabulary
        try:
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
        """The reverse of `_codes`."""
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
        phase = rule.phase(machine.settle)
        if machine.revision != self._trace.revision:
            self._trace.record(machine, phase, self._cell_names)
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
        return said

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
        """What a step knows: a closed vocabulary as it is; under an open one, what the stream has met comes first."""
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
        machine = Machine(*self._arguments)
        machine.load_state(state)
        return machine

    def _cell_names(self) -> list[str]:
        machine = self._machine
        words = [machine.vocabulary.categories.get(name, ()) for name in machine.features]
        return [cell_name(machine.features, words, cell) for cell in machine.history.cells]


def _flat(scores: Tensor) -> FloatArray:
    as_columns(scores)
    if scores.ndim == 2 and scores.shape[1] != 1:
        raise ShapeError(
            f"a stream takes one score per sample, (n,) or (n, 1), but found {tuple(scores.shape)}. "
            "Use one InferenceState for each column."
        )
    raw = host_float64(scores).reshape(-1)
    if not np.isfinite(raw).all():
        raise NonFiniteScoresError(f"{int((~np.isfinite(raw)).sum())} of {len(raw)} scores are NaN or infinite.")
    return raw


def _as_scores(emitted: FloatArray, scores: Tensor) -> Tensor:
    """Return predictions in the shape and on the device of the scores; half precision becomes float32."""
    copied = emitted.astype(np.float64 if scores.dtype is torch.float64 else np.float32)
    return torch.from_numpy(copied.reshape(scores.shape)).to(scores.device)
