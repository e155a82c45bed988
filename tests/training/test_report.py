"""The HTML page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from fairlayer.report import render_html, write_html
from fairlayer.training import Trained

VOID = {"meta", "br", "path", "use", "rect", "image", "circle", "line"}


class Checker(HTMLParser):
    """Tags open and close in order; nothing is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        names = ("src", "href", "xlink:href")
        self.links += [value or "" for name, value in attributes if name in names]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(trained: Trained) -> None:
    page = render_html(trained.comparison)
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert all(link.startswith("#") for link in checker.links)
    assert "<script" not in page
    assert page.count("<svg") == 2


def test_the_page_says_what_holds_and_what_does_not(trained: Trained) -> None:
    text = re.sub(r"\s+", " ", render_html(trained.comparison))
    for said in (
        "Mean predictions of each batch, within tolerance",
        "decisions at 0.5 (not bounded)",
        "scores, all batches pooled (bounded per batch)",
        "half the squared move per prediction that one more unit of tolerance would save",
        "GENERATED data",
        "95 % bootstrap interval",
    ):
        assert said in text
    for group in trained.comparison.groups:
        assert f'<td class="n">{group.count}</td>' in text
    assert not re.search(r"\b(fair|unbiased)\b", text, flags=re.IGNORECASE)


def test_names_from_the_data_are_escaped(trained: Trained, tmp_path: Path) -> None:
    path = write_html(tmp_path / "r.html", trained.comparison, title="<b>&")
    assert "<title>&lt;b&gt;&amp;</title>" in path.read_text(encoding="utf-8")


def test_equal_input_gives_an_equal_page(trained: Trained) -> None:
    assert render_html(trained.comparison) == render_html(trained.comparison)
