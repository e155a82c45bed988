"""Windows, reports and the caller's clock, against sums of the reader's own."""

from __future__ import annotations

import datetime
import io
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer import errors
from fairlayer.streaming.reporting.report import split_gap
from fairlayer.streaming.setting import as_window
from tests.streaming.streams import lending, one, tensor

PARITY = fl.DemographicParity("sex", 0.02)
POLICIES = ["present", "tracking", "anytime", "per_batch"]


def new_stream(**more: Any) -> fl.InferenceState:
    return fl.InferenceState([PARITY], **{"bounds": (0.0, 1.0), **more})


def gap(values: np.ndarray, sex: np.ndarray) -> float:
    return abs(float(values[sex == 1].mean() - values[sex == 0].mean()))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", [1, 7])
def test_every_bucket_is_what_was_emitted_in_it(policy: str, size: int) -> None:
    n = 1400
    stream = new_stream(policy=policy, window=1000)
    scores, sex = lending(0, n)
    emitted = []
    for start in range(0, n, size):
        part = slice(start, start + size)
        emitted += stream.emit(tensor(scores[part]), {"sex": sex[part].tolist()}).tolist()
    y, report = np.array(emitted), stream.report()
    assert report.samples == n
    assert [bucket.start for bucket in report.buckets] == list(range(0, n, 100))
    for bucket in report.buckets:
        part = slice(bucket.start, bucket.start + bucket.samples)
        found = bucket.gaps[PARITY.name]
        assert found.raw is not None
        assert found.emitted is not None
        assert found.raw.value == pytest.approx(gap(scores[part], sex[part]))
        assert found.emitted.value == pytest.approx(gap(y[part], sex[part]))
        assert bucket.moved == pytest.approx((np.abs(y[part] - scores[part]) > 1e-9).mean())
        assert bucket.at_bound == pytest.approx(np.isin(y[part], [0.0, 1.0]).mean())
        assert bucket.flips == pytest.approx(((y[part] >= 0.5) != (scores[part] >= 0.5)).mean())
        assert sum(bucket.counts.values()) == bucket.samples
    assert report.window is not None
    assert report.window.samples in range(1000, 1101)
    last = slice(n - report.window.samples, n)
    window = report.window.gaps[PARITY.name].emitted
    assert window is not None
    assert window.value == pytest.approx(gap(y[last], sex[last]))
    worst = report.worst(PARITY.name)
    assert worst is not None
    assert PARITY.name in str(report)


def test_buckets_are_bounded_and_lose_nothing() -> None:
    for options in ({}, {"window": 20}):
        stream = new_stream(**options)
        scores, sex = lending(1, 12_000)
        for start in range(0, 12_000, 50):
            part = slice(start, start + 50)
            stream.emit(tensor(scores[part]), {"sex": sex[part].tolist()})
        report = stream.report()
        assert report.samples == 12_000
        assert len(report.buckets) <= 101
    assert len(new_stream().report().buckets) == 0


def test_the_clock_of_the_caller_ends_buckets() -> None:
    stream = new_stream(window="10d")
    day = 86_400.0
    for number in range(30):
        for i in range(number + 1):
            stream.emit(one(0.4), {"sex": [i % 2]}, at=number * day + i)
    report = stream.report()
    assert [bucket.samples for bucket in report.buckets] == list(range(1, 31))
    assert [bucket.since for bucket in report.buckets] == [number * day for number in range(30)]
    assert report.window is not None
    assert report.window.samples == sum(range(21, 31))  # the last ten days


def test_time_never_goes_back_and_must_be_given() -> None:
    stream = new_stream(window=datetime.timedelta(hours=12))
    stream.emit(one(0.4), {"sex": [0]}, at=5.0)
    before = stream.report()
    with pytest.raises(errors.ParameterError, match="never goes back"):
        stream.emit(one(0.4), {"sex": [0]}, at=4.0)
    with pytest.raises(errors.ParameterError, match="Pass at="):
        stream.emit(one(0.4), {"sex": [0]})
    with pytest.raises(errors.ParameterError, match="finite"):
        stream.emit(one(0.4), {"sex": [0]}, at=float("nan"))
    with pytest.raises(errors.FairlayerError):
        stream.emit(one(float("nan")), {"sex": [0]}, at=9.0)
    assert stream.report() == before
    stream.emit(one(0.4), {"sex": [0]}, at=5.0)
    assert stream.samples == 2


