"""Every value with every seed, in parallel, kept as they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairlayer.pareto.definition import Definition
from fairlayer.pareto.errors import SweepFailedError
from fairlayer.pareto.progress import progress_bar
from fairlayer.pareto.result import Sweep
from fairlayer.pareto.runs import RunLog, SweepRun, key_of
from fairlayer.pareto.workers import available_cores, run_all

__all__ = ["pareto_sweep"]


def pareto_sweep(
    train: Callable[[Any, int], Mapping[str, float]],
    values: Sequence[Any],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    folder: str | Path | None = None,
    workers: int | None = None,
    on_run: Callable[[SweepRun], None] | None = None,
    progress: bool = True,
) -> Sweep:
    """Train with every value and seed, and return what each measured.

    Name measures of validation data `val_...` and of test data `test_...`: a front is chosen from by the former
    (the rules refuse the latter), and the chosen point is reported by the latter.

    Args:
        train: a function from a value and a seed to measures by name, at the top level of a module, so that other
            processes can import it. It seeds everything it draws.
        values: tolerances, strengths, or anything else that JSON can hold, such as dicts of several settings.
        seeds: each value is trained with each.
        folder: where finished runs are kept, one line of `runs.jsonl` each. Called again, only the missing and
            failed ones are run; values and seeds may be added. None keeps nothing.
        workers: processes, each with one torch thread; all cores by default. 0 runs everything in this process.
        on_run: a function that is told each run as it ends, failed ones too.
        progress: draw a bar on a terminal, where rich is installed.

    Raises:
        SweepDefinitionError: the folder holds another sweep, or this one cannot be run.
        SweepFailedError: runs failed, by name; raised after all others ended.

    Example:
        >>> def train(tolerance, seed):
        ...     return {"val_auc": 0.8 + tolerance, "val_gap": 0.9 * tolerance}
        >>> sweep = pareto_sweep(train, [0.0, 0.05, 0.1], seeds=(0, 1), workers=0)
        >>> front = sweep.front({"val_auc": "maximise", "val_gap": "minimise"})
        >>> front.most_accurate(gap_at_most=0.05).value
        0.05
    """
    definition = Definition.of(train, values, seeds)
    log = RunLog(_claim(definition, folder))
    grid = definition.grid
    missing = [job for job in grid if log.finished(*job) is None]
    with progress_bar(len(grid), len(grid) - len(missing), wanted=progress) as show:
        for run in run_all(train, missing, available_cores() if workers is None else workers):
            log.add(run)
            show(run)
            if on_run is not None:
                on_run(run)
    _raise_failed(log, grid, folder)
    return Sweep(tuple(log.runs[key_of(*job)] for job in grid))


def _claim(definition: Definition, folder: str | Path | None) -> Path | None:
    if folder is None:
        return None
    definition.claim(Path(folder))
    return Path(folder) / "runs.jsonl"


def _raise_failed(log: RunLog, grid: Sequence[tuple[Any, int]], folder: str | Path | None) -> None:
    failed = [run for job in grid if (run := log.runs[key_of(*job)]).error is not None]
    if failed:
        each = "; ".join(f"{run.name}: {(run.error or '').splitlines()[-1]}" for run in failed)
        kept = "are lost, as the sweep has no folder" if folder is None else f"are kept in {folder}, with tracebacks"
        raise SweepFailedError(
            f"{len(failed)} of {len(grid)} runs failed ({each}). The runs {kept}. Mend what failed and call again."
        )
