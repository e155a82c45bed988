"""The audit trail of a service: one row for each answer, in the transaction that counts it."""

from __future__ import annotations

import copy
import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import fairlayer as fl
from fairlayer.cli import main
from fairlayer.errors import ParameterError
from fairlayer.serving import Journal, Scorer, create_app
from fairlayer.streaming import Recorder
from fairlayer.streaming.durable import DurableStream
from fairlayer.streaming.store import StreamStore, forget_ids
from fairlayer.trail import AuditTrail, TrailError, rows_between, verify

ROOT = Path(__file__).resolve().parents[2]
KEY = bytes(range(32))


def records_of(rows: pd.DataFrame, n: int) -> list[dict[str, Any]]:
    return json.loads(rows.head(n).to_json(orient="records"))


def journal(**options: Any) -> Journal:
    ticks = iter(range(1000, 100_000))
    return Journal(lambda: float(next(ticks)), key=KEY, **options)


def decisions(path: Path) -> list[Any]:
    return [row for row in rows_between(path) if row.kind == "decision"]


@pytest.fixture
def scorer(run: Path, tmp_path: Path) -> Any:
    found = Scorer(run, store=StreamStore(tmp_path / "s.sqlite"), journal=journal())
    yield found
    found.close()


def test_each_answer_has_its_row_and_a_repeated_id_has_no_second(
    scorer: Scorer, rows: pd.DataFrame, tmp_path: Path
) -> None:
    records = records_of(rows, 3)
    found = scorer.score(records, ids=["a", "b", "c"], at=77.0)
    again = scorer.score(records[:1], ids=["a"])
    assert again.scores[0] == found.scores[0]
    kept = decisions(tmp_path / "s.sqlite")
    assert [row.body["emitted"] for row in kept] == found.scores
    assert [row.body["raw"] for row in kept] == found.raw_scores
    assert [row.body["decision"] for row in kept] == found.decisions
    assert [row.body["shift"] for row in kept] == pytest.approx(found.shifts)
    first = kept[0].body
    assert (first["phase"], first["policy"], first["model"]) == (found.phase, "present", scorer.name)
    assert first["limit"] == {"DemographicParity('sex')": 0.02}
    assert first["cells"] == {"sex": records[0]["sex"]}
    assert first["details"] == {"at": 77.0}
    assert len(first["input"]) == 64
    assert kept[0].subject != kept[1].subject
    assert verify(tmp_path / "s.sqlite", key=KEY).level == "sealed"
    assert b'"a"' not in b"".join(repr(row).encode() for row in kept)


def test_a_service_writes_with_what_it_begins(scorer: Scorer, tmp_path: Path) -> None:
    [start] = [row for row in rows_between(tmp_path / "s.sqlite") if row.kind == "start"]
    assert start.body["model"] == scorer.name
    assert start.body["limit"] == {"DemographicParity('sex')": 0.02}


