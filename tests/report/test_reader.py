"""What the templates call, and that the numbers of the document stand in the tables of the page."""

from __future__ import annotations

import re
from html import escape, unescape

import numpy as np
import pandas as pd

from fairlayer.audit import Audit, Columns, Wanted, audit_frame
from fairlayer.report import render_page
from fairlayer.report.reading import Reader


def found() -> Audit:
    n = 400
    score = np.tile([0.2, 0.4, 0.6, 0.8], 100)
    frame = pd.DataFrame({"sex": ["F"] * 200 + ["M"] * 200, "race": ["A", "B"] * 200, "score": score})
    frame["after"] = np.where(frame.sex == "F", frame.score + 0.15, frame.score)
    frame["y"] = np.tile([0, 1, 0, 1, 1], n // 5)
    columns = Columns(["sex", "race"], score="after", score_before="score", target="y")
    limits = ["demographic_parity_difference > 0.1 by sex"]
    return audit_frame(frame, columns, wanted=Wanted("selection", "sex", "race"), limits=limits)


def words(page: str) -> str:
    """Return the text of a page, with single spaces."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))


def test_a_violation_is_a_number_and_slack_is_none() -> None:
    assert Reader.violation(2e-8) == "2.0e-08"
    assert Reader.violation(0.0) == Reader.violation(-1.0) == "none"


def test_both_kinds_of_significance_are_told_apart() -> None:
    both = {"statistical": True, "practical": True}
    assert Reader.significant(both) == "statistically and practically"
    assert Reader.significant({**both, "practical": False}) == "statistically"
    assert Reader.significant({**both, "statistical": False}) == "practically"
    assert Reader.significant({"statistical": False, "practical": False}) == "neither"


def test_a_limit_says_its_side_and_a_lottery_its_share() -> None:
    assert Reader.limit({"at_least": True, "limit": 0.8}) == "at least 0.8"
    assert Reader.limit({"at_least": False, "limit": 0.05}) == "at most 0.05"
    assert Reader.thresholds({"thresholds": [0.7, 0.5], "shares": [1.0, 0.25]}) == "0.700; 0.500 for 25\u00a0%"
    assert Reader.thresholds({"thresholds": [], "shares": []}) == "never"


def test_what_changed_is_shown_with_what_it_was() -> None:
    shown = Reader().then_now({"before": {"auc": {"value": 0.7}}, "numbers": {"auc": {"value": 0.8}}}, "auc", True)
    assert shown == "0.700 → 0.800"
    same = {"before": {"auc": {"value": 0.8}}, "numbers": {"auc": {"value": 0.8}}}
    assert Reader().then_now(same, "auc", True) == "0.800"


def test_the_tables_of_the_page_hold_the_numbers_of_the_document() -> None:
    audited = found()
    document, text = audited.to_dict(), render_page(audited)
    plain = words(text)
    [verdict] = document["verdicts"]
    assert f'<th scope="row">{escape(verdict["limit"])} by sex</th>' in text
    for group in document["groupings"][0]["groups"]:
        rate = group["numbers"]["selection_rate"]
        assert f"{100 * rate['low']:.1f} % to {100 * rate['high']:.1f} %" in plain
    page = words(render_page(audited, format="ll144"))
    for table in document["impact"]["tables"]:
        for one in table["categories"]:
            assert f"{one['impact_ratio']:.2f}" in page
            assert f"{100 * one['rate']:.1f} %" in page
