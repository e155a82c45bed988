"""Runs of a sweep and their log: one JSON line for each run that ended, appended whole and on disk before the next."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlayer.pareto.errors import MeasureError

__all__ = ["FrontPoint", "RunLog", "SweepRun", "as_measures", "key_of"]


@dataclass(frozen=True)
class SweepRun:
    """One value with one seed: what it measured, or the error it ended with.

    Args:
        value: the swept value, anything that JSON can hold.
        seed: the seed.
        measures: name -> finite number; empty where it failed.
        seconds: how long it took.
        error: what it failed with, and where.

    Example:
        >>> run = SweepRun(0.05, 0, {"auc": 0.86}, seconds=12.5)
        >>> run.name, run.error, run.to_json()[:32]
        ('value 0.05, seed 0', None, '{"value": 0.05, "seed": 0, "meas')
    """

    value: Any
    seed: int
    measures: Mapping[str, float]
    seconds: float = 0.0
    error: str | None = None

    @property
    def name(self) -> str:
        """How errors call it."""
        return f"value {json.dumps(self.value)}, seed {self.seed}"

    def to_json(self) -> str:
        """Return one line."""
        return json.dumps(vars(self) | {"measures": dict(self.measures)})


@dataclass(frozen=True)
class FrontPoint:
    """Measures of one value: mean over seeds, and standard deviation (None with one seed).

    Example:
        >>> point = FrontPoint(0.05, (0, 1), {"auc": 0.86, "gap": 0.04}, {"auc": 0.01, "gap": 0.0})
        >>> point.n, point.mean["auc"]
        (2, 0.86)
    """

    value: Any
    seeds: tuple[int, ...]
    mean: Mapping[str, float]
    sd: Mapping[str, float | None]

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.seeds)


def key_of(value: Any, seed: int) -> str:
    """Return the identity of a run."""
    return json.dumps([value, seed], sort_keys=True)


def as_measures(measured: Any) -> dict[str, float]:
    """Return measures as plain numbers.

    Raises:
        MeasureError: not a mapping of names to finite numbers.
    """
    if not isinstance(measured, Mapping) or not measured:
        raise MeasureError(f"a run must return a mapping of names to numbers, but returned {measured!r}.")
    try:
        plain = {str(name): float(number) for name, number in measured.items()}
    except (TypeError, ValueError) as error:
        raise MeasureError(f"a run must return numbers, but returned {measured!r} ({error}).") from error
    odd = {name: number for name, number in plain.items() if not math.isfinite(number)}
    if odd:
        raise MeasureError(f"a run must return finite numbers, but returned {odd}.")
    return plain


class RunLog:
    """The runs of a sweep by key, in a file or, without one, in memory.

    Of several lines of one run the last counts. A line that was cut off by a crash is not a line.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.runs: dict[str, SweepRun] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").split("\n"):
                self._read(line)

    def add(self, run: SweepRun) -> None:
        """Keep a run; when this returns, it is on disk."""
        self.runs[key_of(run.value, run.seed)] = run
        if self.path is None:
            return
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(file).st_size
            torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
            os.write(file, (("\n" if torn else "") + run.to_json() + "\n").encode())
            os.fsync(file)
        finally:
            os.close(file)

    def finished(self, value: Any, seed: int) -> SweepRun | None:
        """Return the run if it ended without an error."""
        run = self.runs.get(key_of(value, seed))
        return run if run is not None and run.error is None else None

    def _read(self, line: str) -> None:
        try:
            run = SweepRun(**json.loads(line))
        except (ValueError, TypeError):
            return
        self.runs[key_of(run.value, run.seed)] = run
