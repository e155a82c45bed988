"""Records in, yes or no out: the run's decision rule in a stream of its own, beside that of the scores.

The rule turns a score into a wish; the stream moves wishes as it moves scores, under any policy and over any store; and
what it emits is rounded so that the decisions of a group stay within half a person of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from fairlayer._typing import FloatArray
from fairlayer.constraints import Batch, Constraint
from fairlayer.constraints.measure import measure
from fairlayer.decisions import DecisionRule, DecisionStream
from fairlayer.decisions.rounding import Rounding, cells_of
from fairlayer.decisions.stream import wishes_of
from fairlayer.edge import feature_names
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.groups import read_sensitive_features
from fairlayer.serving.fields import Field, fields_of
from fairlayer.serving.identity import digests_of, read_of
from fairlayer.serving.journal import Journal
from fairlayer.serving.scorer import Inputs, stream_of
from fairlayer.streaming import InferenceState
from fairlayer.streaming.store import Id
from fairlayer.training.quality import THRESHOLD

__all__ = ["Decided", "Decider", "decided_by"]


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


def decided_by(inputs: Inputs) -> DecisionRule | None:
    """Return the decision rule of the run; None where it keeps none, or its constraints read labels."""
    rule, constraints = inputs.run.route.rule, inputs.run.model.constraints
    if rule is None or inputs.run.recipe.config.task == "regression":
        return None
    try:
        DecisionStream(rule, constraints)
    except ConstraintDefinitionError:
        return None
    return rule


def _fields(inputs: Inputs, rule: DecisionRule) -> tuple[Field, ...]:
    """Return what a record may hold: a group has to be known where the rule has thresholds of known groups only."""
    categories, closed = inputs.run.model.projection.vocabulary.categories, inputs.unknown == "refuse"
    columns = zip(rule.features, zip(*(cell.categories for cell in rule.cells), strict=True), strict=True)
    needed = [name for name, column in columns if closed and None not in column]
    return fields_of(inputs.run.recipe, categories, closed=closed, needed=needed)


class Decider:
    """A stream of decisions and its store.

    Args:
        inputs: how records are read.
        rule: the rule of the run, from `decided_by`.
        store: a store, which holds decisions only.
        journal: a journal, which keeps an audit trail of the decisions in the store's file. Its rows hold the model's
            score as `raw`, what the stream made of the rule's wish as `emitted`, the decision, and the wish among the
            details.
        model: what the trail calls the run.
        **options: the options of the `InferenceState`: policy, memory, window, hold. The policy is "anytime" by
            default, which bounds all decisions so far.

    Raises:
        StoreError: the store holds decisions by another rule, or cannot be read.
    """

    def __init__(
        self,
        inputs: Inputs,
        rule: DecisionRule,
        store: Any,
        *,
        journal: Journal | None = None,
        model: str = "",
        **options: Any,
    ) -> None:
        self.inputs, self.rule, self.store = inputs, rule, store
        self.fields = _fields(inputs, rule)
        self._constraints: tuple[Constraint, ...] = inputs.run.model.constraints
        self._features = feature_names(self._constraints)
        state = InferenceState(self._constraints, bounds=(0.0, 1.0), **{"policy": "anytime", **options})
        words = inputs.run.model.projection.vocabulary
        mark = hashlib.sha256(json.dumps(rule.to_dict(), sort_keys=True).encode()).hexdigest()[:12]
        told: dict[str, Any] = {
            "model": f"{model}, decision rule {mark}",
            "policy": str(state.policy),
            "threshold": 0.5,
        }
        self._recorder = None if journal is None else journal.begun(store, constraints=self._constraints, **told)
        self.stream = stream_of(state, store, words, Rounding(f"decision rule {mark}"), self._recorder)

    def decide(self, records: Any, ids: Sequence[Id] | None = None, at: float | None = None) -> Decided:
        """Return a decision for each record, counted and stored.

        Args:
            records: list of objects, column -> value, null where missing.
            ids: one per record; see `DurableStream.answer`.
            at: seconds on the caller's clock; see `InferenceState.emit`.

        Raises:
            RequestError, CategoryError, IdReusedError, ...: what is wrong with them; nothing is counted.
        """
        raw, sensitive, seen = self.inputs.read(records, self.fields)
        scores = raw.reshape(-1)
        wishes = torch.from_numpy(self._wishes(scores.numpy(), sensitive))
        marks = None if ids is None else digests_of(records, self.inputs.columns)
        columns = {name: sensitive[name] for name in self._features}
        told: dict[str, Any] = {}
        if self._recorder is not None:
            told = {"inputs": read_of(records, self.inputs.columns), "read": scores.tolist()}
        found = self.stream.answer(wishes, columns, ids=ids, at=at, digests=marks, counters=seen, **told)
        return Decided([int(each) for each in found.emitted.tolist()], scores.tolist(), found.repeated)

    def describe(self) -> dict[str, Any]:
        """Return where the decisions stand, as plain values: of all processes, as far as this one has heard."""
        with self.stream.lock:
            cells = cells_of(self._features, self.stream.counters)
            phase = self.stream.state.phase.value
        shown = {name: {"count": count, "selected": selected} for name, (_, count, selected) in cells.items()}
        return {
            "samples": sum(count for _, count, _ in cells.values()),
            "phase": phase,
            "policy": repr(self.stream.state.policy),
            "gaps": self._gaps(list(cells.values())),
            "cells": shown,
        }

    def close(self) -> None:
        """Write the state whole and let go of the store."""
        self.stream.close()
        if self._recorder is not None:
            self._recorder.trail.close()

    def _wishes(self, scores: FloatArray, sensitive: dict[str, Any]) -> FloatArray:
        """Return what the rule says; where no group is asked for and it has no threshold, what the score says at 0.5.

        Raises:
            UnseenCellError: it has no threshold, and unknown categories are refused.
        """
        fitted = {cell.categories for cell in self.rule.cells}
        keys = zip(*(sensitive[name] for name in self.rule.features), strict=True)
        known = np.array([key in fitted for key in keys], dtype=bool)
        if self.inputs.unknown == "refuse" or known.all():
            return wishes_of(self.rule, scores, self.rule.locate(sensitive, len(scores)))
        wishes = np.where(scores >= THRESHOLD, 1.0, 0.0)
        part = {name: column[known] for name, column in sensitive.items()}
        wishes[known] = wishes_of(self.rule, scores[known], self.rule.locate(part, int(known.sum())))
        return wishes

    def _gaps(self, cells: Sequence[tuple[tuple[Any, ...], int, int]]) -> dict[str, float | None]:
        """Return the number that each constraint bounds, of all decisions; None where nothing is compared."""
        if not cells:
            return dict.fromkeys((constraint.name for constraint in self._constraints), None)
        words, counts, selected = zip(*cells, strict=True)
        columns = {name: [word[i] for word in words] for i, name in enumerate(self._features)}
        batch = Batch(read_sensitive_features(columns), len(counts), weights=np.array(counts, dtype=np.float64))
        rates = np.array(selected) / np.array(counts)
        return {constraint.name: measure(constraint, batch, rates).value for constraint in self._constraints}
