"""The page: whole, self-contained, accessible, readable on a phone and on paper."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairlayer.audit import Audit, Columns, Provenance, Supplied, Wanted, audit_frame
from fairlayer.audit.law import cited
from fairlayer.errors import ParameterError
from fairlayer.report import page as report_page
from fairlayer.report import public_document, render_card, render_markdown, render_page, write_page
from tests.report.browser import measured, printed

VOID = {"meta", "br", "path", "use", "rect", "image", "circle", "line"}
RACES = ("Hispanic or Latino", "White", "Black or African American", "Native Hawaiian or Pacific Islander", "Asian")


@pytest.fixture(scope="module")
def found() -> Audit:
    rng = np.random.default_rng(0)
    n = 3000
    sex = rng.choice(["Female", "Male"], n).astype(object)
    sex[:9] = None
    frame = pd.DataFrame(
        {
            "sex": sex,
            "race": rng.choice(RACES, n, p=[0.2, 0.5, 0.2, 0.005, 0.095]),
            "repaid": rng.integers(0, 2, n),
            "zip": rng.integers(0, 50, n),
        }
    )
    frame["before"] = np.clip(0.4 + 0.2 * frame.repaid + 0.15 * (frame.sex == "Male") + rng.normal(0, 0.1, n), 0, 1)
    frame["after"] = np.clip(frame.before - 0.15 * (frame.sex == "Male"), 0, 1)
    return audit_frame(
        frame,
        Columns(["sex", "race+sex"], score="after", score_before="before", target="repaid"),
        wanted=Wanted("selection", "sex", "race", lending=True, proxies=True),
        limits=["demographic_parity_difference > 0.05"],
        reference=["sex=Male", "race=White & sex=Male"],
        supplied=Supplied(
            {"title": "Loans <2026> & more", "purpose": "loans"},
            {"approvers": ["A. Weber, risk"], "pathways": [{"from": "sex", "to": "income", "judged": "not allowed"}]},
            {"sex": "sensitive", "zip": "proxy", "repaid": "outcome"},
        ),
        provenance=Provenance(
            date="2026-11-29 10:00 UTC", data="loans.csv", data_sha256="ab" * 32, command="fairlayer audit"
        ),
    )


@pytest.fixture(scope="module")
def page(found: Audit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("page") / "report.html", found)


class Checker(HTMLParser):
    """Tags open and close in order; headings go down one by one; tables have heads; nothing comes from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.tables: list[dict[str, int]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "figure":
            assert "role" not in given  # it is not allowed there: the picture inside has it
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href")]
        self.ids += [given["id"] or ""] if "id" in given else []
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "svg":
            self.pictures.append(given)
        if tag == "table":
            self.tables.append({"th": 0, "unscoped": 0})
        if tag == "th":
            self.tables[-1]["th"] += 1
            self.tables[-1]["unscoped"] += "scope" not in given

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    return checker


@pytest.mark.parametrize("format", ["audit", "brief", "ll144", "lending"])
def test_the_page_is_whole_accessible_and_loads_nothing(found: Audit, format: Any) -> None:
    text = render_page(found, format=format)
    seen = checked(text)
    assert seen.open == []
    assert "<script" not in text
    assert all(link.startswith("#") and link[1:] in seen.ids for link in seen.links)
    assert len(seen.ids) == len(set(seen.ids))
    assert len(re.findall("<main[ >]", text)) == 1
    assert seen.headings[0] == 1
    assert seen.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(seen.headings, seen.headings[1:], strict=False))
    assert seen.tables
    assert all(table["th"] and not table["unscoped"] for table in seen.tables)
    assert all(("aria-label" in picture) or picture.get("aria-hidden") == "true" for picture in seen.pictures)


@pytest.mark.parametrize("format", ["audit", "ll144"])
def test_a_provision_is_printed_with_the_day_on_which_it_was_looked_up(found: Audit, format: Any) -> None:
    text = render_page(found, format=format)
    named = ["Local Law 144"] + (["Annex III", "Annex IV"] if format == "audit" else [])
    assert all(f"{one.provision} ({one.standing})" in text for one in map(cited, named))
    assert all(str(cited(name).as_of) in cited(name).standing for name in named)


def test_of_a_provision_that_was_not_checked_the_page_says_only_that(
    found: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_page, "cited", lambda words: replace(cited(words), checked="unchecked", basis=""))
    text = render_page(found)
    assert text.count("not checked on") == 3
    assert all(cited(name).status not in text for name in ("Local Law 144", "Annex III", "Annex IV"))


def test_the_first_screen_answers_a_reader_without_statistics(found: Audit) -> None:
    text = re.sub(r"<[^>]+>|\s+", " ", render_page(found))
    first = text[: text.index("Contents")]
    for said in (
        str(found.outcome),
        "What was asked, and did it hold?",
        "allowing for chance",
        "3,000 people were counted",
        "They are those of loans.csv, audited on 2026-11-29 10:00 UTC.",
        "Who is worse off?",
        "sex Male: each score was lowered by 1",
        "What did it cost?",
        "The accuracy went from",
    ):
        assert re.sub(r"\s+", " ", said) in re.sub(r"\s+", " ", first)


