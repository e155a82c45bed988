"""People override, erase and drop rows of the chains of several workers, while these go on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlayer.cli import main
from fairlayer.streaming.store import StoreError
from fairlayer.streaming.stores.postgres import forget_shared
from fairlayer.trail import (
    ChainRow,
    JointTrail,
    Override,
    RetentionError,
    TrailError,
    TrailKeyError,
    copy_chains,
    joint_checkpoint,
    rows_between,
    verify_chains,
)
from fairlayer.trail.pruning import drop_old
from tests.streaming.postgresql import Server, programs, running
from tests.trail.test_chains import KEY, OTHER, ask, database, worker

psycopg = pytest.importorskip("psycopg", reason="needs the extra `postgres`")
pytestmark = pytest.mark.skipif(
    programs() is None, reason="needs the programs of PostgreSQL (initdb, pg_ctl, postgres)"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as found:
        yield found


def two_chains(server: Server, rows: int = 24) -> str:
    """A database with the chains of two workers that have ended; request i is in the chain i % 2."""
    address = database(server)
    streams = worker(address), worker(address)
    for number in range(rows):
        ask(streams[number % 2], number)
    for stream in streams:
        stream.close()
    return address


def bodies(address: str, folder: Path) -> dict[str, list[Any]]:
    return {name: list(rows_between(path)) for name, path in copy_chains(address, folder).items()}


def test_an_override_stands_in_the_chain_of_the_decision(server: Server, tmp_path: Path) -> None:
    address = two_chains(server)
    trail = JointTrail(address, key=KEY)
    [(chain, row)] = trail.rows_of("7", "decision")
    assert (chain, row) == ("scores.1", 4)
    told = Override(time=6000.0, row=row, decision=0, who="A. Weber", why="income")
    assert trail.append(chain, told) == range(13, 14)
    assert trail.rows_of("7") == [ChainRow("scores.1", 4), ChainRow("scores.1", 13)]
    assert trail.rows_of("7", "decision") == [ChainRow("scores.1", 4)]
    assert trail.rows_of("7", "override") == [ChainRow("scores.1", 13)]
    assert verify_chains(address, key=KEY).level == "sealed"
    last = bodies(address, tmp_path)["scores.1"][-1]
    assert (last.kind, last.body) == ("override", {"row": 4, "decision": 0, "who": "A. Weber", "why": "income"})
    with pytest.raises(TrailError, match=r"no chain scores\.5 in the database .*; it holds scores\.0, scores\.1"):
        trail.append("scores.5", told)
    with pytest.raises(TrailError, match="the trail holds no such row"):
        trail.append("scores.0", Override(time=6000.0, row=99, decision=0, who="x", why="y"))
    with pytest.raises(TrailKeyError):
        JointTrail(address, key=OTHER).rows_of("7")
    assert verify_chains(address, key=KEY).rows == 25


def test_an_erasure_leaves_no_content_in_any_chain_and_every_proof_holds(server: Server, tmp_path: Path) -> None:
    address = two_chains(server)
    held = joint_checkpoint(address, time=5000.0, who="job", key=KEY)
    trail = JointTrail(address, key=KEY)
    [(chain, row)] = trail.rows_of("8")
    trail.append(chain, Override(time=6000.0, row=row, decision=0, who="A. Weber", why="a word to be found"))
    assert found_on_disk(server, address, b"a word to be found")
    with pytest.raises(TrailError, match="never named so, or is erased"):
        trail.erase("nobody", time=6001.0, who="desk")
    erased = trail.erase("8", time=6001.0, who="desk", why="request 88")
    assert {name: each.count for name, each in erased.items()} == {chain: 2}
    assert not found_on_disk(server, address, b"a word to be found")
    assert trail.rows_of("8") == []
    found = verify_chains(address, key=KEY, checkpoint=held)
    assert found.ok
    assert found.chains[chain].erased == 2
    assert bodies(address, tmp_path)[chain][-1].body == {"rows": [[5, 5], [14, 14]], "who": "desk", "why": "request 88"}
    with pytest.raises(TrailError, match="never named so, or is erased"):
        trail.erase("8", time=6001.0, who="desk")


def found_on_disk(server: Server, address: str, word: bytes) -> bool:
    """Whether a word is in the tables of a database, as they lie on the disk; the write-ahead log is not asked."""
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        [number] = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
    files = (server.folder / "data" / "base" / str(number)).iterdir()
    return any(word in file.read_bytes() for file in files if file.is_file())


def test_deleted_bytes_that_a_reader_still_holds_are_an_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlayer.trail.amending._PATIENCE", 0.2)
    address = two_chains(server, 4)
    trail = JointTrail(address, key=KEY)
    with psycopg.connect(address) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")
        with pytest.raises(TrailError, match="began before and still reads"):
            trail.erase("2", time=6000.0, who="desk")
    trail.compact()
    assert trail.rows_of("2") == []
    assert verify_chains(address, key=KEY).ok


def refusing_the_second(drop: Callable[..., Any]) -> Callable[..., Any]:
    """Drop from the first chain that is asked, and refuse the next."""
    asked: list[Any] = []

    def drop_or_refuse(*given: Any, **more: Any) -> Any:
        asked.append(given)
        if len(asked) > 1:
            raise RetentionError("the second chain is not dropped from.")
        return drop(*given, **more)

    return drop_or_refuse


def test_segments_are_dropped_from_all_chains_or_from_none(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = two_chains(server)
    trail = JointTrail(address, key=KEY)
    later = 1100.0 + 200 * 86_400.0
    with pytest.raises(RetentionError, match="the last checkpoint that was exported is that of segment none"):
        trail.prune(time=later, who="job")
    with pytest.raises(RetentionError, match="at least 183 days"):
        trail.prune(time=later, who="job", keep_days=10)
    held = joint_checkpoint(address, time=2000.0, who="job", key=KEY)
    assert {name: each.rows for name, each in trail.prune(time=1100.0, who="job").items()} == {
        "scores.0": 0,
        "scores.1": 0,
    }
    with monkeypatch.context() as patched:
        patched.setattr("fairlayer.trail.amending.drop_old", refusing_the_second(drop_old))
        with pytest.raises(RetentionError, match="the second chain"):
            trail.prune(time=later, who="job")
    left = verify_chains(address, key=KEY, checkpoint=held)
    assert (left.ok, {each.pruned for each in left.chains.values()}) == (True, {0})
    found = trail.prune(time=later, who="job")
    assert {name: (each.through, each.rows) for name, each in found.items()} == {
        "scores.0": (2, 13),
        "scores.1": (2, 13),
    }
    assert verify_chains(address, key=KEY, checkpoint=held).ok
    assert [row.kind for row in bodies(address, tmp_path)["scores.0"]] == ["pruning"]


@pytest.mark.parametrize("vacuum", [True, False])
def test_the_room_of_what_was_dropped_is_given_back_where_that_is_asked(vacuum: bool, server: Server) -> None:
    address = two_chains(server)
    trail = JointTrail(address, key=KEY)
    joint_checkpoint(address, time=2000.0, who="job", key=KEY)
    before = files_of_rows(address)
    found = trail.prune(time=1100.0 + 200 * 86_400.0, who="job", vacuum=vacuum)
    assert {each.rows for each in found.values()} == {13}
    assert len(files_of_rows(address) & before) == (0 if vacuum else 2)  # a table that is rewritten has another file
    trail.compact()
    assert not files_of_rows(address) & before


def files_of_rows(address: str) -> set[int]:
    """Return the numbers of the files that hold the rows of both chains."""
    asked = "SELECT relfilenode FROM pg_class WHERE relname = 'trail_rows'"
    with psycopg.connect(address) as connection:
        return {number for (number,) in connection.execute(asked)}


def test_the_workers_go_on_while_people_amend_their_chains(server: Server) -> None:
    address = database(server)
    stream, stop = worker(address), threading.Event()
    answered = [ask(stream, number) for number in range(10)]

    def go_on() -> None:
        while not stop.is_set():
            answered.append(ask(stream, len(answered)))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        trail = JointTrail(address, key=KEY)
        for number in range(5):
            [(chain, row)] = trail.rows_of(str(number))
            trail.append(chain, Override(time=5000.0, row=row, decision=0, who="A. Weber", why="income"))
            assert forget_shared(address, [number]) == 1
            assert trail.erase(str(number), time=6000.0, who="desk")[chain].count == 2
    finally:
        stop.set()
        thread.join()
    assert ask(stream, 9) == answered[9]  # an id that was not forgotten
    stream.close()
    found = verify_chains(address, key=KEY)
    assert (found.ok, found.level) == (True, "sealed")
    assert found.chains["scores.0"].erased == 10
    assert found.rows == len(answered) + 10  # five overrides, five erasures


def test_the_command_line_amends_a_database(server: Server, tmp_path: Path, capsys: Any) -> None:
    address, key = two_chains(server), tmp_path / "key.hex"
    key.write_text(KEY.hex())

    def trail(verb: str, *given: str, ends: int = 0) -> str:
        capsys.readouterr()
        assert main(["trail", verb, address, "--key-file", str(key), *given]) == ends
        said = capsys.readouterr()
        return " ".join((said.out + said.err).split())

    who = ("--who", "A. Weber")
    assert "Chain scores.1, row 13: A. Weber decided 0 instead of what row 4 says." in trail(
        "override", "--subject", "7", "--decision", "0", *who
    )
    told = trail("override", "--row", "4", "--chain", "scores.0", "--decision", "1", "--why", "proof", *who)
    assert "Chain scores.0, row 13" in told
    assert "name a row by --chain NAME and --row NUMBER" in trail(
        "override", "--row", "4", "--decision", "1", *who, ends=2
    )
    assert "no decision about '99'" in trail("override", "--subject", "99", "--decision", "1", *who, ends=2)
    told = trail("erase", "--subject", "7", *who)
    assert "the content of 2 rows in 1 chains" in told
    assert "have forgotten 1 answers to this id" in told
    with psycopg.connect(address) as connection:
        left = {json.loads(key) for (key,) in connection.execute("SELECT id FROM fairlayer_answers").fetchall()}
    assert left == set(range(24)) - {7}
    assert "Export one by checkpoint(), keep it outside, then prune" in trail("prune", *who, ends=2)
    trail("checkpoint")
    assert "scores.0: all segments up to number 1, with 10 rows" in trail("prune", *who)
    assert "scores.0: nothing; no segment is old enough" in trail("prune", *who)
    assert verify_chains(address, key=KEY).ok


def test_ids_are_forgotten_in_a_database_that_is_there() -> None:
    with pytest.raises(StoreError, match="could not be forgotten"):
        forget_shared("postgresql://nobody@127.0.0.1:9/nothing", [1])
