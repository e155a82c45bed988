"""The HTTP face of a scorer (FastAPI)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from fairlayer._version import __version__
from fairlayer.errors import (
    BackendError,
    FairlayerError,
    InfeasibleConstraintsError,
    MissingExtraError,
    OutputError,
    SolverError,
    require,
)
from fairlayer.fused import stream_kernels
from fairlayer.serving.decider import Decider, decided_by
from fairlayer.serving.gate import LOOPBACK, OPEN, Gate, Limits
from fairlayer.serving.metrics import Metrics
from fairlayer.serving.page import page_of
from fairlayer.serving.records import read_body, read_labels
from fairlayer.serving.schemas import Schemas
from fairlayer.serving.scorer import Scorer
from fairlayer.streaming.counts.windows import ClockBackError
from fairlayer.streaming.store import IdReusedError, LabelChangedError, StoreError, StreamStore, UnknownIdError
from fairlayer.streaming.stores.shared import SharedStore
from fairlayer.trail import AuditTrail, SlotTrail, TrailError

# No `from __future__ import annotations` here: FastAPI reads the annotations of functions defined inside functions.

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["create_app"]

_MANY = 1_000_000  # rows: work enough to load compiled steps at once
_OURS = (BackendError, InfeasibleConstraintsError, MissingExtraError, OutputError, SolverError)
_ASKED = ("/state", "/metrics", "/health", "/ready", "/docs", "/openapi.json")
_ENDPOINTS = ("/score", "/decide", "/labels", *_ASKED)
_ABOUT = "Scores and decisions of one run, whose gaps between groups are kept within its limits over the stream."


class _Parts(NamedTuple):
    """What the endpoints speak of."""

    scorer: Scorer
    decider: Decider | None
    schemas: Schemas


def create_app(
    run: Any,
    *,
    most_bytes: int = 4_000_000,
    seconds: float = 10.0,
    allowed_hosts: tuple[str, ...] | list[str] | None = LOOPBACK,
    token: str | None = None,
    **options: Any,
) -> "FastAPI":
    """Return a FastAPI application that scores records through one stream.

    Args:
        run: a run folder, a `Run`, or a `Scorer`.
        most_bytes: largest request body.
        seconds: longest time for a body to arrive.
        allowed_hosts: names that the Host header may have: by default those of this machine for itself; None for any.
        token: the token that is asked of every request but /health and /ready, as `Authorization: Bearer TOKEN`; None
            for none.
        **options: the options of the `Scorer` (store, policy, memory, window, hold, warm_start, most_records, unknown,
            journal).

    Endpoints: POST /score {"records": [...], "ids": [...] or absent}, POST /labels {"ids": [...], "labels": [...]},
    POST /decide where the run keeps a decision rule, GET /state, /metrics, /health, /ready, /docs, /openapi.json. A bad
    request gets a 4xx with {"error", "detail"} and changes nothing. A body must come as application/json. One process
    serves an application whose store is a `StreamStore`, which refuses a second.

    Raises:
        MissingExtraError: FastAPI or prometheus_client is not installed.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, prepare, save_run, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> app = create_app(save_run("run-app", trained))
        >>> "/score" in app.openapi()["paths"]
        True
    """
    fastapi = require("fastapi", "serve")
    scorer = run if isinstance(run, Scorer) else Scorer(run, **options)
    decider = _decider(scorer)
    schemas = Schemas(
        scorer.inputs.fields,
        deciding=None if decider is None else decider.fields,
        most_records=scorer.inputs.most_records,
        clocked=scorer.clocked,
        binary=scorer.run.recipe.config.task == "classification",
    )
    metrics = Metrics(scorer, decider)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        await asyncio.to_thread(stream_kernels, _MANY)  # now, and not while requests wait
        app.state.ready = True
        yield
        app.state.ready = False
        if decider is not None:
            decider.close()
        scorer.close()

    app: FastAPI = fastapi.FastAPI(
        title="fairlayer",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        root_path_in_servers=False,  # the document names its own place
        redirect_slashes=False,  # behind a proxy that ends TLS, a redirect would name http://
    )
    app.state.scorer, app.state.decider, app.state.ready = scorer, decider, False
    hosts = None if allowed_hosts is None else tuple(name.lower() for name in allowed_hosts)
    limits = Limits(most_bytes, seconds, hosts, token)
    app.add_middleware(Gate, limits=limits, metrics=metrics, endpoints=_ENDPOINTS, asked=_ASKED)
    parts = _Parts(scorer, decider, schemas)
    _add_errors(app)
    _add_score(app, parts)
    _add_labels(app, parts)
    if decider is not None:
        _add_decide(app, parts, decider)
    _add_state(app, parts, metrics)
    _add_probes(app, scorer)
    _add_documents(app, schemas, guarded=token is not None)
    return app


def _decider(scorer: Scorer) -> Decider | None:
    """Return what decides: decisions have a stream of their own, in a file or in tables beside those of the scores."""
    rule, store = decided_by(scorer.inputs), scorer.store
    if rule is None:
        return None
    beside: Any = StreamStore(":memory:")
    if isinstance(store, SharedStore):
        beside = store.beside("decisions")
    elif isinstance(store, StreamStore) and store.path != ":memory:":
        beside = StreamStore(f"{store.path}.decisions", synchronous=store.synchronous, every=store.every)
    return Decider(scorer.inputs, rule, beside, journal=scorer.journal, model=scorer.name, **scorer.decision_options)


def _add_score(app: "FastAPI", parts: _Parts) -> None:
    from fastapi import Request
    from fastapi.concurrency import run_in_threadpool

    scorer, signed = parts.scorer, {"run": parts.scorer.name, "version": __version__}

    @app.post("/score", **_takes("ScoreRequest"), **_gives("ScoreAnswer"))
    async def score(request: Request) -> dict[str, Any]:
        """Score records. Each prediction is counted once, whatever becomes of the answer."""
        body = read_body(await request.body(), needed=("records",), allowed=("ids",), numbers=("at",))
        found = await run_in_threadpool(scorer.score, body["records"], body.get("ids"), body.get("at"))
        return {**found.shown(), **signed}


def _add_decide(app: "FastAPI", parts: _Parts, decider: Decider) -> None:
    from fastapi import Request
    from fastapi.concurrency import run_in_threadpool

    signed = {"run": parts.scorer.name, "version": __version__}

    @app.post("/decide", **_takes("DecideRequest"), **_gives("DecideAnswer"))
    async def decide(request: Request) -> dict[str, Any]:
        """Decide records by the rule of the run. Each is counted once, in a stream apart from that of /score."""
        body = read_body(await request.body(), needed=("records",), allowed=("ids",), numbers=("at",))
        found = await run_in_threadpool(decider.decide, body["records"], body.get("ids"), body.get("at"))
        return {"decisions": found.decisions, "raw_scores": found.raw_scores, **signed}


def _add_labels(app: "FastAPI", parts: _Parts) -> None:
    from fastapi import Request
    from fastapi.concurrency import run_in_threadpool

    labelled = any(constraint.needs_labels for constraint in parts.scorer.run.model.constraints)

    @app.post("/labels", **_takes("LabelsRequest"), **_gives("LabelsAnswer", unknown=True), include_in_schema=labelled)
    async def labels(request: Request) -> dict[str, Any]:
        """Deliver true labels of earlier predictions, by their ids."""
        body = read_body(await request.body(), needed=("ids", "labels"))
        found = read_labels(body["labels"])
        delivered = await run_in_threadpool(parts.scorer.deliver_labels, body["ids"], found)
        return delivered._asdict()


def _add_state(app: "FastAPI", parts: _Parts, metrics: Metrics) -> None:
    from fastapi import Response

    @app.get("/state", responses=_refusing(400, 401))
    def state() -> dict[str, Any]:
        """Say where the stream stands."""
        found = parts.scorer.describe()
        return found if parts.decider is None else {**found, "decisions": parts.decider.describe()}

    @app.get("/metrics", response_class=Response, responses=_text("numbers in the words of Prometheus"))
    def scrape() -> Response:
        """Say the same for Prometheus."""
        text, kind = metrics.text()
        return Response(text, media_type=kind)


def _add_probes(app: "FastAPI", scorer: Scorer) -> None:
    from fastapi.responses import JSONResponse

    @app.get("/health", responses=_refusing(400))
    def health() -> dict[str, Any]:
        """Say that the process answers, which run it serves, and what of the stream outlives what."""
        trail = None if scorer.recorder is None else _trail_name(scorer.recorder.trail)
        durability = scorer.store.durability
        return {"status": "ok", "run": scorer.name, "version": __version__, "durability": durability, "trail": trail}

    @app.get("/ready", responses={**_refusing(400), 503: {"description": "Requests cannot be taken now."}})
    async def ready() -> JSONResponse:
        """Say whether requests can be taken: 503 before the start, after the end, and without a usable store."""
        try:
            await asyncio.to_thread(scorer.store.check)
        except StoreError as error:
            return JSONResponse({"ready": False, "detail": str(error)}, status_code=503)
        return JSONResponse({"ready": bool(app.state.ready)}, status_code=200 if app.state.ready else 503)


def _trail_name(trail: AuditTrail | SlotTrail) -> str:
    return trail.chain if isinstance(trail, SlotTrail) else trail.path.name


def _add_documents(app: "FastAPI", schemas: Schemas, *, guarded: bool) -> None:
    from fastapi.openapi.utils import get_openapi
    from fastapi.responses import HTMLResponse

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            found["servers"] = [{"url": "."}]  # relative to the document, whatever path a proxy puts before it
            components = found.setdefault("components", {})
            components.setdefault("schemas", {}).update(schemas.components())
            if guarded:
                components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                found["security"] = [{"token": []}]
                for path in OPEN:
                    found["paths"][path]["get"]["security"] = []
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(page_of(document()))


def _add_errors(app: "FastAPI") -> None:
    from fastapi import Request
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    @app.exception_handler(FairlayerError)
    async def named(_: Request, error: FairlayerError) -> JSONResponse:
        return JSONResponse({"error": type(error).__name__, "detail": str(error)}, status_code=_status(error))

    @app.exception_handler(HTTPException)
    async def standard(_: Request, error: HTTPException) -> JSONResponse:
        words = {404: "NotFoundError", 405: "MethodError"}.get(error.status_code, "RequestError")
        detail = f"{error.detail}. What can be asked is in /openapi.json, and for people at /docs."
        return JSONResponse({"error": words, "detail": detail}, status_code=error.status_code, headers=error.headers)


def _status(error: FairlayerError) -> int:
    if isinstance(error, StoreError | TrailError):
        return 503
    if isinstance(error, UnknownIdError):
        return 404
    if isinstance(error, ClockBackError | IdReusedError | LabelChangedError):
        return 409
    return 500 if isinstance(error, _OURS) else 422


def _takes(name: str) -> dict[str, Any]:
    """The body in the words of OpenAPI; what it may be is checked by `read_body`, which says what is wrong in words."""
    return {"openapi_extra": {"requestBody": {"required": True, "content": _json(name)}}}


def _gives(name: str, *, unknown: bool = False) -> dict[str, Any]:
    good: dict[int | str, Any] = {200: {"description": "Counted and stored.", "content": _json(name)}}
    codes = (400, 401, 408, 409, 413, 415, 422, 503, *((404,) if unknown else ()))
    return {"responses": {**good, **_refusing(*codes)}}


def _refusing(*codes: int) -> dict[int | str, Any]:
    refused = {
        "description": "What was asked, what was found, and what to do. Nothing was counted.",
        "content": _json("Error"),
    }
    return dict.fromkeys(codes, refused)


def _text(words: str) -> dict[int | str, Any]:
    return {
        200: {"description": words, "content": {"text/plain": {"schema": {"type": "string"}}}},
        **_refusing(400, 401),
    }


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
