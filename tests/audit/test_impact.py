"""The tables that New York City's rule asks for, on the figures of the rule's own examples, as far as they were read.

The rule is 6 RCNY 5-301, https://codelibrary.amlegal.com/codes/newyorkcity/latest/NYCrules/0-0-0-138530. Its tables
were read where its text is quoted, on 2026-11-29: the scoring example (sex, and five of seven categories of race or
ethnicity) in https://hf.qhduan.com/datasets/rk68/LL144-giskard-239, the selection example (three categories of race or
ethnicity) in https://hugingapi.com/datasets/rk68/LL144-Test-Set. The selection example's figures by sex, its other
categories, and the intersectional tables of both examples were not seen; the arithmetic of those is tested on figures
of our own, which are called so.
"""

from __future__ import annotations

import numpy as np
import pytest

from fairlayer.audit import impact_audit

# The scoring example of 6 RCNY 5-301: category -> (people, scoring rate in percent, impact ratio); the rule cuts the
# rate of 18 in 28 off at 64.2. The last two categories are our own: they fill the sample up to 168 people, half of them
# above the median.
RACES = {
    "Hispanic or Latino": (28, 18),
    "White": (40, 15),
    "Black or African American": (32, 16),
    "Native Hawaiian or Pacific Islander": (8, 5),
    "Asian": (24, 10),
    "Native American or Alaska Native": (16, 8),
    "Two or More Races": (20, 12),
}
PRINTED = {
    "Male": (92, 54.3, 1.00),
    "Female": (76, 44.7, 0.82),
    "Hispanic or Latino": (28, 64.2, 1.00),
    "White": (40, 37.5, 0.58),
    "Black or African American": (32, 50.0, 0.78),
    "Native Hawaiian or Pacific Islander": (8, 62.5, 0.97),
    "Asian": (24, 41.7, 0.65),
}


def example() -> tuple[list[str], list[str], np.ndarray]:
    race = [name for name, (n, _) in RACES.items() for _ in range(n)]
    above = np.array([k < x for n, x in RACES.values() for k in range(n)])
    sex = np.empty(len(race), dtype=object)
    sex[above] = ["Male"] * 50 + ["Female"] * 34
    sex[~above] = ["Male"] * 42 + ["Female"] * 42
    scores = np.where(above, 70.0, 40.0) + np.linspace(0, 5, len(race))
    return sex.tolist(), race, scores


def test_the_scoring_example_of_the_rule() -> None:
    sex, race, scores = example()
    found = impact_audit(sex=sex, race=race, scores=scores)
    printed = {
        one.name: (one.assessed, one.rate, table.ratio(one)) for table in found.tables[:2] for one in table.categories
    }
    for name, (people, rate, ratio) in PRINTED.items():
        assert printed[name][0] == people
        assert 100 * printed[name][1] == pytest.approx(rate, abs=0.1)
        assert printed[name][2] == pytest.approx(ratio, abs=0.01)
    assert found.median == pytest.approx(float(np.median(scores)))


# Of the selection example: category -> (applicants, selected, selection rate in percent, impact ratio).
SELECTED = {
    "Hispanic or Latino": (408, 204, 50, 0.97),
    "White": (797, 412, 52, 1.00),
    "Black or African American": (390, 170, 44, 0.84),
}


def test_what_was_read_of_the_selection_example() -> None:
    race = [name for name, (n, *_) in SELECTED.items() for _ in range(n)]
    selected = [int(k < x) for n, x, *_ in SELECTED.values() for k in range(n)]
    table = impact_audit(sex=["Male"] * len(race), race=race, selected=selected).tables[1]
    for one in table.categories:
        people, _, rate, ratio = SELECTED[one.name]
        assert one.assessed == people
        assert round(100 * one.rate) == rate
        assert round(table.ratio(one), 2) == ratio


def test_sex_and_race_crossed_on_figures_of_our_own() -> None:
    ours = {("Male", "A"): (40, 20), ("Male", "B"): (50, 20), ("Female", "A"): (30, 6), ("Female", "B"): (20, 9)}
    sex = [s for (s, _), (n, _) in ours.items() for _ in range(n)]
    race = [r for (_, r), (n, _) in ours.items() for _ in range(n)]
    selected = [int(k < x) for n, x in ours.values() for k in range(n)]
    table = impact_audit(sex=sex, race=race, selected=selected).tables[2]
    found = {one.name: (one.assessed, one.chosen, round(table.ratio(one), 3)) for one in table.categories}
    assert found == {
        "Male, A": (40, 20, 1.0),
        "Male, B": (50, 20, 0.8),
        "Female, A": (30, 6, 0.4),
        "Female, B": (20, 9, 0.9),
    }


def test_each_table_has_a_highest_rate_of_its_own_and_unknown_people_are_in_none() -> None:
    found = impact_audit(
        sex=["M"] * 50 + ["F"] * 50 + [None] * 7,
        race=["A", "B"] * 50 + ["A"] * 7,
        selected=[1, 0] * 25 + [0, 1] * 25 + [1] * 7,
    )
    assert [table.unknown for table in found.tables] == [7, 0, 7]
    for table in found.tables:
        assert max(table.ratio(one) for one in table.categories) == 1.0


def test_ties_at_the_median_do_not_count_as_above_it() -> None:
    found = impact_audit(sex=["M", "F"] * 10, race=["A"] * 20, scores=[1.0] * 20)
    assert found.at_median == 20
    assert [one.rate for one in found.tables[0].categories] == [0.0, 0.0]
    assert np.isnan(found.tables[0].ratio(found.tables[0].categories[0]))


def test_categories_below_two_percent_are_left_out_only_with_a_reason_and_keep_their_rate() -> None:
    given = {"sex": ["M"] * 99 + ["F"], "race": ["A"] * 100, "selected": [1, 0] * 49 + [0, 1]}
    kept, left = impact_audit(**given), impact_audit(**given, left_out_reason="one person")
    assert [one.left_out for one in kept.tables[0].categories] == [False, False]
    woman = left.tables[0].categories[0]
    assert (woman.name, woman.left_out, woman.rate) == ("F", True, 1.0)
    assert np.isnan(left.tables[0].ratio(woman))
    assert left.tables[0].ratio(left.tables[0].categories[1]) == 1.0  # the highest rate is that of those who take part
