"""`fairlayer stream`, and what `fairlayer serve` shares with it."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlayer.cli.reading import read_told
from fairlayer.cli.tables import show_decided, show_stream
from fairlayer.data import read_frame
from fairlayer.data.columns import as_numbers
from fairlayer.errors import ConstraintDefinitionError, DataError, KeywordError, require
from fairlayer.report import StreamPage, write_stream_page
from fairlayer.serving import decided_stream, stream_section, stream_table
from fairlayer.streaming import Policy
from fairlayer.streaming.policies import as_policy
from fairlayer.training import load_run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["policy_of", "policy_options", "rows_progress", "run_stream", "warm_start_of"]


def run_stream(arguments: argparse.Namespace) -> None:
    """Stream a table through a run; print what it cost."""
    run, frame = load_run(arguments.run), read_told(arguments, arguments.run)
    with rows_progress(len(frame)) as on_rows:
        streamed = stream_table(
            run,
            frame,
            batch_size=arguments.batch_size,
            **policy_options(arguments),
            at=None if arguments.at is None else _clock(frame, arguments.at),
            warm_start=warm_start_of(arguments),
            on_rows=on_rows,
        )
    section = stream_section(streamed)
    decisions, decided = decided_stream(streamed) if arguments.decisions else (None, None)
    show_stream(section)
    if decided is not None:
        show_decided(decided)
    if arguments.out:
        columns = {"score": streamed.raw, "streamed_score": streamed.streamed}
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
    return None if arguments.warm_start is None else read_frame(arguments.warm_start)


@contextmanager
def rows_progress(rows: int) -> Iterator[Callable[[int], None] | None]:
    """Yield what to tell how many rows are done; None where the output is no terminal."""
    console = require("rich.console", "train").Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with require("rich.progress", "train").Progress(console=console, transient=True) as bar:
        task = bar.add_task("rows", total=rows)
        yield lambda done: bar.update(task, completed=done) if done % 64 == 0 or done == rows else None
