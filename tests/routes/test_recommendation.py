"""What a recommendation warns of, at the sizes where it begins to."""

from __future__ import annotations

import pytest

from fairlayer.routes import Situation, recommend


@pytest.mark.parametrize(("people", "said"), [(29, "mostly chance"), (30, "10 points"), (199, "10 points"), (200, "")])
def test_small_groups_are_warned_of_by_their_size(people: int, said: str) -> None:
    warned = [text for text in recommend(Situation(smallest_group=people)).warnings if "smallest group" in text]
    assert [said in text for text in warned] == ([True] if said else [])


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("hard", [True, False])
def test_a_hard_bound_without_the_group_is_warned_of(hard: bool, known: bool) -> None:
    found = recommend(Situation(model="network", hard=hard, group_at_inference=known)).warnings
    assert any("without it, none is hard" in text for text in found) is (hard and not known)
    assert any("treated by their group" in text for text in found) is known


def test_the_first_method_that_fits_is_taken_and_the_others_are_named() -> None:
    found = recommend(Situation(model="trees"))
    assert found.method.fits(Situation(model="trees"))
    assert found.method not in found.others
    assert all(method.fits(Situation(model="trees")) for method in found.others)
