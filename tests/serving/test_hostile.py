"""A thousand hostile bodies: each is refused by name, and nothing is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairlayer.serving import create_app
from tests.serving.test_answers import deciding

pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("httpx", reason="needs httpx, which the extra `dev` brings")

JSON = {"content-type": "application/json"}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([10**400, 2**63, -1, "", "\ud800", "\x00", "female", "NaN", "1e999"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


def bodies(record: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Near misses of a request, and noise. None of them can be answered: a wanted column always holds a list."""
    name = st.sampled_from(sorted(record))
    spoilt = st.builds(lambda key, value: {**record, key: [value]}, name, VALUES)
    lacking = st.builds(lambda key: {k: v for k, v in record.items() if k != key}, name)
    wrong = spoilt | lacking | VALUES.filter(lambda value: not isinstance(value, dict))
    requests = st.fixed_dictionaries(
        {"records": st.lists(wrong, max_size=3) | VALUES.filter(lambda value: not isinstance(value, list))},
        optional={"ids": VALUES, "at": VALUES},
    )
    foreign = st.fixed_dictionaries({"records": st.just([record]), "strange": VALUES})
    badly_named = st.fixed_dictionaries(
        {"records": st.just([record]), "ids": st.just([]) | st.just([1.5, None]) | name}
    )
    shaped = (requests | foreign | badly_named | VALUES).map(lambda value: json.dumps(value).encode())
    return shaped | st.binary(max_size=40) | shaped.map(lambda text: text[: len(text) // 2])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["decisions", "labels"])
def test_a_thousand_hostile_bodies_change_nothing(kind: str, run: Path, labelled_run: Path, rows: pd.DataFrame) -> None:
    from fastapi.testclient import TestClient

    [record] = json.loads(rows.head(1).drop(columns="label").to_json(orient="records"))  # what a run reads
    served, paths = (deciding(run, rows), ["/score", "/decide"]) if kind == "decisions" else (labelled_run, ["/labels"])
    with TestClient(create_app(served), raise_server_exceptions=False) as client:
        client.post("/score", json={"records": [record], "ids": ["first"]})
        before = client.get("/state").json()

        @settings(
            max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
        )
        @given(bodies(record), st.sampled_from(paths))
        def ask(body: bytes, path: str) -> None:
            answer = client.post(path, content=body, headers=JSON)
            assert 400 <= answer.status_code < 500, (path, body, answer.text)
            assert set(answer.json()) == {"error", "detail"}

        ask()
        assert client.get("/state").json() == before


@pytest.mark.parametrize("at", [10**400, True, "1", [1.0], {}])
def test_a_clock_must_be_a_number(at: Any, run: Path, rows: pd.DataFrame) -> None:
    from fastapi.testclient import TestClient

    records = json.loads(rows.head(1).to_json(orient="records"))
    with TestClient(create_app(run), raise_server_exceptions=False) as client:
        answer = client.post("/score", json={"records": records, "at": at})
        assert (answer.status_code, client.get("/state").json()["samples"]) == (422, 0)
        assert "'at' must be a number" in answer.json()["detail"]
        assert client.post("/score", json={"records": records, "at": 1.5}).status_code == 200
        assert client.post("/score", json={"records": records, "at": 0.5}).status_code == 409
