"""The pooled decisions of a stream stay within the tolerance plus half a person per cell, whoever comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fairlayer as fl
from fairlayer.decisions import CellRule, DecisionRule, DecisionStream, UnseenCellError
from fairlayer.decisions.rounding import Rounding
from fairlayer.decisions.stream import wishes_of
from fairlayer.fused import switch

Request = tuple[float, str]


def rule_for(groups: str, tolerance: float, *, randomised: bool = False) -> DecisionRule:
    rng = np.random.default_rng(0)
    n = 60 * len(groups)
    sex = np.array(list(groups))[np.arange(n) % len(groups)]
    scores = np.clip(rng.beta(2, 3, n) + 0.1 * (np.arange(n) % len(groups)), 0, 1)
    y = (rng.random(n) < scores).astype(float) if randomised else None
    constraint = fl.EqualizedOdds("sex", tolerance) if randomised else fl.DemographicParity("sex", tolerance)
    return DecisionRule.fit(scores, [constraint], sensitive_features={"sex": sex}, y=y, randomised=randomised)


def adversary(kind: str, groups: str, n: int) -> Iterator[Request]:
    rng = np.random.default_rng(1)
    for i in range(n):
        g = groups[i % len(groups)]
        if kind == "opposite":  # one group always at the top, the others at the bottom
            yield (1.0 if g == groups[0] else 0.0), g
        elif kind == "one after the other":
            g = groups[min(i * len(groups) // n, len(groups) - 1)]
            yield (1.0 if g == groups[0] else 0.0), g
        elif kind == "turning":  # first high, later low
            yield (1.0 if (i < n // 2) == (g == groups[0]) else 0.0), g
        elif kind == "rare":
            g = groups[0] if i % 50 else groups[-1]
            yield float(rng.random()), g
        else:
            yield float(rng.random()), groups[int(rng.integers(len(groups)))]


def check(stream: DecisionStream, requests: Iterator[Request], tolerance: float) -> None:
    """Count by hand, and compare every pair of groups after every request."""
    count: Counter[str] = Counter()
    granted: Counter[str] = Counter()
    for score, g in requests:
        decision = int(stream.decide(torch.tensor([score]), {"sex": [g]}))
        assert decision in (0, 1)
        count[g] += 1
        granted[g] += decision
        for a, b in combinations(count, 2):
            gap = abs(granted[a] / count[a] - granted[b] / count[b])
            assert gap <= tolerance + 0.5 / count[a] + 0.5 / count[b] + 1e-9
    assert {f"sex={g}": n for g, n in count.items()} == {k: n for k, n in stream.counts().items() if n}
    rates = [granted[g] / count[g] for g in count]
    gap = max(rates) - min(rates) if len(rates) > 1 else None
    assert stream.gaps()["DemographicParity('sex')"] == (gap if gap is None else pytest.approx(gap))


def test_a_wish_rises_around_the_threshold_and_goes_on_beyond_0_and_1() -> None:
    rule = DecisionRule(("sex",), (CellRule(("F",), (0.5,), (1.0,), 9, 0.5),), False)
    scores = np.array([0.5, 0.51, 0.525, 0.475, 0.575, 0.425, 0.99])
    found = wishes_of(rule, scores, np.zeros(7, dtype=np.int64), width=0.05)
    assert found == pytest.approx([0.5, 0.7, 1.0, 0.0, 2.0, -1.0, 6.0])


def test_where_a_share_is_drawn_nobody_wishes_for_more_than_the_share() -> None:
    rule = DecisionRule(("sex",), (CellRule(("F",), (0.7, 0.5), (0.25, 0.5), 9, 0.5),), True)
    found = wishes_of(rule, np.array([0.99, 0.6, 0.425]), np.zeros(3, dtype=np.int64), width=0.05)
    assert found == pytest.approx([0.75, 0.5, -1.0])


def test_what_is_left_over_is_half_a_person_at_most_and_counted_again_it_is_the_same() -> None:
    random = np.random.default_rng(0)
    cells = {"sex": random.choice(["F", "M"], 500).tolist()}
    emitted = random.random(500).tolist()
    first, again = Rounding(), Rounding()
    answers = first.answers(cells, emitted)
    left: dict[str, float] = {"F": 0.0, "M": 0.0}
    for cell, prediction, answer in zip(cells["sex"], emitted, answers, strict=True):
        left[cell] += prediction - answer
        assert left[cell] + 1e-9 >= -0.5
        assert left[cell] < 0.5 + 1e-9
    again.recount(cells, emitted, answers)
    assert again.to_state() == pytest.approx(first.to_state())
    assert sorted(again.to_state().values()) == pytest.approx(sorted(left.values()))


@pytest.mark.parametrize("kind", ["opposite", "one after the other", "turning", "rare", "random"])
@pytest.mark.parametrize("groups", ["FM", "ABCD"])
@pytest.mark.parametrize("tolerance", [0.0, 0.05])
def test_adversaries(kind: str, groups: str, tolerance: float) -> None:
    stream = DecisionStream(rule_for(groups, tolerance), [fl.DemographicParity("sex", tolerance)])
    check(stream, adversary(kind, groups, 300), tolerance)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from("FM")), min_size=1, max_size=80),
    st.sampled_from([0.0, 0.02, 0.2]),
    st.booleans(),
)
def test_any_sequence(requests: list[Request], tolerance: float, randomised: bool) -> None:
    rule = rule_for("FM", tolerance, randomised=randomised)
    check(DecisionStream(rule, [fl.DemographicParity("sex", tolerance)]), iter(requests), tolerance)


def test_several_constraints_hold_within_half_a_person_per_cell() -> None:
    rng = np.random.default_rng(0)
    n = 400
    features = {"a": rng.integers(0, 2, n), "b": rng.integers(0, 3, n)}
    scores = np.clip(rng.random(n) + 0.2 * features["a"] - 0.1 * features["b"], 0, 1)
    held = [fl.DemographicParity("a", 0.02), fl.DemographicParity("b", 0.05)]
    stream = DecisionStream(DecisionRule.fit(scores, held, sensitive_features=features), held)
    decisions = []
    for i in range(n):
        columns = {name: column[i : i + 1] for name, column in features.items()}
        decisions.append(int(stream.decide(scores[i : i + 1], columns)))
        for name, tolerance, cells in (("a", 0.02, 3), ("b", 0.05, 2)):  # cells of each group
            seen = features[name][: i + 1]
            rates = {g: (np.array(decisions)[seen == g].mean(), (seen == g).sum()) for g in set(seen.tolist())}
            for (p, m), (q, k) in combinations(rates.values(), 2):
                assert abs(p - q) <= tolerance + 0.5 * cells * (1 / m + 1 / k) + 1e-9


def test_batches_count_as_a_whole() -> None:
    stream = DecisionStream(rule_for("FM", 0.05), [fl.DemographicParity("sex", 0.05)])
    rng = np.random.default_rng(2)
    granted, count = Counter(), Counter()  # type: ignore[var-annotated]
    for _ in range(20):
        n = int(rng.integers(1, 40))
        sex = rng.choice(["F", "M"], n)
        scores = rng.random((n, 1)) * (1 + (sex == "M"))[:, None] / 2
        decisions = stream.decide(scores, {"sex": sex})
        assert decisions.shape == (n, 1)
        count.update(sex.tolist())
        granted.update(sex[decisions[:, 0].numpy() == 1].tolist())
        if len(count) == 2:
            gap = abs(granted["F"] / count["F"] - granted["M"] / count["M"])
            assert gap <= 0.05 + 0.5 / count["F"] + 0.5 / count["M"] + 1e-9
    assert {k: int(v) for k, v in stream.selected().items()} == {f"sex={g}": granted[g] for g in ("F", "M")}


def test_where_the_rule_does_it_alone_few_decisions_change() -> None:
    rng = np.random.default_rng(3)
    n = 4000
    sex = rng.choice(["F", "M"], n)
    scores = np.clip(rng.beta(2, 3, n) + 0.1 * (sex == "M"), 0, 1)
    parity = [fl.DemographicParity("sex", 0.05)]
    rule = DecisionRule.fit(scores[:2000], parity, sensitive_features={"sex": sex[:2000]})
    stream = DecisionStream(rule, parity)
    later = slice(2000, n)
    own = rule.apply(scores[later], sensitive_features={"sex": sex[later]}).tolist()
    said = [int(stream.decide([s], {"sex": [g]})) for s, g in zip(scores[later], sex[later], strict=True)]
    assert np.mean(np.array(said) != own) < 0.06


def test_a_saved_stream_goes_on_alike() -> None:
    parity = [fl.DemographicParity("sex", 0.05)]
    rule = rule_for("FM", 0.05)
    first, second = DecisionStream(rule, parity), DecisionStream(rule, parity)
    requests = list(adversary("random", "FM", 200))
    for score, g in requests[:100]:
        first.decide([score], {"sex": [g]})
    second.load_state_dict(first.state_dict())
    rest = [[int(s.decide([score], {"sex": [g]})) for score, g in requests[100:]] for s in (first, second)]
    assert rest[0] == rest[1]
    assert first.gaps() == second.gaps()
    first.reset()
    assert sum(first.counts().values()) == 0


@pytest.mark.parametrize("way", ["0", "1"])
def test_present_holds_decisions_although_wishes_lie_far_beyond_the_bounds(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slack and noise are those of what is emitted, not of wishes, which differ from each other by up to eleven."""
    monkeypatch.setenv("FAIRLAYER_FUSED", way)
    monkeypatch.setattr(switch, "_streams", switch._Library(switch.StreamSweeps))
    rng = np.random.default_rng(5)
    n, first = 3_000, 1_000
    sex = rng.choice(["F", "M"], n + 800)
    scores = np.clip(rng.beta(2, 4, n + 800) + 0.1 * (sex == "M"), 0, 1)
    rule = DecisionRule.fit(
        scores[n:], [fl.DemographicParity("sex", 0.02)], sensitive_features={"sex": sex[n:]}, randomised=False
    )
    scores, sex = np.clip(scores[:n] + 0.15 * (sex[:n] == "M"), 0, 1), sex[:n]  # those who come have changed
    stream = DecisionStream(rule, [fl.DemographicParity("sex", 0.0)], policy="present")
    said = np.array([int(stream.decide([s], {"sex": [g]})) for s, g in zip(scores, sex, strict=True)])

    def gap(decisions: Any) -> float:
        later = slice(first, n)
        return abs(float(np.diff([decisions[later][sex[later] == g].mean() for g in "FM"])[0]))

    assert gap(rule.apply(scores, sensitive_features={"sex": sex}).numpy()) > 0.2
    assert gap(said) < 0.05  # two standard errors of a difference of means of a thousand decisions


