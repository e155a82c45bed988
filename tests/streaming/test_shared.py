"""Several workers on one PostgreSQL: joint counts, leases, a store that goes and comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.decisions.rounding import Rounding, cells_of
from fairlayer.errors import LabelValueError
from fairlayer.groups import Vocabulary
from fairlayer.streaming.control.lease import Lease
from fairlayer.streaming.store import IdReusedError, StoredAnswer, StoreError
from fairlayer.streaming.stores.shared import SharedStore
from fairlayer.streaming.stores.together import Together
from fairlayer.streaming.stores.worker import SharedStream
from tests.streaming.postgresql import Server, programs, running

pytest.importorskip("psycopg", reason="needs the extra `postgres`")
pytestmark = pytest.mark.skipif(
    programs() is None, reason="needs the programs of PostgreSQL (initdb, pg_ctl, postgres)"
)

WORDS = Vocabulary().learn({"sex": ["F", "M"]})
PARITY = fl.DemographicParity("sex", tolerance=0.02)
NAME = PARITY.name


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as found:
        yield found


@pytest.fixture
def address(server: Server) -> str:
    """A database of its own."""
    import psycopg

    name = f"db{time.monotonic_ns()}"
    with psycopg.connect(server.address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.address.removesuffix("postgres") + name


def worker(address: str, *, shares: int = 2, constraint: object = PARITY, **options: object) -> SharedStream:
    state = fl.InferenceState([constraint], bounds=(0.0, 1.0))
    return SharedStore(address, shares=shares, refresh=0.1, **options).stream(state, WORDS)  # type: ignore[arg-type]


def ask(stream: SharedStream, score: float, sex: str, key: object = None) -> float:
    ids = None if key is None else [key]
    return float(stream.answer(torch.tensor([score], dtype=torch.float64), {"sex": [sex]}, ids=ids).emitted)  # type: ignore[arg-type]


def until(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def means(answers: list[tuple[str, float]]) -> dict[str, float]:
    return {sex: float(np.mean([y for s, y in answers if s == sex])) for sex in ("F", "M")}


def test_workers_hear_of_each_other_and_resume(address: str) -> None:
    draw, answers = np.random.default_rng(0), []
    one, other = worker(address), worker(address)
    for i in range(120):
        sex = "FM"[int(draw.random() < 0.5)]
        stream = (one, other)[i % 2]
        answers.append((sex, ask(stream, float(np.clip(draw.normal(0.5, 0.2), 0, 1)), sex, i)))
    until(lambda: one.state.samples == other.state.samples == 120)
    for stream in (one, other):
        assert stream.state.counts() == {f"sex={s}": sum(sex == s for sex, _ in answers) for s in ("F", "M")}
        found = means(answers)
        assert stream.state.pooled_gap()[NAME] == pytest.approx(abs(found["F"] - found["M"]), abs=1e-9)
    assert ask(other, 0.123, "F", 0) == answers[0][1]  # an id of the other worker's
    with pytest.raises(StoreError, match="are held by other processes"):
        worker(address)
    one.close()
    other.close()
    with pytest.raises(StoreError, match="shares"):
        worker(address, shares=3)
    again = worker(address)
    assert again.state.samples == 120
    again.close()


def test_an_id_with_another_record_is_refused(address: str) -> None:
    stream = worker(address, shares=1)
    score = torch.tensor([0.5])
    stream.answer(score, {"sex": ["F"]}, ids=["a\x00"], digests=["one"])
    until(lambda: not stream.waiting)
    with pytest.raises(IdReusedError, match="another record"):
        stream.answer(score, {"sex": ["F"]}, ids=["a\x00"], digests=["two"])
    assert stream.answer(score, {"sex": ["F"]}, ids=["a\x00"], digests=["one"]).repeated == [True]
    assert stream.state.samples == 1
    stream.close()


def test_an_id_that_is_stored_while_it_is_looked_up_is_counted_once(address: str) -> None:
    stream = worker(address, shares=1)
    looked_up = stream._looked_up

    def slow(keys: list[object]) -> dict[object, object]:
        found = looked_up(keys)  # nobody has answered it yet
        stream._looked_up = looked_up  # type: ignore[assignment]
        ask(stream, 0.5, "F", keys[0])
        until(lambda: not stream.waiting)
        return found  # type: ignore[return-value]

    stream._looked_up = slow  # type: ignore[assignment]
    ask(stream, 0.5, "F", "again")
    assert stream.state.samples == 1
    stream.close()


def test_questions_of_several_threads_are_asked_as_one() -> None:
    begun, go, asked = threading.Event(), threading.Event(), []

    def ask_for(ids: list[object]) -> dict[object, object]:
        asked.append(list(ids))
        begun.set()
        assert go.wait(20)
        if "broken" in ids:
            raise StoreError("it broke")
        return {each: StoredAnswer(float(each), None, 0.0) for each in ids if each != "nobody"}  # type: ignore[arg-type]

    together = Together(ask_for)  # type: ignore[arg-type]
    found: dict[object, object] = {}

    def one(*ids: object) -> None:
        try:
            found[ids] = together(ids)  # type: ignore[arg-type]
        except StoreError as error:
            found[ids] = str(error)

    def started(*many: tuple[object, ...]) -> list[threading.Thread]:
        threads = [threading.Thread(target=one, args=each) for each in many]
        for thread in threads:
            thread.start()
        return threads

    first = started((1,))
    assert begun.wait(20)
    rest = started((2, 3), (4,), ("nobody",))
    until(lambda: len(together._next.ids) == 4)
    go.set()
    for thread in (*first, *rest):
        thread.join()
    assert asked[0] == [1]
    assert len(asked) == 2
    assert sorted(map(str, asked[1])) == ["2", "3", "4", "nobody"]
    assert {ids: sorted(answers) for ids, answers in found.items()} == {
        (1,): [1],
        (2, 3): [2, 3],
        (4,): [4],
        ("nobody",): [],
    }  # type: ignore[type-var,call-overload]
    one("broken")
    assert found["broken",] == "it broke"
    one(5)
    assert sorted(found[5,]) == [5]  # type: ignore[call-overload]


def test_labels_reach_the_worker_that_made_the_prediction(address: str) -> None:
    odds = fl.EqualOpportunity("sex", tolerance=0.05)
    one, other = worker(address, constraint=odds), worker(address, constraint=odds)
    for i in range(20):
        ask(one, 0.1 + 0.04 * i, "FM"[i % 2], i)
    assert other.observe_labels(list(range(20)), [1.0] * 20) == 20
    assert other.observe_labels([3], [1.0]) == 0
    until(lambda: one.state.waiting_labels == 0)
    until(lambda: other.state.pooled_gap() == one.state.pooled_gap() and one.state.pooled_gap()[odds.name] is not None)
    one.close()
    other.close()


PEER = """
import sys, torch
import fairlayer as fl
from tests.streaming.test_shared import ask, worker
stream = worker(sys.argv[1])
print("up", flush=True)
number = 0
while True:
    ask(stream, 0.5, "F", f"peer {number}")
    number += 1
