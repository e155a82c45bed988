"""A server for the application: it listens before it says so, closes what stands still, and ends what it has begun."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

from fairlayer.errors import FairlayerError, require

__all__ = ["AddressError", "bound_socket", "serve"]


class AddressError(FairlayerError, OSError):
    """The address cannot be listened on."""


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens at this address.

    Raises:
        AddressError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(1024)
    except (OSError, OverflowError) as error:
        found.close()
        raise AddressError(
            f"{host}:{port} cannot be listened on ({error}). Give another --port, or end the process that has it."
        ) from error
    found.set_inheritable(True)
    return found


def serve(
    app: Any, listening: socket.socket, *, seconds: float = 10.0, ready: Callable[[], None] | None = None
) -> None:
    """Serve an application on a socket until SIGINT or SIGTERM; requests under way are answered first.

    Args:
        app: an ASGI application.
        listening: what `bound_socket`.
        seconds: longest time for the head of a request to arrive, and for requests under way at the end.
        ready: a function that is called once requests are answered.
    """
    uvicorn = require("uvicorn", "serve")
    config = uvicorn.Config(
        app,
        log_level="warning",
        http=_protocol(seconds),
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=max(1, round(seconds)),
    )
    server = _server(uvicorn.Server, ready)(config)
    with contextlib.suppress(KeyboardInterrupt):  # the server has ended in order, and passes the signal on
        server.run(sockets=[listening])


def _server(base: Any, ready: Callable[[], None] | None) -> Any:
    class Server(base):  # type: ignore[misc]
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets=sockets)
            if ready is not None and not self.should_exit:
                ready()

    return Server


def _protocol(seconds: float) -> Any:
    """Return uvicorn's protocol, which itself waits for ever for the rest of a head."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Timed(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            super().connection_lost(exc)

        def _watch(self) -> None:
            """Let the time run exactly while a head is awaited."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._unwatch()
            elif self._timer is None:
                self._timer = self.loop.call_later(seconds, self.transport.close)

        def _unwatch(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Timed
