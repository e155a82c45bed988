"""`fairlayer serve`."""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fairlayer.cli.reading import read_beside
from fairlayer.cli.streaming import policy_of, policy_options, trail_key, warm_start_of
from fairlayer.errors import DataError, ParameterError, require
from fairlayer.serving import Journal, create_app
from fairlayer.serving.gate import LOOPBACK
from fairlayer.serving.server import bound_socket, serve
from fairlayer.serving.workers import run_workers
from fairlayer.streaming.store import StreamStore
from fairlayer.streaming.stores.shared import SharedStore

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
        if _is_shared(arguments):
            run_workers(_Plan(arguments, options), arguments.workers, listening, _listening(arguments, listening, None))
        else:
            store = StreamStore(_place(arguments) or ":memory:", synchronous=arguments.synchronous)
            warm, journal = warm_start_of(arguments), _journal(arguments)
            app = create_app(arguments.run, store=store, warm_start=warm, journal=journal, **options)
            samples = app.state.scorer.stream.state.samples
            serve(app, listening, seconds=arguments.seconds, ready=_listening(arguments, listening, samples))


class _Plan:
    """How a worker makes its application; a value that goes to another process."""

    def __init__(self, arguments: argparse.Namespace, options: dict[str, Any]) -> None:
        self.run, self.address, self.seconds = str(arguments.run), _place(arguments), float(arguments.seconds)
        self.shares = int(arguments.shares or arguments.workers)
        self.lease, self.warm_start, self.options = float(arguments.lease), arguments.warm_start, options
        self.journal = _journal(arguments)

    def __call__(self, listening: socket.socket, ready: Callable[[], None]) -> None:
        torch.set_num_threads(1)
        store = SharedStore(self.address, shares=self.shares, lease=self.lease)
        warm = None if self.warm_start is None else read_beside(self.warm_start, self.run)
        app = create_app(self.run, store=store, warm_start=warm, journal=self.journal, **self.options)
        serve(app, listening, seconds=self.seconds, ready=ready)


def _listening(arguments: argparse.Namespace, listening: socket.socket, samples: int | None) -> Callable[[], None]:
    port = listening.getsockname()[1]
    who = f"{arguments.workers} workers" if samples is None else f"{samples} predictions so far"

    def say() -> None:
        print(f"Listening on http://{arguments.host}:{port}; {who}.", flush=True)

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
        "decision_policy": policy_of(arguments.decision_policy),
    }


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be served together, before anything is opened."""
    shared = _is_shared(arguments)
    if arguments.workers < 1 or arguments.most_bytes < 1 or not arguments.seconds > 0:
        raise ParameterError("--workers and --most-bytes must be at least 1, and --seconds above 0.")
    if (arguments.workers > 1 or arguments.shares is not None) and not shared:
        place = _place(arguments)
        found = f"'{place}' is a file of one process" if place else "there is no --store"
        raise ParameterError(
            f"--workers {arguments.workers} was asked, but {found}: processes that count apart would each miss what "
            "the others emit. Give --store postgresql://USER@HOST/DATABASE, or leave --workers out."
        )

    if arguments.trail is not None and arguments.store not in (None, arguments.trail):
        raise ParameterError(
            f"--trail {arguments.trail} and --store {arguments.store} were asked, but an answer is counted and written "
            "into the trail in one transaction, for which both have to be one file or database. Leave --store out: the "
            "stream is kept where the trail is."
        )
    if arguments.trail_key is not None and arguments.trail is None:
        raise ParameterError("--trail-key is the key of a trail: name its file by --trail FILE.")


def _journal(arguments: argparse.Namespace) -> Journal | None:
    """Return how the audit trail is kept; the command line reads the machine's clock, the library never does."""
    return None if arguments.trail is None else Journal(time.time, key=trail_key(arguments))


def _is_shared(arguments: argparse.Namespace) -> bool:
    return _place(arguments).startswith(_POSTGRES)


def _place(arguments: argparse.Namespace) -> str:
    """Return where the stream is kept, and with it the trail; nothing for memory only."""
    return str(arguments.trail or arguments.store or "")


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
    if arguments.trail is not None and arguments.trail_key is None:
        print(
            "fairlayer: without --trail-key FILE the trail is not sealed, shows the ids as they are, and commits to no "
            "input.",
            file=sys.stderr,
        )
    if arguments.store is None and arguments.trail is None:
        print("fairlayer: without --store FILE the stream begins anew at each start.", file=sys.stderr)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