"""


def test_a_peer_that_stands_still_or_is_dead_delays_nobody(address: str) -> None:
    root = str(Path(__file__).resolve().parents[2])
    peer = subprocess.Popen(
        [sys.executable, "-c", PEER, address],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert peer.stdout is not None
    assert peer.stdout.readline() == "up\n"
    stream, number = worker(address), 0
    try:
        for what in (signal.SIGSTOP, signal.SIGCONT, signal.SIGSTOP, signal.SIGKILL):
            time.sleep(0.3)
            peer.send_signal(what)
            taken = []
            for _ in range(60):
                start = time.monotonic()
                ask(stream, 0.5, "M", number)
                taken.append(time.monotonic() - start)
                number += 1
            assert stream.attached, what
            assert max(taken) < 1.5, (what, max(taken))  # one that waited for a lock would wait for two seconds
        assert stream.state.counts()["sex=M"] == number
    finally:
        peer.kill()
        peer.wait()
        peer.stdout.close()
        stream.close()


def test_labels_wait_for_a_store_that_is_gone() -> None:
    odds = fl.EqualOpportunity("sex", tolerance=0.05)
    with running() as server, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        stream = worker(server.address, shares=1, constraint=odds)
        for i in range(20):
            ask(stream, 0.1 + 0.04 * i, "FM"[i % 2], i)
        until(lambda: not stream.waiting)
        server.stop()
        assert stream.deliver_labels([0, 1, "nobody"], [1.0, 0.0, 1.0]) == (0, 3)
        with pytest.raises(LabelValueError, match="another label"):
            stream.deliver_labels([0], [0.0])
        ask(stream, 0.5, "F", 20)  # answered while the store is gone, and labelled too
        assert stream.deliver_labels([20], [1.0]) == (0, 1)
        assert stream.store.durability["waiting_labels"] == 4
        server.start()
        until(lambda: stream.attached and not stream.waiting_labels and stream.state.waiting_labels == 18)
        assert [stream._reader.answers([key])[key].label for key in (0, 1, 20)] == [1.0, 0.0, 1.0]
        assert stream.deliver_labels([0], [1.0]) == (0, 0)
        assert [e.text for e in stream.state.events if e.kind == "labels left out"] == [
            "1 of 4 had no prediction, or another label before"
        ]
        stream.close()
    assert sum("left out" in str(each.message) for each in said) == 1


def test_a_store_that_is_gone_stops_nobody_and_the_lease_bounds_what_follows() -> None:
    draw = np.random.default_rng(1)
    with running() as server, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        workers = [worker(server.address, shares=2, lease=0.02) for _ in range(2)]
        answers: list[tuple[str, float]] = []
        for i in range(300):
            sex = "FM"[i % 2]
            answers.append((sex, ask(workers[i % 4 // 2], float(np.clip(draw.normal(0.5, 0.1), 0, 1)), sex, i)))
        until(lambda: all(stream.state.samples == 300 and not stream.waiting for stream in workers))
        time.sleep(0.5)  # one more exchange each
        before = means(answers)
        server.stop()
        for i in range(300, 700):  # every woman at one worker high, every man at the other low: neither sees a gap
            sex = "FM"[i % 2]
            answers.append((sex, ask(workers[i % 2], 0.95 if sex == "F" else 0.05, sex, i)))
            after = means(answers)
            gap = abs(after["F"] - after["M"]) - abs(before["F"] - before["M"])
            assert gap <= 0.02 + 1e-9
        assert not workers[0].attached
        assert workers[0].store.durability["waiting"] > 0
        server.start()
        until(lambda: all(stream.attached and stream.state.samples == 700 for stream in workers))
        found = workers[0]._reader.answers(list(range(700)))
        assert {key: answer.emitted for key, answer in found.items()} == {i: y for i, (_, y) in enumerate(answers)}
        kinds = [event.kind for event in workers[0].state.events]
        assert (kinds.count("store gone"), kinds.count("store back")) == (1, 1)
        for stream in workers:
            stream.close()
    assert sum("wait in memory" in str(each.message) for each in said) == 2


def test_a_lease_can_always_be_kept() -> None:
    state = fl.InferenceState([PARITY], bounds=(0.0, 1.0))
    state.emit(torch.full((20,), 0.4), {"sex": ["F", "M"] * 10})
    history = state._live.machine.history
    lease = Lease.begin(0.1, history)
    kept = lease.kept(history, np.zeros(200, dtype=np.int64), np.ones(200))
    mean = lease.sums[0] / lease.counts[0]
    used = np.abs(np.cumsum(kept - mean)) / (lease.counts[0] + np.arange(1, 201))
    assert used.max() <= 0.05 + 1e-12
    assert kept.min() >= mean - 1e-12


def test_a_lease_that_was_used_up_while_an_exchange_was_under_way_stays_within_what_was_asked() -> None:
    state = fl.InferenceState([PARITY], bounds=(0.0, 1.0))
    state.emit(torch.full((20,), 0.4), {"sex": ["F", "M"] * 10})
    history = state._live.machine.history
    lease = Lease.begin(0.001, history)
    for edge in (1.0, 0.0):  # steps that did not know of this lease
        state.emit(torch.full((200,), edge), {"sex": ["F"] * 200})
        kept = lease.kept(history, np.zeros(2, dtype=np.int64), np.array([edge, edge]))
        mean = lease.sums[0] / lease.counts[0]
        assert kept.min() >= min(edge, mean) - 1e-12
        assert kept.max() <= max(edge, mean) + 1e-12
        lease = Lease.begin(0.001, history)


def test_no_database_is_named() -> None:
    with pytest.raises(StoreError, match="cannot be used now"):
        worker("postgresql://postgres@127.0.0.1:9/none")


def test_the_programs_run() -> None:
    found = programs()
    assert found is not None
    subprocess.run([str(found / "initdb"), "--version"], check=True, capture_output=True)


def test_decisions_share_a_store_with_scores(address: str) -> None:
    draw = np.random.default_rng(2)

    def decider() -> SharedStream:
        state = fl.InferenceState([PARITY], bounds=(0.0, 1.0), policy="present")
        store = SharedStore(address, shares=2, refresh=0.1).beside("decisions")
        return store.stream(state, WORDS, Rounding("rule 1"))

    scores, one, other = worker(address), decider(), decider()
    ask(scores, 0.3, "F", 0)  # the same id in another stream
    answers = []
    for i in range(100):
        sex = "FM"[int(draw.random() < 0.5)]
        answers.append((sex, ask((one, other)[i % 2], float(np.clip(draw.normal(0.5, 0.3), 0, 1)), sex, i)))
    assert {answer for _, answer in answers} == {0.0, 1.0}
    assert ask(other, 0.9, "F", 0) == answers[0][1]
    until(lambda: one.state.samples == other.state.samples == 100 and one.counters == other.counters)
    told = cells_of(["sex"], one.counters)
    for sex in ("F", "M"):
        mine = [answer for s, answer in answers if s == sex]
        assert told[f"sex={sex}"] == ((sex,), len(mine), int(sum(mine)))
        [cell] = [i for i, name in enumerate(one.state.counts()) if name == f"sex={sex}"]
        emitted = one.state._live.machine.history.sums["emitted"][cell]
        assert abs(emitted - sum(mine)) <= 2 * 0.5 + 1e-9  # half a person of each worker
    left = one._finish.to_state() if one._finish else {}
    one.close()
    again = decider()
    assert again._finish is not None
    assert again._finish.to_state() == pytest.approx(left, abs=1e-9)
    for stream in (scores, again, other):
        stream.close()
    with pytest.raises(StoreError, match="rule 2"):
        SharedStore(address, shares=2, kind="decisions").stream(
            fl.InferenceState([PARITY], bounds=(0.0, 1.0)), WORDS, Rounding("rule 2")
        )
