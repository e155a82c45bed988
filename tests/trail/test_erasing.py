"""Erasure takes the bytes and leaves the proof; retention takes whole segments and leaves the rest verifiable."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fairlayer.errors import ParameterError
from fairlayer.trail import (
    Decision,
    Erasure,
    Override,
    Pruning,
    RetentionError,
    TrailError,
    check_proof,
    prove,
    report,
    rows_between,
    verify,
)
from tests.trail.forging import DAY, KEY, PUBLIC, decision, open_trail
from tests.trail.independent import accepts


def marked(subject: str, mark: str, time: float = 1.0, size: int = 1) -> Decision:
    return Decision(time=time, subject=subject, cells={"sex": "F"}, decision=1, details={"note": mark * size})


def bytes_of(path: Path) -> bytes:
    """Return everything that lies beside the path."""
    return b"".join(part.read_bytes() for part in sorted(path.parent.glob(path.name + "*")))


@pytest.mark.parametrize("size", [1, 40, 3000])  # of the last, a content is longer than a page
@pytest.mark.parametrize("rows", [300, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_the_bytes_of_a_subject_are_gone_and_the_rest_still_proves(tmp_path: Path, rows: int, size: int) -> None:
    if rows > 1000 and size > 1:
        pytest.skip("once is enough")
    path = tmp_path / "trail.sqlite"
    with open_trail(path, segment_rows=max(50, rows // 100)) as trail:
        for start in range(0, rows, 10_000):
            span = range(start, min(start + 10_000, rows))
            trail.append(marked(f"subject {i % 97}", f"mark-{i % 97}-", float(i), size) for i in span)
        tag = bytes.fromhex(trail.tag("subject 13"))
        trail.append(Override(time=float(rows), row=14, decision=0, who="Ann", why="mark-13- speaks of the subject"))
        held = trail.checkpoint(time=rows + 1.0)
        with sqlite3.connect(path) as db:
            salts = [salt for (salt,) in db.execute("SELECT salt FROM trail_contents WHERE subject = ?", (tag,))]
        db.close()
        assert all(gone in bytes_of(path) for gone in (b"mark-13-", tag, salts[0]))
        before = prove(path, 14)
        erased = trail.erase("subject 13", time=rows + 2.0, who="privacy desk", why="asked to")
        count = len(range(13, rows, 97)) + 1  # and the override
        assert erased.count == count == len(salts)
        assert erased.rows[0] == (14, 14)
        content = bytes_of(path)
        assert b"mark-12-" in content
        assert not [gone for gone in (b"mark-13-", tag, *salts[:200]) if gone in content]
    found = verify(path, key=KEY, public_key=PUBLIC, checkpoint=held)
    assert (found.ok, found.erased) == (True, count), str(found)
    assert check_proof(prove(path, 14).text).commitment == check_proof(before.text).commitment
    assert prove(path, 14).content is None
    counted = report(path)
    assert (counted.erased, counted.erased_by) == (count, {"privacy desk": count})
    assert sum(cell.rows for cell in counted.cells) == rows - count + 1
    assert next(row for row in rows_between(path) if row.row == 14).body is None


def test_what_moved_between_pages_is_gone_too(tmp_path: Path) -> None:
    """Rows that SQLite moved when its neighbours were deleted leave copies in unused room, which VACUUM clears."""
    path = tmp_path / "trail.sqlite"
    with open_trail(path, segment_rows=20) as trail:
        for i in range(400):
            trail.append(marked(f"subject {i % 5}", f"mark-{i % 5}-", float(i), 1 + (7 * i) % 90))
        for number in range(4):
            trail.erase(f"subject {number}", time=1000.0, who="desk")
            assert f"mark-{number}-".encode() not in bytes_of(path)
        assert b"mark-4-" in bytes_of(path)
    assert verify(path, key=KEY).erased == 320


def test_a_reader_that_holds_old_pages_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trail.sqlite"
    with open_trail(path, timeout=0.1) as trail:
        trail.append([marked("one", "mark-1-"), marked("two", "mark-2-")])
        reading = rows_between(path)
        next(reading)
        with pytest.raises(TrailError, match=r"call compact\(\) again|Call compact\(\) again|locked"):
            trail.erase("one", time=2.0, who="desk")
        reading.close()  # type: ignore[attr-defined]
        trail.compact()
        assert b"mark-1-" not in bytes_of(path)
        assert verify(path, key=KEY).erased == 1


def test_an_erasure_may_be_compacted_later(tmp_path: Path) -> None:
    path = tmp_path / "trail.sqlite"
    with open_trail(path) as trail:
        trail.append([marked("one", "mark-1-"), marked("two", "mark-2-"), marked("one", "mark-1-")])
        assert trail.erase("one", time=2.0, who="desk", vacuum=False) == Erasure(((1, 1), (3, 3)), 2)
        assert b"mark-1-" in bytes_of(path)  # in the log
        trail.compact()
        assert b"mark-1-" not in bytes_of(path)


def test_an_unknown_subject_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "trail.sqlite"
    with open_trail(path) as trail:
        trail.append([marked("one", "a"), Decision(time=1.0, decision=0)])
        for subject in ("One", "two"):
            with pytest.raises(TrailError, match="it was never named so, or is erased"):
                trail.erase(subject, time=2.0, who="desk")
        trail.erase("one", time=2.0, who="desk")
        with pytest.raises(TrailError, match="is erased"):
            trail.erase("one", time=3.0, who="desk")
        with pytest.raises(TrailError, match="or its content was erased"):
            trail.append(Override(time=3.0, row=1, decision=1, who="a", why="b"))
        assert len(trail) == 3
    assert verify(path, key=KEY).ok


def test_many_spans_of_one_subject(tmp_path: Path) -> None:
    path = tmp_path / "trail.sqlite"
    with open_trail(path, segment_rows=10_000) as trail:
        trail.append(Decision(time=float(i), subject="ab"[i % 2], decision=1) for i in range(25_000))
        assert trail.erase("b", time=3e4, who="desk").count == 12_500
        trail.append(Decision(time=4e4, subject="b", decision=1))
        assert trail.erase("b", time=5e4, who="desk").rows == ((25_003, 25_003),)
    assert verify(path, key=KEY).erased == 12_501
    assert accepts(path, KEY)


# Retention -----------------------------------------------------------------------------------------------------------


def days(count: int, path: Path, **options: Any) -> Any:
    """Open a trail of eight rows a day, which is one segment."""
    trail = open_trail(path, floor_days=183.0, **options)
    trail.append(decision(i, time=i * DAY / 8) for i in range(8 * count))
    return trail


def free_pages(path: Path) -> int:
    """Return how many pages a file has that hold nothing."""
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA freelist_count").fetchone()[0])


def test_whole_segments_are_dropped_once_exported_and_old(tmp_path: Path) -> None:
    path = tmp_path / "trail.sqlite"
    with days(10, path) as trail:
        with pytest.raises(RetentionError, match=r"segments up to 4 are old enough.*segment none"):
            trail.prune(time=187 * DAY, who="retention")
        held = trail.checkpoint(time=10 * DAY)
        assert trail.prune(time=183 * DAY, who="retention") == Pruning(0, 0)
        assert len(trail) == 81
        trail.compact()
        before = path.stat().st_size
        assert trail.prune(time=187 * DAY, who="retention") == Pruning(4, 32)
        assert path.stat().st_size < before
        assert [row.row for row in rows_between(path)] == list(range(33, 83))
        for arguments in ({}, {"key": KEY}, {"key": KEY, "public_key": PUBLIC, "checkpoint": held}):
            found = verify(path, **arguments)  # type: ignore[arg-type]
            assert (found.ok, found.pruned, found.read, found.rows) == (True, 4, 33, 82), str(found)
        assert accepts(path, KEY, held.text)
        counted = report(path)
        assert (counted.prunings, counted.gaps) == (1, [])
        with pytest.raises(TrailError, match="they were dropped"):
            prove(path, 5)
        assert check_proof(prove(path, 40).text).row == 40
        assert trail.prune(time=187 * DAY, who="retention") == Pruning(0, 0)
        assert free_pages(path) == 0
        assert trail.prune(time=189 * DAY, who="retention", vacuum=False) == Pruning(6, 16)
        assert free_pages(path) > 0  # their room is the file's until it is asked back
        trail.compact()
        assert free_pages(path) == 0
        trail.append(decision(1, time=190 * DAY))
        trail.checkpoint(time=191 * DAY)
        assert trail.prune(time=999 * DAY, who="retention", keep_days=500.0).through == 12
        trail.append(decision(1, time=999 * DAY))
    found = verify(path, key=KEY, public_key=PUBLIC)
    assert (found.ok, found.pruned, found.rows - found.read + 1) == (True, 12, 2), str(found)
    assert accepts(path, KEY)


def test_a_segment_closed_after_the_last_export_is_not_dropped(tmp_path: Path) -> None:
    with days(3, tmp_path / "trail.sqlite") as trail:
        trail.checkpoint(time=3 * DAY)
        trail.append(decision(i, time=4 * DAY) for i in range(16))
        with pytest.raises(RetentionError, match=r"up to 6 are old enough, but .* is that of segment 4"):
            trail.prune(time=365 * DAY, who="retention")
        trail.checkpoint(time=5 * DAY)
        assert trail.prune(time=365 * DAY, who="retention").through == 7


def test_the_floor_is_kept(tmp_path: Path) -> None:
    with days(3, tmp_path / "trail.sqlite") as trail:
        trail.checkpoint(time=3 * DAY)
        for few in (0.0, 182.9, float("nan"), -1.0):
            with pytest.raises(RetentionError, match="kept for at least 183 days"):
                trail.prune(time=400 * DAY, who="retention", keep_days=few)
        with pytest.raises(ParameterError, match="finite number of seconds"):
            trail.prune(time=float("nan"), who="retention")
        assert trail.prune(time=400 * DAY, who="retention", keep_days=399.5).through == 0  # a row of the day is younger
        assert trail.prune(time=400 * DAY, who="retention", keep_days=398.5).through == 1


def test_a_clock_that_went_back_keeps_a_segment(tmp_path: Path) -> None:
    with open_trail(tmp_path / "trail.sqlite", floor_days=10.0) as trail:
        trail.append(decision(i, time=(50.0 if i == 3 else 1.0) * DAY) for i in range(8))
        trail.checkpoint(time=2 * DAY)
        assert trail.prune(time=59 * DAY, who="retention").through == 0
        assert trail.prune(time=61 * DAY, who="retention").through == 2


def test_erased_rows_can_be_dropped(tmp_path: Path) -> None:
    path = tmp_path / "trail.sqlite"
    with days(10, path) as trail:
        trail.erase("applicant 3", time=10 * DAY, who="desk")
        trail.checkpoint(time=10 * DAY)
        trail.prune(time=188 * DAY, who="retention")
    assert verify(path, key=KEY).ok
    assert accepts(path, KEY)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("step", ["content", "event"])
def test_an_erasure_that_was_cut_off_did_not_begin(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trail.sqlite"
    with open_trail(path) as trail:
        trail.append([marked("one", "mark-1-")])
        wanted = "_spans" if step == "content" else "prepare_event"  # both come after the content is deleted

        def cut(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(f"fairlayer.trail.erasing.{wanted}", cut)
        with pytest.raises(KeyboardInterrupt):
            trail.erase("one", time=2.0, who="desk")
    found = verify(path, key=KEY)
    assert (found.ok, found.rows, found.erased) == (True, 1, 0)
