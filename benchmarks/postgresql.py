"""The PostgreSQL that a benchmark runs on: one that is named, or one that is started for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def database(address: str | None) -> Iterator[str | None]:
    """Yield the address of a database: the one given, else that of a server of its own; None without the programs."""
    if address is not None:
        yield address
        return
    sys.path.insert(0, str(ROOT))
    from tests.streaming.postgresql import programs, running

    if programs() is None:
        print("skipped: PostgreSQL (its programs are not found)", file=sys.stderr)
        yield None
        return
    with running() as server:
        yield server.address
