"""A bar while a sweep runs, where someone is watching."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fairlayer.errors import require
from fairlayer.pareto.runs import SweepRun

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(total: int, done: int, *, wanted: bool) -> Iterator[Callable[[SweepRun], None]]:
    """Yield what to tell about each run; it draws a bar on a terminal where rich is installed."""
    console = _console() if wanted else None
    if console is None:
        yield lambda run: None
        return
    progress = require("rich.progress", "train")
    columns = (
        progress.TextColumn("sweep"),
        progress.BarColumn(bar_width=24),
        progress.TextColumn("{task.completed:>3}/{task.total} {task.fields[words]}"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console) as bar:
        task = bar.add_task("sweep", total=total, completed=done, words="")
        yield lambda run: bar.update(task, advance=1, words=_words(run))


def _console() -> object | None:
    if importlib.util.find_spec("rich") is None:
        return None
    console = require("rich.console", "train").Console(stderr=True)
    return console if console.is_terminal else None


def _words(run: SweepRun) -> str:
    if run.error is not None:
        return f"{run.name} failed"
    return f"{run.name}: " + ", ".join(f"{name} {number:.4g}" for name, number in list(run.measures.items())[:3])
