"""A metric of the user's own, from the rows to the page; and the size from which on a group counts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from fairlayer.audit import audit, mean_of, register
from fairlayer.audit.metrics import base
from fairlayer.report import render_markdown, render_page


@pytest.fixture
def days() -> Iterator[str]:
    name = "days_to_answer"
    register(mean_of(name, words="days until an answer", unit="days", worse="higher"))
    yield name
    base._REGISTER.pop(name)


def test_a_metric_of_ones_own_is_judged_and_shown_everywhere(days: str) -> None:
    rng = np.random.default_rng(0)
    sex = np.repeat(["F", "M"], 300)
    waited = rng.gamma(2.0, 3.0, 600) + 3.0 * (sex == "F")
    found = audit(
        scores=rng.random(600),
        sensitive_features={"sex": sex},
        values={days: waited},
        limits=[f"{days}_difference > 2", f"{days}_ratio < 0.1"],
    )
    gap = waited[:300].mean() - waited[300:].mean()
    assert [str(one.outcome) for one in found.statements] == ["FAIL", "PASS"]
    assert found.exit_code == 1
    assert f"The largest difference is {gap:.3f} days" in found.statements[0].answer
    document = found.to_dict()
    assert document["verdicts"][0]["measured"] == pytest.approx(gap, abs=1e-9)
    numbers = {group["name"]: group["numbers"][days]["value"] for group in document["groupings"][0]["groups"]}
    assert numbers == pytest.approx({"sex=F": waited[:300].mean(), "sex=M": waited[300:].mean()}, abs=1e-9)
    assert "sex=F" in document["headline"]["worse_off"][0]  # to wait longer is worse
    for text in (render_page(document), render_markdown(document)):
        assert "days until an answer" in text
        assert f"{gap:.3f} days" in text
    assert "days to answer" in render_page(document)


def test_a_group_of_exactly_the_smallest_size_is_counted() -> None:
    sex = ["F"] * 30 + ["M"] * 30 + ["X"] * 29
    found = audit(decisions=[1] * 45 + [0] * 44, sensitive_features={"sex": sex}, min_group_size=30)
    [grouping] = found.to_dict()["groupings"]
    assert [one["standing"] for one in grouping["groups"]] == ["counted", "counted", "small"]
    headline = found.table.disparity("demographic_parity", "sex")
    assert [one.name for one in headline.left_out] == ["sex=X"]
    assert headline.difference.known