def test_a_model_takes_the_time_too() -> None:
    model = fl.FairModel(torch.nn.Identity(), [PARITY], bounds=(0.0, 1.0), window="1h").eval()
    for i in range(20):
        model(one(0.4), sensitive_features={"sex": [i % 2]}, inference=True, at=600.0 * i)
    assert len(model.inference_state.report().buckets) == 20


@pytest.mark.parametrize("window", [0, 5, -1, "soon", "10y", float("nan"), [3], "0d"], ids=str)
def test_windows_are_checked(window: Any) -> None:
    with pytest.raises(errors.ParameterError, match="window must be"):
        new_stream(window=window)


def test_what_a_window_may_be() -> None:
    assert as_window("90m") == as_window(datetime.timedelta(minutes=90))
    assert str(as_window(500)) == "500 samples"


@pytest.mark.parametrize("policy", ["tracking", "anytime", "per_batch"])
def test_only_present_holds_windows(policy: str) -> None:
    with pytest.raises(errors.ParameterError, match="policy='present'"):
        new_stream(policy=policy, window=1000, hold="window")
    with pytest.raises(errors.ParameterError, match="without a window"):
        new_stream(hold="window")


def test_a_held_window_makes_up_for_its_past_inside_the_tolerance() -> None:
    """After a stretch that was absorbed with a gap, the window's gap falls faster, and no window swings over."""
    parity = fl.DemographicParity("sex", 0.05)
    found = {}
    for hold in (None, "window"):
        stream = fl.InferenceState([parity], bounds=(0.0, 1.0), window=3000, hold=hold)
        scores, sex = lending(2, 4000)
        stream.absorb(tensor(scores[:1000]), tensor(scores[:1000]), {"sex": sex[:1000].tolist()})
        y = [stream.emit(one(z), {"sex": [int(s)]}).item() for z, s in zip(scores[1000:], sex[1000:], strict=True)]
        values = np.concatenate([scores[:1000], y])
        found[hold] = gap(values[1000:], sex[1000:]), gap(values, sex)
    assert found["window"][1] < found[None][1] - 0.01
    assert found["window"][0] <= 0.05 + 0.03


def test_old_debt_is_repaid_only_where_asked() -> None:
    parity = fl.DemographicParity("sex", 0.05)
    scores, sex = lending(4, 4000)
    signed = {}
    for repair in (None, 1500.0):
        stream = fl.InferenceState([parity], bounds=(0.0, 1.0), policy=fl.Present(repair=repair))
        stream.absorb(tensor(scores[:1000]), tensor(scores[:1000]), {"sex": sex[:1000].tolist()})
        pairs = zip(scores[1000:], sex[1000:], strict=True)
        y = np.array([stream.emit(one(z), {"sex": [int(s)]}).item() for z, s in pairs])
        signed[repair] = float(y[sex[1000:] == 1].mean() - y[sex[1000:] == 0].mean())
    assert signed[None] < 0.0 < abs(signed[None]) <= 0.08  # the raw gap has the same sign
    assert signed[1500.0] > signed[None] + 0.01
    assert abs(signed[1500.0]) <= 0.08


def test_a_split_is_exact_and_mix_is_no_debt() -> None:
    """No window has a gap and the pool has one: it is all mix, and nothing is repaid."""
    rng = np.random.default_rng(0)
    n = 8000
    season = (np.arange(n) // 1000) % 2
    sex = (rng.random(n) < np.where(season == 0, 0.2, 0.7)).astype(int)
    z = np.clip(rng.beta(2, 4, n) + 0.3 * season, 0, 1)
    shifts = []
    for policy in (fl.Present(), fl.Present(repair=2000.0)):
        stream = new_stream(policy=policy, window=10_000)
        for score, code in zip(z, sex, strict=True):
            stream.emit(one(score), {"sex": [int(code)]})
        split = stream.report().splits[PARITY.name]
        assert split.gap == pytest.approx(split.within + split.mix, abs=1e-9)
        assert split.gap > 0.1
        assert abs(split.within) < 0.03
        shifts.append(stream.shifts()["sex=1"] - stream.shifts()["sex=0"])
    assert abs(shifts[1] - shifts[0]) < 0.012


@pytest.mark.parametrize("seed", range(5))
def test_splits_against_their_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 50, (2, 6)).astype(float)
    sums = rng.random((2, 6)) * counts
    found = split_gap(counts, sums)
    assert found is not None
    p, m = counts / counts.sum(axis=1, keepdims=True), sums / counts
    assert found.within == pytest.approx(((p[0] + p[1]) / 2 * (m[0] - m[1])).sum(), abs=1e-9)
    assert found.mix == pytest.approx(((p[0] - p[1]) * (m[0] + m[1]) / 2).sum(), abs=1e-9)