def test_a_window_by_the_clock_takes_the_time_of_each_call() -> None:
    rule, parity = rule_for("FM", 0.05), [fl.DemographicParity("sex", 0.05)]
    stream = DecisionStream(rule, parity, policy="present", window="1h", hold="window")
    requests = list(adversary("random", "FM", 120))
    for minute, (score, g) in enumerate(requests):
        stream.decide([score], {"sex": [g]}, at=60.0 * minute)
    window = stream.report().window
    assert window is not None
    assert window.samples == 60
    assert (window.since, window.until) == (3600.0, 7140.0)
    before = stream.state_dict()["decision_stream"]
    with pytest.raises(fl.errors.ParameterError, match="Pass at= seconds with every call"):
        stream.decide([0.5], {"sex": ["F"]})
    with pytest.raises(fl.errors.ParameterError, match="at=60 lies before the time of an earlier call, 7140"):
        stream.decide([0.5], {"sex": ["F"]}, at=60.0)
    assert torch.equal(stream.state_dict()["decision_stream"], before)


def test_bad_input_changes_nothing() -> None:
    stream = DecisionStream(rule_for("FM", 0.05), [fl.DemographicParity("sex", 0.05)])
    stream.decide([0.9, 0.1], {"sex": ["F", "M"]})
    before = stream.state_dict()["decision_stream"]
    with pytest.raises(UnseenCellError, match="'sex=X'"):
        stream.decide([0.9, 0.5], {"sex": ["F", "X"]})
    with pytest.raises(fl.errors.NonFiniteScoresError, match="1 of 2 scores"):
        stream.decide([0.9, float("nan")], {"sex": ["F", "M"]})
    assert torch.equal(stream.state_dict()["decision_stream"], before)


def test_what_a_stream_cannot_hold_is_said() -> None:
    rule = rule_for("FM", 0.05)
    with pytest.raises(fl.errors.ConstraintDefinitionError, match=r"EqualOpportunity\('sex'\) reads labels"):
        DecisionStream(rule, [fl.EqualOpportunity("sex", 0.05)])
    with pytest.raises(fl.errors.ConstraintDefinitionError, match=r"read \['race'\], but the rule was fitted on"):
        DecisionStream(rule, [fl.DemographicParity("race", 0.05)])
    with pytest.raises(fl.errors.ConstraintDefinitionError, match="width must be a number > 0"):
        DecisionStream(rule, [fl.DemographicParity("sex", 0.05)], width=0.0)
    state = DecisionStream(rule_for("ABCD", 0.05), [fl.DemographicParity("sex", 0.05)]).state_dict()
    stream = DecisionStream(rule, [fl.DemographicParity("sex", 0.05)])
    with pytest.raises(fl.errors.ConstraintDefinitionError, match=r"saved stream has the cells .* but this one has"):
        stream.load_state_dict(state)
