"""Runs to one table: for each question the best setting of each method and seed, its test numbers averaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from frontier_numbers import Point, Question

QUESTIONS = (
    Question("decision gap <= 2", "decision_gap", 2.0),
    Question("decision gap <= 5", "decision_gap", 5.0),
    Question("equalized odds gap <= 3", "odds_gap", 3.0, spare=1.5),
    Question("score gap <= 1", "score_gap", 1.0, "auc"),
    Question("no limit", "decision_gap", 100.0),
)
COLUMNS = ("accuracy", "auc", "brier", "score_gap", "decision_gap", "odds_gap")


@dataclass(frozen=True)
class Finished:
    """One run from the cache."""

    seed: int
    seconds: float | None
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Row:
    """One method's answer to one question: means over seeds, and the deviation of what was maximised."""

    method: str
    known: bool
    seeds: int
    means: Mapping[str, float | None]
    spread: float
    time: float | None
    chosen: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def answers(runs: Sequence[Finished]) -> dict[str, list[Row]]:
    """Return the rows of each question."""
    return {question.title: answer(question, runs) for question in QUESTIONS}


def answer(question: Question, runs: Sequence[Finished]) -> list[Row]:
    """Return a row for each method that meets the budget on validation rows with each of its seeds, best first."""
    times = relative_times(runs)
    rows = []
    for method in dict.fromkeys(point.method for run in runs for point in run.points):
        chosen = [question.choose(points) for points in _points_by_seed(runs, method)]
        found = [point for point in chosen if point is not None]
        if len(found) == len(chosen):
            rows.append(_row(question, method, found, times.get(method)))
    return sorted(rows, key=lambda row: -(row.means[question.column] or 0.0))


def relative_times(runs: Iterable[Finished]) -> dict[str, float]:
    """Return the median CPU time of each method's training over that of plain training."""
    seconds: dict[str, list[float]] = {}
    for run in runs:
        if run.seconds is not None:
            for method in {point.method for point in run.points}:
                seconds.setdefault(method, []).append(run.seconds)
    base = float(np.median(seconds["plain"])) if "plain" in seconds else float("nan")
    return {method: float(np.median(values)) / base for method, values in seconds.items()}


def _points_by_seed(runs: Sequence[Finished], method: str) -> list[list[Point]]:
    found: dict[int, list[Point]] = {}
    for run in runs:
        own = [point for point in run.points if point.method == method]
        if own:
            found.setdefault(run.seed, []).extend(own)
    return [found[seed] for seed in sorted(found)]


def _row(question: Question, method: str, found: Sequence[Point], time: float | None) -> Row:
    values = {name: [getattr(point.test, name) for point in found] for name in COLUMNS}
    means = {name: None if None in each else float(np.mean(each)) for name, each in values.items()}
    spread = float(np.std(values[question.column], ddof=1)) if len(found) > 1 else 0.0
    return Row(method, found[0].known, len(found), means, spread, time, tuple(point.detail for point in found))


def text(table: Mapping[str, Sequence[Row]]) -> str:
    """Return the one table, a block for each question."""
    head = f"{'method':<40} {'group':<6} {'seeds':>5} {'accuracy':>8} {'sd':>5} {'AUC':>6} {'Brier':>6}"
    head += f" {'score':>6} {'decis.':>6} {'odds':>6} {'time':>6}"
    units = f"{'':<40} {'':<6} {'':>5} {'%':>8} {'':>5} {'%':>6} {'':>6}" + 3 * f" {'gap %':>6}"
    lines = [head, units]
    for title, rows in table.items():
        lines += ["", f"{title}, chosen on validation rows; test rows reported"]
        lines += ["-" * len(head), *(_line(row) for row in rows)]
    return "\n".join(lines)


def _line(row: Row) -> str:
    means, group = row.means, "known" if row.known else "hidden"
    gaps = " ".join(_number(means[name], 6, 2) for name in ("score_gap", "decision_gap", "odds_gap"))
    time = _number(row.time, 5, 2) + ("x" if row.time is not None else " ")
    scores = f"{_number(means['auc'], 6, 2)} {_number(means['brier'], 6, 3)}"
    start = f"{row.method:<40} {group:<6} {row.seeds:>5} {means['accuracy']:>8.2f} {row.spread:>5.2f}"
    return f"{start} {scores} {gaps} {time}"


def _number(value: float | None, width: int, places: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.{places}f}"
