"""FairnessCallback over real processes: the numbers are those of all their rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("lightning")

from fairlayer.data import LendingPopulation
from tests.integrations import lightning_module_ranks, lightning_ranks

ROOT = Path(__file__).resolve().parents[2]


def run(program: Any, tmp_path: Path, *more: str) -> tuple[list[Any], str]:
    """Run a program in two processes; return what each found, and what they said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, program.__file__, str(tmp_path / "found"), *more],
        env={name: value for name, value in environment.items() if name != "LOCAL_RANK"},
        capture_output=True,
        text=True,
        timeout=900,  # two imports of everything take minutes on a machine that is busy with other work
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads((tmp_path / f"found.{rank}").read_text()) for rank in (0, 1)], done.stderr


@pytest.mark.slow
def test_two_processes_log_the_numbers_of_all_rows(tmp_path: Path) -> None:
    each, _ = run(lightning_ranks, tmp_path)
    assert each[0] == each[1]
    x, _, sex = lightning_ranks.rows()
    scores, men = x[:, 0].sigmoid().numpy(), np.array(sex) == "m"
    assert each[0]["val/score_gap"] == pytest.approx(abs(scores[men].mean() - scores[~men].mean()), abs=1e-6)
    decided = scores >= 0.5
    gap = abs(decided[men].mean() - decided[~men].mean())
    assert each[0]["val/demographic_parity_difference"] == pytest.approx(gap, abs=1e-6)
    assert each[0]["val/smallest_group"] == min(men.sum(), (~men).sum())
    assert each[0]["val/violation"] <= 1e-6


@pytest.mark.slow
def test_the_ready_modules_share_the_rows_and_tell_what_any_process_found(tmp_path: Path) -> None:
    table = tmp_path / "loans.csv"
    pd.DataFrame(LendingPopulation().sample(901, seed=1)).drop(columns="repays").to_csv(table, index=False)
    each, said = run(lightning_module_ranks, tmp_path, str(table))
    assert each[0]["metrics"] == each[1]["metrics"]  # the losses too
    for part, total in each[0]["all"].items():
        assert sum(share["rows"][part] for share in each) == total
        assert abs(each[0]["rows"][part] - each[1]["rows"][part]) <= 2
    assert "certificates of val do not hold" in said  # those of the second process
