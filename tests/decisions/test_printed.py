"""What a person sees who prints decisions."""

from __future__ import annotations

import fairlayer as fl


def test_decisions_print_as_a_small_table() -> None:
    scores, sex = [0.9, 0.8, 0.6, 0.4, 0.7, 0.45, 0.3, 0.1], {"sex": ["F"] * 4 + ["M"] * 4}
    text = str(fl.decide(scores, fl.DemographicParity("sex", tolerance=0.0), sensitive_features=sex))
    assert "tensor" not in text
    rows = [line.split() for line in text.splitlines()]
    assert ["sex=F", "4", "2", "50.0%", "0.7"] in rows
    assert text.splitlines()[-1].strip() == "DemographicParity('sex'): 0 of the decisions"
    assert max(map(len, text.splitlines())) <= 80
