"""A table streamed row by row through a run, beside doing nothing and beside the offline projection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fairlayer._typing import FloatArray
from fairlayer.constraints import Constraint
from fairlayer.constraints.measure import worst_of
from fairlayer.data import TensorTable
from fairlayer.data.columns import as_numbers, as_text
from fairlayer.errors import DataError
from fairlayer.serving.scorer import new_stream
from fairlayer.streaming import InferenceState, Policy, Recorder
from fairlayer.streaming.stores.finishing import limits_of
from fairlayer.streaming.stores.recording import Answered
from fairlayer.training import Observed, Run, emit_in_batches, measure
from fairlayer.training.comparison import Beside
from fairlayer.training.quality import quality_beside

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["StreamedTable", "stream_sample", "stream_table"]

_WINDOW = 1_000
_CHECKPOINTS = 50
_TOGETHER = 1_000  # steps of which the trail gets the rows at once


@dataclass(frozen=True)
class StreamedTable:
    """What came out, in the order of the rows.

    `offline` is the exact projection of the whole table at once: it has seen every row before it emits the first, so no
    stream can move scores less. `phases` counts rows by the phase after their step.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, load_run, prepare, save_run, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> run = load_run(save_run("run-table", trained))
        >>> streamed = stream_table(run, read_lending(n=100, seed=1).frame, batch_size=10)
        >>> streamed.batch_size, streamed.offline.shape, streamed.distortion(streamed.streamed) >= 0.0
        (10, (100,), True)
    """

    run: Run
    sample: TensorTable
    raw: FloatArray
    streamed: FloatArray
    offline: FloatArray
    state: InferenceState
    batch_size: int
    phases: dict[str, int]
    labels: FloatArray | None

    @property
    def columns(self) -> dict[str, FloatArray]:
        """The three columns of a comparison."""
        return {"nothing": self.raw, "offline": self.offline, "stream": self.streamed}

    def measurable(self) -> list[Constraint]:
        """Return the constraints whose gap the table can tell: those that read labels need the target column."""
        return [c for c in self.run.model.constraints if self.labels is not None or not c.needs_labels]

    def pooled(self, constraint: Constraint, scores: FloatArray) -> float | None:
        """Return the gap of the pooled means of all rows."""
        return measure(constraint, self.observed, scores).value

    def worst_pooled(self, constraint: Constraint, scores: FloatArray) -> float | None:
        """Return the largest pooled gap at 50 moments of the stream, evenly spread after its first tenth."""
        ends = np.linspace(0.1 * len(scores), len(scores), _CHECKPOINTS).astype(int)
        return self._worst(constraint, scores, [slice(0, end) for end in ends if end])

    def worst_window(self, constraint: Constraint, scores: FloatArray) -> float | None:
        """Return the largest gap of 1,000 rows in a row, looked at every 250 rows; None where there are fewer rows."""
        ends = range(_WINDOW, len(scores) + 1, _WINDOW // 4)
        return self._worst(constraint, scores, [slice(end - _WINDOW, end) for end in ends]) if ends else None

    def per_batch(self, constraint: Constraint, scores: FloatArray) -> float | None:
        """Return the row-weighted mean of the gaps within batches, None at batch size 1, where nothing compares.

        A batch that compares nothing counts 0, as in the published figure.
        """
        if self.batch_size == 1:
            return None
        parts = list(_parts(len(scores), self.batch_size))
        gaps = [self._gap(constraint, scores, part) or 0.0 for part in parts]
        return float(np.average(gaps, weights=[part.stop - part.start for part in parts]))

    def distortion(self, scores: FloatArray) -> float:
        """Return the mean of (score - raw score)^2."""
        return float(np.mean((scores - self.raw) ** 2))

    def quality(self, scores: FloatArray) -> dict[str, float | None]:
        """Return accuracy, F1 and AUC (R2 and mean absolute error), where the table has the target column."""
        if self.labels is None:
            return {}
        beside = quality_beside(self.labels, Beside(self.raw, scores), self.run.recipe.config.task)
        return {name: both.constrained for name, both in beside.items()}

    @cached_property
    def observed(self) -> Observed:
        """The rows as constraints see them."""
        return Observed(self.sample.sensitive, self.labels, self.raw).coded()

    def _gap(self, constraint: Constraint, scores: FloatArray, part: slice) -> float | None:
        return measure(constraint, self.observed.take(part), scores[part]).value

    def _worst(self, constraint: Constraint, scores: FloatArray, parts: list[slice]) -> float | None:
        observed = self.observed
        return worst_of(measure(constraint, observed.take(part), scores[part]) for part in parts).value


def stream_table(
    run: Run,
    frame: pd.DataFrame,
    *,
    batch_size: int = 1,
    policy: str | Policy = "present",
    memory: float | None = None,
    window: Any = None,
    hold: str | None = None,
    at: Sequence[float] | None = None,
    warm_start: pd.DataFrame | None = None,
    on_rows: Callable[[int], None] | None = None,
    recorder: Recorder | None = None,
) -> StreamedTable:
    """Stream a table through a run.

    Args:
        batch_size: rows that arrive together.
        policy: see `FairModel`.
        memory: see `FairModel`.
        window: see `FairModel`.
        hold: see `FairModel`.
        at: seconds of each row on a clock that never goes back; a call has the time of its first row.
        warm_start: rows whose raw scores the feed-forward begins with.
        on_rows: a function that is told how many rows have been emitted as the stream goes.
        frame: the rows, in order of arrival.
        recorder: what writes a row of an audit trail for each row of the table, in transactions of a thousand.

    Constraints that read labels get them right after each batch where the table has the target column, and are not
    held where it has not.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, load_run, prepare, save_run, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> run = load_run(save_run("run-streamed", trained))
        >>> streamed = stream_table(run, read_lending(n=100, seed=1).frame, batch_size=10)
        >>> streamed.streamed.shape, sum(streamed.phases.values())
        ((100,), 100)
    """
    return stream_sample(
        run,
        run.recipe.sample(frame),
        _labels(run, frame),
        batch_size=batch_size,
        policy=policy,
        memory=memory,
        window=window,
        hold=hold,
        at=at,
        warm_start=None if warm_start is None else run.recipe.sample(warm_start),
        on_rows=on_rows,
        recorder=recorder,
    )


def stream_sample(
    run: Run,
    sample: TensorTable,
    labels: FloatArray | None,
    *,
    batch_size: int = 1,
    policy: str | Policy = "present",
    memory: float | None = None,
    window: Any = None,
    hold: str | None = None,
    at: Sequence[float] | None = None,
    warm_start: TensorTable | None = None,
    on_rows: Callable[[int], None] | None = None,
    recorder: Recorder | None = None,
) -> StreamedTable:
    """Stream rows that are encoded already, with their labels where they are known; see `stream_table`.

    Args:
        run: the trained run.
        sample: its rows, in order of arrival.
        batch_size: rows that arrive together.
        policy: see `InferenceState`.
        memory: see `InferenceState`.
        window: see `InferenceState`.
        hold: see `InferenceState`.
        at: (rows,) the clock of each row; None for none.
        warm_start: rows to begin from; they are not counted.
        on_rows: a function that is called with the number of rows after each batch.
        recorder: what writes a row of an audit trail for each row of the table, in transactions of a thousand.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, load_run, prepare, save_run, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> run = load_run(save_run("run-sample", trained))
        >>> streamed = stream_sample(run, parts.test, parts.test.y.numpy(), batch_size=10)
        >>> streamed.raw.shape, streamed.labels.shape
        ((90,), (90,))
    """
    if batch_size < 1:
        raise DataError(f"a batch size of {batch_size} was asked for; at least one row is needed.")
    offline = emit_in_batches(run.model, sample, len(sample))
    state = new_stream(run.model, policy=policy, memory=memory, window=window, hold=hold)
    if warm_start is not None:
        with torch.no_grad():
            raw_scores = run.model.raw_scores(warm_start.x)
        state.warm_start(raw_scores, warm_start.sensitive, run.model.projection.vocabulary)
    raw = torch.from_numpy(offline.raw).double()
    emitting = partial(_emit, labels=labels, batch_size=batch_size, at=at, on_rows=on_rows, recorder=recorder)
    streamed, phases = emitting(run, state, sample, raw)
    arrays = (raw.numpy(), streamed, offline.scores.astype(np.float64))
    return StreamedTable(run, sample, *arrays, state, batch_size, phases, labels)


def _emit(
    run: Run,
    state: InferenceState,
    sample: TensorTable,
    raw: torch.Tensor,
    *,
    labels: FloatArray | None,
    batch_size: int,
    at: Sequence[float] | None,
    on_rows: Callable[[int], None] | None,
    recorder: Recorder | None,
) -> tuple[FloatArray, dict[str, int]]:
    words = run.model.projection.vocabulary
    columns = {name: column.tolist() for name, column in sample.sensitive.items()}
    known = labels if any(c.needs_labels for c in run.model.constraints) else None
    limits, waiting = limits_of(run.model.constraints), list[Answered]()
    streamed, phases = np.empty(len(raw)), Counter[str]()
    for part in _parts(len(raw), batch_size):
        features = {name: column[part] for name, column in columns.items()}
        y = None if known is None else known[part]
        now = None if at is None else at[part.start]
        streamed[part] = state.emit(raw[part], features, y=y, vocabulary=words, at=now).numpy()
        phases[state.phase.value] += part.stop - part.start
        if recorder is not None:
            told = raw[part].tolist(), streamed[part].tolist()
            waiting.append(Answered(features, *told, state.phase.value, state.policy.name, limits, at=now))
            if len(waiting) >= _TOGETHER or part.stop == len(raw):
                recorder.write(*waiting)
                waiting.clear()
        if on_rows is not None:
            on_rows(part.stop)
    return streamed, dict(phases)


def _parts(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _labels(run: Run, frame: pd.DataFrame) -> NDArray[np.float64] | None:
    """Return the target as numbers, None where the table does not have it in every row."""
    recipe = run.recipe
    if recipe.target not in frame.columns or frame[recipe.target].isna().any():
        return None
    column: Any = frame[recipe.target]
    if recipe.positive is None:
        return as_numbers(column)
    return np.asarray(as_text(column) == recipe.positive, dtype=np.float64)
