"""The report counts what was written, the export holds it, and the command line shows both."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fairlayer.cli import main
from fairlayer.errors import MissingExtraError
from fairlayer.trail import AuditTrail, Decision, Override, TrailError, TrailKeyError, report, rows_between, verify
from tests.trail.forging import KEY, PUBLIC, decision, edit, make_trail, open_trail

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a trail of 45 rows (see `make_trail`): decisions of applicants 1-7, rows 3 and 10 erased."""
    make_trail(tmp_path / "trail.sqlite", tmp_path)
    return tmp_path / "trail.sqlite"


DECIDED = [i for i in (*range(1, 13), *range(16, 25), *range(26, 36), *range(37, 46)) if i not in (3, 10)]


def test_the_report_counts_the_whole_file(path: Path) -> None:
    counted = report(path)
    assert counted.rows == 45
    assert counted.kinds == {
        "decision": 40, "override": 1, "configuration": 1, "erasure": 1, "read": 1, "checkpoint": 1,
    }  # fmt: skip
    for cell in counted.cells:
        members = [i for i in DECIDED if "FM"[i % 2] == cell.cells["sex"]]
        yes = sum(i % 3 == 0 for i in members)
        assert cell.rows == cell.scored == len(members)
        assert cell.decisions == {"true": yes, "false": len(members) - yes}
        assert cell.mean_raw == pytest.approx(sum(0.25 + i / 128 for i in members) / len(members), rel=1e-12)
        assert cell.mean_emitted == 0.5
    assert [cell.cells for cell in counted.cells] == [{"sex": "F"}, {"sex": "M"}]
    assert (counted.overrides, counted.overridden) == ({"Ann": 1}, {"false -> true": 1})
    assert (counted.reads, counted.exports) == ({"Cem": 1}, {})
    assert (counted.erasures, counted.erased, counted.erased_by) == (1, 2, {"privacy desk": 2})
    assert counted.configurations[0]["changes"] == {"tolerance": [0.05, 0.02]}
    assert (counted.models, counted.policies) == ({"credit 7": 38}, {"tracking": 38})
    assert (counted.gaps, counted.clock_back, counted.prunings) == ([], 0, 0)
    assert json.loads(json.dumps(counted.as_dict()))["cells"][0]["mean_emitted"] == 0.5


def test_the_period_has_its_first_moment_and_not_its_last(path: Path) -> None:
    counted = report(path, 1016.0, 1025.0)
    assert (counted.rows, counted.kinds) == (9, {"decision": 9})
    assert (counted.first_time, counted.last_time) == (1016.0, 1024.0)
    assert [row.row for row in rows_between(path, 1016.0, 1025.0)] == list(range(16, 25))
    assert report(path, 5000.0).rows == 0


def test_a_period_may_lie_in_rows_out_of_order(tmp_path: Path) -> None:
    with AuditTrail(tmp_path / "t.sqlite") as trail:
        for time in (10.0, 20.0, 5.0, 30.0, 15.0):
            trail.append(Decision(time=time, cells={"sex": "F"}))
    counted = report(tmp_path / "t.sqlite", 10.0, 30.0)
    assert (counted.rows, counted.clock_back, counted.first_time, counted.last_time) == (3, 1, 10.0, 20.0)


def test_gaps_are_named(path: Path) -> None:
    edit(path, *(f"DELETE FROM trail_rows WHERE row = {row}" for row in (5, 20, 21, 22)))
    assert report(path).gaps == [(5, 5), (20, 22)]


def test_an_override_of_what_was_erased_has_an_unknown_before(tmp_path: Path) -> None:
    with AuditTrail(tmp_path / "t.sqlite") as trail:
        trail.append(Decision(time=1.0, decision="no"))
        trail.append(Override(time=2.0, row=1, decision="yes", who="Ann", why=""))
    assert report(tmp_path / "t.sqlite").overridden == {"no -> yes": 1}
    edit(tmp_path / "t.sqlite", "DELETE FROM trail_contents WHERE row = 1")
    assert report(tmp_path / "t.sqlite").overridden == {"unknown -> yes": 1}


