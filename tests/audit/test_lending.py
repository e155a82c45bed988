"""The tables of lending practice, number by number, counted from the rows."""

from __future__ import annotations

import numpy as np
import pytest

from fairlayer.audit import AuditTable, lending_table
from fairlayer.errors import CategoryError, ParameterError

stats = pytest.importorskip("scipy.stats")


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(200, 900))
    group = rng.choice(["A", "B", "C", "D"], n, p=[0.5, 0.3, 0.15, 0.05])
    scores = np.clip(rng.beta(2, 3, n) + 0.08 * (group == "A"), 0, 1)
    return group, scores, (scores + 0.1 * rng.normal(size=n) > 0.5).astype(int)


@pytest.mark.parametrize("seed", range(25))
def test_every_number_is_that_of_the_rows(seed: int) -> None:
    group, scores, taken = drawn(seed)
    table = AuditTable.of(scores=scores, decisions=taken, sensitive_features={"group": group})
    found = lending_table(table, "group", "group=A")
    base, base_scores = taken[group == "A"], scores[group == "A"]
    assert found["reference_rate"] == pytest.approx(base.mean(), abs=1e-12)
    assert [one["name"] for one in found["groups"]] == ["group=B", "group=C", "group=D"]
    p_values = []
    for one in found["groups"]:
        mine, own = taken[group == one["name"][-1]], scores[group == one["name"][-1]]
        assert one["rows"] == len(mine)
        assert one["small"] == (len(mine) < 30)
        assert one["rate"] == pytest.approx(mine.mean(), abs=1e-12)
        assert one["air"] == pytest.approx(mine.mean() / base.mean(), abs=1e-9)
        assert one["difference"] == pytest.approx(mine.mean() - base.mean(), abs=1e-12)
        assert one["low"] <= one["difference"] <= one["high"]
        assert one["shortfall"] == pytest.approx(base.mean() * len(mine) - mine.sum(), abs=1e-9)
        assert one["ratio_with_one_more"] == pytest.approx((mine.sum() + 1) / len(mine) / base.mean(), abs=1e-9)
        assert one["practical"] == (min(one["air"], 1 / one["air"]) < 0.8 if one["air"] else True)
        cells = [[mine.sum(), len(mine) - mine.sum()], [base.sum(), len(base) - base.sum()]]
        if one["test"] == "Fisher":
            assert one["p"] == pytest.approx(stats.fisher_exact(cells).pvalue, abs=1e-9)
        else:  # the two-sided z test is the chi-squared test of the same table
            assert one["p"] == pytest.approx(stats.chi2_contingency(cells, correction=False).pvalue, abs=1e-9)
        p_values.append(one["p"])
        pooled = ((len(own) - 1) * own.var(ddof=1) + (len(base_scores) - 1) * base_scores.var(ddof=1)) ** 0.5
        pooled /= (len(own) + len(base_scores) - 2) ** 0.5
        assert one["smd_pooled"] == pytest.approx((own.mean() - base_scores.mean()) / pooled, abs=1e-9)
        assert one["smd_population"] == pytest.approx((own.mean() - base_scores.mean()) / scores.std(ddof=1), abs=1e-9)
        assert one["smd_p"] == pytest.approx(stats.ttest_ind(own, base_scores, equal_var=False).pvalue, abs=1e-9)
    rates = stats.false_discovery_control(p_values)
    assert [one["q"] for one in found["groups"]] == pytest.approx(rates.tolist(), abs=1e-9)
    assert [one["statistical"] for one in found["groups"]] == [rate < 0.05 for rate in rates]


def test_a_reference_is_named_beforehand() -> None:
    group, _, taken = drawn(0)
    table = AuditTable.of(decisions=taken, sensitive_features={"group": group})
    with pytest.raises(ParameterError, match="Name one of group=A, group=B"):
        lending_table(table, "group", None)
    with pytest.raises(CategoryError, match="no group 'group=Z'"):
        lending_table(table, "group", "group=Z")
    assert {one["smd_pooled"] for one in lending_table(table, "group", "group=A")["groups"]} == {None}
