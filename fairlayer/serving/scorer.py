"""Records in, scores that keep to the constraints out, through one durable stream. Knows nothing of HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import torch

from fairlayer.constraints import Constraint, Measured
from fairlayer.data.columns import sensitive_columns
from fairlayer.edge import plain_bounds
from fairlayer.errors import ParameterError
from fairlayer.model import FairModel
from fairlayer.serving.fields import Field, fields_of
from fairlayer.serving.identity import digests_of, name_of, read_of
from fairlayer.serving.journal import Journal
from fairlayer.serving.records import frame_of, unseen_levels
from fairlayer.streaming import InferenceState, Policy, Recorder
from fairlayer.streaming.durable import DurableStream
from fairlayer.streaming.setting import as_window
from fairlayer.streaming.store import Id, StreamStore
from fairlayer.streaming.stores.asking import Delivered, Emitted
from fairlayer.streaming.stores.finishing import Finish
from fairlayer.training import Run, load_run
from fairlayer.training.config import continuous_names, feature_names
from fairlayer.training.quality import THRESHOLD

if TYPE_CHECKING:
    import pandas as pd

    from fairlayer.groups import Vocabulary

__all__ = ["Inputs", "Scored", "Scorer", "Store", "Stream", "new_stream", "stream_of"]

UNCOVERED = "uncovered categories: "  # of the counters that a store keeps
UNSEEN = "unseen levels: "


class Stream(Protocol):
    """A stream with a store, as a scorer uses it: `DurableStream`, or one that shares its store with others."""

    state: InferenceState
    lock: Any

    def answer(
        self,
        scores: torch.Tensor,
        sensitive_features: Any,
        *,
        ids: Sequence[Id] | None = None,
        at: float | None = None,
        digests: Sequence[str] | None = None,
        counters: Any = None,
        inputs: Sequence[object] | None = None,
    ) -> Emitted:
        """Emit, count and store."""

    def deliver_labels(self, ids: Sequence[Id], y: Any) -> Delivered:
        """Deliver labels."""

    @property
    def counters(self) -> dict[str, int]:
        """Numbers that go with the stream."""

    def close(self) -> None:
        """Let go of the store."""


class Store(Protocol):
    """What makes a stream durable: `StreamStore`, or one that several processes share."""

    @property
    def durability(self) -> dict[str, Any]:
        """What outlives what, in words."""

    def check(self) -> None:
        """Raise a `StoreError` where a step could not be stored now."""


class Scored(NamedTuple):
    """What a request is answered.

    Args:
        scores: emitted predictions.
        raw_scores: what the model says by itself.
        decisions: 1 where the emitted score is at least 0.5; None where the run predicts amounts.
        repeated: whether an id had come before, and got what it got then.
        phase: the phase of the stream afterwards.
    """

    scores: list[float]
    raw_scores: list[float]
    decisions: list[int] | None
    repeated: list[bool]
    phase: str

    @property
    def shifts(self) -> list[float]:
        """Emitted minus raw."""
        return [emitted - raw for emitted, raw in zip(self.scores, self.raw_scores, strict=True)]

    def shown(self) -> dict[str, Any]:
        """Return what goes over HTTP; an id that comes again reads the same."""
        return {
            "scores": self.scores,
            "raw_scores": self.raw_scores,
            "shifts": self.shifts,
            "decisions": self.decisions,
            "phase": self.phase,
        }


def new_stream(
    model: FairModel,
    *,
    policy: str | Policy = "present",
    memory: float | None = None,
    window: Any = None,
    hold: str | None = None,
) -> InferenceState:
    """Return an empty stream under the model's constraints and bounds; what the model emitted before is left out.

    Args:
        policy: see `InferenceState`.
        memory: see `InferenceState`.
        window: see `InferenceState`.
        hold: see `InferenceState`.

    Example:
        >>> import torch, fairlayer as fl
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Flatten(0), torch.nn.Sigmoid())
        >>> model = fl.FairModel(net, [fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0))
        >>> stream = new_stream(model, policy="tracking")
        >>> stream.samples, stream.policy.name
        (0, 'tracking')
    """
    options = model.projection.options
    return InferenceState(
        model.constraints,
        bounds=plain_bounds(options.numeric_bounds, options.margin),
        policy=policy,
        memory=memory,
        geometry=options.geometry,
        from_logits=options.from_logits,
        window=window,
        hold=hold,
    )


class Inputs:
    """How records become raw scores and sensitive features.

    Args:
        run: the run whose columns are read.
        unknown: what becomes of a sensitive category that training has not met: "refuse" raises, "uncovered" takes it
            as not known, so that no constraint covers the prediction, and counts it.
        most_records: most records of one request.
    """

    def __init__(self, run: Run, *, unknown: str = "refuse", most_records: int = 1000) -> None:
        if unknown not in ("refuse", "uncovered"):
            raise ParameterError(
                f"unknown={unknown!r} was asked. Say 'refuse' (a new category is an error) or 'uncovered' (it is "
                "scored, counted, and no constraint covers it)."
            )
        self.run, self.unknown, self.most_records = run, unknown, most_records
        categories = run.model.projection.vocabulary.categories
        self.fields = fields_of(run.recipe, categories, closed=unknown == "refuse")
        self.columns = tuple(field.name for field in self.fields)

    def read(
        self, records: Any, fields: Sequence[Field] | None = None
    ) -> tuple[torch.Tensor, dict[str, Any], Counter[str]]:
        """Return raw scores, sensitive features, and what is to be counted beside them.

        Args:
            records: list of objects, column -> value.
            fields: what the columns may hold, where that is narrower than for a score.

        Raises:
            RequestError, ...: what is wrong with them.
        """
        frame = frame_of(records, fields or self.fields, most=self.most_records)
        raw, sensitive = self.raw(frame)
        seen = Counter({UNSEEN + name: count for name, count in unseen_levels(self.run.recipe, frame).items()})
        if self.unknown == "uncovered":
            seen.update(self._uncover(sensitive))
        return raw.double(), sensitive, seen

    def raw(self, frame: pd.DataFrame) -> tuple[torch.Tensor, dict[str, Any]]:
        """Do what `Recipe.sample` does; that reads constraints from text each time, too slowly for single requests."""
        recipe, constraints = self.run.recipe, self.run.model.constraints
        x = torch.from_numpy(recipe.encoder.encode(frame))
        names, numbers = feature_names(constraints), continuous_names(constraints)
        sensitive = sensitive_columns(frame, names, cuts=recipe.cuts, continuous=numbers)
        with torch.no_grad():
            return self.run.model.raw_scores(x), sensitive

    def _uncover(self, sensitive: dict[str, Any]) -> dict[str, int]:
        """Take categories that are not known as missing; return how many there were, by feature."""
        found = {}
        for name, known in self.run.model.projection.vocabulary.categories.items():
            column = sensitive.get(name)
            if column is None or np.asarray(column).dtype != object:
                continue
            strange = [value is not None and value not in known for value in column]
            if any(strange):
                sensitive[name] = np.where(strange, None, column)
                found[UNCOVERED + name] = sum(strange)
        return found


class Scorer:
    """A run, its stream and its store.

    Every prediction goes through the stream, whatever the size of the request. What is held is what the policy says,
    and everything since the store began is counted.

    Args:
        run: a run, or the folder that `fairlayer train` wrote.
        store: where the stream is kept: a `StreamStore`, or a `SharedStore` for one of several processes; None keeps
            it in memory only.
        policy: see `FairModel`.
        memory: see `FairModel`.
        window: see `FairModel`.
        hold: see `FairModel`.
        warm_start: rows (raw scores of which) a new stream's feed-forward begins with; nothing of them is counted.
        most_records: most records of one request.
        unknown: see `Inputs`.
        decision_policy: how the decisions of a service are held, see `DecisionStream`.
        journal: a journal, which keeps an audit trail in the store's file or database, one row for each answer, in the
            transaction that counts it; None keeps none.

    Raises:
        DataError, StoreError: the run or the store cannot be read.
        ParameterError: there is a journal, and the store is in memory only.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, prepare, save_run, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> scorer = Scorer(save_run("run-served", trained))
        >>> rows = read_lending(n=4, seed=1).frame
        >>> records = rows[list(scorer.inputs.columns)].to_dict("records")
        >>> len(scorer.score(records).scores)
        4
    """

    def __init__(
        self,
        run: Run | str | Path,
        *,
        store: Any = None,
        policy: str | Policy = "present",
        memory: float | None = None,
        window: Any = None,
        hold: str | None = None,
        warm_start: pd.DataFrame | None = None,
        most_records: int = 1000,
        unknown: Literal["refuse", "uncovered"] = "refuse",
        decision_policy: str | Policy = "anytime",
        journal: Journal | None = None,
    ) -> None:
        self.run = run if isinstance(run, Run) else load_run(run)
        self.run.model.eval()
        self.name = name_of(self.run, None if isinstance(run, Run) else run)
        held = as_window(window)
        self.clocked = held is not None and held.clock  # every request then has to come with its time
        self.inputs = Inputs(self.run, unknown=unknown, most_records=most_records)
        words = self.run.model.projection.vocabulary
        state = new_stream(self.run.model, policy=policy, memory=memory, window=window, hold=hold)
        if warm_start is not None:
            raw, sensitive = self.inputs.raw(warm_start)
            state.warm_start(raw, sensitive, words)
        self.store: Store = store or StreamStore(":memory:")
        self.decision_options = {"policy": decision_policy, "memory": memory, "window": window}
        self.journal = journal
        self.recorder = None if journal is None else self._begun(journal, state)
        self.stream = stream_of(state, self.store, words, witness=self.recorder)

    def score(self, records: Any, ids: Sequence[Id] | None = None, at: float | None = None) -> Scored:
        """Return a prediction for each record, counted and stored.

        Args:
            records: list of objects, column -> value, null where missing.
            ids: one per record; see `DurableStream.answer`.
            at: seconds on the caller's clock; see `InferenceState.emit`.

        Raises:
            RequestError, CategoryError, IdReusedError, ...: what is wrong with them; nothing is counted.
        """
        raw, sensitive, seen = self.inputs.read(records)
        marks = None if ids is None else digests_of(records, self.inputs.columns)
        told: dict[str, Any] = {} if self.recorder is None else {"inputs": read_of(records, self.inputs.columns)}
        found = self.stream.answer(raw, sensitive, ids=ids, at=at, digests=marks, counters=seen, **told)
        scores = found.emitted.reshape(-1).tolist()
        decisions = None if self._threshold is None else [int(score >= self._threshold) for score in scores]
        phase = self.stream.state.phase.value
        return Scored(scores, found.raw.reshape(-1).tolist(), decisions, found.repeated, phase)

    def observe_labels(self, ids: Sequence[Id], labels: Any) -> int:
        """Deliver labels of earlier predictions; return how many were new."""
        return self.deliver_labels(ids, labels).counted

    def deliver_labels(self, ids: Sequence[Id], labels: Any) -> Delivered:
        """Deliver labels of earlier predictions; some may wait for a store that is gone."""
        return self.stream.deliver_labels(ids, labels)

    def describe(self) -> dict[str, Any]:
        """Return where the stream stands, as plain values."""
        state = self.stream.state
        with self.stream.lock:
            measured, prices, counts, shifts = state.measured(), state.multipliers, state.counts(), state.shifts()
            counters, report = self.stream.counters, state.report()
            return {
                "samples": state.samples,
                "phase": state.phase.value,
                "policy": repr(state.policy),
                "constraints": {
                    constraint.name: {
                        **_number(constraint, measured.get(constraint.name)),
                        "multiplier": prices.get(constraint.name),
                        "window_gap": _window(report.window, constraint.name),
                    }
                    for constraint in self.run.model.constraints
                },
                "window": None if report.window is None else _shares(report.window),
                "cells": {name: {"count": counts[name], "shift": shifts[name]} for name in counts},
                "mean_squared_change": state.mean_squared_change(),
                "waiting_labels": report.waiting,
                "unseen_levels": _named(counters, UNSEEN),
                "uncovered_categories": _named(counters, UNCOVERED),
            }

    def close(self) -> None:
        """Write the state whole and let go of the store."""
        self.stream.close()
        if self.recorder is not None:
            self.recorder.trail.close()

    @property
    def _threshold(self) -> float | None:
        """Where a decision is taken from a score; None where the run predicts amounts."""
        return None if self.run.recipe.config.task == "regression" else THRESHOLD

    def _begun(self, journal: Journal, state: InferenceState) -> Recorder:
        return journal.begun(
            self.store,
            model=self.name,
            policy=str(state.policy),
            constraints=state.constraints,
            threshold=self._threshold,
        )


def stream_of(
    state: InferenceState,
    store: Any,
    words: Vocabulary,
    finish: Finish | None = None,
    witness: Recorder | None = None,
) -> Stream:
    """Return the stream of a store; a store that is shared makes its own."""
    if isinstance(store, StreamStore):
        return DurableStream(state, store, vocabulary=words, finish=finish, witness=witness)
    stream: Stream = store.stream(state, words, finish, witness)
    return stream


def _number(constraint: Constraint, found: Measured | None) -> dict[str, Any]:
    """Return the number of the pooled means beside what it is held to, and on which side of it."""
    if found is None:
        return {"pooled_gap": None, "limit": constraint.limit, "at_least": None}
    return {"pooled_gap": found.value, "limit": found.limit, "at_least": found.at_least}


def _window(bucket: Any, name: str) -> float | None:
    found = None if bucket is None or name not in bucket.gaps else bucket.gaps[name].emitted
    return None if found is None else found.value


def _shares(bucket: Any) -> dict[str, Any]:
    return {name: getattr(bucket, name) for name in ("samples", "since", "until", "moved", "at_bound", "flips")}


def _named(counters: dict[str, int], kind: str) -> dict[str, int]:
    return {name.removeprefix(kind): count for name, count in counters.items() if name.startswith(kind)}
