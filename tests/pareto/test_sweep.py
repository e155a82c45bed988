"""Sweeps: in parallel, resumable, and honest about what failed."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fairlayer.pareto import MeasureError, Sweep, SweepDefinitionError, SweepFailedError, SweepRun, pareto_sweep
from tests.conftest import ROOT
from tests.pareto import jobs
from tests.pareto.killed_sweep import SEEDS, VALUES, WORKERS

quietly: dict[str, Any] = {"progress": False}
here: dict[str, Any] = {"progress": False, "workers": 0}


def never(value: float, seed: int) -> dict[str, float]:
    raise AssertionError("this run is finished")


def test_other_processes_with_one_thread_each_give_what_this_one_gives(tmp_path: Path) -> None:
    told: list[SweepRun] = []
    sweep = pareto_sweep(jobs.line, [0.0, 0.1], seeds=(0, 1), workers=2, folder=tmp_path, on_run=told.append, **quietly)
    alone = pareto_sweep(jobs.line, [0.0, 0.1], seeds=(0, 1), **here)
    assert [(run.value, run.seed, run.measures) for run in sweep.runs] == [
        (run.value, run.seed, run.measures) for run in alone.runs
    ]
    assert len(told) == 4
    assert {(run.value, run.seed) for run in told} == {(0.0, 0), (0.0, 1), (0.1, 0), (0.1, 1)}
    assert Sweep.read(tmp_path) == sweep
    spread = pareto_sweep(jobs.threads, [1, 2], seeds=(0,), workers=1, **quietly)
    assert {run.measures["threads"] for run in spread.runs} == {1.0}
    assert os.getpid() not in {run.measures["process"] for run in spread.runs}


def test_means_and_deviations_over_seeds() -> None:
    sweep = pareto_sweep(jobs.line, [0.1, 0.2], seeds=(0, 10), **here)
    first, second = sweep.points()
    assert (first.value, first.n, second.value) == (0.1, 2, 0.2)
    assert first.mean["val_auc"] == pytest.approx(0.905)
    assert first.sd["val_auc"] == pytest.approx(0.01 / 2**0.5)
    assert pareto_sweep(jobs.line, [0.1], seeds=(0,), **here).points()[0].sd["val_auc"] is None


def test_finished_runs_are_not_run_again(tmp_path: Path) -> None:
    first = pareto_sweep(jobs.line, [0.0, 0.1], seeds=(0,), folder=tmp_path, **here)
    calls: list[SweepRun] = []
    again = pareto_sweep(jobs.line, [0.0, 0.1], seeds=(0,), folder=tmp_path, on_run=calls.append, **here)
    assert again == first
    assert not calls
    more = pareto_sweep(jobs.line, [0.2, 0.1, 0.0], seeds=(0, 1), folder=tmp_path, on_run=calls.append, **here)
    assert len(calls) == 4
    assert [(run.value, run.seed) for run in more.runs] == [(v, s) for v in (0.2, 0.1, 0.0) for s in (0, 1)]


def test_another_definition_in_the_folder_is_an_error_that_says_what_changed(tmp_path: Path) -> None:
    pareto_sweep(functools.partial(jobs.marked, folder=str(tmp_path)), [0.0, 0.1], seeds=(0,), folder=tmp_path, **here)
    before = (tmp_path / "sweep.json").read_text(encoding="utf-8")
    for train, values, seeds, text in [
        (jobs.line, [0.0, 0.1], (0,), r"train was tests\.pareto\.jobs\.marked\(.*\) and is tests\.pareto\.jobs\.line"),
        (functools.partial(jobs.marked, folder="/"), [0.0, 0.1], (0,), r"and is .*folder=./"),
        (functools.partial(jobs.marked, folder=str(tmp_path)), [0.0], (0,), r"values were \[0\.0, 0\.1\] and are \[0"),
        (functools.partial(jobs.marked, folder=str(tmp_path)), [0.0, 0.1], (1,), r"seeds were \[0\] and are \[1\]"),
    ]:
        with pytest.raises(SweepDefinitionError, match=text):
            pareto_sweep(train, values, seeds=seeds, folder=tmp_path, **here)
    assert (tmp_path / "sweep.json").read_text(encoding="utf-8") == before


def test_a_changed_source_is_another_definition(tmp_path: Path) -> None:
    pareto_sweep(jobs.line, [0.0], seeds=(0,), folder=tmp_path, **here)
    held = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    (tmp_path / "sweep.json").write_text(json.dumps(held | {"source": "another"}), encoding="utf-8")
    with pytest.raises(SweepDefinitionError, match=r"the source of tests\.pareto\.jobs\.line has changed"):
        pareto_sweep(jobs.line, [0.0], seeds=(0,), folder=tmp_path, **here)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_failing_run_is_recorded_and_named_and_the_others_are_kept(workers: int, tmp_path: Path) -> None:
    train = functools.partial(jobs.sometimes_failing, flag=str(tmp_path / "mended"))
    settings: dict[str, Any] = {"seeds": (0, 1), "folder": tmp_path, "workers": workers, "progress": False}
    with pytest.raises(SweepFailedError, match=r"1 of 4 runs failed \(value 1, seed 1: ZeroDivisionError: no such tol"):
        pareto_sweep(train, [0, 1], **settings)
    lines = [json.loads(text) for text in (tmp_path / "runs.jsonl").read_text(encoding="utf-8").splitlines()]
    [failed] = [row for row in lines if row["error"]]
    assert "Traceback" in failed["error"]
    assert len(lines) == 4
    assert len(Sweep.read(tmp_path).runs) == 3
    (tmp_path / "mended").touch()
    calls: list[SweepRun] = []
    assert len(pareto_sweep(train, [0, 1], on_run=calls.append, **settings).runs) == 4
    assert [run.name for run in calls] == ["value 1, seed 1"]


def test_a_process_that_dies_is_an_error_that_says_so() -> None:
    with pytest.raises(SweepFailedError, match="a process of the sweep died"):
        pareto_sweep(jobs.dying, [0, 1], seeds=(0,), workers=1, **quietly)


def test_measures_must_be_finite_numbers() -> None:
    with pytest.raises(SweepFailedError, match=r"must return finite numbers, but returned \{'auc': nan\}"):
        pareto_sweep(jobs.infinite, [0], seeds=(0,), **here)
    with pytest.raises(SweepFailedError, match="mapping of names to numbers, but returned 3"):
        pareto_sweep(lambda value, seed: 3, [0], seeds=(0,), **here)  # type: ignore[arg-type,return-value]


def test_what_cannot_be_a_sweep_is_refused() -> None:
    with pytest.raises(SweepDefinitionError, match="workers=-1"):
        pareto_sweep(jobs.line, [0.1], workers=-1)
    with pytest.raises(SweepDefinitionError, match="workers=0"):
        pareto_sweep(lambda value, seed: {"a": 1.0}, [0], workers=1, **quietly)
    for values, seeds in (([], (0,)), ([0], ()), ([1, 1], (0,)), ([1], (0, 0))):
        with pytest.raises(SweepDefinitionError, match="values and seeds, each once"):
            pareto_sweep(jobs.line, values, seeds=seeds, **here)
    with pytest.raises(SweepDefinitionError, match="what JSON can hold"):
        pareto_sweep(jobs.line, [object()], **here)
    with pytest.raises(SweepDefinitionError, match=r"no sweep\.json"):
        Sweep.read("nowhere")


def test_a_line_cut_off_by_a_crash_is_a_run_to_be_done_again(tmp_path: Path) -> None:
    pareto_sweep(jobs.line, [0.0, 0.1], seeds=(0,), folder=tmp_path, **here)
    log = tmp_path / "runs.jsonl"
    log.write_bytes(log.read_bytes()[:-25])
    calls: list[SweepRun] = []
    sweep = pareto_sweep(jobs.line, [0.0, 0.1], seeds=(0,), folder=tmp_path, on_run=calls.append, **here)
    assert [run.value for run in calls] == [0.1]
    assert len(sweep.runs) == len(Sweep.read(tmp_path).runs) == 2


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] == "Z")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_sweep_loses_at_most_the_running_jobs(tmp_path: Path) -> None:
    folder, marks = tmp_path / "sweep", tmp_path / "marks"
    marks.mkdir()
    command = [sys.executable, "-m", "tests.pareto.killed_sweep", str(folder), str(marks)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as sweeping:
        log, deadline = folder / "runs.jsonl", time.monotonic() + 120
        while not (log.exists() and log.read_bytes().count(b"\n") >= 3) and time.monotonic() < deadline:
            assert sweeping.poll() is None
            time.sleep(0.01)
        sweeping.send_signal(signal.SIGKILL)
    done = Sweep.read(folder).runs
    workers = {int(path.stem.rsplit("-", 1)[1]) for path in marks.iterdir()}
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(alive(pid) for pid in workers)  # nobody goes on working for a dead sweep
    started = {path.stem.rsplit("-", 1)[0] for path in marks.iterdir()}
    assert 3 <= len(done) < len(VALUES) * len(SEEDS)
    assert len(started) - len(done) <= 2 * WORKERS  # those running, and those that ended while it was being killed
    calls: list[SweepRun] = []
    train = functools.partial(jobs.marked, folder=str(marks))
    sweep = pareto_sweep(train, VALUES, seeds=SEEDS, folder=folder, on_run=calls.append, **here)
    assert len(sweep.runs) == len(VALUES) * len(SEEDS)
    assert not {run.name for run in calls} & {run.name for run in done}


def test_tables() -> None:
    sweep = Sweep(
        (
            SweepRun({"tolerance": 0.1, "width": 8}, 0, {"auc": 0.5}),
            SweepRun({"tolerance": 0.2, "width": 8}, 0, {"auc": 1}),
        )
    )
    rows = sweep.to_dicts()
    assert rows[0] == {"tolerance": 0.1, "width": 8, "n": 1, "mean_auc": 0.5, "sd_auc": None}
    assert list(csv.DictReader(io.StringIO(sweep.to_csv())))[1] == {
        "tolerance": "0.2",
        "width": "8",
        "n": "1",
        "mean_auc": "1.0",
        "sd_auc": "",
    }
    held = json.loads(sweep.to_json())
    assert held["points"] == rows
    assert held["runs"][0]["measures"] == {"auc": 0.5}


def test_runs_that_measure_different_things_cannot_be_averaged() -> None:
    sweep = Sweep((SweepRun(1, 0, {"auc": 0.5}), SweepRun(2, 0, {"auc": 1.0, "gap": 0.1})))
    with pytest.raises(MeasureError, match=r"only some of them have \['gap'\]"):
        sweep.points()
