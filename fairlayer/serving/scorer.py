"""Records in, fair scores out, through one durable stream. Knows nothing of HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fairlayer.constraints import Constraint, Measured
from fairlayer.data.columns import sensitive_columns
from fairlayer.edge import plain_bounds
from fairlayer.model import FairModel
from fairlayer.serving.records import frame_of, read_columns, unseen_levels
from fairlayer.streaming import InferenceState, Policy
from fairlayer.streaming.durable import DurableStream
from fairlayer.streaming.store import StreamStore
from fairlayer.training import Run, load_run
from fairlayer.training.config import continuous_names, feature_names

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Scorer", "new_stream"]


def new_stream(
    model: FairModel,
    *,
    policy: str | Policy = "present",
    memory: float | None = None,
    window: Any = None,
    hold: str | None = None,
) -> InferenceState:
    """Return an empty stream under the model's constraints and bounds; what the model emitted before is left out."""
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


class Scorer:
    """A run, its stream and its store.

    Every prediction goes through the stream, whatever the size of the request: what is held is the pooled gap of all
    predictions since the store began.

    Args:
        run: a run, or the folder that `fairlayer train` wrote.
        store: where the stream is kept; None keeps it in memory only.
        policy: see `FairModel`.
        memory: see `FairModel`.
        window: see `FairModel`.
        hold: see `FairModel`.
        warm_start: rows (raw scores of which) a new stream's feed-forward begins with; nothing of them is counted.
        most_records: most records of one request.

    Raises:
        DataError, StoreError: the run or the store cannot be read.
    """

    def __init__(
        self,
        run: Run | str | Path,
        *,
        store: StreamStore | None = None,
        policy: str | Policy = "present",
        memory: float | None = None,
        window: Any = None,
        hold: str | None = None,
        warm_start: pd.DataFrame | None = None,
        most_records: int = 1000,
    ) -> None:
        self.run = run if isinstance(run, Run) else load_run(run)
        self.run.model.eval()
        self.columns, self.most_records = read_columns(self.run.recipe), most_records
        self.unseen: Counter[str] = Counter()
        words = self.run.model.projection.vocabulary
        state = new_stream(self.run.model, policy=policy, memory=memory, window=window, hold=hold)
        if warm_start is not None:
            raw, sensitive = self._raw(warm_start)
            state.warm_start(raw, sensitive, words)
        self.stream = DurableStream(state, store or StreamStore(":memory:"), vocabulary=words)

    def score(self, records: Any, ids: Sequence[str | int] | None = None, at: float | None = None) -> list[float]:
        """Return a prediction for each record, counted and stored.

        Args:
            records: list of objects, column -> value, null where missing.
            ids: one per record; see `DurableStream.emit`.
            at: seconds on the caller's clock; see `InferenceState.emit`.

        Raises:
            RequestError, CategoryError, ...: what is wrong with them; nothing is counted.
        """
        frame = frame_of(records, self.columns, most=self.most_records)
        raw, sensitive = self._raw(frame)
        emitted = self.stream.emit(raw.double(), sensitive, ids=ids, at=at)
        with self.stream.lock:
            self.unseen.update(unseen_levels(self.run.recipe, frame))
        return [float(value) for value in emitted.reshape(-1)]

    def observe_labels(self, ids: Sequence[str | int], labels: Any) -> int:
        """Deliver labels of earlier predictions; return how many were new."""
        return self.stream.observe_labels(ids, labels)

    def describe(self) -> dict[str, Any]:
        """Return where the stream stands, as plain values."""
        state = self.stream.state
        with self.stream.lock:
            measured, prices, counts, shifts = state.measured(), state.multipliers, state.counts(), state.shifts()
            return {
                "samples": state.samples,
                "phase": state.phase.value,
                "policy": repr(state.policy),
                "constraints": {
                    constraint.name: {
                        **_number(constraint, measured.get(constraint.name)),
                        "multiplier": prices.get(constraint.name),
                    }
                    for constraint in self.run.model.constraints
                },
                "cells": {name: {"count": counts[name], "shift": shifts[name]} for name in counts},
                "mean_squared_change": state.mean_squared_change(),
                "unseen_levels": dict(self.unseen),
            }

    def close(self) -> None:
        """Write the state whole and let go of the store."""
        self.stream.close()

    def _raw(self, frame: pd.DataFrame) -> tuple[torch.Tensor, Any]:
        """As `Recipe.sample`, which reads the constraints from their text each time: too slow for single requests."""
        recipe, constraints = self.run.recipe, self.run.model.constraints
        x = torch.from_numpy(recipe.encoder.encode(frame))
        names, numbers = feature_names(constraints), continuous_names(constraints)
        sensitive = sensitive_columns(frame, names, cuts=recipe.cuts, continuous=numbers)
        with torch.no_grad():
            return self.run.model.raw_scores(x), sensitive


def _number(constraint: Constraint, found: Measured | None) -> dict[str, Any]:
    """The number of the pooled means beside what it is held to, and on which side of it."""
    if found is None:
        return {"pooled_gap": None, "limit": constraint.limit, "at_least": None}
    return {"pooled_gap": found.value, "limit": found.limit, "at_least": found.at_least}
