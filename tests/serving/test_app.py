"""The HTTP scorer: in process, and as a real process that is killed and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fairlayer.errors import CategoryError
from fairlayer.serving import Scorer, create_app
from fairlayer.streaming.store import StoreError, StreamStore

fastapi = pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("prometheus_client", reason="needs the extra `serve`")
httpx = pytest.importorskip("httpx", reason="needs httpx, which the extra `dev` brings")

ROOT = Path(__file__).resolve().parents[2]
PARITY = "DemographicParity('sex')"
JSON = {"content-type": "application/json"}


def records_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return list(json.loads(frame.to_json(orient="records")))


@pytest.fixture
def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return records_of(rows)


@contextmanager
def client_of(run: Any, **options: Any) -> Iterator[Any]:
    from fastapi.testclient import TestClient

    with TestClient(create_app(run, **options), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(run: Path) -> Iterator[Any]:
    with client_of(run, most_records=300, most_bytes=200_000) as client:
        yield client


def state_of(client: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/state").json()
    return found


class TestScore:
    def test_single_requests_keep_the_pooled_gap(self, run: Path, records: list[dict[str, Any]]) -> None:
        with client_of(run, policy="anytime") as client:
            sums: dict[str, list[float]] = {"female": [], "male": []}
            for record in records:
                [score] = client.post("/score", json={"records": [record]}).json()["scores"]
                sums[record["sex"]].append(score)
            means = [sum(scores) / len(scores) for scores in sums.values()]
            gap = state_of(client)["constraints"][PARITY]["pooled_gap"]
            assert gap == pytest.approx(abs(means[0] - means[1]), abs=1e-12)  # the numbers sent are those counted
            assert gap <= 0.02 + 1e-9

    def test_many_records_at_once(self, client: Any, records: list[dict[str, Any]]) -> None:
        answer = client.post("/score", json={"records": records[:300]})
        assert answer.status_code == 200
        assert len(answer.json()["scores"]) == 300
        assert state_of(client)["samples"] == 300

    def test_columns_beyond_those_needed_are_ignored_and_null_is_missing(
        self, client: Any, records: list[dict[str, Any]]
    ) -> None:
        record = {**records[0], "note": [1, 2], "monthly_income": None, "label": 3}
        assert client.post("/score", json={"records": [record]}).status_code == 200

    def test_a_repeated_id_gets_its_answer(self, client: Any, records: list[dict[str, Any]]) -> None:
        first = client.post("/score", json={"records": records[:2], "ids": ["a", 7]}).json()
        again = client.post("/score", json={"records": records[1:3], "ids": [7, "b"]}).json()
        assert again["scores"][0] == first["scores"][1]
        assert state_of(client)["samples"] == 3

    def test_an_unseen_level_of_a_feature_is_scored_and_counted(
        self, client: Any, records: list[dict[str, Any]]
    ) -> None:
        assert client.post("/score", json={"records": [{**records[0], "occupation": "diver"}]}).status_code == 200
        assert state_of(client)["unseen_levels"] == {"occupation": 1}
        assert 'fairlayer_unseen_levels_total{column="occupation"} 1.0' in client.get("/metrics").text

    def test_many_clients_at_once(self, run: Path, records: list[dict[str, Any]]) -> None:
        from concurrent.futures import ThreadPoolExecutor

        with client_of(run) as client, ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda r: client.post("/score", json={"records": [r]}).status_code, records[:100]))
            assert set(answers) == {200}
            assert sum(cell["count"] for cell in state_of(client)["cells"].values()) == 100


def changed(record: dict[str, Any], **columns: Any) -> dict[str, Any]:
    return {"records": [{**record, **columns}]}


def without(record: dict[str, Any], name: str) -> dict[str, Any]:
    return {"records": [{key: value for key, value in record.items() if key != name}]}


BAD = {
    "an unknown category": (lambda r: changed(r[0], sex="other"), "'other'"),
    "a missing column": (lambda r: without(r[0], "amount"), "record 0 lacks 'amount'"),
    "a missing sensitive column": (lambda r: without(r[0], "sex"), "record 0 lacks 'sex'"),
    "text for a number": (lambda r: changed(r[0], amount="much"), "'much'"),
    "a list for a number": (lambda r: changed(r[0], amount=[1]), "'amount' is a list"),
    "a number too large": (lambda r: changed(r[0], amount=10**400), "too large"),
    "half a letter": (lambda r: changed(r[0], occupation="\ud800"), "'occupation' is not text that can be encoded"),
    "half a letter for a category": (lambda r: changed(r[0], sex="\ud800"), "'sex' is not text"),
    "ids of another length": (lambda r: {"records": r[:2], "ids": ["a"]}, "2 samples, but 1 ids"),
    "an id twice": (lambda r: {"records": r[:2], "ids": ["a", "a"]}, "given twice"),
    "an id that is none": (lambda r: {"records": r[:1], "ids": [None]}, "an id is"),
    "no records": (lambda r: {"records": []}, "at least one"),
    "too many records": (lambda r: {"records": r[:301]}, "at most 300"),
    "records that are no list": (lambda r: {"records": r[0]}, "'records' must be a list"),
    "a record that is no object": (lambda r: {"records": [1]}, "record 0 must be an object"),
    "one bad record among good ones": (lambda r: {"records": [*r[:3], {}]}, "record 3 lacks"),
    "a misspelt key": (lambda r: {"records": r[:1], "id": ["a"]}, "may have 'ids'"),
    "no object": (lambda r: r[:1], "must be a JSON object"),
}


class TestBadRequests:
    @pytest.mark.parametrize("name", BAD)
    def test_it_says_what_is_wrong_and_changes_nothing(
        self, name: str, client: Any, records: list[dict[str, Any]]
    ) -> None:
        make, said = BAD[name]
        client.post("/score", json={"records": records[:5]})
        before = state_of(client)
        answer = client.post("/score", content=json.dumps(make(records)), headers=JSON)
        assert answer.status_code == 422
        assert said in answer.json()["detail"]
        assert state_of(client) == before

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b'{"records": [{"amount": NaN}]}', "NaN is not a JSON value"),
            (b'{"records": [{"amount": -Infinity}]}', "Infinity is not a JSON value"),
            (b"{", "not JSON"),
            (b"\xff", "not JSON"),
            (b"", "not JSON"),
            (b"[" * 100_000, "not JSON"),
        ],
    )
    def test_what_is_no_json(self, body: bytes, said: str, client: Any) -> None:
        answer = client.post("/score", content=body, headers=JSON)
        assert answer.status_code == 422
        assert said in answer.json()["detail"]
        assert state_of(client)["samples"] == 0

    def test_what_a_store_cannot_write_is_503(
        self, run: Path, records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise StoreError("the disk is full")

        with client_of(run) as client:
            monkeypatch.setattr(client.app.state.scorer.stream.store, "append", full)
            answer = client.post("/score", json={"records": records[:1]})
            assert (answer.status_code, answer.json()["error"]) == (503, "StoreError")
            assert state_of(client)["samples"] == 0


class TestLabels:
    def test_late_labels_are_counted_once(self, labelled_run: Path, records: list[dict[str, Any]]) -> None:
        with client_of(labelled_run) as client:
            ids = list(range(40))
            client.post("/score", json={"records": records[:40], "ids": ids})
            labels = [record["label"] for record in records[:40]]
            assert client.post("/labels", json={"ids": ids, "labels": labels}).json() == {"counted": 40, "waiting": 0}
            assert client.post("/labels", json={"ids": ids, "labels": labels}).json() == {"counted": 0, "waiting": 0}
            assert state_of(client)["constraints"]["EqualOpportunity('sex')"]["pooled_gap"] is not None

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ({"ids": [0], "labels": ["yes"]}, "'yes'"),
            ({"ids": [0], "labels": [1, 0]}, "1"),
            ({"ids": [0], "labels": [10**400]}, "labels must be numbers"),
            ({"ids": [0], "labels": [7]}, "needs labels 0 or 1"),
            ({"ids": [0]}, "'labels'"),
        ],
    )
    def test_bad_labels(
        self, body: dict[str, Any], said: str, labelled_run: Path, records: list[dict[str, Any]]
    ) -> None:
        with client_of(labelled_run) as client:
            client.post("/score", json={"records": records[:1], "ids": [0]})
            answer = client.post("/labels", json=body)
            assert answer.status_code == 422
            assert said in answer.json()["detail"]
            assert client.post("/labels", json={"ids": [0], "labels": [1]}).json() == {"counted": 1, "waiting": 0}

    def test_a_model_that_reads_no_labels_says_so(self, client: Any, records: list[dict[str, Any]]) -> None:
        client.post("/score", json={"records": records[:1], "ids": [0]})
        answer = client.post("/labels", json={"ids": [0], "labels": [1]})
        assert answer.status_code == 422
        assert "no constraint of this stream looks at labels" in answer.json()["detail"]


def test_metrics_are_those_of_the_state(client: Any, records: list[dict[str, Any]]) -> None:
    client.post("/score", json={"records": records[:200]})
    client.post("/score", json={"records": []})
    page, state = client.get("/metrics"), state_of(client)
    assert page.headers["content-type"].startswith("text/plain")
    found = dict(line.rsplit(" ", 1) for line in page.text.splitlines() if not line.startswith("#"))
    numbers = state["constraints"][PARITY]
    for name in ("pooled_gap", "limit", "multiplier"):
        assert float(found[f'fairlayer_{name}{{constraint="{PARITY}"}}']) == pytest.approx(numbers[name])
    assert found[f'fairlayer_phase{{phase="{state["phase"]}"}}'] == "1.0"
    assert float(found['fairlayer_predictions_total{cell="sex=female"}']) == state["cells"]["sex=female"]["count"]
    assert found['fairlayer_request_seconds_count{endpoint="/score",status="422"}'] == "1.0"


def test_health_and_unknown_paths(client: Any) -> None:
    health = client.get("/health").json()
    assert health["status"] == "ok"
    assert health["durability"] == {"store": "none", "survives": "nothing: the stream begins anew at each start"}
    assert client.get("/ready").json() == {"ready": True}
    assert client.get("/nothing").status_code == 404
    assert client.get("/openapi.json").status_code == 200


def test_the_stream_goes_on_after_a_restart(run: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    with client_of(run, store=StreamStore(tmp_path / "s.sqlite")) as client:
        first = client.post("/score", json={"records": records[:50], "ids": list(range(50))}).json()
        before = state_of(client)
    with client_of(run, store=StreamStore(tmp_path / "s.sqlite")) as client:
        assert state_of(client) == before
        assert client.post("/score", json={"records": records[:50], "ids": list(range(50))}).json() == first


def test_a_warm_start_counts_nothing(run: Path, rows: pd.DataFrame) -> None:
    scorer = Scorer(run, warm_start=rows)
    assert scorer.describe()["samples"] == 0
    with pytest.raises(CategoryError, match="'other'"):
        Scorer(run, warm_start=rows.assign(sex="other"))


# ---- a real process


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def server(run: Path, store: Path, port: int, *, end: signal.Signals) -> Iterator[Any]:
    """Serve in a process of its own, until `end`."""
    program = "import sys; from fairlayer.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "serve", str(run), "--port", str(port), "--store", str(store)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            _wait_for(client, process)
            yield client
    finally:
        process.send_signal(end)
        process.communicate(timeout=30)


def _wait_for(client: Any, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        try:
            client.get("/health")
            return
        except httpx.TransportError:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
    raise AssertionError("the server did not start")


def assert_same(found: Any, expected: Any) -> None:
    """Equal, numbers up to rounding: steps that are counted again are summed up in another order."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value)
    else:
        assert found == (pytest.approx(expected, rel=1e-9, abs=1e-12) if isinstance(expected, float) else expected)


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_real_server_is_killed_and_goes_on(
    end: signal.Signals, run: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra `serve`")
    port, store, total = free_port(), tmp_path / "s.sqlite", 0.0
    with server(run, store, port, end=end) as client:
        for i, record in enumerate(records[:60]):
            total += client.post("/score", json={"records": [record], "ids": [i]}).json()["scores"][0]
        assert client.post("/score", json={"records": [{}]}).status_code == 422
        before = client.get("/state").json()
    with server(run, store, port, end=end) as client:
        assert_same(client.get("/state").json(), before)
        again = [
            client.post("/score", json={"records": [r], "ids": [i]}).json()["scores"][0]
            for i, r in enumerate(records[:60])
        ]
        assert sum(again) == pytest.approx(total, abs=1e-9)
        assert_same(client.get("/state").json(), before)
        assert client.post("/score", json={"records": records[60:61], "ids": [60]}).status_code == 200
        assert client.get("/state").json()["samples"] == 61
        assert re.search(r"^fairlayer_pooled_gap\{.*\} 0\.", client.get("/metrics").text, re.MULTILINE)
