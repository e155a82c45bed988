"""A number is one of Python or NumPy wherever one is given; a truth value and text are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl

_SCORES = np.linspace(0.05, 0.95, 20)
_GROUPS = {"g": np.arange(20) // 10}
_PARITY = fl.DemographicParity("g", tolerance=0.25)


def _projected(**how: Any) -> list[float]:
    return fl.project(_SCORES, [_PARITY], sensitive_features=_GROUPS, **how).value.tolist()


def _model(**how: Any) -> list[float]:
    model = fl.FairModel(torch.nn.Identity(), [_PARITY], bounds=(0.0, 1.0), **how).eval()
    model.reset_inference_state()
    return model(torch.tensor(_SCORES), sensitive_features=_GROUPS, inference=True).tolist()


def _clocked(at: Any) -> list[float]:
    model = fl.FairModel(torch.nn.Identity(), [_PARITY], bounds=(0.0, 1.0)).eval()
    model.reset_inference_state()
    return model(torch.tensor(_SCORES), sensitive_features=_GROUPS, inference=True, at=at).tolist()


def _limited(constraint: fl.Constraint) -> list[float]:
    y = (_SCORES > 0.5).astype(float)
    return fl.project(_SCORES, [constraint], sensitive_features=_GROUPS, y=y).value.tolist()


_PLACES: dict[str, Callable[[Any], object]] = {
    "tolerance": lambda number: _limited(fl.DemographicParity("g", tolerance=number)),
    "tolerance on errors": lambda number: _limited(fl.EqualizedOdds("g", tolerance=number)),
    "floor": lambda number: _limited(fl.MinimumRate("g", floor=number)),
    "ratio": lambda number: _limited(fl.DisparateImpactRatio("g", ratio=number)),
    "constant": lambda number: fl.LipschitzFairness("x", constant=number).constant,
    "margin": lambda number: _projected(bounds=(0.0, 1.0), margin=number),
    "lower bound": lambda number: _projected(bounds=(number, None)),
    "upper bound": lambda number: _projected(bounds=(None, number)),
    "both bounds and a margin": lambda number: _projected(bounds=(number, number + number), margin=0.125),
    "anchor": lambda number: fl.FairProjection([_PARITY], anchor=number).anchor,
    "memory": lambda number: _model(memory=40 * number),
    "transition": lambda number: _model(transition=number),
    "time": _clocked,
}

_COMPUTED = ("memory", "both bounds and a margin")  # what is given there is computed from the number


@pytest.mark.parametrize("place", _PLACES)
def test_a_number_of_numpy_means_the_same_as_one_of_python(place: str) -> None:
    take = _PLACES[place]
    assert take(np.float32(0.25)) == take(np.float64(0.25)) == take(0.25)


@pytest.mark.parametrize("place", [name for name in _PLACES if name not in _COMPUTED])
@pytest.mark.parametrize("given", [True, "0.25", float("nan")], ids=["a truth value", "text", "not a number"])
def test_what_is_no_number_is_refused_by_name(place: str, given: Any) -> None:
    with pytest.raises(fl.FairlayerError, match=r"must be|out of range|needs"):
        _PLACES[place](given)


def test_a_whole_number_of_numpy_means_the_same_as_one_of_python() -> None:
    three = np.int64(3)
    assert fl.LipschitzFairness("x", neighbours=three).neighbours == 3
    assert (
        fl.GroupCalibration("g", 0.1, bins=three).edges.tolist() == fl.GroupCalibration("g", 0.1, bins=3).edges.tolist()
    )
    model = fl.FairModel(torch.nn.Linear(4, 1), protected_attr_idx=three, tolerance=0.1)
    assert model.protected_attr_idx == (3,)
    with pytest.raises(fl.FairlayerError, match="whole number"):
        fl.LipschitzFairness("x", neighbours=True)
