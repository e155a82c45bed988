"""`fairlayer stream`, and what `fairlayer serve` shares with it."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlayer.cli.reading import read_beside, read_told
from fairlayer.cli.report import PAGE, keep_stream
from fairlayer.cli.tables import show_decided, show_stream
from fairlayer.data.columns import as_numbers
from fairlayer.errors import ConstraintDefinitionError, DataError, KeywordError, ParameterError, require
from fairlayer.report import StreamPage, write_stream_page
from fairlayer.serving import decided_stream, stream_section, stream_table
from fairlayer.serving.identity import name_of
from fairlayer.streaming import Policy, Recorder
from fairlayer.streaming.policies import as_policy
from fairlayer.trail import AuditTrail, read_key
from fairlayer.training import Run, load_run
from fairlayer.training.quality import THRESHOLD

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["policy_of", "policy_options", "rows_progress", "run_stream", "warm_start_of"]


def run_stream(arguments: argparse.Namespace) -> None:
    """Stream a table through a run; print what it cost."""
    run, frame = load_run(arguments.run), read_told(arguments, arguments.run)
    with rows_progress(len(frame)) as on_rows, _recorder(arguments, run) as recorder:
        streamed = stream_table(
            run,
            frame,
            batch_size=arguments.batch_size,
            **policy_options(arguments),
            at=None if arguments.at is None else _clock(frame, arguments.at),
            warm_start=warm_start_of(arguments),
            on_rows=on_rows,
            recorder=recorder,
        )
    section = stream_section(streamed)
    decisions, decided = decided_stream(streamed) if arguments.decisions else (None, None)
    show_stream(section)
    if decided is not None:
        show_decided(decided)
    if keep_stream(Path(arguments.run), section):
        print(f"The stream, period by period, is on the run's page, {PAGE}.")
    if arguments.trail:
        print(f"Trail: {arguments.trail} ({len(frame)} rows more)")
    if arguments.out:
        columns: dict[str, Any] = {"score": streamed.raw, "streamed_score": streamed.streamed}
        if decisions is not None:
            columns["decision"] = decisions
        require("pandas", "train").DataFrame(columns).to_csv(arguments.out, index=False)
        print(f"Scores: {arguments.out}")
    if arguments.plot:
        streamed.state.plot().savefig(arguments.plot, dpi=150)
        print(f"Picture: {arguments.plot}")
    if arguments.plot_report:
        streamed.state.plot_report().savefig(arguments.plot_report, dpi=150)
        print(f"Picture: {arguments.plot_report}")
    if arguments.report:
        title = f"{Path(arguments.table).name}, streamed through {Path(arguments.run).name or 'a run'}"
        print(f"Page: {write_stream_page(arguments.report, StreamPage(title, streamed.state, section, decided))}")
    if arguments.buckets:
        print(streamed.state.report())


def policy_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the command says about how the stream is held.

    Raises:
        KeywordError: an option has another name now.
    """
    if arguments.half_life is not None:
        raise KeywordError(
            "--half-life is now --memory: rows that count as recent, of which one weighs exp(-k / memory) after k "
            f"others. A half-life of {arguments.half_life:g} is --memory {arguments.half_life / math.log(2):.0f}."
        )
    return {
        "policy": policy_of(arguments.policy),
        "memory": arguments.memory,
        "window": arguments.window,
        "hold": arguments.hold,
    }


def policy_of(text: str) -> Policy:
    """Return a registered policy, or one of the user's own, given as package.module:Class.

    Raises:
        ConstraintDefinitionError: there is none.
    """
    module, colon, name = text.partition(":")
    if not colon:
        return as_policy(text)
    if os.getcwd() not in sys.path:  # a module beside the call, as for `python -m`
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConstraintDefinitionError(f"--policy {text} cannot be imported ({error}).") from error
    return as_policy(found() if isinstance(found, type) and issubclass(found, Policy) else found)


def _clock(frame: pd.DataFrame, name: str) -> list[float]:
    """Return the column of seconds.

    Raises:
        DataError: the table has no such column, or it holds no numbers.
    """
    if name not in frame.columns:
        raise DataError(f"--at {name} names no column of the table. It has: {', '.join(map(str, frame.columns))}.")
    return [float(value) for value in as_numbers(frame[name])]


def warm_start_of(arguments: argparse.Namespace) -> pd.DataFrame | None:
    """Return the table of `--warm-start`."""
    return None if arguments.warm_start is None else read_beside(arguments.warm_start, arguments.run)


def trail_key(arguments: argparse.Namespace) -> bytes | None:
    """Return the key of `--trail-key`."""
    return None if arguments.trail_key is None else read_key(arguments.trail_key)


@contextmanager
def _recorder(arguments: argparse.Namespace, run: Run) -> Iterator[Recorder | None]:
    """Yield what writes the trail: at the times of `--at`, or at those of the machine's clock."""
    if arguments.trail is None:
        if arguments.trail_key is not None:
            raise ParameterError("--trail-key is the key of a trail: name its file by --trail FILE.")
        yield None
        return
    threshold = None if run.recipe.config.task == "regression" else THRESHOLD
    with AuditTrail(arguments.trail, key=trail_key(arguments)) as trail:
        clock = None if arguments.at is not None else time.time
        yield Recorder(trail, model=name_of(run, arguments.run), threshold=threshold, clock=clock)


@contextmanager
def rows_progress(rows: int) -> Iterator[Callable[[int], None] | None]:
    """Yield what to tell how many rows are done; None where the output is not a terminal."""
    console = require("rich.console", "train").Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with require("rich.progress", "train").Progress(console=console, transient=True) as bar:
        task = bar.add_task("rows", total=rows)
        yield lambda done: bar.update(task, completed=done) if done % 64 == 0 or done == rows else None