def test_reading_is_recorded(path: Path) -> None:
    with open_trail(path) as trail:
        rows = list(trail.read(time=1050.0, who="Dora", start=1044.0))
        assert [row.row for row in rows] == [44, 45, 46]
        assert rows[-1].body == {"who": "Dora", "what": {"start": 1044.0, "end": None}}
        trail.read(time=1051.0, who="Emil")  # even if nothing is taken from it
    assert report(path).reads == {"Cem": 1, "Dora": 1, "Emil": 1}


def test_a_content_that_is_no_json_is_named(path: Path) -> None:
    edit(path, "UPDATE trail_contents SET payload = 'x' WHERE row = 5")
    with pytest.raises(TrailError, match="the content of row 5 cannot be read"):
        report(path)


def test_an_export_holds_every_row_and_is_recorded(path: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with open_trail(path) as trail:
        assert trail.export(tmp_path / "rows.parquet", time=1050.0, who="Dora") == 46
        with pytest.raises(TrailError, match="an export never overwrites"):
            trail.export(tmp_path / "rows.parquet", time=1051.0, who="Dora")
        assert trail.export(tmp_path / "few.parquet", time=1052.0, who="Dora", start=1016.0, end=1025.0) == 9
        assert len(trail) == 47  # what was refused was not recorded
    table = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [row["row"] for row in table] == list(range(1, 47))
    fifth = table[4]
    assert (fifth["raw"], fifth["emitted"], fifth["decision"]) == (decision(5).raw, 0.5, "false")
    assert json.loads(fifth["cells"]) == {"sex": "M"}
    assert json.loads(fifth["body"])["phase"] == fifth["phase"] == "steady"
    assert [row["row"] for row in table if row["erased"]] == [3, 10]
    assert table[2]["subject"] is table[2]["body"] is None
    assert table[45]["kind"] == "export"
    assert verify(path, key=KEY, public_key=PUBLIC).ok


def test_without_pyarrow_an_export_is_refused_and_not_recorded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with open_trail(path) as trail:
        with pytest.raises(MissingExtraError, match=r"fairlayer\[trail\]"):
            trail.export(path.with_name("x.parquet"), time=1050.0, who="Dora")
        assert len(trail) == 45


# The command line ----------------------------------------------------------------------------------------------------

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    (path.parent / "key.hex").write_text(KEY.hex())
    (path.parent / "public").write_bytes(PUBLIC)

    def command(*words: str) -> tuple[int, str, str]:
        code = main(["trail", words[0], str(path), *words[1:]])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return command


def test_verify_shows_the_levels_and_its_exit_code(path: Path, run: Run) -> None:
    key, public = ("--key-file", str(path.parent / "key.hex")), ("--public-key", str(path.parent / "public"))
    code, out, _ = run("verify", *key, *public, "--from", "1970-01-01", "--to", "1970-01-01")
    assert code == 0
    assert "Rows 1 to 44: signed" in out
    assert "Rows 45 to 45: sealed" in out
    assert "The period holds rows 1 to 45: sealed." in out
    assert "The period holds no row." in run("verify", "--from", "1970-01-02")[1]
    edit(path, "UPDATE trail_rows SET time = 0 WHERE row = 7")
    code, out, _ = run("verify")
    assert code == 1
    assert "TAMPERED OR DAMAGED" in out
    assert "row 7" in out


def test_no_line_of_the_command_line_is_wider_than_a_terminal(path: Path, run: Run) -> None:
    key, public = ("--key-file", str(path.parent / "key.hex")), ("--public-key", str(path.parent / "public"))
    shown = [run(*words)[1] for words in (("verify",), ("verify", *key, *public, "--from", "1970-01-01"), ("report",))]
    edit(path, "UPDATE trail_rows SET time = 0 WHERE row = 7")
    shown.append(run("verify")[1])
    lines = [line for one in shown for line in one.splitlines()]
    assert len(lines) > 30
    assert max(map(len, lines)) <= 80
    assert "TAMPERED OR DAMAGED" in shown[-1]


def test_a_checkpoint_of_the_command_line_anchors(path: Path, run: Run) -> None:
    held = path.parent / "held.txt"
    code, out, _ = run("checkpoint", "--key-file", str(path.parent / "key.hex"), "--who", "nightly")
    held.write_text(out, encoding="utf-8")
    assert (code, len(out.splitlines())) == (0, 7)
    code, out, _ = run("verify", "--checkpoint", str(held))
    assert (code, "Rows 1 to 46: anchored" in out) == (0, True)
    code, out, _ = run("verify", "--checkpoint", str(held), "--incremental")
    assert (code, "Rows 1 to 46 were not read" in out) == (0, True)


def test_report_and_export_of_the_command_line(path: Path, run: Run) -> None:
    code, out, _ = run("report", "--json", str(path.parent / "report.json"))
    assert code == 0
    for said in ("sex=F: 19 decisions (false: 13, true: 6)", "overridden: false -> true: 1", "read by: Cem: 1"):
        assert said in out
    assert json.loads((path.parent / "report.json").read_text())["kinds"]["decision"] == 40
    key = ("--key-file", str(path.parent / "key.hex"))
    code, out, _ = run("report", "--who", "Dora", *key)
    assert "read by: Cem: 1, Dora: 1" in out
    code, out, _ = run("export", "--who", "Dora", "--out", str(path.parent / "x.parquet"), *key, "--to", "1970-01-01")
    assert (code, "45 rows; that Dora exported them" in " ".join(out.split())) == (0, True)
    assert verify(path, key=KEY).rows == 47


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("export",), "TrailKeyError: the trail was begun with the key"),
        (("checkpoint",), "TrailKeyError"),
        (("report", "--from", "tomorrow"), "--from is a date such as 2026-10-01"),
        (("verify", "--incremental"), "--incremental goes on from a checkpoint"),
        (("verify", "--checkpoint", "absent.txt"), "No such file"),
        (("verify", "--key-file", "absent.hex"), "no key could be read"),
    ],
)
def test_an_error_of_the_command_line_has_a_name(run: Run, words: tuple[str, ...], said: str) -> None:
    code, _, err = run(*words)
    assert code == 2
    assert err.startswith("fairlayer: ")
    assert said in err


