"""What the service answers in a second over HTTP, and how long a client waits, by store, workers and clients.

    python benchmarks/serving.py [--address postgresql://USER@HOST/DATABASE] [--seconds 4] [--json out.json]

A run is trained, and `fairlayer serve` started on it in processes of its own. Each client asks for one prediction with
an id over a connection that it keeps, waits for the answer, and asks for the next. In process, threads ask the same
scorer without HTTP. Without an address a PostgreSQL is started in a temporary folder, where its programs are found.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from machine import describe, header, limit_threads, load
from postgresql import database

limit_threads(1)

import pandas as pd  # noqa: E402 - after the number of threads is set

from fairlayer.cli import main as command  # noqa: E402
from fairlayer.data import LendingPopulation  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = (1, 8, 32)
WARM = 1.0  # seconds before anything is timed
Ask = Callable[[dict[str, Any]], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Print requests a second and waiting times of each way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--address", help="of an empty database (default: one is started)")
    parser.add_argument("--seconds", type=float, default=4.0, help="for which each number of clients asks")
    parser.add_argument("--json", metavar="FILE", help="write all numbers here too")
    options = parser.parse_args(argv)
    facts = describe(1, ["fairlayer", "torch", "numpy", "fastapi", "uvicorn", "psycopg"])
    print(header("The service over HTTP, one prediction per request", facts), flush=True)
    print(f"\n{'way':<46} {'clients':>7} {'requests/s':>11} {'median ms':>10} {'p99 ms':>8}")
    found = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        address = stack.enter_context(database(options.address))
        run, records = _trained(Path(folder))
        for way, opened in _ways(run, Path(folder), address):
            with opened as connect:
                for clients in CLIENTS:
                    waits = _waits(connect, records, clients, options.seconds, f"{way} {clients}")
                    found.append({"way": way, "clients": clients, **_numbers(waits, options.seconds)})
                    print(_line(found[-1]), flush=True)
    print(f"\nLoad average at the end: {load()} (this benchmark, its service and its database included)")
    if options.json:
        Path(options.json).write_text(json.dumps({**facts, "ways": found}, indent=1) + "\n")
    return 0


def _ways(run: Path, folder: Path, address: str | None) -> Iterator[tuple[str, Any]]:
    """Yield each way to ask: its name, and a context that gives a function which connects a client."""
    yield "in process, no store", _in_process(run, None)
    yield "in process, SQLite normal", _in_process(run, folder / "in-process.sqlite")
    yield "HTTP, no store", _served(run)
    for synchronous in ("normal", "full"):
        path = folder / f"{synchronous}.sqlite"
        yield f"HTTP, SQLite {synchronous}", _served(run, "--store", str(path), "--synchronous", synchronous)
    if address is None:
        return
    for workers in (1, 4):
        beside = _schema(address, f"workers_{workers}")
        yield (
            f"HTTP, PostgreSQL, {workers} worker{'s'[: workers > 1]}",
            _served(run, "--store", beside, "--workers", str(workers)),
        )
    key = folder / "key.hex"
    key.write_text(bytes(32).hex())
    given = ("--trail", _schema(address, "trail"), "--trail-key", str(key), "--workers", "4")
    yield "HTTP, PostgreSQL, 4 workers, audit trail", _served(run, *given)


def _trained(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Train a small run; return it with records to be scored."""
    rows = pd.DataFrame(LendingPopulation().sample(2400, seed=1)).drop(columns="repays")
    rows[:2000].to_csv(folder / "loans.csv", index=False)
    quick = ("--epochs", "2", "--batch-size", "256", "--hidden", "8", "--no-trees")
    asked = ("--target", "label", "--constraint", "demographic_parity(sex, 0.02)", "--out", str(folder / "run"))
    if command(["train", str(folder / "loans.csv"), *asked, *quick]) != 0:
        raise RuntimeError("the run could not be trained; `fairlayer train` has said why")
    return folder / "run", list(json.loads(rows[2000:].drop(columns="label").to_json(orient="records")))


def _schema(address: str, name: str) -> str:
    """Make a database beside the first, so that no way finds the stream of another."""
    import psycopg

    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{address.rpartition('/')[0]}/{name}"


@contextmanager
def _in_process(run: Path, path: Path | None) -> Iterator[Callable[[], Ask]]:
    from fairlayer.fused import stream_kernels
    from fairlayer.serving import Scorer
    from fairlayer.streaming.store import StreamStore

    stream_kernels(1_000_000)  # loaded before anything is timed, as the service does
    scorer = Scorer(run, store=None if path is None else StreamStore(path))

    def ask(body: dict[str, Any]) -> None:
        scorer.score(body["records"], ids=body["ids"])

    try:
        yield lambda: ask
    finally:
        scorer.close()


@contextmanager
def _served(run: Path, *given: str) -> Iterator[Callable[[], Ask]]:
    """Start the service in a process of its own, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    program = "import sys; from fairlayer.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", program, "serve", str(run), "--port", str(port), *given]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    service = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    if not service.stdout.readline().startswith("Listening on"):
        raise RuntimeError(f"the service did not start: {' '.join(words[2:])}")
    try:
        yield lambda: _client(port)
    finally:
        service.terminate()
        service.communicate(timeout=60)


def _client(port: int) -> Ask:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(body: dict[str, Any]) -> None:
        connection.request("POST", "/score", json.dumps(body), {"Content-Type": "application/json"})
        with closing(connection.getresponse()) as answer:
            said = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"the service answered {answer.status}: {said!r}")

    return ask


def _waits(
    connect: Callable[[], Ask], records: list[dict[str, Any]], clients: int, seconds: float, name: str
) -> list[float]:
    """Return the seconds that each answer took, of those asked for after the first second."""
    found: list[list[float]] = [[] for _ in range(clients)]
    wrong: list[BaseException] = []
    ready = threading.Barrier(clients)  # passed once each client has been answered, by a worker that is ready then

    def run(first: int) -> None:
        try:
            ask, number = connect(), first
            ask({"records": [records[0]], "ids": [f"{name} ready {first}"]})
            ready.wait()
            start = time.perf_counter() + WARM
            while (asked := time.perf_counter()) < start + seconds:
                ask({"records": [records[number % len(records)]], "ids": [f"{name} {number}"]})
                if asked >= start:
                    found[first].append(time.perf_counter() - asked)
                number += clients
        except Exception as error:
            ready.abort()
            wrong.append(error)

    running = [threading.Thread(target=run, args=(i,)) for i in range(clients)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if wrong:
        raise wrong[0]
    return [wait for each in found for wait in each]


def _numbers(waits: list[float], seconds: float) -> dict[str, float]:
    ordered = sorted(waits)
    return {
        "requests_per_second": len(waits) / seconds,
        "median_ms": 1e3 * statistics.median(ordered),
        "p99_ms": 1e3 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
    }


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['way']:<46} {row['clients']:>7} {row['requests_per_second']:>11,.0f} "
        f"{row['median_ms']:>10.1f} {row['p99_ms']:>8.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
