"""No output is worded as compliance, and none calls a model or its decisions fair."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairlayer.audit import Columns, Wanted, audit_frame, public_document
from fairlayer.cli import main
from fairlayer.cli.verdicts import show_audit
from fairlayer.report import document_text, render_card, render_markdown, render_page

CLAIMS = re.compile(
    r"\b(compliant|compliance|complies|comply|lawful|legally|certified as|meets? the law|unbiased|fair)\b",
    re.IGNORECASE,
)
# The only sentence on law that a page has, and it takes a claim back.
TAKEN_BACK = "This page is not legal advice, and nothing on it states that a law is complied with."


def examined(gap: float, limit: str) -> Any:
    rng = np.random.default_rng(1)
    sex, race = rng.choice(["Female", "Male"], 1200), rng.choice(["A", "B"], 1200)
    before = np.clip(0.4 + gap * (sex == "Male") + 0.2 * rng.normal(size=1200), 0, 1)
    after = np.clip(before - 0.5 * gap * (sex == "Male"), 0, 1)
    frame = pd.DataFrame({"sex": sex, "race": race, "a": after, "b": before, "y": rng.integers(0, 2, 1200)})
    frame["town"] = rng.choice(["x", "z"], 1200)
    return audit_frame(
        frame,
        Columns(["sex", "race+sex"], score="a", score_before="b", target="y", strata=["town"]),
        wanted=Wanted("selection", "sex", "race", lending=True, proxies=True, alike=["b"]),
        limits=[limit],
        reference=["sex=Male", "race=A & sex=Male"],
    )


@pytest.mark.parametrize(
    ("gap", "limit", "outcome"),
    [
        (0.0, "demographic_parity_difference > 0.3 by sex", "PASS"),
        (0.6, "demographic_parity_difference > 0.05 by sex", "FAIL"),
        (0.0, "demographic_parity_difference > 0.02 by sex", "INCONCLUSIVE"),
        (0.0, "calibration_error_difference > 0.1 by sex", "NOT EVALUATED"),
    ],
)
def test_no_output_claims_compliance(gap: float, limit: str, outcome: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = examined(gap, limit)
    assert str(found.outcome) == outcome
    document = found.to_dict()
    public = public_document(document, smallest=20)
    show_audit(document)
    outputs = [render_page(document, format=name) for name in ("audit", "brief", "ll144", "lending")]
    outputs += [render_markdown(document), render_card(document), document_text(document)]
    outputs += [render_page(public), document_text(public), capsys.readouterr().out]
    for text in outputs:
        plain = re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", text, flags=re.DOTALL))
        assert CLAIMS.findall(plain.replace(TAKEN_BACK, "")) == []


def test_nor_does_any_template_or_word_of_the_package() -> None:
    room = Path(__file__).resolve().parents[2] / "fairlayer"
    for path in [*room.glob("report/templates/*.html"), *room.glob("audit/*.py"), *room.glob("report/*.py")]:
        for literal in re.findall(r">[^<{]*<|\"[^\"\n]*\"", path.read_text(encoding="utf-8")):
            assert not re.search(r"\b(compliant|complies|unbiased|lawful)\b", literal), (path.name, literal)


def test_the_help_claims_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("audit", "report", "check", "recommend", "trail"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert CLAIMS.findall(capsys.readouterr().out.replace("fairlayer", "")) == []
