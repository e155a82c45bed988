"""The result of a sweep: runs, and their means over seeds."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlayer.pareto.definition import Definition
from fairlayer.pareto.errors import MeasureError
from fairlayer.pareto.front import Front
from fairlayer.pareto.runs import FrontPoint, RunLog, SweepRun, key_of

__all__ = ["Sweep"]


@dataclass(frozen=True)
class Sweep:
    """Finished runs of a sweep, in the order of its values.

    Example:
        >>> runs = (SweepRun(0.1, 0, {"auc": 0.8}), SweepRun(0.1, 1, {"auc": 0.9}))
        >>> [point] = Sweep(runs).points()
        >>> point.n, round(point.mean["auc"], 3), round(point.sd["auc"], 3)
        (2, 0.85, 0.071)
    """

    runs: tuple[SweepRun, ...]

    @staticmethod
    def read(folder: str | Path) -> Sweep:
        """Read the finished runs of a folder, also of a sweep that has not ended.

        Raises:
            SweepDefinitionError: there is no sweep.
        """
        log = RunLog(Path(folder) / "runs.jsonl")
        each = [log.finished(*job) for job in Definition.read(Path(folder)).grid]
        return Sweep(tuple(run for run in each if run is not None))

    def points(self) -> tuple[FrontPoint, ...]:
        """Return the mean and standard deviation over seeds, by value.

        Raises:
            MeasureError: runs measured different things.
        """
        names = {frozenset(run.measures) for run in self.runs}
        if len(names) > 1:
            odd = sorted(frozenset.union(*names) - frozenset.intersection(*names))
            raise MeasureError(f"the runs of a sweep must measure the same, but only some of them have {odd}.")
        groups: dict[str, list[SweepRun]] = {}
        for run in self.runs:
            groups.setdefault(key_of(run.value, 0), []).append(run)
        return tuple(_point(runs) for runs in groups.values())

    def front(self, objectives: Mapping[str, str]) -> Front:
        """Return the trade-off between measures.

        Args:
            objectives: measure -> "maximise" or "minimise": first the accuracy (or error), then the gap, then others.

        Raises:
            MeasureError: a measure that the runs do not have, fewer than two, or another direction.
        """
        return Front(self.points(), dict(objectives))

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one flat row per value, for a frame: value, n, and mean_ and sd_ of each measure."""
        rows = []
        for point in self.points():
            value = point.value if isinstance(point.value, dict) else {"value": point.value}
            means = {f"mean_{name}": number for name, number in point.mean.items()}
            rows.append({**value, "n": point.n, **means, **{f"sd_{name}": sd for name, sd in point.sd.items()}})
        return rows

    def to_json(self) -> str:
        """Return the rows of `to_dicts` and every run as JSON."""
        runs = [json.loads(run.to_json()) for run in self.runs]
        return json.dumps({"points": self.to_dicts(), "runs": runs}, indent=1)

    def to_csv(self) -> str:
        """Return the rows of `to_dicts` as CSV."""
        rows = self.to_dicts()
        names = dict.fromkeys(name for row in rows for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def _point(runs: list[SweepRun]) -> FrontPoint:
    each = {name: [run.measures[name] for run in runs] for name in runs[0].measures}
    return FrontPoint(
        runs[0].value,
        tuple(run.seed for run in runs),
        {name: statistics.fmean(numbers) for name, numbers in each.items()},
        {name: statistics.stdev(numbers) if len(numbers) > 1 else None for name, numbers in each.items()},
    )
