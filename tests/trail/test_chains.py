"""The chains of several writers on PostgreSQL: what is answered has its row, and what is done to rows is found."""

from __future__ import annotations

import itertools
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import fairlayer as fl
from fairlayer.cli import main
from fairlayer.errors import ParameterError
from fairlayer.groups import Vocabulary
from fairlayer.streaming import Recorder
from fairlayer.streaming.stores.shared import SharedStore
from fairlayer.streaming.stores.worker import SharedStream
from fairlayer.trail import (
    AuditTrail,
    SlotTrail,
    TrailError,
    TrailKeyError,
    copy_chains,
    joint_checkpoint,
    report,
    rows_between,
    verify,
    verify_chains,
)
from tests.streaming.postgresql import Server, programs, running

psycopg = pytest.importorskip("psycopg", reason="needs the extra `postgres`")
pytestmark = pytest.mark.skipif(
    programs() is None, reason="needs the programs of PostgreSQL (initdb, pg_ctl, postgres)"
)
KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
WORDS = Vocabulary().learn({"sex": ["F", "M"]})


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as found:
        yield found


def database(server: Server, template: str = "template1") -> str:
    name = f"db{time.monotonic_ns()}"
    with psycopg.connect(server.address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return server.address.removesuffix("postgres") + name


def worker(address: str, *, key: bytes | None = KEY, **options: Any) -> SharedStream:
    ticks = itertools.count(1000)
    recorder = Recorder(
        SlotTrail(key=key, segment_rows=10), model="m 1", threshold=0.5, clock=lambda: float(next(ticks))
    )
    state = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0))
    store = SharedStore(address, shares=2, refresh=0.1, **options)
    return store.stream(state, WORDS, recorder=recorder)


def ask(stream: SharedStream, number: int) -> float:
    raw = torch.tensor([0.3 + 0.01 * (number % 40)], dtype=torch.float64)
    found = stream.answer(raw, {"sex": ["FM"[number % 2]]}, ids=[number], inputs=[{"x": number}])
    return float(found.emitted)


def rows_of(address: str, folder: Path) -> dict[int, float]:
    """What the decisions in all chains say, by their score, which names the request."""
    bodies = [row.body for path in copy_chains(address, folder).values() for row in rows_between(path)]
    return {round(body["raw"] * 100): body["emitted"] for body in bodies if body and "raw" in body}


@pytest.fixture(scope="module")
def filled(server: Server) -> tuple[str, str]:
    """The name of a database with the chains of two workers, and the joint checkpoint of an early moment."""
    address = database(server)
    streams = worker(address), worker(address)
    for number in range(38):
        ask(streams[number % 2], number)
    held = joint_checkpoint(address, time=5000.0, who="job", key=KEY)
    for number in range(38, 48):
        ask(streams[number % 2], number)
    for stream in streams:
        stream.close()
    return address.rpartition("/")[2], held


def test_each_answer_has_one_row_in_the_chain_of_its_worker(server: Server, tmp_path: Path) -> None:
    address = database(server)
    streams = worker(address), worker(address)
    answers = {30 + number: ask(streams[number % 2], number) for number in range(30)}
    assert ask(streams[1], 0) == answers[30]  # an id of the other's has no second row
    assert rows_of(address, tmp_path / "while it runs") == answers
    with pytest.raises(ParameterError, match="a subject is named by a text"):
        streams[0].answer(torch.tensor([0.5]), {"sex": ["F"]}, ids=[""])
    for stream in streams:
        stream.close()
    found = verify_chains(address, key=KEY)
    assert (found.ok, found.level, found.rows) == (True, "sealed", 30)
    assert set(found.chains) == {"scores.0", "scores.1"}
    copied = copy_chains(address, tmp_path / "copies")
    assert verify(copied["scores.0"], key=KEY).level == "sealed"
    assert sum(cell.rows for path in copied.values() for cell in report(path).cells) == 30
    first, *rest = rows_between(copied["scores.1"])
    assert (first.kind, len(rest)) == ("decision", 14)
    assert first.body is not None
    assert len(first.body["input"]) == 64
    with pytest.raises(TrailError, match="there already"):
        copy_chains(address, tmp_path / "copies")


def test_a_trail_has_one_key_and_is_written_where_the_stream_is(server: Server, tmp_path: Path) -> None:
    address = database(server)
    worker(address).close()
    with pytest.raises(TrailKeyError, match="was begun with the key"):
        worker(address, key=OTHER)
    with pytest.raises(TrailKeyError):
        joint_checkpoint(address, time=1.0, key=OTHER)
    state = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0))
    with pytest.raises(ParameterError, match="Give the Recorder a SlotTrail"):
        SharedStore(address, shares=2).stream(state, WORDS, recorder=Recorder(AuditTrail(tmp_path / "t.sqlite")))


