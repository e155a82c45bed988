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

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from dataclasses import replace
        >>> from fairlayer.decisions import DecisionRule
        >>> from fairlayer.serving import stream_table
        >>> from fairlayer.training import FitOptions, KeptRoute, load_run, prepare, save_run, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> run, rows = load_run(save_run("run-decided", trained)), read_lending(n=400, seed=1).frame
        >>> sex = {"sex": rows["sex"].to_numpy()}
        >>> rule = DecisionRule.fit(run.predict(rows).raw, run.model.constraints, sensitive_features=sex)
        >>> run = replace(run, route=KeptRoute("rule", "network", "decision rule", rule))
        >>> decisions, shown = decided_stream(stream_table(run, rows, batch_size=10))
        >>> decisions.shape, [cell.name for cell in shown.cells]
        ((400,), ['sex=female', 'sex=male'])
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
