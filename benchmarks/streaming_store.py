"""What a stored request costs: SQLite, PostgreSQL by one worker and by four, and one row that all requests update.

    python benchmarks/streaming_store.py [--address postgresql://USER@HOST/DATABASE] [--seconds 5] [--json out.json]

Without an address a PostgreSQL is started in a temporary folder, where its programs are found. Each thread asks for one
prediction, waits for it, and asks for the next; every answer is stored before it is given. The shared row is what a
counter per group in the database would be: one `UPDATE ... RETURNING` per request, which waits for the one before.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from machine import describe, header, load
from postgresql import database

import fairlayer as fl
from fairlayer.fused import stream_kernels
from fairlayer.groups import Vocabulary
from fairlayer.streaming import Recorder
from fairlayer.streaming.durable import DurableStream
from fairlayer.streaming.store import StreamStore
from fairlayer.streaming.stores.shared import SharedStore
from fairlayer.trail import AuditTrail, SlotTrail

WORDS = Vocabulary().learn({"sex": ["F", "M"]})
Ask = Callable[[int], Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Print requests a second of each way, and how many times those of the shared row they are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--address", help="of an empty database (default: one is started)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for which each way is asked")
    parser.add_argument("--json", metavar="FILE", help="write all numbers here too")
    options = parser.parse_args(argv)
    facts = describe(1, ["fairlayer", "torch", "numpy", "psycopg"])
    print(header("Stored requests a second", facts), flush=True)
    with database(options.address) as address:
        rates = dict(_rates(address, options.seconds))
    floor = rates.get("PostgreSQL, one shared row, 8 threads")
    print(f"\n{'way':<48} {'requests/s':>11} {'over the row':>13}")
    for way, rate in rates.items():
        print(f"{way:<48} {rate:>11,.0f} {'-' if not floor else f'{rate / floor:.1f}x':>13}")
    print(f"\nLoad average at the end: {load()} (1.0 and more is this benchmark itself)")
    if options.json:
        Path(options.json).write_text(json.dumps({**facts, "requests_per_second": rates}, indent=1) + "\n")
    return 0


def _rates(address: str | None, seconds: float) -> Iterator[tuple[str, float]]:
    for synchronous in ("normal", "full"):
        with tempfile.TemporaryDirectory() as folder:
            stream = DurableStream(_state(), StreamStore(Path(folder) / "s.sqlite", synchronous=synchronous))
            yield f"SQLite, synchronous={synchronous}, 1 thread", _rate(_asks(stream, "s"), 1, seconds)
            stream.close()
            path = Path(folder) / "t.sqlite"
            store = StreamStore(path, synchronous=synchronous)
            written = AuditTrail(path, key=bytes(32), durability="process" if synchronous == "normal" else "power")
            recorder = Recorder(written, model="m", threshold=0.5, clock=time.time)
            stream = DurableStream(_state(), store, witness=recorder)
            yield f"SQLite, synchronous={synchronous}, 1 thread, trail", _rate(_asks(stream, "t"), 1, seconds)
            stream.close()
    if address is None:
        return
    for threads in (1, 8):
        with _shared_row(address, threads) as ask:
            yield f"PostgreSQL, one shared row, {threads} threads", _rate(ask, threads, seconds)
    for threads in (1, 8, 32):
        shared = SharedStore(address, shares=4).stream(_state(), WORDS)
        yield f"PostgreSQL, 1 worker, {threads} threads", _rate(_asks(shared, f"1-{threads}"), threads, seconds)
        shared.close()
    yield "PostgreSQL, 4 workers, 8 threads each", _four_workers(address, seconds, trail=False)
    beside = _second(address)
    yield "PostgreSQL, 4 workers, 8 threads each, trail", _four_workers(beside, seconds, trail=True)


def _second(address: str) -> str:
    """Make a database beside the first, for the streams that keep an audit trail."""
    import psycopg

    name = f"{address.rpartition('/')[2]}_trail"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{address.rpartition('/')[0]}/{name}"


def _state() -> fl.InferenceState:
    stream_kernels(1_000_000)  # loaded before anything is timed, as a service does
    return fl.InferenceState([fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0))


def _asks(stream: Any, name: str) -> Ask:
    scores = torch.rand(997, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def ask(number: int) -> Any:
        one = number % 997
        return stream.answer(scores[one : one + 1], {"sex": ["FM"[number % 2]]}, ids=[f"{name} {number}"])

    return ask


@contextmanager
def _shared_row(address: str, threads: int) -> Iterator[Ask]:
    import psycopg

    connections = [psycopg.connect(address, autocommit=True) for _ in range(threads)]
    connections[0].execute("CREATE TABLE IF NOT EXISTS one_row (n bigint, total float8)")
    connections[0].execute("INSERT INTO one_row SELECT 0, 0 WHERE NOT EXISTS (SELECT FROM one_row)")

    def ask(number: int) -> Any:
        statement = "UPDATE one_row SET n = n + 1, total = total + 0.5 RETURNING n, total"
        return connections[number % threads].execute(statement).fetchone()

    try:
        yield ask
    finally:
        for connection in connections:
            connection.close()


def _rate(ask: Ask, threads: int, seconds: float) -> float:
    """Return answers a second; the thread i asks for the numbers i, i + threads, ..."""
    answered, end = [0] * threads, time.perf_counter() + seconds

    def run(first: int) -> None:
        number = first
        while time.perf_counter() < end:
            ask(number)
            answered[first] += 1
            number += threads

    start = time.perf_counter()
    running = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(answered) / (time.perf_counter() - start)


def _four_workers(address: str, seconds: float, *, trail: bool) -> float:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        return sum(pool.starmap(_one_worker, [(address, seconds, i, trail) for i in range(4)], chunksize=1))


def _one_worker(address: str, seconds: float, number: int, trail: bool) -> float:
    torch.set_num_threads(1)
    recorder = Recorder(SlotTrail(key=bytes(32)), model="m", threshold=0.5, clock=time.time) if trail else None
    stream = SharedStore(address, shares=4).stream(_state(), WORDS, recorder=recorder)
    rate = _rate(_asks(stream, f"4-{number}"), 8, seconds)
    stream.close()
    return rate


if __name__ == "__main__":
    sys.exit(main())
