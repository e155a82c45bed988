"""Labels that come late, and label-based constraints on streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer import errors
from fairlayer.groups import Vocabulary
from tests.streaming.streams import one, tensor
from tests.streaming.test_state import same

CONSTRAINTS = {
    "EqualOpportunity": fl.EqualOpportunity("sex", 0.02),
    "EqualizedOdds": fl.EqualizedOdds("sex", 0.02),
    "MeanResidualParity": fl.MeanResidualParity("sex", 0.02),
}


def labelled(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores that are too low for sex 1 at either label; labels; sex."""
    rng = np.random.default_rng(seed)
    sex = (rng.random(n) < 0.4).astype(np.int64)
    chance = rng.beta(2.5, 2.5, n)
    labels = (rng.random(n) < chance).astype(np.float64)
    return np.clip(0.7 * chance + 0.15 + 0.1 * labels - 0.15 * sex, 0, 1), labels, sex


def gap_of(name: str, values: np.ndarray, labels: np.ndarray, sex: np.ndarray) -> float:
    def spread(mask: np.ndarray) -> float:
        return abs(values[mask & (sex == 0)].mean() - values[mask & (sex == 1)].mean())

    if name == "EqualOpportunity":
        return spread(labels == 1)
    if name == "EqualizedOdds":
        return max(spread(labels == 1), spread(labels == 0))
    return max(abs((labels - values)[sex == g].mean()) for g in (0, 1))


def new_stream(name: str = "EqualOpportunity", policy: Any = "tracking") -> fl.InferenceState:
    return fl.InferenceState([CONSTRAINTS[name]], bounds=(0.0, 1.0), policy=policy)


@pytest.mark.parametrize("policy", ["tracking", "anytime"])
@pytest.mark.parametrize("name", CONSTRAINTS)
@pytest.mark.parametrize("delay", [0, 5])
def test_late_labels_close_the_gap(name: str, policy: str, delay: int) -> None:
    scores, labels, sex = labelled(0, 4000)
    stream, emitted = new_stream(name, policy), []
    for i in range(0, 4000, 4):
        part = slice(i, i + 4)
        ids = list(range(i, i + 4))
        emitted.append(stream.emit(tensor(scores[part]), {"sex": sex[part]}, ids=ids).numpy())
        late = i - 4 * delay
        if late >= 0:
            stream.observe_labels(list(range(late, late + 4))[::-1], labels[late : late + 4][::-1].copy())
    values = np.concatenate(emitted)
    raw, held = gap_of(name, scores, labels, sex), gap_of(name, values, labels, sex)
    print(f"{name}, {policy}, labels {delay} batches late: gap {raw:.3f} -> {held:.3f}")
    assert raw > 0.08
    assert held <= raw / 2
    known = 4000 - 4 * delay
    reported = stream.pooled_gap()[CONSTRAINTS[name].name]
    assert reported == pytest.approx(gap_of(name, values[:known], labels[:known], sex[:known]), abs=1e-9)


def test_labels_given_at_once_equal_labels_given_next() -> None:
    scores, labels, sex = labelled(1, 400)
    at_once, next_time = new_stream(), new_stream()
    for i in range(0, 400, 4):
        part = slice(i, i + 4)
        a = at_once.emit(tensor(scores[part]), {"sex": sex[part]}, y=labels[part])
        b = next_time.emit(tensor(scores[part]), {"sex": sex[part]}, ids=list(range(i, i + 4)))
        next_time.observe_labels(list(range(i, i + 4)), labels[part])
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert same(at_once.state_dict(), next_time.state_dict())


def test_order_of_labels_does_not_matter() -> None:
    scores, labels, sex = labelled(2, 60)
    states = []
    for order in (np.arange(60), np.random.default_rng(0).permutation(60)):
        stream = new_stream()
        stream.emit(tensor(scores), {"sex": sex}, ids=[f"id {i}" for i in range(60)])
        for i in order.tolist():
            stream.observe_labels([f"id {i}"], [labels[i]])
        states.append(stream.state_dict()["machine"]["history"]["sums"])
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=1e-12)


def test_single_requests_with_ids() -> None:
    """Singles with ids wait for labels like batches; with y they are counted at once."""
    model = fl.FairModel(torch.nn.Identity(), [CONSTRAINTS["EqualOpportunity"]], bounds=(0.0, 1.0)).eval()
    scores, labels, sex = labelled(3, 50)
    for i in range(50):
        model(one(scores[i]), sensitive_features={"sex": sex[i : i + 1]}, ids=[i], inference=True)
    model.observe_labels(list(range(25)), labels[:25])
    for i in range(25):
        model(one(scores[i]), sensitive_features={"sex": sex[i : i + 1]}, y=labels[i : i + 1], inference=True)
    sums = model.inference_state.state_dict()["machine"]["history"]["sums"]
    assert float(sums[4].sum()) == 2 * (labels[:25] == 0).sum()
    assert float(sums[5].sum()) == 2 * (labels[:25] == 1).sum()


@pytest.mark.parametrize("how", ["ids", "y"])
def test_labels_of_a_large_batch(how: str) -> None:
    """From b_tau on a batch is projected by itself; its labels count all the same."""
    model = fl.FairModel(torch.nn.Identity(), [CONSTRAINTS["EqualOpportunity"]], bounds=(0.0, 1.0), b_tau=16).eval()
    scores, labels, sex = labelled(4, 40)
    more = {"ids": list(range(40))} if how == "ids" else {"y": labels}
    emitted = model(tensor(scores), sensitive_features={"sex": sex}, inference=True, **more)
    if how == "ids":
        model.observe_labels(list(range(40)), labels)
    gap = model.inference_state.pooled_gap()["EqualOpportunity('sex')"]
    assert gap == pytest.approx(gap_of("EqualOpportunity", emitted.numpy(), labels, sex), abs=1e-9)


