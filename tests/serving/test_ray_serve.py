"""The recipe for Ray Serve, run as it stands: replicas on one PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.streaming.postgresql import programs, running

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_recipe_answers_and_its_replicas_hear_of_each_other(run: Path) -> None:
    pytest.importorskip("psycopg", reason="needs the extra `postgres`")
    pytest.importorskip("ray.serve", reason="needs ray[serve]", exc_type=ImportError)
    if programs() is None:
        pytest.skip("needs the programs of PostgreSQL (initdb, pg_ctl, postgres)")
    with running() as server:
        done = subprocess.run(
            [sys.executable, str(ROOT / "examples" / "ray_serve.py"), str(run), server.address],
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "200 answered; a replica knows of 200 predictions" in done.stdout
