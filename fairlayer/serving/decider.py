"""Records in, yes or no out: the run's decision rule in a stream of its own, which keeps the pooled decisions.

step     raw scores and categories -> decisions, written to the store before they are released
resume   last snapshot, then the logged steps once more: a step is a function of what came before, so it must decide
         as it did then, and that is checked
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from fairlayer.decisions import DecisionStream
from fairlayer.edge import feature_names
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.serving.identity import digests_of, read_of
from fairlayer.serving.journal import Journal
from fairlayer.serving.scorer import Inputs
from fairlayer.streaming.durable import check_record, checked_ids, limits_of
from fairlayer.streaming.recording import Answered
from fairlayer.streaming.store import Id, Step, StoreError, StreamStore

__all__ = ["Decided", "Decider", "decisions_of"]


class Decided(NamedTuple):
    """What a request is answered.

    Args:
        decisions: 0 or 1.
        raw_scores: what the model says by itself.
        repeated: whether an id had come before, and got what it got then.
    """

    decisions: list[int]
    raw_scores: list[float]
    repeated: list[bool]


def decisions_of(inputs: Inputs) -> DecisionStream | None:
    """Return an empty stream of decisions; None where the run keeps no rule, or its constraints read labels."""
    rule, constraints = inputs.run.route.rule, inputs.run.model.constraints
    if rule is None or inputs.run.recipe.config.task == "regression":
        return None
    try:
        return DecisionStream(rule, constraints)
    except ConstraintDefinitionError:
        return None


class Decider:
    """A stream of decisions and its store.

    Args:
        inputs: how records are read.
        stream: empty, from `decisions_of`.
        store: of decisions only.
        journal: keeps an audit trail of the decisions in the store's file.
        model: what the trail calls the run.

    Raises:
        StoreError: the store holds decisions by another rule, or cannot be read.
    """

    def __init__(
        self,
        inputs: Inputs,
        stream: DecisionStream,
        store: StreamStore,
        *,
        journal: Journal | None = None,
        model: str = "",
    ) -> None:
        self.inputs, self.stream, self.store = inputs, stream, store
        self.lock = threading.Lock()
        rule = hashlib.sha256(json.dumps(stream.rule.to_dict(), sort_keys=True).encode()).hexdigest()[:12]
        self._owner = [*(constraint.name for constraint in stream.constraints), f"decision rule {rule}"]
        self._features = feature_names(stream.constraints)
        self._resume()
        self._recorder = (
            None
            if journal is None
            else journal.begun(store, model=model, policy=self._owner[-1], constraints=stream.constraints)
        )

    def decide(self, records: Any, ids: Sequence[Id] | None = None) -> Decided:
        """Return a decision for each record, counted and stored.

        Raises:
            RequestError, CategoryError, IdReusedError, ...: what is wrong with them; nothing is counted.
        """
        raw, sensitive, seen = self.inputs.read(records)
        scores = raw.reshape(-1).tolist()
        columns = {name: [_plain(value) for value in sensitive[name]] for name in self._features}
        keys = None if ids is None else checked_ids(ids, len(scores))
        marks = None if keys is None else digests_of(records, self.inputs.columns)
        with self.lock:
            known = self.store.answers(keys) if keys else {}
            for key, mark in zip(keys or (), marks or (), strict=True):
                check_record(key, known.get(key), mark)
            fresh = [i for i in range(len(scores)) if keys is None or keys[i] not in known]
            decisions = [0] * len(scores)
            if fresh:
                step = Step(
                    None if keys is None else [keys[i] for i in fresh],
                    {},
                    raw=[scores[i] for i in fresh],
                    features={name: [column[i] for i in fresh] for name, column in columns.items()},
                    digests=None if marks is None else [marks[i] for i in fresh],
                    counters=dict(seen),
                )
                read = None if self._recorder is None else read_of((records[i] for i in fresh), self.inputs.columns)
                for i, decision in zip(fresh, self._step(step, read), strict=True):
                    decisions[i] = decision
        for i, key in enumerate(keys or ()):
            if key in known:
                decisions[i], scores[i] = int(known[key].emitted), known[key].raw
        repeated = [keys is not None and keys[i] in known for i in range(len(scores))]
        return Decided(decisions, scores, repeated)

    def describe(self) -> dict[str, Any]:
        """Return where the decisions stand, as plain values."""
        with self.lock:
            counts, selected, gaps = self.stream.counts(), self.stream.selected(), self.stream.gaps()
        cells = {name: {"count": counts[name], "selected": selected[name]} for name in counts}
        return {"samples": sum(counts.values()), "gaps": gaps, "cells": cells}

    def close(self) -> None:
        """Write the state whole and let go of the store."""
        with self.lock:
            self._snapshot()
            self.store.close()
            if self._recorder is not None:
                self._recorder.trail.close()

    def _step(self, step: Step, inputs: list[dict[str, Any]] | None) -> list[int]:
        before = self.stream.state_dict()
        decided = self._decide(step)
        try:
            self.store.append(
                step._replace(emitted=[float(each) for each in decided]), self._beside(step, decided, inputs)
            )
        except BaseException:
            self.stream.load_state_dict(before)
            raise
        if self.store.due:
            self._snapshot()
        return decided

    def _beside(self, step: Step, decided: list[int], inputs: list[dict[str, Any]] | None) -> Any:
        """Return what writes the rows of the audit trail in the step's transaction."""
        if self._recorder is None:
            return None
        limits = limits_of(self.stream.constraints)
        answered = Answered(
            step.features or {},
            step.raw or [],
            None,
            None,
            self._owner[-1],
            limits,
            ids=step.ids,
            inputs=inputs,
            decisions=decided,
        )
        return partial(self._recorder, step=answered)

    def _decide(self, step: Step) -> list[int]:
        scores = torch.tensor(step.raw, dtype=torch.float64)
        return [int(each) for each in self.stream.decide(scores, step.features).tolist()]

    def _snapshot(self) -> None:
        buffer = io.BytesIO()
        torch.save(self.stream.state_dict(), buffer)
        self.store.snapshot(buffer.getvalue(), self._owner)

    def _resume(self) -> None:
        owner = self.store.constraints()
        if owner is not None and owner != self._owner:
            raise StoreError(
                f"the store '{self.store.path}' holds decisions under {owner}, but this run has {self._owner}. Begin a "
                "new file."
            )
        snapshot, steps = self.store.load()
        if snapshot is None:
            self._snapshot()
            return
        self.stream.load_state_dict(torch.load(io.BytesIO(snapshot), weights_only=True))
        for step in steps:
            if self._decide(step) != [int(each) for each in step.emitted or ()]:
                raise StoreError(
                    f"the store '{self.store.path}' holds decisions that this run would not take again: a limit has "
                    "changed since. Go back to the run that took them and end it in order, or begin a new file."
                )


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
