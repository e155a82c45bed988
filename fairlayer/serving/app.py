"""The HTTP face of a scorer (FastAPI). It has no authentication: put it behind something that has."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fairlayer.errors import (
    BackendError,
    FairlayerError,
    InfeasibleConstraintsError,
    MissingExtraError,
    OutputError,
    SolverError,
    require,
)
from fairlayer.serving.metrics import Metrics
from fairlayer.serving.records import RequestError, read_body, read_labels
from fairlayer.serving.scorer import Scorer
from fairlayer.streaming.store import StoreError

# No `from __future__ import annotations` here: FastAPI reads the annotations of functions defined inside functions.

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

__all__ = ["create_app"]

_OURS = (BackendError, InfeasibleConstraintsError, MissingExtraError, OutputError, SolverError)
_ENDPOINTS = ("/score", "/labels", "/state", "/metrics", "/health")


def create_app(run: Any, *, most_bytes: int = 4_000_000, **options: Any) -> "FastAPI":
    """Return a FastAPI application that scores records through one stream.

    Args:
        run: a run folder, a `Run`, or a `Scorer`.
        most_bytes: largest request body.
        **options: of the `Scorer` (store, policy, memory, warm_start, most_records).

    Endpoints: POST /score {"records": [...], "ids": [...] or absent}, POST /labels {"ids": [...], "labels": [...]},
    GET /state, GET /metrics, GET /health. A bad request gets a 422 with {"error", "detail"} and changes nothing.
    Run one process: the stream is one, and its store refuses a second.

    Raises:
        MissingExtraError: FastAPI or prometheus_client is not installed.
    """
    fastapi = require("fastapi", "serve")
    scorer = run if isinstance(run, Scorer) else Scorer(run, **options)
    metrics = Metrics(scorer)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        scorer.close()

    app: FastAPI = fastapi.FastAPI(title="fairlayer", lifespan=lifespan)
    app.state.scorer = scorer
    _add_errors(app)
    _add_timing(app, metrics)
    _add_posts(app, scorer, most_bytes)
    _add_gets(app, scorer, metrics)
    return app


def _add_posts(app: "FastAPI", scorer: Scorer, most_bytes: int) -> None:
    from fastapi import Request
    from fastapi.concurrency import run_in_threadpool

    @app.post("/score", openapi_extra=_takes("records", "object", optional="ids"))
    async def score(request: Request) -> dict[str, Any]:
        """Score records; each prediction is counted once, whatever becomes of the answer."""
        body = read_body(await _body(request, most_bytes), needed=("records",), allowed=("ids", "at"))
        call = (body["records"], body.get("ids"), body.get("at"))
        return {"scores": await run_in_threadpool(scorer.score, *call)}

    @app.post("/labels", openapi_extra=_takes("labels", "number", optional="ids"))
    async def labels(request: Request) -> dict[str, Any]:
        """Deliver true labels of earlier predictions, by their ids."""
        body = read_body(await _body(request, most_bytes), needed=("ids", "labels"))
        return {"counted": await run_in_threadpool(scorer.observe_labels, body["ids"], read_labels(body["labels"]))}


def _add_gets(app: "FastAPI", scorer: Scorer, metrics: Metrics) -> None:
    from fastapi import Response

    @app.get("/state")
    def state() -> dict[str, Any]:
        """Where the stream stands."""
        return scorer.describe()

    @app.get("/metrics")
    def scrape() -> Response:
        """The same for Prometheus."""
        text, kind = metrics.text()
        return Response(text, media_type=kind)

    @app.get("/health")
    def health() -> dict[str, str]:
        """That the process answers."""
        return {"status": "ok"}


def _add_errors(app: "FastAPI") -> None:
    from fastapi import Request
    from fastapi.responses import JSONResponse

    @app.exception_handler(FairlayerError)
    async def named(_: Request, error: FairlayerError) -> JSONResponse:
        status = 503 if isinstance(error, StoreError) else 500 if isinstance(error, _OURS) else 422
        return JSONResponse({"error": type(error).__name__, "detail": str(error)}, status_code=status)


def _add_timing(app: "FastAPI", metrics: Metrics) -> None:
    from fastapi import Request, Response

    @app.middleware("http")
    async def timed(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        start, status = time.perf_counter(), 500
        try:
            response = await call_next(request)
            status = response.status_code
        finally:
            path = request.url.path if request.url.path in _ENDPOINTS else "other"
            metrics.observe(path, status, time.perf_counter() - start)
        return response


async def _body(request: "Request", most: int) -> bytes:
    """Read the body, but never more of it than allowed."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise RequestError(f"the body is larger than {most} bytes. Send the records in parts.")
        parts.append(part)
    return b"".join(parts)


def _takes(name: str, kind: str, *, optional: str) -> dict[str, Any]:
    """The body in the words of OpenAPI, for the page at /docs."""
    ids = {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}
    fields = {name: {"type": "array", "items": {"type": kind}}, optional: ids}
    schema = {"type": "object", "required": [name], "properties": fields}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
