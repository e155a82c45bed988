"""The gate before the application: who may ask, in which form, how much and how long. Plain ASGI.

A page of another origin can make a browser send a form or plain text without asking first; a JSON content type it
cannot send without the server's consent, which is never given. A name that is rebound to this machine sends its own
Host.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from fairlayer.serving.metrics import Metrics

__all__ = ["LOOPBACK", "OPEN", "Gate", "Limits"]

LOOPBACK = ("localhost", "127.0.0.1", "::1", "testserver")
"""Names under which this machine reaches itself; the last is what FastAPI's test client calls it."""

OPEN = ("/health", "/ready")
"""Paths for probes, which carry no token."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Limits:
    """What a request must keep to.

    Args:
        most_bytes: largest body.
        seconds: longest time for a body to arrive.
        hosts: names that the Host header may have; None for any.
        token: the token that `Authorization: Bearer ...` must carry, except at /health and /ready; None for none.
    """

    most_bytes: int = 4_000_000
    seconds: float = 10.0
    hosts: tuple[str, ...] | None = LOOPBACK
    token: str | None = None


class _RefusedError(Exception):
    """A request that does not pass, with the answer to it."""

    def __init__(self, status: int, name: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.name, self.detail = status, name, detail


class _GoneError(Exception):
    """The client hung up before its request was complete."""


class Gate:
    """Checks a request and reads its whole body before the application sees it.

    Args:
        app: the application behind it.
        limits: what to keep to.
        metrics: the counters that are told of each request.
        endpoints: paths that metrics name; all others are "other".
        asked: paths that take no body, so that a POST to them is refused by the application, whatever it brings.
    """

    def __init__(
        self, app: App, limits: Limits, metrics: Metrics, endpoints: Iterable[str], asked: Iterable[str] = ()
    ) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self.endpoints, self.asked = frozenset(endpoints), frozenset(asked)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), [500]

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = int(message["status"])
            await send(message)

        try:
            await self._pass(scope, receive, told)
        except _GoneError:
            status[0] = 499  # nobody is there to be answered, and nothing was counted
        finally:
            path = _path(scope)
            path = path if path in self.endpoints else "other"
            self.metrics.observe(path, status[0], time.perf_counter() - start)

    async def _pass(self, scope: Message, receive: Receive, send: Send) -> None:
        try:
            headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
            self._check(scope, headers)
            body = await self._body(receive, headers)
        except _RefusedError as refused:
            await _answer(send, refused)
            return
        await self.app(scope, _replayed(body, receive), send)

    def _check(self, scope: Message, headers: dict[bytes, str]) -> None:
        limits = self.limits
        host = headers.get(b"host", "")
        if limits.hosts is not None and _name(host) not in limits.hosts:
            raise _RefusedError(
                400,
                "HostError",
                f"the Host header names '{host[:100]}', but this server answers to {', '.join(limits.hosts)}. Allow "
                "the name with --allowed-host (allowed_hosts= in create_app).",
            )
        if limits.token is not None and _path(scope) not in OPEN:
            found = headers.get(b"authorization", "").encode("utf-8", "replace")
            if not hmac.compare_digest(found, f"Bearer {limits.token}".encode()):
                raise _RefusedError(
                    401, "TokenError", "this server asks for a token. Send it as 'Authorization: Bearer TOKEN'."
                )
        kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json" and _path(scope) not in self.asked:
            raise _RefusedError(
                415,
                "ContentTypeError",
                f"a body must be sent with 'Content-Type: application/json', but came with '{kind[:100]}'.",
            )

    async def _body(self, receive: Receive, headers: dict[bytes, str]) -> bytes:
        limits = self.limits
        said = headers.get(b"content-length", "0")
        if not said.isdigit() or len(said) > 18 or int(said) > limits.most_bytes:
            raise _too_large(limits.most_bytes)
        try:
            async with asyncio.timeout(limits.seconds):
                return await _read(receive, limits.most_bytes)
        except TimeoutError as error:
            raise _RefusedError(
                408, "BodyTimeoutError", f"the body did not arrive within {limits.seconds:g} seconds."
            ) from error


async def _read(receive: Receive, most: int) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size > most:
            raise _too_large(most)
        parts.append(part)
    return b"".join(parts)


def _too_large(most: int) -> _RefusedError:
    return _RefusedError(413, "BodySizeError", f"the body is larger than {most} bytes. Send the records in parts.")


def _path(scope: Message) -> str:
    """Return the path that the application knows: behind a proxy, and mounted, a root path may stand before it."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def _name(host: str) -> str:
    """Return the host of a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body once, and afterwards what comes from the client: at most that it hangs up."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again


async def _answer(send: Send, refused: _RefusedError) -> None:
    body = json.dumps({"error": refused.name, "detail": refused.detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    headers.append((b"connection", b"close"))  # what is left of the body is not read
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