def test_labels_are_counted_in_the_bucket_of_their_prediction() -> None:
    odds = fl.EqualOpportunity("sex", 0.02)
    stream = fl.InferenceState([odds], bounds=(0.0, 1.0), window=1000)
    scores, sex = lending(0, 400)
    for i, (score, code) in enumerate(zip(scores, sex, strict=True)):
        stream.emit(one(score), {"sex": [int(code)]}, ids=[i])
    assert stream.report().waiting == 400
    early = [i for i in range(100) if i % 2 == 0]
    stream.observe_labels(early, [1.0] * len(early))
    first, *rest = stream.report().buckets
    found = first.gaps[odds.name].emitted
    assert found is not None
    assert found.value == pytest.approx(gap(scores[early], sex[early]))
    assert all(bucket.gaps[odds.name].emitted is None for bucket in rest)
    assert stream.report().waiting == 350


@pytest.mark.parametrize("window", [None, 200, "1h"])
def test_buckets_are_saved(window: Any) -> None:
    first, second = new_stream(window=window), new_stream(window=window)
    scores, sex = lending(0, 500)
    for i, (score, code) in enumerate(zip(scores, sex, strict=True)):
        first.emit(one(score), {"sex": [int(code)]}, at=30.0 * i)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.report() == first.report()


def test_a_picture_of_a_report() -> None:
    pytest.importorskip("matplotlib")
    stream = new_stream(window=200)
    assert stream.plot_report().axes
    scores, sex = lending(0, 500)
    for score, code in zip(scores, sex, strict=True):
        stream.emit(one(score), {"sex": [int(code)]})
    axes = stream.plot_report().axes
    assert len(axes) == 2
    labels = axes[0].get_legend_handles_labels()[1]
    assert {"raw", "emitted", "held"} <= set(labels)


@pytest.mark.parametrize("size", [1, 3])
def test_buckets_count_the_samples_of_each_phase_exactly(size: int) -> None:
    """Each call is counted under the phase in which it found the stream, whenever its numbers are summed up."""
    stream, random = new_stream(memory=200.0), np.random.default_rng(0)
    expected: Counter[fl.Phase] = Counter()
    for i in range(1_500 // size):
        expected[stream.phase] += size
        raw = 0.3 + 0.3 * (i % 2) * (1 if i * size < 1_200 else -1) + 0.1 * random.random(size)
        stream.emit(torch.tensor(raw), {"sex": torch.full((size,), i % 2)})
    stream.report()  # sums up what is left
    windows = stream._live.machine.windows
    found: Counter[fl.Phase] = sum((bucket.phases for bucket in windows.buckets), Counter(windows.before.phases))
    assert found == expected
    assert len(expected) >= 3


def test_a_bucket_of_two_phases_alike_has_the_same_one_when_it_is_loaded() -> None:
    """The first by the order of the phases, not the first that came, which nothing saved could tell."""
    scores, sex = lending(0, 40)
    tight = [fl.DemographicParity("sex", 0.01)]
    first = fl.InferenceState([fl.DemographicParity("sex", 0.05)], bounds=(0.0, 1.0))
    first.emit(tensor(scores[:20]), {"sex": sex[:20]})
    first.change_constraints(tight, over=100)
    first.emit(tensor(scores[20:]), {"sex": sex[20:]})
    second = fl.InferenceState(tight, bounds=(0.0, 1.0))
    second.load_state_dict(first.state_dict())
    assert second._live.machine.windows.buckets[0].phases == {fl.Phase.COLD: 20, fl.Phase.CHANGING: 20}
    assert second.report() == first.report()
    assert first.report().buckets[0].phase is fl.Phase.CHANGING