BAD = {
    "unknown id": ([99], [1.0], errors.ShapeError),
    "one unknown id among known ones": ([0, 99, 1], [1.0, 0.0, 1.0], errors.ShapeError),
    "an id twice": ([0, 0], [1.0, 1.0], errors.ShapeError),
    "too few labels": ([0, 1], [1.0], errors.ShapeError),
    "NaN": ([0], [float("nan")], errors.NonFiniteScoresError),
    "words": ([0], ["yes"], errors.LabelValueError),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_labels_change_nothing(name: str) -> None:
    ids, y, error = BAD[name]
    stream = new_stream()
    stream.emit(tensor([0.2, 0.4, 0.6]), {"sex": [0, 1, 0]}, ids=[0, 1, 2])
    before = stream.state_dict()
    with pytest.raises(error):
        stream.observe_labels(ids, y)
    assert same(stream.state_dict(), before)
    stream.observe_labels([0, 1, 2], [1.0, 0.0, 1.0])


def test_a_label_is_taken_once() -> None:
    stream = new_stream()
    stream.emit(tensor([0.2, 0.4]), {"sex": [0, 1]}, ids=["a", "b"])
    stream.observe_labels(["a"], [1.0])
    before = stream.state_dict()
    with pytest.raises(errors.ShapeError, match="wait for none"):
        stream.observe_labels(["a"], [1.0])
    assert same(stream.state_dict(), before)


def test_one_id_for_two_samples_is_refused() -> None:
    stream = new_stream()
    before = stream.state_dict()
    with pytest.raises(errors.ShapeError):
        stream.emit(tensor([0.2, 0.4]), {"sex": [0, 1]}, ids=["a", "a"])
    assert same(stream.state_dict(), before)


@pytest.mark.parametrize("ids", [torch.arange(2), np.arange(2)], ids=["tensor", "array"])
def test_ids_as_tensors(ids: Any) -> None:
    stream = new_stream()
    stream.emit(tensor([0.2, 0.4]), {"sex": [0, 1]}, ids=ids)
    stream.observe_labels([0, 1], [1.0, 0.0])
    assert stream.state_dict()["machine"]["history"]["sums"][4:6].sum() == 2.0


def test_label_free_constraints_hold_beside_label_based_ones() -> None:
    """ "anytime": labels steer the feed-forward only, so the parity holds at every step all the same."""
    parity = fl.DemographicParity("sex", 0.05)
    stream = fl.InferenceState([parity, CONSTRAINTS["EqualOpportunity"]], bounds=(0.0, 1.0), policy="anytime")
    scores, labels, sex = labelled(5, 600)
    values: list[float] = []
    for i in range(600):
        values.append(float(stream.emit(one(scores[i]), {"sex": sex[i : i + 1]}, y=labels[i : i + 1])))
        done, g = np.array(values), sex[: i + 1]
        if 0 < g.sum() < len(g):
            assert abs(done[g == 0].mean() - done[g == 1].mean()) <= 0.05 + 1e-6


def test_labels_find_their_group_after_the_categories_changed_order() -> None:
    stream = new_stream()
    stream.emit(one(0.9), {"sex": ["M"]}, ids=["m"])
    stream.emit(one(0.1), {"sex": ["F"]}, ids=["f"])
    closed = Vocabulary({"sex": ("F", "M")}, open=False)
    stream.emit(one(0.5), {"sex": ["F"]}, vocabulary=closed)
    stream.observe_labels(["m", "f"], [1.0, 1.0])
    assert stream.pooled_gap() == {"EqualOpportunity('sex')": pytest.approx(0.8)}
    sums = stream.state_dict()["machine"]["history"]["sums"]
    of = dict(zip(stream.counts(), sums[7].tolist(), strict=True))  # predictions for those with label 1
    assert of == {"sex=M": pytest.approx(0.9), "sex=F": pytest.approx(0.1)}


@pytest.mark.parametrize("wrong", [7.0, -1.0, 0.5])
@pytest.mark.parametrize("size", [1, 3])
def test_labels_that_a_constraint_cannot_read_are_refused_and_harm_nothing(wrong: float, size: int) -> None:
    """They would make every later call fail."""
    stream = new_stream()
    stream.emit(tensor([0.2, 0.8, 0.4]), {"sex": [0, 1, 0]}, ids=["a", "b", "c"])
    before = stream.state_dict()
    with pytest.raises(errors.LabelValueError, match="needs labels 0 or 1"):
        stream.observe_labels(["a", "b", "c"][:size], [wrong, 1.0, 1.0][:size])
    with pytest.raises(errors.LabelValueError, match="needs labels 0 or 1"):
        stream.emit(tensor([0.2] * size), {"sex": [1] * size}, y=[wrong] * size)
    assert same(stream.state_dict(), before)
    stream.observe_labels(["a", "b", "c"], [1.0, 1.0, 0.0])
    assert stream.pooled_gap() == {"EqualOpportunity('sex')": pytest.approx(0.6)}


@pytest.mark.parametrize(("ids", "y"), [(5, 1), ("ab", [1, 0]), ([None], [1]), (["a"], None), (["a"], [1, 0])])
def test_ids_and_labels_that_are_none(ids: Any, y: Any) -> None:
    stream = new_stream()
    stream.emit(tensor([0.2, 0.8]), {"sex": [0, 1]}, ids=["a", "b"])
    with pytest.raises(errors.ShapeError):
        stream.observe_labels(ids, y)
    stream.observe_labels([], [])
    stream.observe_labels(["a", "b"], [1, 0])
