"""A PostgreSQL database that the workers of a stream share, as one of them uses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairlayer.errors import ParameterError
from fairlayer.groups import Vocabulary
from fairlayer.streaming.state import InferenceState
from fairlayer.streaming.stores.finishing import Finish
from fairlayer.streaming.stores.recording import Recorder
from fairlayer.streaming.stores.worker import SharedStream

__all__ = ["SharedStore"]


class SharedStore:
    """A PostgreSQL database as one worker uses it.

    Args:
        address: postgresql://...
        shares: workers over all hosts among which the lease is divided.
        slots: those of the shares that this worker may take; None for any.
        lease: by how much, in units of the score, all workers together may move the gap between two cells while they do
            not hear of each other.
        refresh: seconds between two exchanges.
        kind: the kind of the stream: "scores" or "decisions"; each has tables of its own.

    Raises:
        MissingExtraError: psycopg is not installed.
        ParameterError: a number that cannot be meant.
    """

    def __init__(
        self,
        address: str,
        *,
        shares: int = 1,
        slots: Sequence[int] | None = None,
        lease: float = 0.01,
        refresh: float = 1.0,
        kind: str = "scores",
    ) -> None:
        if shares < 1 or not lease > 0.0 or not refresh > 0.0:
            raise ParameterError(
                f"shares must be at least 1, and lease and refresh above 0, but are {shares}, {lease} and {refresh}."
            )
        self.address, self.shares, self.lease, self.refresh = address, shares, lease, refresh
        self.slots, self.kind = list(range(shares) if slots is None else slots), kind
        self._stream: SharedStream | None = None

    def stream(
        self,
        state: InferenceState,
        vocabulary: Vocabulary,
        finish: Finish | None = None,
        recorder: Recorder | None = None,
    ) -> SharedStream:
        """Return the stream of this worker, resumed."""
        self._stream = SharedStream(state, self, vocabulary, finish, recorder)
        return self._stream

    def beside(self, kind: str) -> SharedStore:
        """Return the store of another kind of stream in the same database."""
        given = {"shares": self.shares, "slots": self.slots, "lease": self.lease, "refresh": self.refresh}
        return SharedStore(self.address, kind=kind, **given)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raise where a request could not be taken now.

        Raises:
            StoreError: too many steps wait for a store that is gone, or the stream has ended.
        """
        if self._stream is not None:
            self._stream.check()

    @property
    def durability(self) -> dict[str, Any]:
        """What outlives what, in words."""
        stream = self._stream
        there = stream is None or stream.attached
        return {
            "store": "postgresql",
            "survives": "the end of any process at any moment, and of the database, as far as its disk keeps its word"
            if there
            else "nothing for now: the database cannot be reached, and what is answered waits in memory",
            "waiting": 0 if stream is None else stream.waiting,
            "waiting_labels": 0 if stream is None else stream.waiting_labels,
            "slot": None if stream is None else stream.slot,
            "lease": self.lease / self.shares,
        }
