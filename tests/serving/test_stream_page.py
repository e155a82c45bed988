"""The page of a stream: it stands alone, and its numbers are those of the stream."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import fairlayer as fl
from fairlayer.cli import main
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.report import StreamPage, render_stream_page
from fairlayer.report.figures import number
from fairlayer.serving import decided_stream, stream_section, stream_table
from fairlayer.training import KeptRoute, load_run
from tests.report.browser import measured, printed, titled
from tests.serving.conftest import lending
from tests.serving.test_answers import deciding

ROWS = (
    "<script>addEventListener('load', () => {"
    "const rows = [...document.querySelectorAll('.buckets tbody tr')], seen = e => e.offsetWidth > 0;"
    "document.title = [rows.length, Math.max(...rows.map(e => e.offsetHeight)),"
    " [...rows[0].children].filter(seen).length].join(' '); });</script>"
)


def test_the_command_writes_a_page_that_loads_nothing(run: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    rows.to_csv(tmp_path / "new.csv", index=False)
    page = tmp_path / "stream.html"
    given = ("--batch-size", "8", "--window", "100", "--report", str(page))
    assert main(["stream", str(run), str(tmp_path / "new.csv"), *given]) == 0
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert not re.search(r"<script|<link|\ssrc=|url\((?!#)|@import", text)
    assert not re.search(r'href="(?!#)', text)
    assert text.count("<main>") == 1
    assert "new.csv, streamed through run" in text


def test_its_numbers_are_those_of_the_report(run: Path, rows: pd.DataFrame) -> None:
    decided = deciding(run, rows)
    streamed = stream_table(decided, rows, batch_size=4, window=100)
    decisions, shown = decided_stream(streamed)
    text = render_stream_page(StreamPage("A & B", streamed.state, stream_section(streamed), shown))
    report = streamed.state.report()
    [name] = report.limits
    for bucket in report.buckets:
        found = bucket.gaps[name]
        assert found.raw is not None
        assert found.emitted is not None
        assert number(found.raw.value, 4) in text
        assert number(found.emitted.value, 4) in text
    split = report.splits[name]
    assert f"{split.within:+.4f} from gaps within buckets and {split.mix:+.4f}" in text
    assert "A &amp; B" in text
    assert sum(cell.selected for cell in shown.cells) == decisions.sum()
    rates = pd.Series(decisions).groupby(rows["sex"].to_numpy()).mean()
    assert shown.gaps[name] == pytest.approx(abs(rates["female"] - rates["male"]), abs=1e-12)


def test_a_run_without_a_rule_decides_nothing(run: Path, rows: pd.DataFrame) -> None:
    streamed = stream_table(replace(load_run(run), route=KeptRoute()), rows, batch_size=50)
    with pytest.raises(ConstraintDefinitionError, match="keeps no decision rule"):
        decided_stream(streamed)


def test_events_are_a_table(run: Path, rows: pd.DataFrame) -> None:
    streamed = stream_table(load_run(run), rows, batch_size=16)
    streamed.state.change_constraints([fl.DemographicParity("sex", tolerance=0.01)], over=50)
    text = render_stream_page(StreamPage("changed", streamed.state, stream_section(streamed)))
    assert "limits changed" in text
    assert "reached after 50 predictions" in text


@pytest.fixture(scope="module")
def sixty(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with sixty buckets."""
    streamed = stream_table(load_run(run), lending(1200, seed=5), batch_size=4, window=200)
    page = tmp_path_factory.mktemp("sixty") / "stream.html"
    page.write_text(render_stream_page(StreamPage("Sixty", streamed.state, stream_section(streamed))), encoding="utf-8")
    return page


@pytest.mark.parametrize(("width", "columns"), [(390, 4), (768, 9), (1280, 9)])
def test_sixty_buckets_are_sixty_lines_on_any_screen(sixty: Path, width: int, columns: int, tmp_path: Path) -> None:
    lines, height, shown = (int(number) for number in titled(sixty, width, ROWS, tmp_path).split())
    assert (lines, shown) == (60, columns)
    assert height <= 50, height  # two lines of text at most: a card of nine lines had some 230
    seen = measured(sixty, width, tmp_path)
    assert (seen.content <= width, seen.outside) == (True, 0), seen.first


def test_paper_shows_every_column_of_the_buckets(sixty: Path, tmp_path: Path) -> None:
    text, margin = printed(sixty, "A4", tmp_path)
    assert margin >= 20
    for word in ("Predictions", "Lower group", "Phase", "(worst)"):
        assert word in " ".join(text.split())
    assert "A narrow screen shows" not in text
