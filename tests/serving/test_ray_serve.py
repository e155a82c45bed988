"""The recipe for Ray Serve, run as it stands: replicas on one PostgreSQL."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.streaming.postgresql import programs, running

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(programs() is None, reason="needs the programs of PostgreSQL (initdb, pg_ctl, postgres)"),
]


def output_of(program: Path, run: Path) -> str:
    pytest.importorskip("psycopg", reason="needs the extra `postgres`")
    pytest.importorskip("ray.serve", reason="needs ray[serve], which the extra `dev` brings", exc_type=ImportError)
    told = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FAIRLAYER_TEST_MARK": secrets.token_hex(8)}
    with running() as server:
        done = subprocess.run(
            [sys.executable, str(program), str(run), server.address],
            check=False,
            env={**os.environ, **told, "RAY_DEDUP_LOGS": "0"},
            capture_output=True,
            text=True,
            timeout=400,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_recipe_answers_and_its_replicas_hear_of_each_other(run: Path) -> None:
    said = output_of(ROOT / "examples" / "ray_serve.py", run)
    assert "200 answered; a replica knows of 200 predictions" in said


def test_a_replica_that_dies_loses_nothing_and_its_slot_is_resumed(run: Path) -> None:
    said = output_of(Path(__file__).parent / "ray_replica_dies.py", run)
    found = json.loads([line for line in said.splitlines() if line.startswith("{")][-1])
    assert found == {"killed": 1, "same": True, "samples": [120], "slots": [0, 1]}
