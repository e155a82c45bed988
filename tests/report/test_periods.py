"""A stream period by period: in the document, on the page, and from the file in which a service keeps it."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import fairlayer as fl
from fairlayer.audit import audit
from fairlayer.cli import main
from fairlayer.report import StreamSection, periods_of, render_page
from fairlayer.streaming.store import StreamStore
from tests.serving.conftest import lending, train

TITLE = "DemographicParity(&#39;sex&#39;), period by period"


def streamed(n: int = 800, **options: object) -> fl.InferenceState:
    state = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0), **options)
    rng = np.random.default_rng(0)
    sex = rng.choice(["F", "M"], n)
    raw = np.clip(0.4 + 0.2 * (sex == "M") + 0.15 * rng.normal(size=n), 0, 1)
    for i in range(0, n, 4):
        state.emit(torch.tensor(raw[i : i + 4]), {"sex": sex[i : i + 4].tolist()}, at=1790812800.0 + 3600 * i)
    return state


def test_each_period_has_its_raw_and_its_emitted_gap() -> None:
    report = streamed(window=200).report()
    [found] = periods_of(report)
    assert (found["limit"], found["at_least"]) == (0.02, False)
    assert sum(bucket["predictions"] for bucket in found["buckets"]) == 800
    assert [bucket["first"] for bucket in found["buckets"]] == [bucket.start + 1 for bucket in report.buckets]
    late = found["buckets"][-5:]
    assert np.mean([bucket["raw"] for bucket in late]) > 0.1 > np.mean([bucket["emitted"] for bucket in late])
    worst = report.worst("DemographicParity('sex')")
    assert worst is not None
    assert f"begins with prediction {worst.start + 1:,}" in found["sentences"][0]
    assert "lies within the periods" in found["sentences"][1]


def test_the_page_shows_them_and_keeps_the_schema() -> None:
    stream = StreamSection("800 rows", [], "offline: none", [], "", periods_of(streamed().report()))
    sections = {"stream": stream.to_dict()}
    found = audit(decisions=[1, 0] * 50, sensitive_features={"sex": ["F", "M"] * 50}, sections=sections)
    page = render_page(found)
    assert TITLE in page
    assert "limit 0.02" in page
    assert "2026-10-01" in page
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((files("fairlayer.audit") / "schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(found.to_dict(), schema)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("run"), "demographic_parity(sex, 0.02)")


def test_a_streamed_run_shows_its_stream(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "rows.csv"
    lending(300, seed=4).to_csv(table, index=False)
    assert main(["stream", str(run), str(table)]) == 0
    assert "is on the run's page" in capsys.readouterr().out
    page = tmp_path / "page.html"
    main(["report", str(run), "--html", str(page)])
    assert TITLE in page.read_text(encoding="utf-8")


def test_the_stream_of_a_service_is_read_while_it_goes_on(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fairlayer.serving import Scorer

    scorer = Scorer(run, store=StreamStore(tmp_path / "s.sqlite", every=30))
    rows = json.loads(pd.DataFrame(lending(100, seed=3)).to_json(orient="records"))
    for place, record in enumerate(rows):
        scorer.score([record], at=float(place))
    document = tmp_path / "a.json"
    main(["report", str(run), "--store", str(tmp_path / "s.sqlite"), "--json", str(document)])
    [found] = json.loads(document.read_text(encoding="utf-8"))["stream"]["periods"]
    assert sum(bucket["predictions"] for bucket in found["buckets"]) == 100
    scorer.close()
    assert main(["report", str(run), "--store", str(tmp_path / "none.sqlite")]) == 2
    capsys.readouterr()
