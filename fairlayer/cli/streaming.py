"""`fairlayer stream` and `fairlayer serve`."""

from __future__ import annotations

import argparse
import importlib
import ipaddress
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from fairlayer.cli.reading import read_told
from fairlayer.cli.tables import show_stream
from fairlayer.data import read_frame
from fairlayer.data.columns import as_numbers
from fairlayer.errors import ConstraintDefinitionError, DataError, KeywordError, require
from fairlayer.serving import create_app, stream_section, stream_table
from fairlayer.streaming import Policy
from fairlayer.streaming.policies import as_policy
from fairlayer.streaming.store import StreamStore
from fairlayer.training import load_run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["rows_progress", "run_serve", "run_stream"]


def run_stream(arguments: argparse.Namespace) -> None:
    """Stream a table through a run; print what it cost."""
    run, frame = load_run(arguments.run), read_told(arguments, arguments.run)
    with rows_progress(len(frame)) as on_rows:
        streamed = stream_table(
            run,
            frame,
            batch_size=arguments.batch_size,
            **_policy_options(arguments),
            at=None if arguments.at is None else _clock(frame, arguments.at),
            warm_start=_warm_start(arguments),
            on_rows=on_rows,
        )
    show_stream(stream_section(streamed))
    if arguments.out:
        columns = {"score": streamed.raw, "streamed_score": streamed.streamed}
        require("pandas", "train").DataFrame(columns).to_csv(arguments.out, index=False)
        print(f"Scores: {arguments.out}")
    if arguments.plot:
        streamed.state.plot().savefig(arguments.plot, dpi=150)
        print(f"Picture: {arguments.plot}")
    if arguments.plot_report:
        streamed.state.plot_report().savefig(arguments.plot_report, dpi=150)
        print(f"Picture: {arguments.plot_report}")
    if arguments.buckets:
        print(streamed.state.report())


def run_serve(arguments: argparse.Namespace) -> None:
    """Serve a run until interrupted."""
    uvicorn = require("uvicorn", "serve")
    torch.set_num_threads(1)
    store = StreamStore(arguments.store or ":memory:", synchronous=arguments.synchronous)
    app = create_app(
        arguments.run,
        store=store,
        **_policy_options(arguments),
        warm_start=_warm_start(arguments),
    )
    if not _is_loopback(arguments.host):
        print(f"fairlayer: {arguments.host} can be reached by others; there is no authentication.", file=sys.stderr)
    if arguments.store is None:
        print("fairlayer: without --store FILE the stream begins anew at each start.", file=sys.stderr)
    samples = app.state.scorer.stream.state.samples
    print(f"Listening on http://{arguments.host}:{arguments.port}; {samples} predictions so far.", flush=True)
    uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning")


def _policy_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the command says about how the stream is held."""
    if arguments.half_life is not None:
        raise KeywordError(
            "--half-life is now --memory: rows that count as recent, of which one weighs exp(-k / memory) after k "
            f"others. A half-life of {arguments.half_life:g} is --memory {arguments.half_life / math.log(2):.0f}."
        )
    return {
        "policy": _policy(arguments.policy),
        "memory": arguments.memory,
        "window": arguments.window,
        "hold": arguments.hold,
    }


def _policy(text: str) -> Policy:
    """Return a registered policy, or one of the user's own, given as package.module:Class.

    Raises:
        ConstraintDefinitionError: there is none.
    """
    module, colon, name = text.partition(":")
    if not colon:
        return as_policy(text)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConstraintDefinitionError(f"--policy {text} cannot be imported ({error}).") from error
    return as_policy(found() if isinstance(found, type) else found)


def _clock(frame: pd.DataFrame, name: str) -> list[float]:
    """Return the column of seconds.

    Raises:
        DataError: the table has no such column, or it holds no numbers.
    """
    if name not in frame.columns:
        raise DataError(f"--at {name} names no column of the table. It has: {', '.join(map(str, frame.columns))}.")
    return [float(value) for value in as_numbers(frame[name])]


def _warm_start(arguments: argparse.Namespace) -> pd.DataFrame | None:
    return None if arguments.warm_start is None else read_frame(arguments.warm_start)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
