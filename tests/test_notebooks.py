"""Results show themselves in a notebook, escaped and small; and the notebooks run."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer._notebook import facts_html, table_html

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
SMALL = 4_000  # characters
TAGS = {"strong", "table", "tr", "th", "td", "small"}

NAUGHTY = "<script>alert('a')</script> & co"
PARITY = fl.DemographicParity(NAUGHTY, tolerance=0.1)
SCORES = torch.linspace(0.05, 0.95, 40)
FEATURES = {NAUGHTY: np.array([f"<b>{i % 2}</b>" for i in range(40)])}


class Reader(HTMLParser):
    """Collect tags and words, and count what stays open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data + " "


def stream_of() -> fl.InferenceState:
    stream = fl.InferenceState([PARITY], bounds=(0.0, 1.0), window=20)
    stream.emit(SCORES, FEATURES)
    return stream


def routes_of() -> Any:
    from fairlayer.routes import Candidate, compare_routes
    from fairlayer.training import Observed

    rows = Observed(FEATURES, (np.arange(40) % 3 == 0).astype(np.float64))
    return compare_routes(
        [Candidate(NAUGHTY, SCORES.double().numpy(), SCORES.double().numpy())], [PARITY], valid=rows, test=rows
    )


def audit_of() -> Any:
    from fairlayer.audit import audit

    return audit(
        scores=SCORES.numpy(),
        y=np.arange(40) % 2,
        sensitive_features=FEATURES,
        limits=["demographic_parity_difference > 0.1"],
    )


RESULTS: dict[str, Callable[[], Any]] = {
    "Projection": lambda: fl.project(SCORES, [PARITY], sensitive_features=FEATURES, bounds=(0.0, 1.0)),
    "FairnessPath": lambda: fl.fairness_path(SCORES, [PARITY], [0.0, 0.1], sensitive_features=FEATURES),
    "InferenceState": stream_of,
    "StreamReport": lambda: stream_of().report(),
    "Decisions": lambda: fl.decide(SCORES, [PARITY], sensitive_features=FEATURES),
    "DecisionRule": lambda: fl.decide(SCORES, [PARITY], sensitive_features=FEATURES).rule,
    "Routes": routes_of,
    "Audit": audit_of,
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_shows_itself_escaped_and_small(name: str) -> None:
    result = RESULTS[name]()
    assert type(result).__name__ == name
    page = result._repr_html_()
    read = Reader(page)
    assert read.tags <= TAGS
    assert not read.open
    assert "table" in read.tags
    assert len(page) < SMALL


def test_the_numbers_are_those_of_the_result() -> None:
    stream = stream_of()
    [number] = stream.measured().values()
    assert f"{number.value:.4g}" in Reader(stream._repr_html_()).words
    assert repr(stream).startswith("InferenceState(present")
    assert "40 predictions" in repr(stream)
    path = fl.fairness_path(SCORES, [PARITY], [0.0, 0.1], sensitive_features=FEATURES)
    assert all(f"{distance:.4g}" in Reader(path._repr_html_()).words for distance in path.distance)


def test_a_table_escapes_every_word_it_is_given() -> None:
    page = table_html("<", ["<", "b"], [["<", 1 / 3], ["c", None]], note="<") + facts_html("<", [("<", "<")])
    assert page.count("&lt;") == 7
    assert "0.3333" in page
    assert "<td>-</td>" in page


def test_there_are_three_notebooks() -> None:
    assert len(NOTEBOOKS) >= 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_output(path: Path) -> None:
    book = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    first = "".join(book["cells"][0]["source"])
    assert first.startswith("# ")
    assert "This notebook" in first


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_page_of_a_notebook_has_its_text_and_its_code(path: Path) -> None:
    notebooks = pytest.importorskip("website.notebooks", reason="the site's sources are not here")
    page = (notebooks.FOLDER / f"{path.stem}.md").read_text(encoding="utf-8")
    place = 0
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        said = source if cell["cell_type"] == "markdown" else f"```python\n{notebooks.code_of(source)}\n```\n"
        place = page.find(said, place)
        assert place >= 0, f"run `make gallery`: the page of {path.name} lacks\n{said}"
    assert "<table" in page


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_tables_and_pictures(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in shown if output.output_type == "error"]
    kinds = {kind for output in shown for kind in output.get("data", {})}
    assert "text/html" in kinds
    plotted = any(".plot" in cell.source for cell in book.cells)
    assert ("image/png" in kinds) == plotted
