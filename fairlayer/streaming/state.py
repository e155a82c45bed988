"""The public face of a stream: thread-safe, savable, mergeable."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fairlayer.constraints import Constraint, Measured
from fairlayer.edge import Stated, as_constraints, read_per_sample
from fairlayer.errors import ShapeError
from fairlayer.geometry import Geometry
from fairlayer.groups import Vocabulary
from fairlayer.streaming.calls.entrance import flat, raw_of, streamable
from fairlayer.streaming.calls.in_place import reads_in_place, step_in_place
from fairlayer.streaming.calls.short_ways import FLOATS, read_many, read_one, step_many, step_one
from fairlayer.streaming.calls.undoing import whole
from fairlayer.streaming.cells import adopt, names_of, read
from fairlayer.streaming.labels.awaiting import deliver, wait_for_labels
from fairlayer.streaming.labels.pending import read_ids
from fairlayer.streaming.live import Live
from fairlayer.streaming.phases import Phase
from fairlayer.streaming.policies import Policy
from fairlayer.streaming.reporting.report import StreamReport, report_of
from fairlayer.streaming.setting import Setting
from fairlayer.streaming.transition import Event

__all__ = ["InferenceState"]


class InferenceState:
    """What a stream of predictions has done so far, and the step that extends it.

    Args:
        constraints: what must hold: for the present means under the policy "present", for the pooled means of all
            predictions since the last reset under "tracking" and "anytime".
        bounds: the bounds of every prediction, numbers or None.
        policy: "present", "tracking", "anytime", "per_batch", the name of a registered policy, or a policy object.
        memory: samples that count as recent: one weighs `exp(-k / memory)` after k others. None is 1,000 for
            "present", and everything for the others.
        geometry: "euclidean", "entropic" or "likelihood", or an object, see `project`; only "present" takes others
            than the first.
        from_logits: whether scores are log-odds; the raw prediction is then the sigmoid of the score.
        window: what gaps are reported over: a number of samples, a timedelta, or a text such as "30d". A time is read
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
        self._live = Live(
            Setting.asked(
                constraints,
                bounds=bounds,
                policy=policy,
                memory=memory,
                geometry=geometry,
                from_logits=from_logits,
                window=window,
                hold=hold,
                transition=transition,
            )
        )

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
        return self._live.general(scores, None, sensitive_features, ids=ids, y=y, vocabulary=vocabulary, at=at)

    def emit_simply(
        self, scores: Tensor, features: Any, limit: float = math.inf, at: float | None = None
    ) -> Tensor | None:
        """Emit fewer than `limit` samples where known categories and group sums suffice.

        None where it needs `emit`, and nothing has changed. Each attribute of a tensor is read once: they cost.
        """
        shape, dtype = scores.shape, scores.dtype
        if (len(shape) != 1 and (len(shape) != 2 or shape[1] != 1)) or dtype not in FLOATS:
            return None
        n = shape[0]
        if not 0 < n < limit:
            return None
        if reads_in_place(scores, dtype):
            emitted = self._live.shortly(step_in_place, (scores, n, dtype is torch.float64), features, at)
            if emitted is not None:
                return emitted
        read, step = (read_one, step_one) if n == 1 else (read_many, step_many)
        raw = read(scores, self._live.setting)
        return None if raw is None else self._live.shortly(step, (raw, scores), features, at)

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
        return self._live.general(
            scores, flat(projected), sensitive_features, ids=ids, y=y, vocabulary=vocabulary, at=at
        )

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
        raw, values = (
            raw_of(scores, self._live.setting.geometry, from_logits=self._live.setting.from_logits),
            flat(emitted),
        )
        keys = None if ids is None else read_ids(ids, len(raw))
        if len(raw) != len(values):
            raise ShapeError(f"there are {len(raw)} scores, but {len(values)} predictions. Give one for each score.")
        with self._live.changing() as machine:
            groups = read(machine, sensitive_features, len(raw), vocabulary)
            machine.windows.check(at)
            whole(machine, self._live.pending, lambda: machine.absorb(groups, raw, values), at)
            if keys is not None:
                wait_for_labels(machine, self._live.pending, keys, (groups, raw, values))

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
        with self._live.locked() as machine:
            deliver(machine, self._live.pending, keys, labels[:, 0])

    def warm_start(self, scores: Tensor, sensitive_features: Any, vocabulary: Vocabulary | None = None) -> None:
        """Let the feed-forward begin from raw scores of validation data; nothing counts as emitted."""
        raw = raw_of(scores, self._live.setting.geometry, from_logits=self._live.setting.from_logits)
        self._live.whole(
            lambda machine: machine.warm_start(read(machine, sensitive_features, len(raw), vocabulary), raw)
        )

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
        self._live.hold(streamable(as_constraints(constraints)), over)

    def adopt(self, vocabulary: Vocabulary) -> None:
        """Take on categories; what was counted and what waits for labels keep their meaning.

        Raises:
            CategoryError: the stream has met a category that is not among them; the state is unchanged.
        """
        self._live.whole(lambda machine: adopt(machine, vocabulary))

    def reset(self) -> None:
        """Forget everything."""
        self._live.reset()

    # ---- what it knows

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """The constraints that it holds."""
        return self._live.setting.constraints

    @property
    def policy(self) -> Policy:
        """The policy."""
        return self._live.setting.policy

    @property
    def phase(self) -> Phase:
        """CHANGING, COLD, WARMING, STEADY, SATURATED or DRIFTING."""
        with self._live.locked() as machine:
            return machine.phase()

    @property
    def samples(self) -> int:
        """Predictions emitted since the last reset."""
        with self._live.locked() as machine:
            return int(machine.rule.samples)

    @property
    def multipliers(self) -> dict[str, float]:
        """Price of each constraint per sample: minus d mean(d(y, z)) / d tolerance, from the feed-forward."""
        with self._live.locked() as machine:
            return machine.policy.prices(machine.own, machine)

    @property
    def per_batch_gap(self) -> float:
        """Sample-weighted mean of per-batch gaps (kept by the "per_batch" policy only)."""
        with self._live.locked() as machine:
            samples, total = (float(machine.own.get(name, 0.0)) for name in ("samples", "weighted_gaps"))
            return total / samples if samples else 0.0

    @property
    def events(self) -> tuple[Event, ...]:
        """The latest things that happened: changed limits, new categories, sudden changes, lost labels, mergers."""
        with self._live.locked() as machine:
            return tuple(machine.events)

    @property
    def waiting_labels(self) -> int:
        """Predictions with an id whose label has not come."""
        with self._live.locked():
            return len(self._live.pending)

    def report(self) -> StreamReport:
        """Return the stream bucket by bucket, its window, and everything since the reset; `print` shows a table."""
        with self._live.locked() as machine:
            return report_of(machine, names_of(machine), waiting=len(self._live.pending))

    def shifts(self) -> dict[str, float]:
        """Return how far the feed-forward moves each cell, in the unit of the geometry (added to the raw score)."""
        with self._live.locked() as machine:
            return dict(zip(names_of(machine), (-machine.shifts).tolist(), strict=True))

    def counts(self) -> dict[str, int]:
        """Return predictions emitted per cell."""
        with self._live.locked() as machine:
            counts = machine.history.sums["count"].astype(int).tolist()
            return dict(zip(names_of(machine), counts, strict=True))

    def pooled_gap(self) -> dict[str, float | None]:
        """Return the number that each constraint bounds, of the pooled means of everything emitted.

        For a parity that is the largest difference of pooled group means, for a ratio the lowest over the highest, for
        a floor the lowest mean; see `Constraint.measure`. None where nothing compares.
        """
        return {name: None if found is None else found.value for name, found in self.measured().items()}

    def measured(self) -> dict[str, Measured | None]:
        """Return the same with limit, direction and counts; None before anything was emitted."""
        with self._live.locked() as machine:
            return machine.measured()

    def meters(self) -> dict[str, dict[str, float]]:
        """Return the parts of `state_dict()["machine"]` that counting emitted predictions again cannot rebuild."""
        with self._live.locked() as machine:
            return {"rule": machine.rule.to_state(), "policy": machine.policy.meters(machine.own)}

    def mean_squared_change(self) -> float:
        """Return the mean of (emitted - raw)^2 over everything emitted."""
        with self._live.locked() as machine:
            sums = machine.history.sums
            return float(sums["moved"].sum() / max(sums["count"].sum(), 1.0))

    def on_phase_change(self, callback: Callable[[Phase, Phase], None]) -> None:
        """Call `callback(before, after)` whenever the phase changes, after the step that changed it."""
        self._live.watch.callbacks.append(callback)

    def __repr__(self) -> str:
        return f"InferenceState({self.policy.name}, {self.samples} predictions, phase {self.phase.value})"

    def _repr_html_(self) -> str:
        from fairlayer.streaming.reporting.notebook import page_of

        return page_of(self)

    def plot(self, axes: Any = None) -> Any:
        """Draw pooled gap against tolerance, shift per cell and phase over the stream; return the figure."""
        from fairlayer.streaming.reporting.plot import plot_trace

        with self._live.locked() as machine:
            points = self._live.watch.trace.until_now(machine, machine.phase())
            return plot_trace(points, machine.constraints, self.policy, axes)

    def plot_report(self, axes: Any = None) -> Any:
        """Draw raw and emitted gap per bucket with the band that is held, shares moved and at a bound, and phases."""
        from fairlayer.streaming.reporting.plot import plot_report

        return plot_report(self.report(), axes)

    # ---- state as data

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state as tensors and plain containers, loadable with `weights_only=True`."""
        return self._live.to_state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ConstraintDefinitionError: it belongs to other features; the state is unchanged.
            ParameterError: it is no such state, or one of another version; the state is unchanged.
        """
        self._live.load_state(state)

    def merge(self, other: InferenceState) -> None:
        """Add what another replica has emitted: pooled sums become those of one process that saw both streams."""
        self._live.merge(other.state_dict()["machine"])

    def sync(self, group: Any = None) -> None:
        """Learn what every replica of a torch.distributed group has emitted, on all of them.

        Each replica publishes its own counts and recent scores, and adds what the others have counted since their last
        sync. Requests are answered meanwhile; a peer that is late keeps this call waiting, and no request.
        """
        self._live.sync(group)

    def __getstate__(self) -> dict[str, Any]:
        return {"setting": self._live.setting, "state": self.state_dict()}

    def __setstate__(self, saved: Mapping[str, Any]) -> None:
        self._live = Live(saved["setting"])
        self.load_state_dict(saved["state"])
