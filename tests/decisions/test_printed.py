"""What a person sees who prints decisions."""

from __future__ import annotations

import numpy as np

import fairlayer as fl
from fairlayer.decisions import DecisionRule, DecisionStream, decide, reject_option


def test_decisions_print_as_a_small_table() -> None:
    scores, sex = [0.9, 0.8, 0.6, 0.4, 0.7, 0.45, 0.3, 0.1], {"sex": ["F"] * 4 + ["M"] * 4}
    text = str(fl.decide(scores, fl.DemographicParity("sex", tolerance=0.0), sensitive_features=sex))
    assert "tensor" not in text
    rows = [line.split() for line in text.splitlines()]
    assert ["sex=F", "4", "2", "50.0%", "0.7"] in rows
    assert text.splitlines()[-1].strip() == "DemographicParity('sex'): 0 of the decisions"
    assert max(map(len, text.splitlines())) <= 80


def test_equal_scores_are_shown_as_a_share_of_everybody() -> None:
    groups = {"sex": ["F"] * 70 + ["M"] * 30}
    parity = fl.DemographicParity("sex", tolerance=0.02)
    shown = repr(decide(np.full(100, 0.7), [parity], sensitive_features=groups, capacity=30)).splitlines()
    assert shown[1].split() == ["cell", "samples", "selected", "rate", "selected", "from"]
    assert [line.split()[-2:] for line in shown[2:4]] == [["everybody", "(30%)"], ["everybody", "(30%)"]]
    nobody = decide(np.full(100, 0.7), [parity], sensitive_features=groups, capacity=0)
    assert "nobody" in repr(nobody)
    assert "nobody" in nobody._repr_html_()


def test_a_band_is_shown_in_a_few_lines() -> None:
    scores = [0.9, 0.8, 0.55, 0.2, 0.7, 0.45, 0.3, 0.1]
    asked = reject_option(scores, "sex", 0.0, sensitive_features={"sex": ["F"] * 4 + ["M"] * 4})
    assert repr(asked).splitlines() == [
        "ReferredDecisions of 8 rows, 2 of them referred; band: within 0.05 of the threshold",
        "  group  in the band    rate",
        "  sex=F        25.0%   50.0%",
        "  sex=M        25.0%   50.0%",
        "  gap: 0.5 before, 0 reachable, at most 0.5",
    ]
    none = reject_option(scores, "sex", 1.0, sensitive_features={"sex": ["F"] * 4 + ["M"] * 4})
    assert "0 of them referred; band: none, since none is needed" in repr(none)


def test_a_stream_of_decisions_says_where_it_stands() -> None:
    parity, sex = fl.DemographicParity("sex", tolerance=0.1), ["F", "F", "M", "M"]
    scores = np.array([0.9, 0.4, 0.7, 0.1])
    stream = DecisionStream(DecisionRule.fit(scores, [parity], sensitive_features={"sex": sex}), [parity])
    stream.decide(scores, {"sex": sex})
    assert repr(stream) == (
        "DecisionStream(DemographicParity('sex', tolerance=0.1); policy 'anytime'), 4 decided, "
        "gaps so far: DemographicParity('sex') 0"
    )
