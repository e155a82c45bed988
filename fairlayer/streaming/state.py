"""The public face of a stream: thread-safe, savable, mergeable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import host_float64
from fairlayer._typing import FloatArray
from fairlayer.constraints import Constraint
from fairlayer.errors import NonFiniteScoresError, ShapeError
from fairlayer.groups import Groups, Vocabulary
from fairlayer.inputs import feature_names, read_groups, read_per_sample
from fairlayer.streaming.machine import Machine
from fairlayer.streaming.pending import Pending
from fairlayer.streaming.phases import Phase
from fairlayer.streaming.policy import PerBatch, Policy, as_policy
from fairlayer.streaming.trace import Trace

__all__ = ["InferenceState"]


class InferenceState:
    """What a stream of predictions has done so far, and the step that extends it.

    Args:
        constraints: what must hold for the pooled means of all predictions emitted since the last reset.
        bounds: of every prediction, numbers or None.
        policy: "anytime", "tracking", "per_batch", or a policy object.
        half_life: samples after which the feed-forward forgets half; None for never.

    Many threads may use one object: each call is one step of some serial order. A call that raises leaves the state
    as it was.

    Example:
        >>> import torch, fairlayer as fl
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> stream = fl.InferenceState([parity], bounds=(0.0, 1.0), policy="anytime")
        >>> for score, sex in [(0.9, "F"), (0.2, "M"), (0.8, "F")]:
        ...     y = stream.emit(torch.tensor([score]), {"sex": [sex]})
        >>> round(stream.pooled_gap()["DemographicParity('sex')"], 6), stream.phase.value
        (0.1, 'warming')
    """

    def __init__(
        self,
        constraints: Sequence[Constraint],
        *,
        bounds: tuple[float | None, float | None] | None = None,
        policy: str | Policy = "tracking",
        half_life: float | None = None,
    ) -> None:
        self._arguments = (tuple(constraints), bounds or (None, None), as_policy(policy), half_life)
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Phase, Phase], None]] = []
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
            vocabulary: known categories; by default those seen before.

        Raises:
            NonFiniteScoresError, ShapeError, CategoryError, ...: bad input; the state is unchanged.
        """
        if ids is None and y is None and scores.numel() == 1:
            emitted = self.emit_one(scores, sensitive_features)
            if emitted is not None:
                return emitted
        return self._emit(scores, sensitive_features, ids, y, vocabulary)

    def absorb(self, scores: Tensor, emitted: Tensor, sensitive_features: Any, vocabulary: Vocabulary) -> None:
        """Count a batch that was projected by itself."""
        raw, values = _flat(scores), _flat(emitted)
        with self._lock:
            groups = read_groups(sensitive_features, self._arguments[0], len(raw), vocabulary)
            self._prepare(groups)
            self._machine.absorb(groups, raw, values)
            self._after(groups)

    def observe_labels(self, ids: Sequence[str | int], y: Any) -> None:
        """Deliver the labels of earlier predictions.

        Raises:
            ShapeError: an id does not wait for a label, or lengths differ; the state is unchanged.
        """
        keys = list(ids)
        labels = read_per_sample("y", y, (len(keys),))
        assert labels is not None
        with self._lock:
            cells, emitted = self._pending.take(keys)
            self._machine.observe_labels(cells, emitted, labels[:, 0])

    def warm_start(self, scores: Tensor, sensitive_features: Any, vocabulary: Vocabulary | None = None) -> None:
        """Let the feed-forward begin from raw scores of validation data; nothing counts as emitted."""
        raw = _flat(scores)
        with self._lock:
            groups = read_groups(sensitive_features, self._arguments[0], len(raw), vocabulary or self._vocabulary())
            self._prepare(groups)
            self._machine.warm_start(groups, raw)
            self._know(groups.vocabulary)

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._machine = Machine(*self._arguments)
            self._pending = Pending()
            self._trace = Trace()
            self._last_phase = self._machine.phase()
            self._base: dict[str, Any] | None = None
            self._lookup: dict[str, dict[Any, int]] = {}

    # ---- what it knows

    @property
    def policy(self) -> Policy:
        """The policy."""
        return self._arguments[2]

    @property
    def phase(self) -> Phase:
        """COLD, WARMING, STEADY, SATURATED or DRIFTING."""
        return self._machine.phase()

    @property
    def samples(self) -> int:
        """Predictions emitted since the last reset."""
        return int(self._machine.rule.samples)

    @property
    def multipliers(self) -> dict[str, float]:
        """Price of each constraint per sample: minus d mean(1/2 (y - z)^2) / d tolerance, from the feed-forward."""
        if isinstance(self.policy, PerBatch):
            return {constraint.name: self._machine.dual.multiplier for constraint in self._arguments[0]}
        return dict(self._machine.prices)

    @property
    def per_batch_gap(self) -> float:
        """Sample-weighted mean of per-batch gaps (kept by the "per_batch" policy only)."""
        return self._machine.dual.average_gap

    def shifts(self) -> dict[str, float]:
        """Return how far the feed-forward moves each cell, in prediction units (added to the raw score)."""
        with self._lock:
            return dict(zip(self._cell_names(), (-self._machine.shifts).tolist(), strict=True))

    def counts(self) -> dict[str, int]:
        """Return predictions emitted per cell."""
        with self._lock:
            counts = self._machine.history.sums["count"].astype(int).tolist()
            return dict(zip(self._cell_names(), counts, strict=True))

    def pooled_gap(self) -> dict[str, float | None]:
        """Return the gap of the pooled means of everything emitted, per constraint; None where nothing compares."""
        with self._lock:
            return self._machine.pooled_gaps()

    def mean_squared_change(self) -> float:
        """Return the mean of (emitted - raw)^2 over everything emitted."""
        with self._lock:
            sums = self._machine.history.sums
            return float(sums["moved"].sum() / max(sums["count"].sum(), 1.0))

    def on_phase_change(self, callback: Callable[[Phase, Phase], None]) -> None:
        """Call `callback(before, after)` whenever the phase changes, after the step that changed it."""
        self._callbacks.append(callback)

    def plot(self, axes: Any = None) -> Any:
        """Draw pooled gap against tolerance, shift per cell and phase over the stream; return the figure."""
        from fairlayer.streaming.plot import plot_trace

        with self._lock:
            return plot_trace(self._trace, self._arguments[0], self.policy, axes)

    # ---- state as data

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state as tensors and plain containers, loadable with `weights_only=True`."""
        with self._lock:
            return {"machine": self._machine.to_state(), "pending": self._pending.to_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ConstraintDefinitionError: it belongs to other features; the state is unchanged.
        """
        machine, pending = Machine(*self._arguments), Pending()
        machine.load_state(state["machine"])
        pending.load_state(state["pending"])
        with self._lock:
            self._machine, self._pending, self._base = machine, pending, None
            self._know(machine.vocabulary)
            self._last_phase = machine.phase()

    def merge(self, other: InferenceState) -> None:
        """Add what another replica has emitted: pooled sums become those of one process that saw both streams."""
        state = other.state_dict()["machine"]
        addition = Machine(*self._arguments)
        addition.load_state(state)
        with self._lock:
            self._machine.merge(addition)
            self._know(self._machine.vocabulary)

    def sync(self, group: Any = None) -> None:
        """Add what every replica of a torch.distributed group has emitted since its last sync, on all of them."""
        from torch import distributed

        with self._lock:
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
            self._know(total.vocabulary)

    def __getstate__(self) -> dict[str, Any]:
        return {"arguments": self._arguments, "state": self.state_dict()}

    def __setstate__(self, saved: Mapping[str, Any]) -> None:
        constraints, bounds, policy, half_life = saved["arguments"]
        self.__init__(constraints, bounds=bounds, policy=policy, half_life=half_life)  # type: ignore[misc]
        self.load_state_dict(saved["state"])

    # ---- internals

    def emit_one(self, scores: Tensor, features: Any) -> Tensor | None:
        """Emit a single request where plain sums suffice; None where it needs `emit`, and nothing has changed."""
        raw = scores.item()
        codes = self._codes_of_one(features)
        if codes is None or not -1e100 < raw < 1e100:
            return None
        with self._lock:
            machine = self._machine
            cell = machine.history.index.get(codes)
            emitted = None if cell is None else machine.step_one(cell, raw)
            if emitted is None:
                return None
            if machine.rule.samples >= self._trace.next_record:
                self._after(None)
        return torch.full_like(scores, emitted)

    def _codes_of_one(self, features: Any) -> tuple[int, ...] | None:
        if type(features) is not dict:
            return None
        codes = []
        for name in self._machine.features:
            value = features.get(name)
            if isinstance(value, Tensor | np.ndarray):
                value = value.item() if len(value.shape) == 1 and value.shape[0] == 1 else None
            elif isinstance(value, list | tuple) and len(value) == 1:
                value = value[0]
            code = self._lookup.get(name, {}).get(value) if isinstance(value, str | int | bool) else None
            if code is None:
                return None
            codes.append(code)
        return tuple(codes)

    def _emit(
        self, scores: Tensor, features: Any, ids: Sequence[str | int] | None, y: Any, vocabulary: Vocabulary | None
    ) -> Tensor:
        raw = _flat(scores)
        keys = None if ids is None else list(ids)
        if keys is not None and len(keys) != len(raw):
            raise ShapeError(f"there are {len(raw)} scores, but {len(keys)} ids.")
        labels = read_per_sample("y", y, tuple(scores.shape))
        with self._lock:
            known = vocabulary or self._vocabulary()
            groups = read_groups(features, self._arguments[0], len(raw), known)
            self._prepare(groups)
            emitted = self._machine.step(groups, raw)
            cells = self._machine.history.locate(self._codes(groups))
            if keys is not None and labels is None:
                self._pending.add(keys, cells, emitted)
            if labels is not None:
                self._machine.observe_labels(cells, emitted, labels[:, 0])
            self._after(groups)
        return torch.as_tensor(emitted, dtype=_emitted_dtype(scores)).to(scores.device).reshape(scores.shape)

    def _prepare(self, groups: Groups) -> None:
        """Read every feature before anything changes, so that a bad one changes nothing."""
        for name in feature_names(self._arguments[0]):
            groups.column(name)

    def _codes(self, groups: Groups) -> Any:
        columns = [groups.column(name).codes for name in self._machine.features]
        if not columns:
            return np.zeros((groups.n, 0), dtype=np.int64)
        return np.stack([codes for codes in columns if codes is not None], axis=1)

    def _after(self, groups: Groups | None) -> None:
        """Book-keeping of a step: categories, trace, phase."""
        if groups is not None:
            self._know(groups.vocabulary)
        machine = self._machine
        phase = machine.phase()
        if machine.rule.samples >= self._trace.next_record:
            self._trace.record(machine, phase, self._cell_names())
        if phase != self._last_phase:
            before, self._last_phase = self._last_phase, phase
            for callback in self._callbacks:
                callback(before, phase)

    def vocabulary_after(self, words: Vocabulary) -> Vocabulary:
        """Return an open vocabulary with what the stream has met since."""
        with self._lock:
            met = self._machine.vocabulary.categories
        longer = {name: met[name] for name in met if len(met[name]) >= len(words.categories.get(name, ()))}
        return Vocabulary({**words.categories, **longer}, open=True)

    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self._machine.vocabulary.categories, open=True)

    def _know(self, vocabulary: Vocabulary) -> None:
        known = {name: len(table) for name, table in self._lookup.items()}
        if known != {name: len(words) for name, words in vocabulary.categories.items()}:
            self._lookup = {
                name: {category: code for code, category in enumerate(words)}
                for name, words in vocabulary.categories.items()
            }

    def _loaded(self, state: Mapping[str, Any]) -> Machine:
        machine = Machine(*self._arguments)
        machine.load_state(state)
        return machine

    def _cell_names(self) -> list[str]:
        machine = self._machine
        words = [machine.vocabulary.categories.get(name, ()) for name in machine.features]
        return [
            " & ".join(
                f"{name}={table[code] if code >= 0 else 'unknown'}"
                for name, table, code in zip(machine.features, words, cell, strict=True)
            )
            for cell in machine.history.cells
        ]


def _flat(scores: Tensor) -> FloatArray:
    if scores.ndim == 2 and scores.shape[1] != 1:
        raise ShapeError(
            f"a stream takes one score per sample, (n,) or (n, 1), but found {tuple(scores.shape)}. "
            "Use one InferenceState for each column."
        )
    raw = host_float64(scores).reshape(-1)
    if not np.isfinite(raw).all():
        raise NonFiniteScoresError(f"{int((~np.isfinite(raw)).sum())} of {len(raw)} scores are NaN or infinite.")
    return raw


def _emitted_dtype(scores: Tensor) -> torch.dtype:
    return torch.float64 if scores.dtype == torch.float64 else torch.float32
