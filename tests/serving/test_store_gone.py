"""A service whose PostgreSQL is gone for a while under traffic: no 5xx, a bounded excess, and nothing lost."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairlayer.serving import create_app
from fairlayer.streaming.stores.shared import SharedStore
from tests.serving.test_workers import records_of, served
from tests.streaming.postgresql import Server, programs, running

pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("uvicorn", reason="needs the extra `serve`")
httpx = pytest.importorskip("httpx", reason="needs httpx, which the extra `dev` brings")
psycopg = pytest.importorskip("psycopg", reason="needs the extra `postgres`")
pytestmark = pytest.mark.skipif(
    programs() is None, reason="needs the programs of PostgreSQL (initdb, pg_ctl, postgres)"
)
LEASE = 0.01
Post = Callable[[dict[str, Any]], Any]


class Traffic:
    """Clients that ask without a pause, each under ids of its own, and what they were answered.

    Once `tilted`, they send the women who score highest and the men who score lowest, which no worker alone can see.
    """

    def __init__(self, records: list[dict[str, Any]], posts: list[Post]) -> None:
        self.records, self.posts = records, posts
        self.answers: dict[int, tuple[str, float]] = {}
        self.raw: dict[int, float] = {}
        self.wrong: list[str] = []
        self.tilted = False
        self._stop = threading.Event()

    def ask(self, number: int) -> None:
        """Send one request."""
        kind = number % len(self.records) if not self.tilted else self._extreme[number % len(self._extreme)]
        found = self.posts[number % len(self.posts)]({"records": [self.records[kind]], "ids": [number]})
        if found.status_code != 200:
            self.wrong.append(found.text)
            return
        self.raw[kind] = found.json()["raw_scores"][0]
        self.answers[number] = self.records[kind]["sex"], found.json()["scores"][0]

    def tilt(self) -> None:
        """Send from now on what drives the groups apart."""
        found = {sex: [k for k in self.raw if self.records[k]["sex"] == sex] for sex in ("female", "male")}
        women = sorted(found["female"], key=lambda k: -self.raw[k])[:10]
        men = sorted(found["male"], key=lambda k: self.raw[k])[:10]
        self._extreme, self.tilted = [k for pair in zip(women, men, strict=True) for k in pair], True

    def during(self, act: Callable[[], None]) -> None:
        """Let a thread for each client ask while something is done."""
        first, self._stop = max(self.answers, default=-1) + 1, threading.Event()
        threads = [threading.Thread(target=self._client, args=(first + i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        try:
            act()
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def gap(self) -> float:
        """The difference of the mean answers of women and men."""
        means = [np.mean([y for s, y in self.answers.values() if s == sex]) for sex in ("female", "male")]
        return float(means[0] - means[1])

    def _client(self, number: int) -> None:
        while not self._stop.is_set() and not self.wrong:
            self.ask(number)
            number += 4


def goes(server: Server, traffic: Traffic, seconds: float, known: Callable[[int], bool], refresh: float) -> None:
    """Stop the database under traffic and start it again; see that answers go on, within the lease."""
    for number in range(300):
        traffic.ask(number)
    assert not traffic.wrong, traffic.wrong[0]
    until(lambda: known(300))  # every worker has heard of everything: what is unheard would come on top of the lease
    time.sleep(2.5 * refresh)
    traffic.tilt()
    before = traffic.gap()
    server.stop()
    traffic.during(lambda: time.sleep(seconds))
    assert not traffic.wrong, traffic.wrong[0]  # no 5xx
    assert len(traffic.answers) > 310  # answered while the database was gone
    assert abs(traffic.gap() - before) <= LEASE + 1e-9
    server.start()
    traffic.during(lambda: time.sleep(1.0))  # and while it comes back
    assert not traffic.wrong, traffic.wrong[0]
    until(lambda: stored(server) == {key: y for key, (_, y) in traffic.answers.items()})
    until(lambda: known(len(traffic.answers)))


def stored(server: Server) -> dict[int, float]:
    with psycopg.connect(server.address) as connection:
        return {int(key): y for key, y in connection.execute("SELECT id, emitted FROM fairlayer_answers").fetchall()}


def until(condition: Callable[[], bool], seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as found:
        yield found


def test_a_store_that_is_gone_for_seconds(run: Path, rows: pd.DataFrame, server: Server) -> None:
    """Two applications in one process stand for two workers."""
    from fastapi.testclient import TestClient

    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")  # that the store is gone, and back
        stores = [SharedStore(server.address, shares=2, lease=LEASE, refresh=0.1) for _ in range(2)]
        clients = [stack.enter_context(TestClient(create_app(run, store=store))) for store in stores]

        def post(client: Any) -> Post:
            return lambda body: client.post("/score", json=body)

        def known(samples: int) -> bool:
            return all(client.get("/state").json()["samples"] == samples for client in clients)

        goes(server, Traffic(records_of(rows), [post(client) for client in clients]), 2.0, known, 0.1)
        health = clients[0].get("/health").json()["durability"]
        assert (health["store"], health["waiting"], health["lease"]) == ("postgresql", 0, LEASE / 2)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_a_store_that_is_gone_for_a_minute(
    workers: int, run: Path, rows: pd.DataFrame, server: Server, tmp_path: Path
) -> None:
    given = ("--workers", str(workers), "--store", server.address, "--lease", str(LEASE))
    with served(run, *given) as service, httpx.Client(trust_env=False, timeout=30) as client:

        def post(body: dict[str, Any]) -> Any:
            return client.post(f"http://127.0.0.1:{service.port}/score", json=body)

        def known(samples: int) -> bool:
            found = {service.get("/state")["samples"] for _ in range(4 * workers)}
            return found == {samples}

        goes(server, Traffic(records_of(rows), [post]), 60.0, known, 1.0)
        assert service.end() == 0
