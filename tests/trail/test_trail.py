"""What goes into a trail comes out; what is wrong is refused and changes nothing."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fairlayer.errors import MissingExtraError, ParameterError
from fairlayer.trail import (
    Access,
    AuditTrail,
    Configuration,
    Decision,
    Override,
    TrailClockError,
    TrailError,
    TrailKeyError,
    rows_between,
    verify,
)
from tests.trail.forging import KEY, OTHER_KEY, PUBLIC, decision, open_trail

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trail.sqlite"


@pytest.fixture
def trail(path: Path) -> Iterator[AuditTrail]:
    with open_trail(path) as opened:
        yield opened


def test_a_decision_comes_back_whole(trail: AuditTrail, path: Path) -> None:
    assert trail.append(decision(5)) == range(1, 2)
    [row] = rows_between(path)
    assert (row.row, row.time, row.kind, row.subject) == (1, 1005.0, "decision", trail.tag("applicant 5"))
    assert row.body == {
        "input": trail.commit({"income": 5000, "age": 25}),
        "cells": {"sex": "M"},
        "raw": 0.25 + 5 / 128,
        "emitted": 0.5,
        "decision": False,
        "shift": 0.125,
        "phase": "steady",
        "policy": "tracking",
        "limit": {"DemographicParity('sex')": 0.02},
        "model": "credit 7",
        "package": "0.1.0",
    }


def test_tensors_and_arrays_are_scores(trail: AuditTrail, path: Path) -> None:
    trail.append(Decision(time=1, raw=torch.tensor(0.5), emitted=np.float32(0.25), shift=[0.5, np.float32(2)]))
    [row] = rows_between(path)
    assert row.body == {"raw": 0.5, "emitted": 0.25, "shift": [0.5, 2.0]}


def test_names_and_inputs_are_nowhere_in_the_file(trail: AuditTrail, path: Path) -> None:
    trail.append(replace(decision(5), subject="Erika Mustermann", input={"diagnosis": "tuberculosis"}))
    trail.close()
    content = path.read_bytes()
    assert b"steady" in content
    assert b"Erika" not in content
    assert b"tuberculosis" not in content


def test_without_a_key_the_subject_is_as_it_was_named(path: Path) -> None:
    with AuditTrail(path) as trail:
        trail.append(Decision(time=1.0, subject="Ö 7"))
        assert bytes.fromhex(trail.tag("Ö 7")).decode() == "Ö 7"
        with pytest.raises(TrailKeyError, match="anybody could try out likely inputs"):
            trail.append(Decision(time=1.0, input={"age": 3}))
    assert verify(path).rows == 1


def test_every_record_takes_the_rows_that_come(trail: AuditTrail, path: Path) -> None:
    assert trail.append([]) == range(1, 1)
    assert trail.append(decision(i) for i in range(20)) == range(1, 21)
    records = [
        Override(time=2000.0, row=3, decision=True, who="Ann", why="papers seen"),
        Override(time=2000.0, row=21, decision=False, who="Bob", why="Ann was wrong"),  # of the row before, in one call
        Access(time=2001.0, who="Cem"),
        Configuration(time=2002.0, who="Bob", changes={"tolerance": [0.05, 0.02]}),
    ]
    assert trail.append(records) == range(21, 25)
    assert len(trail) == 24
    rows = list(rows_between(path, 2000.0))
    assert [row.kind for row in rows] == ["override", "override", "read", "configuration"]
    third = next(row for row in rows_between(path) if row.row == 3)
    assert [row.subject for row in rows] == [third.subject, third.subject, None, None]
    assert verify(path, key=KEY, public_key=PUBLIC).segments == 3


def test_a_record_of_ones_own_is_a_record(trail: AuditTrail, path: Path) -> None:
    @dataclass
    class Complaint:
        time: float
        subject: str | None
        text: str
        kind: str = "complaint"
        about: int | None = None

        def body(self, commit: Callable[[object], str]) -> dict[str, object]:
            return {"text": self.text, "letter": commit(b"scan")}

    trail.append(Complaint(5.0, "applicant 1", "why?"))
    [row] = rows_between(path)
    assert row.body == {"text": "why?", "letter": trail.commit(b"scan")}
    with pytest.raises(ParameterError, match="other than checkpoint, erasure, pruning"):
        trail.append(Complaint(5.0, None, "", kind="erasure"))
    with pytest.raises(ParameterError, match="lower-case word"):
        trail.append(Complaint(5.0, None, "", kind="No Word"))


@pytest.mark.parametrize(
    ("record", "error", "said"),
    [
        (Decision(time=float("nan")), ParameterError, "finite number of seconds"),
        (Decision(time=True), ParameterError, "finite number of seconds"),
        (Decision(time="noon"), ParameterError, "finite number of seconds"),  # type: ignore[arg-type]
        (Decision(time=1.0, raw=float("inf")), ParameterError, "Give a finite number"),
        (Decision(time=1.0, details={"at": object()}), ParameterError, "of type object"),
        (Decision(time=1.0, subject=""), ParameterError, "1 to 1024 bytes"),
        (Decision(time=1.0, subject="x" * 1025), ParameterError, "1 to 1024 bytes"),
        (Override(time=1.0, row=9, decision=1, who="a", why="b"), TrailError, "the trail holds no such row"),
        (Override(time=1.0, row="1", decision=1, who="a", why="b"), TrailError, "the trail holds no such row"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_record_writes_nothing(
    trail: AuditTrail, path: Path, record: Any, error: type[Exception], said: str
) -> None:
    trail.append(decision(1))
    with pytest.raises(error, match=said):
        trail.append([decision(2), record, decision(3)])
    assert len(trail) == 1
    trail.append(decision(2))
    assert verify(path, key=KEY).rows == 2


def test_the_clock_may_go_back_and_is_flagged(trail: AuditTrail, path: Path) -> None:
    for time in (100.0, 40.0, 40.0, 70.0, 69.0):
        trail.append(decision(1, time=time))
    assert [row.time for row in rows_between(path)] == [100.0, 40.0, 40.0, 70.0, 69.0]  # the order of writing
    found = verify(path, key=KEY)
    assert (found.ok, found.clock_back) == (True, 2)
    assert "times that the clock went back: 2." in str(found)


def test_the_clock_may_be_refused_to_go_back(path: Path) -> None:
    with open_trail(path, on_clock_back="refuse") as trail:
        trail.append(decision(1, time=100.0))
        with pytest.raises(TrailClockError, match=r"lies 60\.0 seconds before that of row 1"):
            trail.append(decision(2, time=40.0))
        with pytest.raises(TrailClockError, match="before that of row 2"):
            trail.append([decision(2, time=200.0), decision(3, time=150.0)])
        with pytest.raises(TrailClockError):
            trail.checkpoint(time=50.0)
        assert len(trail) == 1
        trail.append(decision(2, time=100.0))
    assert verify(path, key=KEY).clock_back == 0


def test_no_clock_is_read() -> None:
    for module in sorted((ROOT / "fairlayer" / "trail").glob("*.py")):
        source = module.read_text(encoding="utf-8")
        for word in ("import time", "datetime", "strftime", "'now'", "CURRENT_TIMESTAMP"):
            assert word not in source, f"{module.name}: {word}"


def test_a_trail_is_opened_as_it_was_begun(path: Path) -> None:
    open_trail(path).close()
    open_trail(path, name=None, segment_rows=None).close()
    for options, error, said in (
        ({"key": OTHER_KEY}, TrailKeyError, "a new key needs a new trail"),
        ({"key": None, "signing_key": None}, TrailKeyError, "was opened with none"),
        ({"name": "other"}, TrailError, "begun with name='bank.example/loans', but 'other'"),
        ({"segment_rows": 9}, TrailError, "begun with segment_rows=8, but 9"),
        ({"key": b"short"}, TrailKeyError, "at least 16 secret bytes"),
        ({"durability": "none"}, ParameterError, "durability='process' or 'power'"),
        ({"on_clock_back": "x"}, ParameterError, "on_clock_back='flag' or 'refuse'"),
        ({"segment_rows": 0}, ParameterError, "segment_rows of at least 1"),
        ({"floor_days": -1.0}, ParameterError, "floor_days and timeout of at least 0"),
        ({"signing_key": b"x"}, TrailKeyError, "Ed25519 private key is 32 bytes or PEM"),
    ):
        with pytest.raises(error, match=said):
            open_trail(path, **options)
    with pytest.raises(ParameterError, match="a text without spaces"):
        open_trail(path.with_name("new.sqlite"), name="two words")
    with pytest.raises(TrailError, match="could not open"):
        AuditTrail(path.parent)
    with pytest.raises(TrailError, match="there is no file"):
        AuditTrail(path.with_name("absent.sqlite"), create=False)
    sqlite3.connect(path.with_name("other.sqlite")).execute("CREATE TABLE t (x)")
    with pytest.raises(TrailError, match="there is no trail in this file"):
        AuditTrail(path.with_name("other.sqlite"), create=False)
    assert not path.with_name("absent.sqlite").exists()


def test_the_trail_of_another_format_is_refused(path: Path) -> None:
    open_trail(path).close()
    db = sqlite3.connect(path)
    [(about,)] = db.execute("SELECT description FROM trail_about")
    db.execute("UPDATE trail_about SET description = ?", (json.dumps({**json.loads(about), "format": 9}),))
    db.commit()
    db.close()
    with pytest.raises(TrailError, match="format 9; this version reads format 1"):
        open_trail(path)


def test_without_cryptography_a_signing_key_is_refused_by_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(MissingExtraError, match=r"fairlayer\[trail\]"):
        open_trail(path)
    with open_trail(path, signing_key=None) as trail:
        trail.append(decision(1))
    with pytest.raises(MissingExtraError, match=r"fairlayer\[trail\]"):
        verify(path, public_key=PUBLIC)
    assert verify(path, key=KEY).ok


def test_the_checkpoint_closes_the_segment(trail: AuditTrail, path: Path) -> None:
    with pytest.raises(TrailError, match="the trail is empty"):
        trail.checkpoint(time=1.0)
    trail.append([decision(i) for i in range(3)])
    first = trail.checkpoint(time=1010.0, who="nightly")
    assert (first.number, first.first, first.last) == (1, 1, 4)
    assert trail.checkpoint(time=1011.0) == first  # nothing came since
    assert len(trail) == 4
    trail.append([decision(i) for i in range(7)])
    second = trail.checkpoint(time=1020.0)  # its own row is the eighth, which closes the segment
    assert (second.number, second.first, second.last) == (2, 5, 12)
    trail.append([decision(i) for i in range(8)])  # closes by itself, and nobody has seen the checkpoint
    third = trail.checkpoint(time=1030.0)
    assert (third.number, third.first, third.last) == (4, 21, 21)
    found = verify(path, key=KEY, public_key=PUBLIC, checkpoint=second)
    assert found.reach == {"chain": 21, "sealed": 21, "signed": 21, "anchored": 12}
    assert (found.level, found.level_of(12), found.level_of(13)) == ("signed", "anchored", "signed")


def test_verification_goes_on_from_a_checkpoint(trail: AuditTrail, path: Path) -> None:
    trail.append([decision(i) for i in range(20)])
    held = trail.checkpoint(time=2000.0)
    trail.append([decision(i) for i in range(20)])
    trail.close()
    found = verify(path, checkpoint=held, key=KEY, public_key=PUBLIC, incremental=True)
    assert (found.ok, found.read, found.rows, found.segments) == (True, 22, 41, 5)
    assert found.reach == {"chain": 41, "sealed": 41, "signed": 37, "anchored": 21}
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("UPDATE trail_rows SET time = 0 WHERE row = 5")  # before: not read again
    assert verify(path, checkpoint=held, incremental=True).ok
    assert not verify(path, checkpoint=held).ok
    db.execute("UPDATE trail_rows SET time = 0 WHERE row = 25")
    assert "row 25" in str(verify(path, checkpoint=held, incremental=True))
    db.close()
    with pytest.raises(ParameterError, match="goes on from a checkpoint"):
        verify(path, incremental=True)


def test_incremental_verification_refuses_another_past(trail: AuditTrail, path: Path, tmp_path: Path) -> None:
    trail.append([decision(i) for i in range(20)])
    trail.checkpoint(time=2000.0)
    with open_trail(tmp_path / "other.sqlite") as other:
        other.append([decision(i) for i in range(20)])
        held = other.checkpoint(time=2000.0)
    assert "which is not in the file" in str(verify(path, checkpoint=held, incremental=True))


def test_a_wrong_key_is_named(trail: AuditTrail, path: Path) -> None:
    trail.append(decision(1))
    assert "the one given is" in str(verify(path, key=OTHER_KEY))
    with AuditTrail(path.with_name("open.sqlite")) as other:
        other.append(Decision(time=1.0))
    assert "the trail's key is none, the one given is" in str(verify(path.with_name("open.sqlite"), key=KEY))


def test_what_a_cut_tail_needs_is_said(trail: AuditTrail, path: Path) -> None:
    trail.append(decision(1))
    said = "needs a later checkpoint held outside"
    assert said in str(verify(path))
    held = trail.checkpoint(time=1002.0)
    assert said not in str(verify(path, checkpoint=held))
    trail.append(decision(2))
    assert "Rows after 2 that were cut off" in str(verify(path, checkpoint=held))


def test_verify_names_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(TrailError, match="there is no file"):
        verify(tmp_path / "absent.sqlite")
    sqlite3.connect(tmp_path / "empty.sqlite").close()
    assert "no trail in this file" in str(verify(tmp_path / "empty.sqlite"))
    for read in (rows_between, AuditTrail):
        (tmp_path / "text.sqlite").write_text("no database" * 100)
        with pytest.raises(TrailError, match="file is not a database"):
            list(read(tmp_path / "text.sqlite"))  # type: ignore[operator]


def test_it_is_read_and_copied_while_it_is_written(trail: AuditTrail, path: Path, tmp_path: Path) -> None:
    trail.append([decision(i) for i in range(10)])
    reading = rows_between(path)
    assert next(reading).row == 1
    trail.append([decision(i) for i in range(10)])  # not seen by who began to read before
    assert [row.row for row in reading] == list(range(2, 11))
    trail.backup(tmp_path / "copy.sqlite")
    trail.append(decision(1))
    assert verify(tmp_path / "copy.sqlite", key=KEY).rows == 20
    assert verify(path, key=KEY).rows == 21
    assert not (tmp_path / "copy.sqlite-wal").exists()
    with pytest.raises(TrailError, match="a backup never overwrites"):
        trail.backup(tmp_path / "copy.sqlite")


def test_the_durability_asked_for_is_that_of_sqlite(path: Path) -> None:
    for durability, level in (("process", 1), ("power", 2)):
        with open_trail(path, durability=durability) as trail:
            assert trail._db.execute("PRAGMA synchronous").fetchone() == (level,)
            assert trail._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# In a transaction of the caller's -----------------------------------------------------------------------------------


@pytest.fixture
def stream(path: Path) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("CREATE TABLE state (steps INTEGER)")
    db.execute("INSERT INTO state VALUES (0)")
    yield db
    db.close()


def test_rows_and_the_streams_state_come_together_or_not_at_all(path: Path, stream: sqlite3.Connection) -> None:
    with open_trail(path) as trail:
        stream.execute("BEGIN IMMEDIATE")
        stream.execute("UPDATE state SET steps = 10")
        assert trail.append_in(stream, [decision(i) for i in range(10)]) == range(1, 11)
        assert trail.append_in(stream, decision(10)) == range(11, 12)
        assert len(trail) == 0
        stream.execute("COMMIT")
        assert len(trail) == 11
        stream.execute("BEGIN IMMEDIATE")
        stream.execute("UPDATE state SET steps = 20")
        trail.append_in(stream, [decision(i) for i in range(10)])
        stream.execute("ROLLBACK")
        trail.append(decision(11))
    assert stream.execute("SELECT steps FROM state").fetchall() == [(10,)]
    found = verify(path, key=KEY)
    assert (found.ok, found.rows, found.segments) == (True, 12, 1)


def test_a_bad_record_leaves_the_callers_transaction_as_it_was(path: Path, stream: sqlite3.Connection) -> None:
    with open_trail(path) as trail:
        stream.execute("BEGIN IMMEDIATE")
        stream.execute("UPDATE state SET steps = 10")
        trail.append_in(stream, decision(1))
        wrong = Override(time=1.0, row=99, decision=1, who="a", why="b")
        with pytest.raises(TrailError, match="no such row"):
            trail.append_in(stream, [decision(2)] * 9 + [wrong])
        stream.execute("COMMIT")
    assert stream.execute("SELECT steps FROM state").fetchall() == [(10,)]
    assert verify(path, key=KEY).rows == 1


def test_it_can_live_on_the_callers_connection_alone(path: Path, stream: sqlite3.Connection) -> None:
    stream.execute("PRAGMA locking_mode = EXCLUSIVE")  # as a store for one process has it
    stream.execute("PRAGMA journal_mode = WAL")
    stream.row_factory = sqlite3.Row
    trail = AuditTrail(stream, key=KEY)
    stream.execute("BEGIN IMMEDIATE")
    trail.append_in(stream, [decision(1), Override(time=1.0, row=1, decision=1, who="a", why="b")])
    stream.execute("COMMIT")
    with pytest.raises(TrailError, match="on a connection of the caller's"):
        trail.append(decision(2))
    trail.close()
    stream.close()
    assert verify(path, key=KEY).rows == 2


def test_a_transaction_must_be_open_on_the_same_file(path: Path, stream: sqlite3.Connection, tmp_path: Path) -> None:
    with open_trail(path) as trail, open_trail(tmp_path / "other.sqlite") as other:
        with pytest.raises(TrailError, match="none is open: BEGIN IMMEDIATE"):
            trail.append_in(stream, decision(1))
        stream.execute("BEGIN IMMEDIATE")
        with pytest.raises(TrailError, match="another trail"):
            other.append_in(stream, decision(1))
        stream.execute("ROLLBACK")


# Threads and forks ---------------------------------------------------------------------------------------------------


def test_threads_share_one_trail(trail: AuditTrail, path: Path) -> None:
    threads = [threading.Thread(target=lambda: [trail.append(decision(i)) for i in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = verify(path, key=KEY, public_key=PUBLIC)
    assert (found.ok, found.rows) == (True, 200)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_opens_a_connection_of_its_own(trail: AuditTrail, path: Path) -> None:
    trail.append(decision(1))
    parents, child, code = trail._db, os.fork(), 1
    if not child:
        try:
            code = trail._db is parents
            trail.append(decision(2))
            trail.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    trail.append(decision(3))
    assert verify(path, key=KEY).rows == 3


def test_the_trail_needs_no_torch(path: Path) -> None:
    program = (
        "import sys\n"
        "import tests.trail.light\n"
        "from fairlayer.trail import AuditTrail, Decision, verify\n"
        f"trail = AuditTrail({str(path)!r}); trail.append(Decision(time=1.0)); trail.close()\n"
        f"print(verify({str(path)!r}).rows, 'torch' in sys.modules, 'pyarrow' in sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], check=True, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "False", "False"]
