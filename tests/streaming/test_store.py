"""A durable stream: killed processes, repeated ids, labels, failed writes."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.errors import (
    CategoryError,
    ConstraintDefinitionError,
    LabelValueError,
    NonFiniteScoresError,
    ShapeError,
)
from fairlayer.groups import Vocabulary
from fairlayer.streaming.durable import DurableStream
from fairlayer.streaming.store import StoreError, StreamStore, UnknownIdError, forget_ids
from fairlayer.trail import AuditTrail

ROOT = Path(__file__).resolve().parents[2]
PARITY = fl.DemographicParity("sex", tolerance=0.02)
ODDS = fl.EqualOpportunity("sex", tolerance=0.05)


def new_state(constraint: Any = PARITY, **options: Any) -> fl.InferenceState:
    return fl.InferenceState([constraint], bounds=(0.0, 1.0), **options)


def resumed(path: Path, constraint: Any = PARITY, every: int = 7, **options: Any) -> DurableStream:
    return DurableStream(new_state(constraint, **options), StreamStore(path, every=every))


def arrivals(n: int, seed: int = 0) -> list[tuple[torch.Tensor, dict[str, list[str]]]]:
    random = np.random.default_rng(seed)
    sexes = random.choice(["F", "M"], n, p=[0.3, 0.7])
    scores = np.clip(random.normal(0.4 + 0.15 * (sexes == "M"), 0.2), 0, 1)
    return [(torch.tensor([z]), {"sex": [str(s)]}) for z, s in zip(scores, sexes, strict=True)]


def assert_same(first: Any, second: Any) -> None:
    """Two nested states are equal, up to the order in which their sums were added up."""
    if isinstance(first, torch.Tensor):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-9)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    elif isinstance(first, float):
        assert first == pytest.approx(second, rel=1e-9, abs=1e-9)
    else:
        assert first == second


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_killed_process_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "kill_rounds.py"), str(tmp_path / "s.sqlite"), "40", "7"],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []  # sums and counts equal the answers seen, plus the one in flight
    assert found["answers"] > 40
    assert found["in_flight"] > 0  # some were killed between the store and the client


@pytest.mark.parametrize("options", [{}, {"policy": "anytime"}, {"memory": 50.0}], ids=str)
@pytest.mark.parametrize("size", [1, 3])
def test_a_stream_resumed_anywhere_is_the_uninterrupted_one(options: dict[str, Any], size: int, tmp_path: Path) -> None:
    draw, whole = random.Random(size), new_state(**options)
    stream = resumed(tmp_path / "s.sqlite", **options)
    requests = arrivals(300)
    for start in range(0, 300, size):
        part = requests[start : start + size]
        scores = torch.cat([score for score, _ in part])
        sexes = {"sex": [features["sex"][0] for _, features in part]}
        # Up to rounding: a resumed stream adds its sums up anew.
        torch.testing.assert_close(stream.emit(scores, sexes), whole.emit(scores, sexes), rtol=0, atol=1e-9)
        if draw.random() < 0.1:
            stream.store.close()  # as a kill leaves it: no snapshot
            stream = resumed(tmp_path / "s.sqlite", **options)
            assert stream.state.phase == whole.phase
            assert_same(stream.state.state_dict(), whole.state_dict())
    assert stream.state.samples == 300


def test_per_batch_resumes_too(tmp_path: Path) -> None:
    stream, whole = resumed(tmp_path / "s.sqlite", policy="per_batch"), new_state(policy="per_batch")
    scores, sexes = torch.tensor([0.2, 0.9, 0.3, 0.8]), {"sex": ["F", "M", "F", "M"]}
    for _ in range(10):
        torch.testing.assert_close(stream.emit(scores, sexes), whole.emit(scores, sexes), rtol=0, atol=1e-6)
    stream.store.close()
    assert_same(resumed(tmp_path / "s.sqlite", policy="per_batch").state.state_dict(), whole.state_dict())


def test_a_repeated_id_gets_its_answer_again(tmp_path: Path) -> None:
    stream = resumed(tmp_path / "s.sqlite")
    first = stream.emit(torch.tensor([0.2, 0.9]), {"sex": ["F", "M"]}, ids=["a", "b"])
    before = stream.state.state_dict()
    again = stream.emit(torch.tensor([0.9, 0.7]), {"sex": ["M", "F"]}, ids=["b", "a"])
    assert again.tolist() == first.flip(0).tolist()
    assert_same(stream.state.state_dict(), before)
    mixed = stream.emit(torch.tensor([0.5, 0.5]), {"sex": ["F", "F"]}, ids=["new", "a"])
    assert mixed[1] == first[0]
    assert stream.state.counts() == {"sex=F": 2, "sex=M": 1}
    stream.store.close()
    after = resumed(tmp_path / "s.sqlite")
    assert after.emit(torch.tensor([0.0]), {"sex": ["M"]}, ids=["a"])[0] == first[0]
    assert after.state.samples == 3


def test_a_number_and_its_text_are_two_ids() -> None:
    stream = DurableStream(new_state(), StreamStore(":memory:"))
    stream.emit(torch.tensor([0.2, 0.3]), {"sex": ["F", "M"]}, ids=[1, "1"])
    assert stream.state.samples == 2


def test_ids_are_recognised_in_large_calls_and_forgotten_in_time() -> None:
    stream = DurableStream(new_state(), StreamStore(":memory:", every=2, remember=3))
    many = list(range(1201))
    sexes = {"sex": ["F", "M"] * 600 + ["F"]}
    first = stream.emit(torch.linspace(0, 1, 1201), sexes, ids=many)
    assert torch.equal(stream.emit(torch.zeros(1201), sexes, ids=many), first)
    for _ in range(6):
        stream.emit(torch.tensor([0.5]), {"sex": ["F"]})
    assert stream.store.answers(many) == {}


def test_labels_are_counted_once_and_over_a_restart(tmp_path: Path) -> None:
    path, whole = tmp_path / "s.sqlite", new_state(ODDS)
    stream = resumed(path, ODDS, every=1000)
    for i, (score, sex) in enumerate(arrivals(40)):
        torch.testing.assert_close(stream.emit(score, sex, ids=[i]), whole.emit(score, sex, ids=[i]))
        if i % 3 == 2:
            assert stream.observe_labels([i - 2, i], [1.0, 0.0]) == 2
            whole.observe_labels([i - 2, i], [1.0, 0.0])
    assert stream.observe_labels([0, 2], [1.0, 0.0]) == 0
    stream.store.close()
    stream = resumed(path, ODDS)
    assert_same(stream.state.state_dict(), whole.state_dict())
    assert stream.observe_labels([0, 1], [1.0, 0.0]) == 1
    with pytest.raises(LabelValueError, match=r"ids \[0\]"):
        stream.observe_labels([0], [0.0])
    with pytest.raises(UnknownIdError, match="no prediction is known"):
        stream.observe_labels([1000], [0.0])
    with pytest.raises(ConstraintDefinitionError, match="no constraint of this stream looks at labels"):
        DurableStream(new_state(), StreamStore(":memory:")).observe_labels([0], [1.0])


@pytest.mark.parametrize(
    ("scores", "features", "ids", "error"),
    [
        ([float("nan")], {"sex": ["F"]}, None, NonFiniteScoresError),
        ([0.5], {"sex": ["X"]}, None, CategoryError),
        ([0.5], {"sex": ["F", "M"]}, None, ShapeError),
        ([0.5], {"sex": ["F"]}, ["a", "b"], ShapeError),
        ([0.5, 0.5], {"sex": ["F", "M"]}, ["a", "a"], ShapeError),
        ([0.5], {"sex": ["F"]}, [1.5], ShapeError),
        ([0.5], {"sex": ["F"]}, [True], ShapeError),
        ([0.5], {"sex": ["F"]}, ["\ud800"], ShapeError),
        ([0.5], {"sex": ["F"]}, [2**63], ShapeError),
        ([[0.5, 0.5]], {"sex": ["F"]}, None, ShapeError),
        ([0.5], {"race": ["F"]}, None, fl.errors.MissingSensitiveFeatureError),
    ],
)
def test_a_bad_request_leaves_state_and_store(scores: Any, features: Any, ids: Any, error: Any) -> None:
    words = Vocabulary().learn({"sex": ["F", "M"]})
    stream = DurableStream(new_state(), StreamStore(":memory:"), vocabulary=words)
    stream.emit(torch.tensor([0.2]), {"sex": ["F"]}, ids=["before"])
    before, logged = stream.state.state_dict(), stream.store.load()
    with pytest.raises(error):
        stream.emit(torch.tensor(scores), features, ids=ids)
    assert_same(stream.state.state_dict(), before)
    assert stream.store.load() == logged


def test_a_failed_write_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = resumed(tmp_path / "s.sqlite")
    for score, sex in arrivals(20):
        stream.emit(score, sex)
    before = stream.state.state_dict()
    with monkeypatch.context() as broken:
        broken.setattr(stream.store, "append", _full_disk)
        with pytest.raises(StoreError, match="disk"):
            stream.emit(torch.tensor([0.5]), {"sex": ["F"]}, ids=["a"])
    assert_same(stream.state.state_dict(), before)
    stream.emit(torch.tensor([0.5]), {"sex": ["F"]}, ids=["a"])
    assert stream.state.samples == 21


def _full_disk(*_: object) -> None:
    raise StoreError("the disk is full")


def test_a_failed_snapshot_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = resumed(tmp_path / "s.sqlite", every=1)
    monkeypatch.setattr(stream.store, "snapshot", lambda *_: _full_disk(None))
    with pytest.warns(UserWarning, match="no snapshot was written"):
        stream.emit(torch.tensor([0.5]), {"sex": ["F"]})
    stream.store.close()
    assert resumed(tmp_path / "s.sqlite").state.samples == 1


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first = StreamStore(tmp_path / "s.sqlite")
    with pytest.raises(StoreError, match="a store serves one process"):
        StreamStore(tmp_path / "s.sqlite")
    first.close()
    StreamStore(tmp_path / "s.sqlite").close()


def test_a_file_that_is_none_or_of_another_stream(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but long enough to be read as the header of one" * 20)
    with pytest.raises(StoreError, match="not a database"):
        StreamStore(tmp_path / "text")
    with pytest.raises(StoreError, match="Check the path"):
        StreamStore(tmp_path / "gone" / "s.sqlite")
    resumed(tmp_path / "s.sqlite").close()
    with pytest.raises(StoreError, match=r"DemographicParity.*EqualOpportunity"):
        resumed(tmp_path / "s.sqlite", ODDS)
    with sqlite3.connect(tmp_path / "old.sqlite") as old:
        old.executescript("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT); INSERT INTO meta VALUES ('format', 0)")
    old.close()
    with pytest.raises(StoreError, match="format 0"):
        StreamStore(tmp_path / "old.sqlite")
    with pytest.raises(ConstraintDefinitionError, match="synchronous"):
        StreamStore(":memory:", synchronous="off")


def test_a_new_store_begins_with_the_state_it_is_given(tmp_path: Path) -> None:
    state = new_state()
    state.warm_start(torch.rand(200), {"sex": ["F", "M"] * 100})
    DurableStream(state, StreamStore(tmp_path / "s.sqlite")).close()
    assert_same(resumed(tmp_path / "s.sqlite").state.state_dict(), state.state_dict())


def test_a_state_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with StreamStore(tmp_path / "s.sqlite") as store:
        store.snapshot(b"no state", [PARITY.name])
    with pytest.raises(StoreError, match="cannot read"):
        resumed(tmp_path / "s.sqlite")


def test_reset_forgets_in_the_store_too(tmp_path: Path) -> None:
    stream = resumed(tmp_path / "s.sqlite")
    stream.emit(torch.tensor([0.5]), {"sex": ["F"]}, ids=["a"])
    stream.reset()
    stream.store.close()
    with resumed(tmp_path / "s.sqlite") as again:
        assert again.state.samples == 0
        again.emit(torch.tensor([0.5]), {"sex": ["F"]}, ids=["a"])
        assert again.state.samples == 1


def test_the_log_is_truncated(tmp_path: Path) -> None:
    stream = resumed(tmp_path / "s.sqlite", every=10)
    for score, sex in arrivals(95):
        stream.emit(score, sex)
    assert len(stream.store.load()[1]) == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_those_of_the_scores(dtype: torch.dtype) -> None:
    stream = DurableStream(new_state(), StreamStore(":memory:"))
    emitted = stream.emit(torch.rand(3, 1, dtype=dtype), {"sex": ["F", "M", None]})
    assert (emitted.shape, emitted.dtype) == ((3, 1), dtype)


@pytest.mark.parametrize("what", ["UPDATE snapshot SET state = x'6a756e6b'", "INSERT INTO log VALUES (99, '{}')"])
def test_damaged_rows_are_named(what: str, tmp_path: Path) -> None:
    resumed(tmp_path / "s.sqlite").close()
    with closing(sqlite3.connect(tmp_path / "s.sqlite", isolation_level=None)) as file:
        file.execute(what)
    with StreamStore(tmp_path / "s.sqlite") as store, pytest.raises(StoreError, match="Begin a new file"):
        DurableStream(new_state(), store)


def test_a_reset_that_fails_half_way_is_finished_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = resumed(tmp_path / "s.sqlite")
    stream.emit(torch.tensor([0.3, 0.6]), {"sex": ["F", "M"]})
    with monkeypatch.context() as patch:
        patch.setattr(StreamStore, "snapshot", lambda *_: (_ for _ in ()).throw(StoreError("the disk is full")))
        with pytest.raises(StoreError):
            stream.reset()
    stream.emit(torch.tensor([0.4]), {"sex": ["F"]})
    stream.store.close()  # as a kill leaves it
    assert resumed(tmp_path / "s.sqlite").state.samples == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_is_returned_is_what_is_counted(dtype: torch.dtype) -> None:
    """Half precision comes back as float32, as from the state itself."""
    stream = DurableStream(new_state(policy="anytime"), StreamStore(":memory:"))
    total = 0.0
    for _ in range(6):
        emitted = stream.emit(torch.tensor([1.0, 0.0]).to(dtype), {"sex": ["F", "M"]})
        assert emitted.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
        total += emitted.double().sum().item()
    counted = float(stream.state.state_dict()["machine"]["history"]["sums"][1].sum())
    assert total == pytest.approx(counted, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool])
def test_whole_numbers_are_no_scores(dtype: torch.dtype) -> None:
    stream = DurableStream(new_state(), StreamStore(":memory:"))
    with pytest.raises(ShapeError, match="floating"):
        stream.emit(torch.tensor([1, 0]).to(dtype), {"sex": ["F", "M"]})
    assert stream.state.samples == 0


def test_the_time_is_resumed_too(tmp_path: Path) -> None:
    stream = resumed(tmp_path / "s.sqlite", window="10d")
    for day in range(30):
        stream.emit(torch.tensor([0.4]), {"sex": ["FM"[day % 2]]}, at=86_400.0 * day)
    before = stream.state.report()
    stream.store.close()
    assert resumed(tmp_path / "s.sqlite", window="10d").state.report() == before


@pytest.mark.parametrize("by", ["store", "trail"])
def test_a_backup_put_back_beside_the_log_of_a_killed_process_is_refused(by: str, tmp_path: Path) -> None:
    first, path, backup = tmp_path / "first.sqlite", tmp_path / "s.sqlite", tmp_path / "backup.sqlite"
    requests = arrivals(60)
    stream = resumed(first, every=1_000)
    for scores, features in requests[:20]:
        stream.emit(scores, features)
    if by == "store":
        stream.store.backup(backup)
    else:
        with AuditTrail(first, key=bytes(32)) as trail:
            trail.backup(backup)
    for life in range(2):  # the second time the backup has been served, and its process killed, before
        for scores, features in requests[20:]:
            stream.emit(scores, features)
        for end in ("", "-wal", ".lock"):  # what a process that is killed now leaves
            shutil.copy(f"{first if not life else path}{end}", f"{tmp_path / 'left'}{end}")
        stream.close()
        for end in ("-wal", ".lock"):
            shutil.copy(f"{tmp_path / 'left'}{end}", f"{path}{end}")
        shutil.copy(backup, path)
        with pytest.raises(StoreError, match=r"s\.sqlite-wal' is the log of another file .* delete"):
            resumed(path)
        assert path.read_bytes() == backup.read_bytes()  # nothing was added to it
        if life:
            Path(f"{path}-wal").unlink()
        else:
            Path(f"{path}-wal").write_bytes(b"")  # a log without anything is nobody's
        stream = resumed(path, every=1_000)
        assert stream.state.samples == 20
    stream.close()


def test_a_file_that_was_moved_with_its_log_goes_on_once_no_other_lock_is_there(tmp_path: Path) -> None:
    path, moved = tmp_path / "s.sqlite", tmp_path / "moved.sqlite"
    resumed(moved).close()  # an earlier file of that name leaves its lock
    stream = resumed(path, every=1_000)
    for scores, features in arrivals(20):
        stream.emit(scores, features)
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", f"{moved}{end}")
    stream.close()
    with pytest.raises(StoreError, match=r"brought here together, delete '.*moved\.sqlite\.lock'"):
        resumed(moved)
    Path(f"{moved}.lock").unlink()
    again = resumed(moved)
    assert again.state.samples == 20
    again.close()


def test_a_backup_beside_a_log_is_refused_where_the_lock_is_gone_too(tmp_path: Path) -> None:
    path, backup = tmp_path / "s.sqlite", tmp_path / "backup.sqlite"
    stream = resumed(path, every=1_000)
    stream.store.backup(backup)
    for scores, features in arrivals(20):
        stream.emit(scores, features)
    shutil.copy(f"{path}-wal", f"{backup}-wal")
    stream.close()
    with pytest.raises(StoreError, match="is the log of another file"):
        resumed(backup)


def test_a_file_beside_its_own_log_goes_on_also_where_somebody_reads_an_older_moment(tmp_path: Path) -> None:
    path, left = tmp_path / "s.sqlite", tmp_path / "left.sqlite"
    resumed(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM log").fetchone()
        for opening in range(2):
            stream = resumed(path, every=1_000)
            for scores, features in arrivals(5, seed=opening):
                stream.emit(scores, features)
            for end in ("", "-wal", ".lock"):
                shutil.copy(f"{path}{end}", f"{left}{end}")
            stream.close()
            again = resumed(left)
            assert again.state.samples == 5 * (opening + 1)
            again.close()


def test_a_mark_that_could_not_reach_the_file_does_not_reach_it_later(tmp_path: Path) -> None:
    path, left = tmp_path / "s.sqlite", tmp_path / "left.sqlite"
    resumed(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM log").fetchone()
        stream = resumed(path, every=1_000)
        other.execute("ROLLBACK")
        other.execute("PRAGMA wal_checkpoint(PASSIVE)")  # what the log has of marks is in the file now
        for scores, features in arrivals(5):
            stream.emit(scores, features)
        for end in ("", "-wal", ".lock"):
            shutil.copy(f"{path}{end}", f"{left}{end}")
        stream.close()
    again = resumed(left)
    assert again.state.samples == 5
    again.close()


def test_the_bytes_of_a_forgotten_id_are_overwritten(tmp_path: Path) -> None:
    path, ids = tmp_path / "s.sqlite", [f"person number {number:02}" for number in range(40)]
    stream = resumed(path)
    for name, (scores, features) in zip(ids, arrivals(40), strict=True):
        stream.emit(scores, features, ids=[name])
    stream.close()
    assert ids[3].encode() in path.read_bytes()
    assert forget_ids(path, [ids[3], "nobody"]) == 1
    assert ids[3].encode() not in path.read_bytes()
    assert ids[4].encode() in path.read_bytes()
