"""Many processes on one file, and processes that are killed: nothing is lost, torn, or written twice."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairlayer.trail import rows_between, verify
from tests.trail.forging import KEY, PUBLIC, open_trail
from tests.trail.independent import accepts

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys
from pathlib import Path
import tests.trail.light
from tests.trail.forging import open_trail, decision
number, path = int(sys.argv[1]), Path(sys.argv[2])
with open_trail(path, segment_rows=64) as trail:
    print("ready", flush=True)
    sys.stdin.readline()
    for turn in range(60):
        rows = trail.append([decision(1000 * number + turn * 4 + part) for part in range(1 + turn % 3)])
        print(rows.start, len(rows), turn)
"""


def started(program: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", program, *arguments], env=environment, **pipes)  # type: ignore[call-overload]


def test_eight_processes_write_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "trail.sqlite"
    open_trail(path, segment_rows=64).close()
    writers = [started(WRITER, str(number), str(path)) for number in range(8)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    told = {}
    for writer in writers:  # all begin at once
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for number, writer in enumerate(writers):
        lines, _ = writer.communicate(timeout=120)
        assert writer.returncode == 0
        for start, size, turn in (map(int, line.split()) for line in lines.splitlines()):
            told.update({start + part: 1000.0 + 1000 * number + turn * 4 + part for part in range(size)})
    assert len(told) == 8 * 60 * 2  # no row was given to two
    assert {row.row: row.time for row in rows_between(path)} == told
    found = verify(path, key=KEY, public_key=PUBLIC)
    assert (found.ok, found.rows, found.segments) == (True, 960, 15)
    assert accepts(path, KEY)
    order = [time // 1000 for time in told.values()]
    assert any(one != two for one, two in itertools.pairwise(order))  # they did write in turns


def kill(path: Path, rounds: int, seed: int) -> dict[str, object]:
    program = str(Path(__file__).parent / "kill_rounds.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, program, str(path), str(rounds), str(seed)]
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True, timeout=600)
    return dict(json.loads(done.stdout))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("rounds", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_a_killed_writer_loses_nothing_and_tears_nothing(tmp_path: Path, rounds: int) -> None:
    found = kill(tmp_path / "trail.sqlite", rounds, seed=7)
    assert found["ok"], found["found"]
    assert (found["lost"], found["torn"]) == (0, 0)
    assert int(str(found["told"])) > rounds
    # what was committed and not told: at most the append under way at each kill
    assert 0 <= int(str(found["untold"])) <= 5 * rounds
    assert accepts(tmp_path / "trail.sqlite", KEY)
