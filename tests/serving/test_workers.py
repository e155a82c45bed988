"""Several processes on one address, four clients, and SIGKILL again and again: answered = stored = counted."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fairlayer.cli import main
from fairlayer.trail import copy_chains, rows_between, verify_chains
from tests.streaming.postgresql import programs, running

pytest.importorskip("uvicorn", reason="needs the extra `serve`")
httpx = pytest.importorskip("httpx", reason="needs httpx, which the extra `dev` brings")
ROOT = Path(__file__).resolve().parents[2]
KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--workers", "2"), "there is no --store"),
        (("--workers", "4", "--store", "s.sqlite"), "'s.sqlite' is a file of one process"),
        (("--shares", "2", "--store", "s.sqlite"), "is a file of one process"),
        (("--workers", "0"), "--workers and --most-bytes must be at least 1"),
    ],
)
def test_workers_without_a_store_that_they_can_share(
    given: tuple[str, ...], said: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(run), *given]) == 2
    assert said in capsys.readouterr().err


class Service:
    """`fairlayer serve` in a process of its own."""

    def __init__(self, run: Path, *given: str) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = int(found.getsockname()[1])
        program = "import sys; from fairlayer.cli import main; sys.exit(main(sys.argv[1:]))"
        self.command = [sys.executable, "-c", program, "serve", str(run), "--port", str(self.port), *given]
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(self.command, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("Listening on")

    def children(self) -> list[int]:
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [pid for pid in map(int, found) if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]

    def kill_a_worker(self, draw: random.Random) -> None:
        for _ in range(600):  # until the one before is replaced
            if len(self.children()) == 4:
                break
            time.sleep(0.05)
        os.kill(draw.choice(self.children()), signal.SIGKILL)

    def kill_and_start(self, _: random.Random) -> None:
        self.process.kill()
        self.process.communicate()
        self.start()

    def get(self, path: str) -> Any:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False, timeout=30).json()

    def end(self) -> int:
        self.process.terminate()
        self.process.communicate(timeout=60)
        return int(self.process.returncode)


def four_clients(
    service: Service, records: list[dict[str, Any]], kill: Callable[[random.Random], None], rounds: int
) -> dict[int, float]:
    """Ask from four threads while processes are killed; each asks again, under the same id, until it is answered."""
    answers: dict[int, float] = {}
    wrong: list[Any] = []
    stop = threading.Event()

    def client(first: int) -> None:
        number = first
        while not stop.is_set():
            body = {"records": [records[number % len(records)]], "ids": [number]}
            try:
                url = f"http://127.0.0.1:{service.port}/score"
                answer = httpx.post(url, json=body, trust_env=False, timeout=30)
            except httpx.TransportError:
                time.sleep(0.02)
                continue
            if answer.status_code != 200:
                wrong.append(answer.text)
                return
            answers[number] = answer.json()["scores"][0]
            number += 4

    def more_answers() -> None:
        """Wait for eight answers, however slow the machine is."""
        enough = len(answers) + 8
        for _ in range(2400):
            if len(answers) >= enough or wrong:
                break
            time.sleep(0.05)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    draw = random.Random(3)
    for _ in range(rounds):
        more_answers()
        time.sleep(draw.uniform(0.0, 0.5))
        kill(draw)
    more_answers()
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    return answers


def counted(service: Service, expected: int) -> int:
    """The samples of the stream, once all workers have heard of each other."""
    for _ in range(120):
        found = {service.get("/state")["samples"] for _ in range(6)}
        if found == {expected}:
            break
        time.sleep(0.5)
    return max(found)


@contextmanager
def served(run: Path, *given: str) -> Iterator[Service]:
    service = Service(run, *given)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.end()


def records_of(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return list(json.loads(rows.to_json(orient="records")))


@pytest.mark.slow
@pytest.mark.skipif(programs() is None, reason="needs the programs of PostgreSQL (initdb, pg_ctl, postgres)")
def test_killed_workers_lose_nothing_and_count_nothing_twice_on_postgresql(
    run: Path, rows: pd.DataFrame, tmp_path: Path
) -> None:
    psycopg = pytest.importorskip("psycopg", reason="needs the extra `postgres`")
    key = tmp_path / "key.hex"
    key.write_text(KEY.hex())
    with (
        running() as server,
        served(run, "--workers", "4", "--trail", server.address, "--trail-key", str(key)) as service,
    ):
        answers = four_clients(service, records_of(rows), service.kill_a_worker, rounds=4)
        with psycopg.connect(server.address) as connection:
            stored = {
                int(key): value
                for key, value in connection.execute("SELECT id, emitted FROM fairlayer_answers").fetchall()
            }
        assert len(answers) > 20
        assert {key: stored[key] for key in answers} == answers
        assert len(stored) - len(answers) <= 4  # in flight at the end
        assert counted(service, len(stored)) == len(stored)
        assert service.get("/health")["durability"]["store"] == "postgresql"
        assert service.get("/health")["trail"].startswith("scores.")
        assert service.end() == 0
        found = verify_chains(server.address, key=KEY)
        names = {f"{kind}.{slot}" for kind in ("scores", "decisions") for slot in range(4)}
        assert (found.ok, found.level, set(found.chains)) == (True, "sealed", names)
        chains = [path for name, path in copy_chains(server.address, tmp_path).items() if name.startswith("scores")]
        written = [row for path in chains for row in rows_between(path)]
        said = [row.body["emitted"] for row in written if row.kind == "decision" and row.body is not None]
        assert sorted(said) == sorted(stored.values())  # one row for each answer, and none twice
        assert sum(row.kind == "start" for row in written) >= 4  # of each worker, and of some that took a place


@pytest.mark.slow
def test_sigterm_answers_what_is_under_way(run: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    before: set[int] = set()
    with served(run, "--store", str(path)) as service:
        for turn in range(3):
            answers: dict[int, float] = {}
            stop = threading.Event()
            first = [1_000_000 * turn + i for i in range(4)]
            threads = [
                threading.Thread(target=_until_refused, args=(service, records_of(rows), first[i], answers, stop))
                for i in range(4)
            ]
            for thread in threads:
                thread.start()
            while len(answers) < 20:
                time.sleep(0.02)
            assert service.end() in {0, -signal.SIGTERM}  # uvicorn ends in order, and then passes the signal on
            stop.set()
            for thread in threads:
                thread.join()
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
                stored = dict(file.execute("SELECT id, emitted FROM answers").fetchall())
            new = {key: value for key, value in stored.items() if key not in before}
            assert new == answers  # whatever was counted was answered
            before |= stored.keys()
            service.start()


def _until_refused(
    service: Service, records: list[dict[str, Any]], first: int, answers: dict[int, float], stop: threading.Event
) -> None:
    number = first
    while not stop.is_set():
        body = {"records": [records[number % len(records)]], "ids": [number]}
        try:
            answer = httpx.post(f"http://127.0.0.1:{service.port}/score", json=body, trust_env=False, timeout=30)
        except httpx.TransportError:
            return
        assert answer.status_code == 200
        answers[number] = answer.json()["scores"][0]
        number += 4


@pytest.mark.slow
def test_a_killed_service_loses_nothing_and_counts_nothing_twice_on_sqlite(
    run: Path, rows: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "s.sqlite"
    with served(run, "--store", str(path)) as service:
        answers = four_clients(service, records_of(rows), service.kill_and_start, rounds=3)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:  # read while it runs
            stored = dict(file.execute("SELECT id, emitted FROM answers").fetchall())
        assert len(answers) > 20
        assert {key: stored[key] for key in answers} == answers
        assert len(stored) - len(answers) <= 4
        assert counted(service, len(stored)) == len(stored)
