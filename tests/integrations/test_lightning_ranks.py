"""FairnessCallback over real processes: the numbers are those of all their rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning")

from tests.integrations import lightning_ranks

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_two_processes_log_the_numbers_of_all_rows(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, lightning_ranks.__file__, str(tmp_path / "found")],
        env={name: value for name, value in environment.items() if name != "LOCAL_RANK"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    each = [json.loads((tmp_path / f"found.{rank}").read_text()) for rank in (0, 1)]
    assert each[0] == each[1]
    x, _, sex = lightning_ranks.rows()
    scores, men = x[:, 0].sigmoid().numpy(), np.array(sex) == "m"
    assert each[0]["val/score_gap"] == pytest.approx(abs(scores[men].mean() - scores[~men].mean()), abs=1e-6)
    decided = scores >= 0.5
    gap = abs(decided[men].mean() - decided[~men].mean())
    assert each[0]["val/demographic_parity_difference"] == pytest.approx(gap, abs=1e-6)
    assert each[0]["val/smallest_group"] == min(men.sum(), (~men).sum())
    assert each[0]["val/violation"] <= 1e-6
