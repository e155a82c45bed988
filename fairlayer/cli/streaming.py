"""`fairlayer stream` and `fairlayer serve`."""

from __future__ import annotations

import argparse
import ipaddress
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from fairlayer.cli.reading import read_told
from fairlayer.cli.tables import show_stream
from fairlayer.data import read_frame
from fairlayer.errors import require
from fairlayer.serving import create_app, stream_section, stream_table
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
            policy=arguments.policy,
            half_life=arguments.half_life,
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


def run_serve(arguments: argparse.Namespace) -> None:
    """Serve a run until interrupted."""
    uvicorn = require("uvicorn", "serve")
    torch.set_num_threads(1)
    store = StreamStore(arguments.store or ":memory:", synchronous=arguments.synchronous)
    app = create_app(
        arguments.run,
        store=store,
        policy=arguments.policy,
        half_life=arguments.half_life,
        warm_start=_warm_start(arguments),
    )
    if not _is_loopback(arguments.host):
        print(f"fairlayer: {arguments.host} can be reached by others; there is no authentication.", file=sys.stderr)
    if arguments.store is None:
        print("fairlayer: without --store FILE the stream begins anew at each start.", file=sys.stderr)
    samples = app.state.scorer.stream.state.samples
    print(f"Listening on http://{arguments.host}:{arguments.port}; {samples} predictions so far.", flush=True)
    uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning")


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
