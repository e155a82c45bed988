"""Many threads on one model: the state is that of some serial order, and nothing is lost."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from tests.streaming.streams import one, tensor

THREADS, REQUESTS, TOLERANCE = 8, 250, 0.02


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    """Let threads interrupt one another every few microseconds."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(interval)


def in_threads(work: Callable[[int], Any]) -> list[Any]:
    """Run work(thread) in all threads at once; raise what any of them raised."""
    results: list[Any] = [None] * THREADS
    failures: list[BaseException] = []
    barrier = threading.Barrier(THREADS)

    def run(k: int) -> None:
        barrier.wait()
        try:
            results[k] = work(k)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(k,), daemon=True) for k in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads), "deadlock"
    if failures:
        raise failures[0]
    return results


def new_model(policy: str, constraint: fl.Constraint | None = None) -> fl.FairModel:
    constraint = constraint or fl.DemographicParity("sex", TOLERANCE)
    return fl.FairModel(torch.nn.Identity(), [constraint], bounds=(0.0, 1.0), policy=policy, b_tau=64).double()


def stream(model: fl.FairModel, k: int, *, most: int, requests: int = REQUESTS) -> dict[str, list[float]]:
    """One thread's requests; return what was emitted per group."""
    rng = np.random.default_rng(k)
    emitted: dict[str, list[float]] = {"F": [], "M": []}
    for _ in range(requests):
        size = int(rng.integers(1, most + 1))
        sex = ["FM"[int(c)] for c in rng.integers(0, 2, size)]
        y = model(tensor(rng.random(size))[:, None], sensitive_features={"sex": sex}, inference=True)
        for group, value in zip(sex, y.reshape(-1).tolist(), strict=True):
            emitted[group].append(value)
    return emitted


@pytest.mark.parametrize("policy", ["anytime", "tracking"])
@pytest.mark.parametrize("most", [1, 4])
def test_sums_are_those_of_what_was_emitted(policy: str, most: int) -> None:
    model = new_model(policy)
    found = in_threads(lambda k: stream(model, k, most=most, requests=REQUESTS if most == 1 else 40))
    values = {g: np.concatenate([part[g] for part in found]) for g in "FM"}
    state = model.inference_state
    assert state.counts() == {f"sex={g}": len(values[g]) for g in "FM"}  # in whatever order they came
    assert state.samples == sum(len(v) for v in values.values())
    gap = abs(values["F"].mean() - values["M"].mean())
    assert state.pooled_gap()["DemographicParity('sex')"] == pytest.approx(gap, abs=1e-12)
    if policy == "anytime":
        assert gap <= TOLERANCE + 1e-9


def test_first_requests_on_an_open_vocabulary() -> None:
    """All threads meet their first group at the same moment: no two categories get one code."""
    for _ in range(40):
        model = new_model("anytime", fl.DemographicParity("g", 0.5))
        names = [f"group {k}" for k in range(THREADS)]
        in_threads(lambda k, m=model, n=names: m(one(0.5), sensitive_features={"g": [n[k]]}, inference=True))
        assert model.inference_state.counts() == {f"g={name}": 1 for name in names}


def test_readers_and_writers_together() -> None:
    """Saving, reading and large batches while others stream: no exception, no half of a step."""
    model = new_model("tracking")
    state = model.inference_state
    state.emit(tensor([0.5, 0.9]), {"sex": ["F", "M"]})

    def work(k: int) -> int:
        if k < 5:
            stream(model, k, most=1, requests=150)
            return 150
        rng = np.random.default_rng(k)
        for _ in range(30):
            if k == 5:
                saved = state.state_dict()["machine"]
                counts = saved["history"]["sums"][0]
                assert float(counts.sum()) == saved["rule"]["samples"]
            elif k == 6:
                seen = (state.pooled_gap(), state.counts(), state.shifts(), state.phase, state.multipliers)
                assert sum(seen[1].values()) > 0
            else:
                sex = ["F", "M"] * 40
                model(tensor(rng.random(80)), sensitive_features={"sex": sex}, inference=True)
        return 80 * 30 if k == 7 else 0

    sent = sum(in_threads(work))
    assert state.samples == sent + 2 == sum(state.counts().values())


def test_labels_from_other_threads() -> None:
    model = new_model("tracking", fl.EqualOpportunity("sex", 0.02)).eval()
    model.inference_state.emit(tensor([0.5, 0.9]), {"sex": ["F", "M"]})

    def work(k: int) -> None:
        rng = np.random.default_rng(k)
        for i in range(40):
            sex = ["FM"[int(rng.integers(2))]]
            model(one(rng.random()), sensitive_features={"sex": sex}, ids=[f"{k}-{i}"], inference=True)
            model.observe_labels([f"{k}-{i}"], [float(rng.integers(2))])

    in_threads(work)
    sums = model.inference_state.state_dict()["machine"]["history"]["sums"]
    assert float(sums[4].sum() + sums[5].sum()) == THREADS * 40
    assert not model.inference_state.state_dict()["pending"]["ids"]


def test_a_change_that_another_thread_told_first() -> None:
    class Emptied(list[Any]):
        """It holds something when one looks, and nothing any more when one takes it."""

        def __bool__(self) -> bool:
            return True

    state = new_model("anytime").inference_state
    state._live.watch._changes, state._live.watch.untold = Emptied(), True
    assert state.samples == 0