def test_a_misspelt_file_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("verify",), ("report",), ("report", "--who", "me"), ("export",), ("checkpoint",)):
        assert main(["trail", words[0], str(tmp_path / "absent.sqlite"), *words[1:]]) == 2
        assert "there is no file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# Memory --------------------------------------------------------------------------------------------------------------

GROW = """
import sys
import tests.trail.light
from fairlayer.trail import AuditTrail, Decision, report, verify
path, rows = sys.argv[1], int(sys.argv[2])
with AuditTrail(path, key=bytes(32)) as trail:
    for start in range(len(trail), rows, 1000):
        trail.append(Decision(time=float(i), subject=f"s{i % 1000}", cells={"sex": "FM"[i % 2]}, raw=0.25, emitted=0.5,
                              decision=1) for i in range(start, start + 1000))
        if start == 0:
            trail.erase("s7", time=0.0, who="desk")
rows = verify(path, key=bytes(32)).rows, report(path).rows
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(*rows, int(peak) // 1024)
"""


def peak(path: Path, rows: int) -> tuple[int, int]:
    """Grow the trail to this many rows, open, verify and report it; return the rows and the peak memory in MiB."""
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", GROW, str(path), str(rows)]
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    verified, reported, memory = map(int, done.stdout.split())
    assert verified == reported >= rows
    return verified, memory


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
@pytest.mark.parametrize("sizes", [(5_000, 50_000), pytest.param((100_000, 1_000_000), marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, sizes: tuple[int, int]) -> None:
    _, few = peak(tmp_path / "trail.sqlite", sizes[0])
    _, many = peak(tmp_path / "trail.sqlite", sizes[1])
    assert many < 200
    assert many - few < 40


def test_a_trail_without_the_key_still_reports(path: Path) -> None:
    with pytest.raises(TrailKeyError):
        open_trail(path, key=None, signing_key=None)
    assert report(path).rows == 45
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)  # and with any tool that knows SQLite
    [(yes,)] = db.execute("SELECT count(*) FROM trail_contents WHERE json_extract(payload, '$.decision') = 1")
    db.close()
    assert yes == sum(i % 3 == 0 for i in DECIDED) + 1  # and the override
