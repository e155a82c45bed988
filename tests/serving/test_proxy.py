"""Behind a proxy: under a path of its own, by the name that the proxy passes on, and beside another run."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pandas as pd
import pytest

from fairlayer.serving import create_app
from tests.serving.test_workers import records_of, served

fastapi = pytest.importorskip("fastapi", reason="needs the extra `serve`")
httpx = pytest.importorskip("httpx", reason="needs httpx, which the extra `dev` brings")
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
NAME = "scores.example"

CONFIGURATION = """
{user}
daemon off;
pid {folder}/pid;
error_log {folder}/errors;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        {places}
    }}
}}
"""
PLACE = """
        location {path}/ {{
            proxy_pass http://127.0.0.1:{port}/;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header X-Forwarded-Prefix {path};
        }}
"""


@contextmanager
def proxied(folder: Path, places: dict[str, int]) -> Iterator[str]:
    """nginx in front of several ports, each under a path."""
    assert NGINX is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    text = CONFIGURATION.format(
        user="user root;" if os.getuid() == 0 else "",
        folder=folder,
        port=port,
        places="".join(PLACE.format(path=path, port=each) for path, each in places.items()),
    )
    (folder / "nginx.conf").write_text(text)
    process = subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (folder / "errors").read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
@pytest.mark.skipif(NGINX is None, reason="needs the program nginx (nginx-light)")
def test_two_runs_behind_one_proxy(run: Path, labelled_run: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    records, token = records_of(rows), tmp_path / "token"
    token.write_text("a secret")
    given = ("--allowed-host", NAME, "--token-file", str(token))
    with (
        served(run, "--store", str(tmp_path / "loans.sqlite"), *given) as loans,
        served(labelled_run, "--store", str(tmp_path / "odds.sqlite"), *given) as odds,
        proxied(tmp_path, {"/loans": loans.port, "/odds": odds.port}) as address,
        httpx.Client(trust_env=False, timeout=30, headers={"Host": NAME, "Authorization": "Bearer a secret"}) as client,
    ):
        found = client.post(f"{address}/loans/score", json={"records": records[:3], "ids": [1, 2, 3]})
        assert found.status_code == 200, found.text
        assert len(found.json()["scores"]) == 3
        for path, samples in (("/loans", 3), ("/odds", 0)):
            assert client.get(f"{address}{path}/state").json()["samples"] == samples
            page = client.get(f"{address}{path}/docs")
            assert "href='openapi.json'" in page.text
            where = urljoin(f"{address}{path}/docs", "openapi.json")  # the link as a browser follows it
            document = client.get(where).json()
            [server] = document["servers"]
            asked = urljoin(where, server["url"]).rstrip("/") + "/score"  # and the server as a program does
            assert asked == f"{address}{path}/score"
            assert client.post(asked, json={"records": records[:1]}).status_code == 200
            metrics = client.get(f"{address}{path}/metrics").text
            assert 'fairlayer_request_seconds_count{endpoint="/score",status="200"}' in metrics
            counted = [line for line in metrics.splitlines() if line.startswith("fairlayer_predictions_total")]
            assert sum(float(line.split()[-1]) for line in counted) == samples + 1
            for slash in ("/score/", "/loans"):  # nothing answers by a redirect, which would name http://
                assert not client.post(f"{address}{path}{slash}", json={"records": records[:1]}).is_redirect
            assert httpx.get(f"{address}{path}/health", headers={"Host": NAME}, trust_env=False).status_code == 200
            assert httpx.get(f"{address}{path}/state", headers={"Host": NAME}, trust_env=False).status_code == 401
        assert client.post(f"{address}/odds/labels", json={"ids": [1], "labels": [1.0]}).status_code == 404  # of loans
        other = client.get(f"{address}/loans/state", headers={"Host": "elsewhere.example"})
        assert (other.status_code, other.json()["error"]) == (400, "HostError")


def mounted(app: Any) -> Any:
    """An application under a path of another one."""
    outside = fastapi.FastAPI()
    outside.mount("/loans", app)
    return outside


@pytest.mark.parametrize("way", ["a root path", "mounted"])
def test_a_path_that_stands_before_all_others_changes_nothing(way: str, run: Path, rows: pd.DataFrame) -> None:
    from fastapi.testclient import TestClient

    app = create_app(run, token="a secret")
    before = "/loans"
    with TestClient(app, root_path=before if way == "a root path" else "") as inner:
        client = inner if way == "a root path" else TestClient(mounted(app))
        allowed = {"Authorization": "Bearer a secret"}
        assert client.get(f"{before}/health").status_code == 200  # probes carry no token
        assert client.get(f"{before}/state").status_code == 401
        assert client.post(f"{before}/state", headers=allowed).status_code == 405
        sent = client.post(f"{before}/score", json={"records": records_of(rows)[:2]}, headers=allowed)
        assert sent.status_code == 200, sent.text
        metrics = client.get(f"{before}/metrics", headers=allowed).text
        assert 'endpoint="/score",status="200"} 1.0' in metrics
        document = client.get(f"{before}/openapi.json", headers=allowed).json()
        assert document["servers"] == [{"url": "."}]