def test_answers_given_while_the_database_is_gone_get_their_rows_once(server: Server, tmp_path: Path) -> None:
    address = database(server)
    stream = worker(address)
    answers = {30 + number: ask(stream, number) for number in range(5)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server.stop()
        answers |= {30 + number: ask(stream, number) for number in range(5, 25)}
        server.start()
        for _ in range(400):
            if stream.attached and not stream.waiting:
                break
            time.sleep(0.05)
    assert stream.waiting == 0
    answers |= {30 + number: ask(stream, number) for number in range(25, 30)}
    stream.close()
    assert rows_of(address, tmp_path / "copies") == answers
    assert verify_chains(address, key=KEY).rows == 30


def test_a_step_that_is_written_again_has_no_second_row(server: Server) -> None:
    """A commit that went through although its connection broke is repeated, after the steps were folded in, too."""
    address = database(server)
    stream = worker(address)
    kept, append = [], stream._writer.append

    def remembered(slot: int, steps: Any) -> None:
        kept.extend(steps)
        append(slot, steps)

    stream._writer.append = remembered  # type: ignore[method-assign]
    for number in range(12):
        ask(stream, number)
    stream.close()
    again = worker(address)
    again._writer.append(again.slot, kept)
    again.close()
    assert verify_chains(address, key=KEY).rows == 12
    assert again.state.samples == 12


Change = Callable[[Any], None]


def change(statement: str) -> Change:
    return lambda db: db.execute(statement)


ATTACKS: dict[str, tuple[Change, str]] = {
    **{
        f"{table}.{column}": (change(f"UPDATE fairlayer_trail_scores_0.{table} SET {assigned} {which}"), "chain")
        for table, column, assigned, which in [
            ("trail_rows", "row", '"row" = 999', 'WHERE "row" = 7'),
            ("trail_rows", "time", "time = time - 60", 'WHERE "row" = 7'),
            ("trail_rows", "kind", "kind = 'read'", 'WHERE "row" = 7'),
            ("trail_rows", "commitment", "commitment = set_byte(commitment, 0, 7)", 'WHERE "row" = 7'),
            ("trail_rows", "leaf", "leaf = set_byte(leaf, 0, 7)", 'WHERE "row" = 7'),
            ("trail_contents", "salt", "salt = set_byte(salt, 0, 7)", 'WHERE "row" = 7'),
            ("trail_contents", "subject", "subject = set_byte(subject, 0, 7)", 'WHERE "row" = 7'),
            ("trail_contents", "payload", "payload = replace(payload, '\"decision\":0', '\"decision\":1')", ""),
            ("trail_segments", "first", "first = first + 1", "WHERE number = 1"),
            ("trail_segments", "checkpoint", "checkpoint = replace(checkpoint, 'rows', 'Rows')", "WHERE number = 1"),
            ("trail_head", "size", "size = size - 1", ""),
            ("trail_head", "link", "link = set_byte(link, 0, 7)", ""),
            ("trail_about", "description", "description = replace(description, 'fairlayer', 'fairer')", ""),
        ]
    },
    "a row deleted": (change('DELETE FROM fairlayer_trail_scores_0.trail_rows WHERE "row" = 12'), "chain"),
    "a content deleted": (change('DELETE FROM fairlayer_trail_scores_0.trail_contents WHERE "row" = 12'), "chain"),
    "a checkpoint deleted": (change("DELETE FROM fairlayer_trail_scores_1.trail_segments WHERE number = 2"), "chain"),
    "the head deleted": (change("DELETE FROM fairlayer_trail_scores_1.trail_head"), "chain"),
    "a table dropped": (change("DROP TABLE fairlayer_trail_scores_1.trail_segments"), "chain"),
    "two rows swapped": (
        change(
            'UPDATE fairlayer_trail_scores_0.trail_rows SET "row" = -1 WHERE "row" = 5;'
            'UPDATE fairlayer_trail_scores_0.trail_rows SET "row" = 5 WHERE "row" = 6;'
            'UPDATE fairlayer_trail_scores_0.trail_rows SET "row" = 6 WHERE "row" = -1'
        ),
        "chain",
    ),
    "a row of the other chain": (
        change(
            "UPDATE fairlayer_trail_scores_0.trail_rows a SET commitment = b.commitment "
            'FROM fairlayer_trail_scores_1.trail_rows b WHERE a."row" = 8 AND b."row" = 8'
        ),
        "chain",
    ),
    "two chains swapped": (
        change(
            "ALTER SCHEMA fairlayer_trail_scores_0 RENAME TO aside;"
            "ALTER SCHEMA fairlayer_trail_scores_1 RENAME TO fairlayer_trail_scores_0;"
            "ALTER SCHEMA aside RENAME TO fairlayer_trail_scores_1"
        ),
        "chain",
    ),
    "a chain dropped": (change("DROP SCHEMA fairlayer_trail_scores_1 CASCADE"), "chain"),
    "a chain dropped, and its name taken out of the roster": (
        change(
            "DROP SCHEMA fairlayer_trail_scores_1 CASCADE;"
            "UPDATE fairlayer_trail.roster SET trails = (trails::jsonb - 'scores.1')::text"
        ),
        "sealed",
    ),
    "a chain and the roster dropped": (
        change("DROP SCHEMA fairlayer_trail_scores_1 CASCADE; DROP TABLE fairlayer_trail.roster"),
        "chain",
    ),
    "all chains and the roster dropped": (
        change(
            "DROP SCHEMA fairlayer_trail_scores_0 CASCADE; DROP SCHEMA fairlayer_trail_scores_1 CASCADE;"
            "DROP SCHEMA fairlayer_trail CASCADE"
        ),
        "sealed",
    ),
    "the roster sealed otherwise": (change("UPDATE fairlayer_trail.roster SET seal = ''"), "sealed"),
    "the head's seal taken away": (change("UPDATE fairlayer_trail_scores_0.trail_head SET seal = ''"), "sealed"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_done_to_chains_is_found_at_the_level_claimed(
    name: str, server: Server, filled: tuple[str, str]
) -> None:
    attack, level = ATTACKS[name]
    template, held = filled
    address = database(server, template)
    assert verify_chains(address, key=KEY, checkpoint=held).ok
    with psycopg.connect(address) as connection:
        attack(connection)
    found = verify_chains(address)
    assert found.ok == (level != "chain"), str(found)
    for given in ({"key": KEY}, {"key": KEY, "checkpoint": held}):
        assert not verify_chains(address, **given).ok  # type: ignore[arg-type]


def test_a_joint_checkpoint_is_of_one_moment_and_anchors_every_chain(server: Server, filled: tuple[str, str]) -> None:
    template, held = filled
    address = database(server, template)
    found = verify_chains(address, key=KEY, checkpoint=held)
    assert (found.ok, found.level) == (True, "sealed")
    assert {name: one.reach["anchored"] for name, one in found.chains.items()} == {"scores.0": 20, "scores.1": 20}
    later = joint_checkpoint(address, time=6000.0, who="job", key=KEY)
    assert verify_chains(address, key=KEY, checkpoint=later).level == "anchored"
    assert list(json.loads(held)["chains"]) == ["scores.0", "scores.1"]
    older = database(server, template)  # an older copy put back: found by the later checkpoint, by nothing else
    assert verify_chains(older, key=KEY).ok
    assert not verify_chains(older, key=KEY, checkpoint=later).ok
    with pytest.raises(TrailError, match="not a joint checkpoint"):
        verify_chains(address, checkpoint="{}")
    with pytest.raises(TrailError, match="there is no trail in the database"):
        joint_checkpoint(database(server), time=1.0)
    with pytest.raises(TrailError, match="cannot be used"):
        verify_chains("postgresql://nobody@127.0.0.1:9/nothing")


def test_the_command_line_verifies_closes_and_copies_a_database(
    server: Server, filled: tuple[str, str], tmp_path: Path, capsys: Any
) -> None:
    address, key = database(server, filled[0]), tmp_path / "key.hex"
    key.write_text(KEY.hex())
    assert main(["trail", "checkpoint", address, "--key-file", str(key), "--who", "job"]) == 0
    (tmp_path / "held.txt").write_text(capsys.readouterr().out)
    told = ["trail", "verify", address, "--key-file", str(key), "--checkpoint", str(tmp_path / "held.txt")]
    assert main(told) == 0
    assert "anchored" in capsys.readouterr().out
    assert main(["trail", "copy", address, "--out", str(tmp_path / "copies")]) == 0
    assert main(["trail", "report", str(tmp_path / "copies" / "scores.0.sqlite")]) == 0
    assert "24 decisions" in capsys.readouterr().out
    assert main(["trail", "export", address, "--who", "x", "--key-file", str(key)]) == 2
    assert "Copy its chains to files first" in " ".join(capsys.readouterr().err.split())
    with psycopg.connect(address) as connection:
        connection.execute('UPDATE fairlayer_trail_scores_0.trail_rows SET time = 0 WHERE "row" = 3')
    assert main(told) == 1
    assert "TAMPERED" in capsys.readouterr().out