def test_what_the_trail_refuses_is_neither_counted_nor_answered(
    scorer: Scorer, rows: pd.DataFrame, tmp_path: Path
) -> None:
    scorer.score(records_of(rows, 2), ids=["a", "b"])
    with sqlite3.connect(tmp_path / "s.sqlite") as other:
        other.execute("CREATE TRIGGER broken BEFORE INSERT ON trail_rows BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(TrailError):
        scorer.score(records_of(rows, 3), ids=["c", "d", "e"])
    assert scorer.stream.state.samples == 2
    with sqlite3.connect(tmp_path / "s.sqlite") as other:
        other.execute("DROP TRIGGER broken")
    scorer.score(records_of(rows, 3), ids=["c", "d", "e"])
    assert scorer.stream.state.samples == len(decisions(tmp_path / "s.sqlite")) == 5


def test_a_trail_needs_a_file(run: Path) -> None:
    with pytest.raises(ParameterError, match="kept in an SQLite file"):
        Scorer(run, journal=journal())


def test_decisions_have_a_trail_of_their_own(run: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    client = pytest.importorskip("fastapi.testclient").TestClient
    app = create_app(run, store=StreamStore(tmp_path / "s.sqlite"), journal=journal(), allowed_hosts=None)
    with client(app) as asked:
        answer = asked.post("/decide", json={"records": records_of(rows, 4), "ids": [1, 2, 3, 4]}).json()
        scored = asked.post("/score", json={"records": records_of(rows, 1)}).json()
        assert asked.get("/health").json()["trail"] == "s.sqlite"
    kept = decisions(tmp_path / "s.sqlite.decisions")
    assert [row.body["decision"] for row in kept] == answer["decisions"]
    assert [row.body["raw"] for row in kept] == answer["raw_scores"]
    for row in kept:  # the rule wishes, the stream moves the wish into [0, 1], and the decision is rounded from that
        assert 0.0 <= row.body["emitted"] <= 1.0
        assert row.body["shift"] == row.body["emitted"] - row.body["details"]["wish"]
        assert row.body["details"]["wish"] != row.body["raw"]
    assert all("decision rule" in row.body["model"] for row in kept)
    [one] = decisions(tmp_path / "s.sqlite")
    assert one.body["emitted"] == scored["scores"][0]
    assert verify(tmp_path / "s.sqlite.decisions", key=KEY).ok


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("rounds", [8, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_at_any_moment_the_rows_are_the_answers_and_what_was_counted(tmp_path: Path, rounds: int) -> None:
    program = str(Path(__file__).parent / "trail_kill_rounds.py")
    done = subprocess.run(
        [sys.executable, program, str(tmp_path / "s.sqlite"), str(rounds), "3"],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["answers"] > rounds


def test_a_table_is_streamed_into_a_trail(run: Path, rows: pd.DataFrame, tmp_path: Path, capsys: Any) -> None:
    table = tmp_path / "rows.csv"
    rows.head(60).assign(seconds=np.arange(60.0)).to_csv(table, index=False)
    (tmp_path / "key.hex").write_text(KEY.hex())
    trail = tmp_path / "t.sqlite"
    told = ["stream", str(run), str(table), "--trail", str(trail), "--trail-key", str(tmp_path / "key.hex")]
    assert main([*told, "--at", "seconds", "--out", str(tmp_path / "out.csv")]) == 0
    kept = decisions(trail)
    assert [row.time for row in kept] == list(range(60))
    streamed = pd.read_csv(tmp_path / "out.csv").streamed_score
    np.testing.assert_allclose([row.body["emitted"] for row in kept], streamed, atol=1e-12)
    assert main(["trail", "verify", str(trail), "--key-file", str(tmp_path / "key.hex")]) == 0
    capsys.readouterr()


def test_a_trail_and_another_store_are_refused(run: Path, capsys: Any) -> None:
    assert main(["serve", str(run), "--trail", "t.sqlite", "--store", "s.sqlite"]) == 2
    assert "both have to be one file" in " ".join(capsys.readouterr().err.split())


def test_people_override_and_erase_on_the_command_line(
    scorer: Scorer, rows: pd.DataFrame, tmp_path: Path, capsys: Any
) -> None:
    path, key = tmp_path / "s.sqlite", tmp_path / "key.hex"
    key.write_text(KEY.hex())
    scorer.score(records_of(rows, 3), ids=["a", "b", "c"])
    change = ["--subject", "b", "--decision", "0", "--who", "A. Weber", "--why", "income", "--key-file", str(key)]
    assert main(["trail", "override", str(path), *change]) == 0
    assert "instead of what row 3 says" in capsys.readouterr().out
    assert main(["trail", "override", str(path), "--decision", "0", "--who", "x", "--key-file", str(key)]) == 2
    assert main(["trail", "erase", str(path), "--subject", "b", "--who", "desk", "--key-file", str(key)]) == 0
    said = capsys.readouterr().out
    assert "the content of 2 rows" in said
    assert "has forgotten 1 answers" in said
    found = verify(path, key=KEY)
    assert (found.ok, found.erased) == (True, 2)
    kinds = Counter(row.kind for row in rows_between(path))
    assert kinds == {"start": 1, "decision": 3, "override": 1, "erasure": 1}
    scorer.score(records_of(rows, 1), ids=["d"])  # the service goes on
    assert verify(path, key=KEY).ok
    assert main(["trail", "prune", str(path), "--who", "job", "--key-file", str(key)]) == 0
    assert "no segment is old enough" in capsys.readouterr().out


def test_a_file_without_a_stream_forgets_nothing(tmp_path: Path) -> None:
    AuditTrail(tmp_path / "t.sqlite", key=KEY).close()
    assert forget_ids(tmp_path / "t.sqlite", ["a"]) is None


def test_a_model_keeps_a_trail(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Sigmoid())
    with AuditTrail(tmp_path / "t.sqlite", key=KEY) as trail:
        model = fl.FairModel(net, fl.DemographicParity("sex", 0.1), bounds=(0.0, 1.0), trail=trail).eval()
        x, sex = torch.randn(4, 3), ["F", "M", "F", None]
        with pytest.raises(ParameterError, match="Pass at=SECONDS"):
            model(x, sensitive_features={"sex": sex}, inference=True)
        assert model.inference_state.samples == 0
        found = model(x, sensitive_features={"sex": sex}, inference=True, ids=["a", "b", "c", "d"], at=5.0)
        model(x, sensitive_features={"sex": sex})  # no stream, no row
        copied = copy.deepcopy(model)
        copied(x, sensitive_features={"sex": sex}, inference=True)  # a copy keeps no trail, and needs no time
    kept = decisions(tmp_path / "t.sqlite")
    assert [row.body["cells"]["sex"] for row in kept] == sex
    np.testing.assert_allclose([row.body["emitted"] for row in kept], found.reshape(-1).double(), atol=1e-7)
    assert {row.time for row in kept} == {5.0}
    assert kept[0].body["policy"] == "present"


def test_a_recorder_names_the_model_and_has_a_clock(tmp_path: Path) -> None:
    state = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0))
    path = tmp_path / "s.sqlite"
    store = StreamStore(path)
    recorder = Recorder(AuditTrail(path), model="credit 7", threshold=0.5, clock=lambda: 9.0)
    with DurableStream(state, store, witness=recorder) as stream:
        stream.answer(torch.tensor([0.2, 0.9]), {"sex": ["F", "M"]}, ids=["a", 7], inputs=[{"x": 1}, {"x": 2}])
    first, second = decisions(path)
    assert (first.body["model"], first.body["decision"], second.body["decision"]) == ("credit 7", 0, 1)
    assert "input" not in first.body  # without a key, an input would only be hashed where anybody could try it out
    assert bytes.fromhex(second.subject).decode() == "7"
