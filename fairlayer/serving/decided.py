"""The rows of a streamed table, decided by the rule of the run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fairlayer.decisions import DecisionStream
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.report import DecidedCell, DecidedStream
from fairlayer.serving.table import StreamedTable
from fairlayer.training import Run

__all__ = ["decided_stream", "decision_stream"]


def decision_stream(run: Run) -> DecisionStream:
    """Return an empty stream of decisions.

    Raises:
        ConstraintDefinitionError: the run keeps no decision rule, or its constraints read labels.
    """
    if run.route.rule is None or run.recipe.config.task == "regression":
        raise ConstraintDefinitionError(
            "the run keeps no decision rule, so that there is nothing to decide by. Train a classifier by a route that "
            "decides (`fairlayer train --route ...`), or leave --decisions out: decisions are then the scores at 0.5."
        )
    return DecisionStream(run.route.rule, run.model.constraints)


def decided_stream(streamed: StreamedTable) -> tuple[NDArray[np.int64], DecidedStream]:
    """Return a decision for each row of a streamed table, in batches as it was streamed, and what they come to.

    Raises:
        ConstraintDefinitionError: the run keeps no decision rule, or its constraints read labels.
    """
    stream = decision_stream(streamed.run)
    columns = {name: column.tolist() for name, column in streamed.sample.sensitive.items()}
    decisions = np.empty(len(streamed.raw), dtype=np.int64)
    for start in range(0, len(decisions), streamed.batch_size):
        part = slice(start, start + streamed.batch_size)
        features = {name: column[part] for name, column in columns.items()}
        decisions[part] = stream.decide(streamed.raw[part], features).numpy()
    requests, selected = stream.counts(), stream.selected()
    cells = [DecidedCell(name, requests[name], selected[name]) for name in requests]
    limits = {constraint.name: constraint.limit for constraint in stream.constraints}
    return decisions, DecidedStream(cells, stream.gaps(), limits)
