"""A backup put back: the stream counts what the trail has rows of, and a later checkpoint finds that it is older."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from fairlayer.serving import Journal, Scorer
from fairlayer.streaming.store import StoreView, StreamStore
from fairlayer.streaming.stores.shared import SharedStore
from fairlayer.trail import AuditTrail, copy_chains, joint_checkpoint, rows_between, verify, verify_chains
from tests.serving.test_workers import records_of
from tests.streaming.postgresql import Server, programs, running

KEY = bytes(range(32))


def journal() -> Journal:
    return Journal(clock=lambda: 1_790_000_000.0, key=KEY)


def answers(scorer: Scorer, rows: pd.DataFrame, first: int, n: int) -> dict[int, float]:
    records = records_of(rows)
    return {
        number: scorer.score([records[number % len(records)]], ids=[number]).scores[0]
        for number in range(first, first + n)
    }


def decisions(path: Path) -> list[float]:
    return [row.body["emitted"] for row in rows_between(path) if row.kind == "decision" and row.body is not None]


def test_a_file_that_was_put_back_counts_what_its_trail_holds(run: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    path, backup = tmp_path / "s.sqlite", tmp_path / "backup.sqlite"
    scorer = Scorer(run, store=StreamStore(path), journal=journal())
    kept = answers(scorer, rows, 0, 40)
    with StoreView(path) as view:  # while the service goes on
        view.backup(backup)
    with AuditTrail(path, key=KEY) as trail:
        early = trail.checkpoint(time=1_790_000_001.0, who="job").text
    lost = answers(scorer, rows, 40, 15)
    with AuditTrail(path, key=KEY) as trail:
        late = trail.checkpoint(time=1_790_000_002.0, who="job").text
    scorer.close()
    assert verify(path, key=KEY, checkpoint=late).ok
    for each in tmp_path.glob("s.sqlite*"):
        each.unlink()
    shutil.copy(backup, path)
    again = Scorer(run, store=StreamStore(path), journal=journal())
    assert again.stream.state.samples == len(decisions(path)) == 40
    assert answers(again, rows, 0, 40) == kept  # none of them is counted twice
    anew = answers(again, rows, 40, 15)
    assert again.stream.state.samples == len(decisions(path)) == 55
    assert decisions(path) == [*kept.values(), *anew.values()]
    assert set(anew) == set(lost)
    again.close()
    assert verify(path, key=KEY).ok
    for held in (early, late):  # both are of rows that are not there, or are others
        assert not verify(path, key=KEY, checkpoint=held).ok


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as found:
        yield found


@pytest.mark.skipif(programs() is None, reason="needs the programs of PostgreSQL (initdb, pg_ctl, postgres)")
def test_a_database_that_was_put_back_counts_what_its_chains_hold(
    run: Path, rows: pd.DataFrame, server: Server, tmp_path: Path
) -> None:
    psycopg = pytest.importorskip("psycopg", reason="needs the extra `postgres`")
    first = server.address.removesuffix("postgres") + "first"

    def opened(address: str) -> Scorer:
        return Scorer(run, store=SharedStore(address, refresh=0.1), journal=journal())

    def databases(statement: str) -> None:
        with psycopg.connect(server.address, autocommit=True) as connection:
            connection.execute(statement)

    def counted(scorer: Scorer, samples: int, folder: str) -> bool:
        end = time.monotonic() + 20
        while scorer.stream.waiting and time.monotonic() < end:  # type: ignore[attr-defined]
            time.sleep(0.05)
        [chain] = copy_chains(scorer.store.address, tmp_path / folder).values()  # type: ignore[attr-defined]
        return bool(scorer.stream.state.samples == len(decisions(chain)) == samples)

    databases("CREATE DATABASE first")
    scorer = opened(first)
    kept = answers(scorer, rows, 0, 30)
    scorer.close()
    databases("CREATE DATABASE backup TEMPLATE first")  # as a dump of the whole database
    scorer = opened(first)
    answers(scorer, rows, 30, 10)
    late = joint_checkpoint(first, time=1_790_000_002.0, who="job", key=KEY)
    assert counted(scorer, 40, "before")
    scorer.close()
    assert verify_chains(first, key=KEY, checkpoint=late).ok
    databases("DROP DATABASE first")
    databases("ALTER DATABASE backup RENAME TO first")
    again = opened(first)
    assert answers(again, rows, 0, 30) == kept
    assert counted(again, 30, "restored")
    answers(again, rows, 30, 10)
    assert counted(again, 40, "after")
    again.close()
    assert verify_chains(first, key=KEY).ok
    assert not verify_chains(first, key=KEY, checkpoint=late).ok
