"""`fairlayer serve`."""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fairlayer.cli.streaming import policy_options, warm_start_of
from fairlayer.errors import DataError, ParameterError, require
from fairlayer.serving import create_app
from fairlayer.serving.gate import LOOPBACK
from fairlayer.serving.server import bound_socket, serve
from fairlayer.streaming.store import StreamStore

__all__ = ["run_serve"]

_POSTGRES = ("postgresql://", "postgres://")


def run_serve(arguments: argparse.Namespace) -> None:
    """Serve a run until interrupted."""
    require("uvicorn", "serve")
    _check(arguments)
    torch.set_num_threads(1)
    options = _options(arguments)
    with bound_socket(arguments.host, arguments.port) as listening:
        _warn(arguments, options)
        _one(arguments, options, listening)


def _one(arguments: argparse.Namespace, options: dict[str, Any], listening: socket.socket) -> None:
    store = StreamStore(arguments.store or ":memory:", synchronous=arguments.synchronous)
    app = create_app(arguments.run, store=store, warm_start=warm_start_of(arguments), **options)
    samples = app.state.scorer.stream.state.samples
    serve(app, listening, seconds=arguments.seconds, ready=_listening(arguments, listening, samples))


def _listening(arguments: argparse.Namespace, listening: socket.socket, samples: int) -> Callable[[], None]:
    port = listening.getsockname()[1]

    def say() -> None:
        print(f"Listening on http://{arguments.host}:{port}; {samples} predictions so far.", flush=True)

    return say


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    hosts = arguments.allowed_host
    if hosts is None and _is_loopback(arguments.host):
        hosts = [*LOOPBACK, arguments.host]
    return {
        **policy_options(arguments),
        "allowed_hosts": hosts,
        "token": _token(arguments.token_file),
        "most_bytes": arguments.most_bytes,
        "seconds": arguments.seconds,
        "unknown": arguments.unknown,
    }


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be served together, before anything is opened."""
    shared = (arguments.store or "").startswith(_POSTGRES)
    if arguments.workers < 1 or arguments.most_bytes < 1 or not arguments.seconds > 0:
        raise ParameterError("--workers and --most-bytes must be at least 1, and --seconds above 0.")
    if (arguments.workers > 1 or arguments.shares is not None) and not shared:
        found = f"'{arguments.store}' is a file of one process" if arguments.store else "there is no --store"
        raise ParameterError(
            f"--workers {arguments.workers} was asked, but {found}: processes that count apart would each miss what "
            "the others emit. Give --store postgresql://USER@HOST/DATABASE, or leave --workers out."
        )


def _token(file: str | None) -> str | None:
    """Return the token of the file, or of the environment.

    Raises:
        DataError: the file cannot be read, or holds none.
    """
    if file is None:
        return os.environ.get("FAIRLAYER_TOKEN") or None
    try:
        token = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise DataError(f"the token file '{file}' cannot be read ({error}).") from error
    if not token or not token.isascii():
        raise DataError(f"the token file '{file}' must hold one token of plain characters.")
    return token


def _warn(arguments: argparse.Namespace, options: dict[str, Any]) -> None:
    if not _is_loopback(arguments.host) and options["token"] is None:
        print(
            f"fairlayer: {arguments.host} can be reached by others, and no token is asked for (--token-file).",
            file=sys.stderr,
        )
    if arguments.store is None:
        print("fairlayer: without --store FILE the stream begins anew at each start.", file=sys.stderr)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