def test_every_part_is_there_and_what_nobody_said_is_said_to_be_missing(found: Audit) -> None:
    text = render_page(found)
    for said in (
        "Annex IV",
        "Sign-off",
        "Glossary",
        "ab" * 32,
        "not supplied",
        "not legal advice",
        "group not known",
        "A. Weber, risk",
    ):
        assert said in text
    assert "Loans &lt;2026&gt; &amp; more" in text
    assert not re.search(r"\b(fair|unbiased)\b", text, flags=re.IGNORECASE)


def test_the_rule_of_new_york_is_shown_without_a_judgement(found: Audit) -> None:
    text = render_page(found, format="ll144")
    assert not re.search(
        r"\b(pass|passed|fail|failed|compliant)\b", re.sub(r"<style.*?</style>", "", text, flags=re.S), re.I
    )
    for said in ("Distribution date", "Impact ratio", "unknown category", "less than 2"):
        assert said in text


def test_a_format_needs_what_it_shows(found: Audit) -> None:
    document = {**found.to_dict(), "impact": None, "lending": []}
    with pytest.raises(ParameterError, match="--format ll144"):
        render_page(document, format="ll144")
    with pytest.raises(ParameterError, match="--reference"):
        render_page(document, format="lending")


def test_the_people_who_are_in_no_ratio_are_told_and_nobody_is_told_too(found: Audit) -> None:
    text = render_page(found, format="lending")
    assert "<li>By sex: unknown, 9 people" in text
    assert "Nobody: every row was counted" not in text
    whole = audit_frame(
        pd.DataFrame({"sex": ["Female", "Male"] * 100, "p": [0.2, 0.7] * 100}),
        Columns(["sex"], score="p"),
        wanted=Wanted(lending=True),
        reference=["sex=Male"],
    )
    assert "Nobody: every row was counted" in render_page(whole, format="lending")


def test_equal_input_gives_an_equal_page(found: Audit) -> None:
    assert render_page(found) == render_page(found.to_dict())


def luminance(colour: str) -> float:
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_enough_contrast() -> None:
    style = (files("fairlayer.report") / "templates" / "page.css").read_text(encoding="utf-8")
    for rule in re.findall(r"\{([^{}]*)\}", style):
        ink = re.search(r"(?<![-\w])color: (#[0-9a-f]{6})", rule)
        ground = re.search(r"background: (#[0-9a-f]{6})", rule)
        if ink or ground:
            one, other = ink[1] if ink else "#1c1c1c", ground[1] if ground else "#ffffff"
            if "border-left" not in rule and ground and not ink:
                one = "#ffffff"  # the words in the coloured mark of an outcome
            light, dark = sorted((luminance(one), luminance(other)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, rule


@pytest.mark.parametrize("width", [390, 700, 768, 820, 1280])
def test_nothing_sticks_out_of_a_window(page: Path, width: int, tmp_path: Path) -> None:
    seen = measured(page, width, tmp_path)
    assert seen.window == width
    assert seen.content <= width
    assert seen.outside == 0, seen.first


@pytest.mark.parametrize("paper", ["A4", "letter"])
def test_the_brief_page_is_of_two_to_four_sheets(found: Audit, paper: str, tmp_path: Path) -> None:
    text, _ = printed(write_page(tmp_path / "brief.html", found, format="brief"), paper, tmp_path)
    assert 2 <= text.count("\f") <= 4
    assert "Signature" in text


@pytest.mark.parametrize("paper", ["A4", "letter"])
def test_nothing_is_cut_on_paper(page: Path, paper: str, tmp_path: Path) -> None:
    text, margin = printed(page, paper, tmp_path)
    assert margin >= 20  # points; the margin of the page is 13 mm, 37 points
    words = set(re.findall(r"\w+", text))
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    wanted = set(re.findall(r"(?<![&\w])[A-Za-z]\w+", " ".join(re.sub(r"<[^>]+>|&\w+;", " ", cell) for cell in cells)))
    missing = {word for word in wanted if word not in words and len(word) < 20}
    assert not missing
    assert "Contents" not in words  # links to places of the page, which paper does not follow


def test_markdown_and_card_say_the_same(found: Audit) -> None:
    yaml = pytest.importorskip("yaml")
    card = render_card(found)
    front = yaml.safe_load(card.split("---")[1])
    metrics = {one["type"]: one["value"] for one in front["model-index"][0]["results"][0]["metrics"]}
    costs = {one["metric"]: one["now"] for one in found.to_dict()["cost"]}
    assert metrics["accuracy"] == pytest.approx(costs["accuracy"], abs=1e-5)
    for text in (card, render_markdown(found)):
        assert f"**{found.outcome}.**" in text
        assert "| sex Male |" in text


def test_hugging_face_reads_the_card(found: Audit) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(render_card(found))
    assert card.data.library_name == "fairlayer"
    assert card.data.eval_results


def test_the_public_page_hides_small_groups(found: Audit) -> None:
    public = public_document(found.to_dict(), smallest=20)
    text = render_page(public)
    assert "version for the public" in text
    assert "race Native Hawaiian or Pacific Islander, sex Female" not in text
    assert checked(text).open == []
