"""Who may ask, in which form, how much and how long: in process, and over sockets that stand still or hang up."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fairlayer.serving import create_app
from fairlayer.serving.server import AddressError, bound_socket, serve

pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("uvicorn", reason="needs the extra `serve`")
httpx = pytest.importorskip("httpx", reason="needs httpx, which the extra `dev` brings")


@pytest.fixture(scope="module")
def body(rows: pd.DataFrame) -> bytes:
    return json.dumps({"records": json.loads(rows.head(1).to_json(orient="records"))}).encode()


@contextmanager
def client_of(run: Path, **options: Any) -> Iterator[Any]:
    from fastapi.testclient import TestClient

    with TestClient(create_app(run, **options), raise_server_exceptions=False) as client:
        yield client


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain", "origin": "http://evil.example"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-type": "text/plain; application/json"}, 415),
        ({"content-type": ""}, 415),
        ({**JSON, "host": "evil.example"}, 400),
        ({**JSON, "host": "localhost.evil.example:8000"}, 400),
        ({**JSON, "content-length": "99999999999999999999"}, 413),
        ({**JSON, "host": "localhost:8000"}, 200),
        ({**JSON, "host": "[::1]:8000"}, 200),
        ({"content-type": "Application/JSON; charset=utf-8", "host": "127.0.0.1"}, 200),
    ],
)
def test_what_a_page_of_another_origin_can_send_is_refused(
    headers: dict[str, str], status: int, run: Path, body: bytes
) -> None:
    with client_of(run) as client:
        answer = client.post("/score", content=body, headers=headers)
        assert answer.status_code == status
        assert (status == 200) or {"error", "detail"} == set(answer.json())
        assert client.get("/state").json()["samples"] == (status == 200)


def test_a_token_is_asked_for_except_by_probes(run: Path, body: bytes) -> None:
    with client_of(run, token="secret") as client:
        for given in (
            {},
            {"authorization": "Bearer other"},
            {"authorization": "secret"},
            {"authorization": "Bearer é"},
        ):
            headers = {name: value.encode() for name, value in {**JSON, **given}.items()}
            assert client.post("/score", content=body, headers=headers).status_code == 401
        assert client.get("/metrics").status_code == 401
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        good = {"authorization": "Bearer secret"}
        assert client.post("/score", content=body, headers={**JSON, **good}).status_code == 200
        assert client.get("/state", headers=good).json()["samples"] == 1


def test_a_body_that_is_too_large_is_not_read(run: Path) -> None:
    with client_of(run, most_bytes=1000) as client:
        assert client.post("/score", content=b" " * 1001, headers=JSON).status_code == 413
        assert client.post("/score", content=iter([b" " * 600] * 3), headers=JSON).status_code == 413  # no length said
        assert client.post("/score", content=b" " * 1000, headers=JSON).status_code == 422


@pytest.fixture
def address(run: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[tuple[str, int]]:
    """A server in a thread, with limits of a second; it must write nothing to its streams."""
    app, up = create_app(run, seconds=1.0), threading.Event()
    listening = bound_socket("127.0.0.1", 0)
    found: list[Any] = []
    from fairlayer.serving import server as module

    class Kept:
        def __init__(self, made: Any) -> None:
            self.made = made

        def __call__(self, config: Any) -> Any:
            found.append(self.made(config))
            return found[0]

    made = module._server
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "_server", lambda base, ready: Kept(made(base, ready)))
    thread = threading.Thread(target=serve, args=(app, listening), kwargs={"seconds": 1.0, "ready": up.set})
    thread.start()
    try:
        assert up.wait(60)
        yield listening.getsockname()[:2]
    finally:
        found[0].should_exit = True
        thread.join(30)
        patch.undo()
        listening.close()
    assert not thread.is_alive()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /score HT",
        b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{",
    ],
    ids=["nothing", "half a head", "half a body"],
)
def test_what_is_half_sent_is_closed(sent: bytes, address: tuple[str, int]) -> None:
    with socket.create_connection(address) as peer:
        peer.settimeout(30)
        peer.sendall(sent)
        answer = b"".join(iter(lambda: peer.recv(4096), b""))  # until the server closes
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408")
    assert httpx.get(f"http://127.0.0.1:{address[1]}/state", trust_env=False).json()["samples"] == 0


def test_clients_that_hang_up_leave_no_trace(address: tuple[str, int], body: bytes) -> None:
    head = "POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
    for length, part in ((len(body), body[:10]), (len(body) + 5, body), (len(body), body)):
        peer = socket.create_connection(address)
        peer.sendall(head.format(length).encode() + part)
        peer.close()
    for _ in range(100):  # the last was whole: it counts, whether or not the answer was read
        found = httpx.get(f"http://127.0.0.1:{address[1]}/state", trust_env=False).json()["samples"]
        if found:
            break
        time.sleep(0.05)
    assert found == 1


def test_an_address_that_is_taken_is_named() -> None:
    with bound_socket("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(AddressError, match="cannot be listened on"):
            bound_socket("127.0.0.1", first.getsockname()[1])
