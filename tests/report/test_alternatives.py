"""Candidates of a sweep, and why each was not chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlayer.audit import audit
from fairlayer.errors import ParameterError
from fairlayer.pareto import pareto_sweep
from fairlayer.report import alternatives_of, render_page


def train(tolerance: float, seed: int) -> dict[str, float]:
    return {"accuracy": 0.8 + tolerance / 2 - (tolerance == 0.3), "gap": 0.9 * tolerance + 0.001 * seed}


def test_every_candidate_has_its_reason(tmp_path: Path) -> None:
    pareto_sweep(train, [0.02, 0.1, 0.3], seeds=(0, 1), folder=tmp_path / "sweep", workers=0)
    strict, chosen, worse = alternatives_of(tmp_path / "sweep", chosen="0.1")
    assert chosen["chosen"]
    assert strict["why_not"] == "its gap is smaller by 0.072, and its accuracy lower by 0.040"
    assert worse["why_not"].startswith("worse in both")
    document = audit(decisions=[1, 0] * 30, sensitive_features={"g": ["a", "b"] * 30}).to_dict()
    text = render_page({**document, "alternatives": [strict, chosen, worse]})
    assert "worse in both" in text
    assert 'aria-label="3 candidates' in text


def test_errors_name_what_there_is(tmp_path: Path) -> None:
    sweep = pareto_sweep(train, [0.02], seeds=(0,), workers=0)
    with pytest.raises(ParameterError, match=r"only 0\.02"):
        alternatives_of(sweep, chosen=0.5)
    with pytest.raises(ParameterError, match="--maximise"):
        alternatives_of(sweep, chosen=0.02, maximise="auc")
