"""The table of columns, through the service: what a record may say about its group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fairlayer.serving import create_app

pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("httpx", reason="needs httpx, which the extra `dev` brings")

REFUSED: dict[str, tuple[Any, str]] = {
    "another spelling": ("Female", "is 'Female', but has to be one of 'female', 'male' or null"),
    "a space": (" female", "is ' female', but has to be one of"),
    "a code": (0, "is 0, but has to be one of"),
    "a truth value": (True, "is a boolean, but has to be one of"),
    "a fraction": (0.5, "is 0.5, but has to be one of"),
    "nothing": ("", "is '', but has to be one of"),
    "NaN as text": ("NaN", "is 'NaN', but has to be"),
    "None as text": ("None", "is 'None', but has to be"),
    "a list": (["female"], "is a list"),
    "an object": ({"sex": "female"}, "is an object"),
    "an enormous number": (10**40, "is too large"),
}


def test_what_a_record_says_of_its_group(run: Path, rows: pd.DataFrame) -> None:
    from fastapi.testclient import TestClient

    record = {name: value for name, value in rows.iloc[0].items() if name != "label"}
    record = {name: value.item() if hasattr(value, "item") else value for name, value in record.items()}
    with TestClient(create_app(run), raise_server_exceptions=False) as client:

        def counts() -> dict[str, int]:
            return {name: cell["count"] for name, cell in client.get("/state").json()["cells"].items()}

        for word in ("female", "male", None):
            assert client.post("/score", json={"records": [{**record, "sex": word}]}).status_code == 200
        counted = counts()
        assert sorted(counted) == ["sex=female", "sex=male", "sex=unknown"]
        assert set(counted.values()) == {1}
        for name, (value, said) in REFUSED.items():
            answer = client.post("/score", json={"records": [{**record, "sex": value}, {**record, "sex": "male"}]})
            assert answer.status_code == 422, name
            assert answer.json()["error"] in ("CategoryError", "ColumnError", "RequestError"), name
            assert said in answer.json()["detail"], (name, answer.json())
            assert counts() == counted, name
