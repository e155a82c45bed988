"""The service against its own document: what schemathesis makes of it is answered as the document says."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fairlayer.serving import create_app
from fairlayer.serving.server import bound_socket, serve
from tests.serving.test_answers import deciding

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("uvicorn", reason="needs the extra `serve`")
if importlib.util.find_spec("schemathesis") is None:
    pytest.skip("needs schemathesis, which the extra `dev` brings", allow_module_level=True)


@contextmanager
def listening(run: Any, **options: Any) -> Iterator[int]:
    """A server in a thread."""
    from fairlayer.serving import server as module

    up, found = threading.Event(), list[Any]()
    made = module._server
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "_server", lambda base, ready: lambda c: found.append(made(base, ready)(c)) or found[0])
    with bound_socket("127.0.0.1", 0) as address:
        app = create_app(run, **options)
        thread = threading.Thread(target=serve, args=(app, address), kwargs={"ready": up.set})
        thread.start()
        try:
            assert up.wait(60)
            yield int(address.getsockname()[1])
        finally:
            found[0].should_exit = True
            thread.join(30)
            patch.undo()


def asked(port: int, folder: Path, *given: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{port}/openapi.json"]
    return subprocess.run(
        [*command, "--checks", "all", "--max-examples", "25", "--seed", "3", "--no-color", *given],
        check=False,
        cwd=folder,  # it writes there
        env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.serving.schemathesis_hooks"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["decisions", "labels", "token", "clock", "uncovered"])
def test_all_checks_of_schemathesis_pass(
    kind: str, run: Path, labelled_run: Path, rows: pd.DataFrame, tmp_path: Path
) -> None:
    served = labelled_run if kind == "labels" else deciding(run, rows)
    options: dict[str, Any] = {
        "token": {"token": "secret"},
        "clock": {"window": "1h"},
        "uncovered": {"unknown": "uncovered"},
    }.get(kind, {})
    with listening(served, **options) as port:
        done = asked(port, tmp_path, *(("-H", "Authorization: Bearer secret") if kind == "token" else ()))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "No issues found" in done.stdout, done.stdout[-2000:]
