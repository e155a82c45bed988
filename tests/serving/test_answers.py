"""What answers carry, what the documents say, decisions, and a store that others read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import fairlayer as fl
from fairlayer.decisions import DecisionRule
from fairlayer.serving import create_app
from fairlayer.serving.fields import Field
from fairlayer.streaming.store import StoreError, StoreView, StreamStore
from fairlayer.training import KeptRoute, load_run

pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("httpx", reason="needs httpx, which the extra `dev` brings")


@pytest.fixture
def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return list(json.loads(rows.to_json(orient="records")))


@contextmanager
def client_of(run: Any, **options: Any) -> Iterator[Any]:
    from fastapi.testclient import TestClient

    with TestClient(create_app(run, **options), raise_server_exceptions=False) as client:
        yield client


def deciding(run: Path, rows: pd.DataFrame) -> Any:
    """The run with a rule of thresholds."""
    loaded = load_run(run)
    sample = loaded.recipe.sample(rows)
    with torch.no_grad():
        raw = loaded.model.eval().raw_scores(sample.x).double()
    rule = DecisionRule.fit(raw, loaded.model.constraints, sensitive_features=sample.sensitive)
    return replace(loaded, route=KeptRoute("rule", "network", "decision rule", rule))


def test_answers_carry_raw_scores_shifts_decisions_phase_run_and_version(
    run: Path, records: list[dict[str, Any]]
) -> None:
    with client_of(run) as client:
        found = client.post("/score", json={"records": records[:50]}).json()
        assert found["phase"] == client.get("/state").json()["phase"]
        assert found["version"] == fl.__version__
        assert found["run"] == client.get("/health").json()["run"]
        assert found["run"].startswith("run@")
    loaded = load_run(run)
    with torch.no_grad():
        raw = loaded.model.eval().raw_scores(loaded.recipe.sample(pd.DataFrame(records[:50])).x)
    assert found["raw_scores"] == pytest.approx(raw.reshape(-1).tolist(), abs=1e-6)
    for score, before, shift, decision in zip(
        found["scores"], found["raw_scores"], found["shifts"], found["decisions"], strict=True
    ):
        assert shift == pytest.approx(score - before, abs=1e-15)
        assert decision == (score >= 0.5)


def test_the_document_has_the_columns_of_the_run_and_its_example_is_answered(run: Path) -> None:
    with client_of(run) as client:
        document = client.get("/openapi.json").json()
        record = document["components"]["schemas"]["Record"]
        assert set(record["properties"]) == set(client.app.state.scorer.inputs.columns)
        kinds = {name: json.dumps(field) for name, field in record["properties"].items()}
        assert '"number"' in kinds["amount"]
        assert '"string"' in kinds["occupation"]
        assert record["properties"]["sex"]["enum"] == ["female", "male", None]
        example = document["components"]["schemas"]["ScoreRequest"]["example"]
        answer = client.post("/score", json=example)
        assert answer.status_code == 200
        assert set(answer.json()) == set(document["components"]["schemas"]["ScoreAnswer"]["properties"])
        page = client.get("/docs").text
        assert "monthly_income" in page
        assert "http" not in page.replace("HTTP", "").replace("https", "http").split("<style>")[0]
        assert "src=" not in page  # nothing is loaded


def test_decisions_are_counted_apart_stored_and_taken_once(
    run: Path, rows: pd.DataFrame, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    decided, path = deciding(run, rows), tmp_path / "s.sqlite"
    with client_of(decided, store=StreamStore(path)) as client:
        first = client.post("/decide", json={"records": records, "ids": list(range(400))}).json()
        assert set(first["decisions"]) <= {0, 1}
        assert (
            client.post("/decide", json={"records": records[:9], "ids": list(range(9))}).json()["decisions"]
            == (first["decisions"][:9])
        )
        state = client.get("/state").json()
        assert state["samples"] == 0
        rates = pd.Series(first["decisions"]).groupby(rows["sex"].to_numpy()).mean()
        [gap] = state["decisions"]["gaps"].values()
        assert gap == pytest.approx(abs(rates["female"] - rates["male"]), abs=1e-12)
        counts = rows["sex"].value_counts()
        assert gap <= 0.02 + 0.5 / counts["female"] + 0.5 / counts["male"] + 1e-9
        assert client.post("/decide", json={"records": records[9:10], "ids": [0]}).status_code == 409
        app = client.app
        app.state.decider.store.close()  # as a kill leaves it: no snapshot
        app.state.decider.close = lambda: None
    with client_of(decided, store=StreamStore(path)) as client:
        assert client.get("/state").json()["decisions"] == state["decisions"]
    with client_of(replace(decided, route=KeptRoute())) as client:
        assert client.post("/decide", json={"records": records[:1]}).status_code == 404


def test_a_group_that_is_not_known_is_decided_by_the_score_where_that_is_asked(
    run: Path, rows: pd.DataFrame, records: list[dict[str, Any]]
) -> None:
    decided = deciding(run, rows)
    strange = [{**records[0], "sex": None}, {**records[1], "sex": "other"}]
    with client_of(decided) as client:
        for one, said in zip(strange, ("is null, but has to be known", "is 'other'"), strict=True):
            answer = client.post("/decide", json={"records": [records[2], one]})
            assert (answer.status_code, said in answer.json()["detail"]) == (422, True)
        assert client.get("/state").json()["decisions"]["samples"] == 0
        assert client.post("/score", json={"records": strange[:1]}).status_code == 200  # a score has no threshold
    with client_of(decided, unknown="uncovered") as client:
        found = client.post("/decide", json={"records": [*strange, *records[:20]]}).json()
        assert found["decisions"][:2] == [int(score >= 0.5) for score in found["raw_scores"][:2]]
        known = client_of(decided)
        with known as other:
            assert found["decisions"][2:] == other.post("/decide", json={"records": records[:20]}).json()["decisions"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"amount": "9000"}, "'amount' is '9000', but is read as a number"),
        ({"amount": True}, "'amount' is a boolean, but is read as a number"),
        ({"amount": 1e30}, "'amount' is 1e+30, but has to lie between"),
        ({"sex": True}, "'sex' is a boolean, but has to be one of 'female', 'male' or null"),
        ({"sex": "Female"}, "'sex' is 'Female', but has to be one of"),
    ],
)
def test_a_value_is_what_its_column_holds(
    change: dict[str, Any], said: str, run: Path, records: list[dict[str, Any]]
) -> None:
    with client_of(run) as client:
        answer = client.post("/score", json={"records": [{**records[0], **change}]})
        assert answer.status_code == 422
        assert said in answer.json()["detail"]
        assert client.get("/state").json()["samples"] == 0


def test_a_group_that_is_written_as_a_number_is_read_from_numbers_and_text() -> None:
    field = Field("group", "group", ("0", "1", "True"), 0)
    taken = [0, 1, 1.0, "0", True, "True", None]
    assert [field.problem(value) for value in taken] == [None] * len(taken)
    assert all(field.problem(value) for value in [2, "2", False, "1.0", 0.5, [0]])
    assert field.schema()["enum"] == ["0", 0, "1", 1, "True", True, None]


def test_what_is_not_there_is_said_in_the_same_form(labelled_run: Path, records: list[dict[str, Any]]) -> None:
    with client_of(labelled_run) as client:
        client.post("/score", json={"records": records[:1], "ids": ["a"], "at": 5.0})
        client.post("/labels", json={"ids": ["a"], "labels": [1]})
        answers = {
            client.get("/nowhere"): (404, "NotFoundError"),
            client.post("/score/", json={"records": records[:1]}): (404, "NotFoundError"),
            client.post("/state"): (405, "MethodError"),
            client.get("/score"): (405, "MethodError"),
            client.post("/labels", json={"ids": ["b"], "labels": [1]}): (404, "UnknownIdError"),
            client.post("/labels", json={"ids": ["a"], "labels": [0]}): (409, "LabelChangedError"),
            client.post("/score", json={"records": records[:1], "at": 4.0}): (409, "ClockBackError"),
        }
        for answer, (status, name) in answers.items():
            assert (answer.status_code, answer.json()["error"]) == (status, name)
            assert set(answer.json()) == {"error", "detail"}
        assert client.post("/labels", json={"ids": ["a"], "labels": [1]}).json()["counted"] == 0
        assert client.get("/state").json()["samples"] == 1


def test_an_id_with_another_record_is_refused(run: Path, records: list[dict[str, Any]]) -> None:
    with client_of(run) as client:
        first = client.post("/score", json={"records": records[:1], "ids": ["a"]}).json()
        same = {**records[0], "amount": float(records[0]["amount"]), "label": "another", "more": 1}
        assert client.post("/score", json={"records": [same], "ids": ["a"]}).json() == first
        other = client.post("/score", json={"records": [records[1], records[2]], "ids": ["b", "a"]})
        assert (other.status_code, other.json()["error"]) == (409, "IdReusedError")
        assert client.get("/state").json()["samples"] == 1


def test_unknown_categories_are_covered_by_nothing_where_that_is_asked(
    run: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    strange = {**records[0], "sex": "other", "occupation": "astronaut"}
    for _ in range(2):  # the numbers outlive a restart
        with client_of(run, store=StreamStore(tmp_path / "s.sqlite"), unknown="uncovered") as client:
            assert client.post("/score", json={"records": [strange, records[1]]}).status_code == 200
    with client_of(run, store=StreamStore(tmp_path / "s.sqlite"), unknown="uncovered") as client:
        state = client.get("/state").json()
        assert state["uncovered_categories"] == {"sex": 2}
        assert state["unseen_levels"]["occupation"] == 2
        assert 'fairlayer_uncovered_total{column="sex"} 2.0' in client.get("/metrics").text
    with client_of(run) as client:
        assert client.post("/score", json={"records": [strange]}).status_code == 422


def test_a_store_is_read_and_copied_while_it_is_in_use(
    run: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "s.sqlite"
    with client_of(run, store=StreamStore(path)) as client:
        score = client.post("/score", json={"records": records[:1], "ids": ["a"]}).json()["scores"][0]
        with StoreView(path) as view:
            assert view.answers(["a"])["a"].emitted == score
            view.backup(tmp_path / "copy.sqlite")
            with pytest.raises(StoreError, match="would overwrite"):
                view.backup(tmp_path / "copy.sqlite")
        assert client.post("/score", json={"records": records[1:2]}).status_code == 200
        path.unlink()
        refused = client.post("/score", json={"records": records[2:3]})
        assert (refused.status_code, "is gone" in refused.json()["detail"]) == (503, True)
        assert client.get("/ready").status_code == 503
    with client_of(run, store=StreamStore(tmp_path / "copy.sqlite")) as client:
        assert client.get("/state").json()["samples"] == 1


def test_health_says_what_outlives_what(run: Path, tmp_path: Path) -> None:
    for store, kind, words in (
        (StreamStore(":memory:"), "none", "nothing: the stream begins anew at each start"),
        (StreamStore(tmp_path / "a.sqlite"), "sqlite", "no power cut"),
        (StreamStore(tmp_path / "b.sqlite", synchronous="full"), "sqlite", "a power cut too"),
    ):
        with client_of(run, store=store) as client:
            said = client.get("/health").json()["durability"]
        assert (said["store"], words in said["survives"]) == (kind, True)


def test_windows_are_in_the_metrics(run: Path, records: list[dict[str, Any]]) -> None:
    with client_of(run, window=100) as client:
        client.post("/score", json={"records": records[:150]})
        page = client.get("/metrics").text
        assert 'fairlayer_window{what="moved"}' in page
        assert "fairlayer_window_gap{constraint=" in page
