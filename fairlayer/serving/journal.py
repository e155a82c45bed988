"""The audit trail of a service: it lives where the stream's store is, so that both commit together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fairlayer._version import __version__
from fairlayer.constraints import Constraint
from fairlayer.errors import ParameterError
from fairlayer.streaming import Recorder
from fairlayer.streaming.store import StreamStore
from fairlayer.streaming.stores.finishing import limits_of
from fairlayer.streaming.stores.shared import SharedStore
from fairlayer.trail import AuditTrail, SlotTrail

__all__ = ["Journal", "Started"]


@dataclass(frozen=True)
class Journal:
    """How a service keeps its audit trail.

    Args:
        clock: the time of each row, in seconds since 1970.
        key: the trail's secret key; without one, ids stand in the trail as they are, and no input is committed to.
        signing_key: the key that also signs the checkpoints.
        name: the name of a new trail.

    Example:
        >>> journal = Journal(clock=lambda: 1790000000.0, key=bytes(32), name="loans")
        >>> journal.name, journal.clock()
        ('loans', 1790000000.0)
    """

    clock: Callable[[], float]
    key: bytes | None = None
    signing_key: bytes | None = None
    name: str | None = None

    def begun(
        self,
        store: Any,
        *,
        model: str,
        policy: str,
        constraints: Iterable[Constraint],
        threshold: float | None = None,
    ) -> Recorder:
        """Open the trail where the store is, write that a service begins, and return what records its answers.

        Raises:
            ParameterError: the store is in memory only.
            TrailError: the file's trail has another key, or cannot be written.
        """
        settings = {"model": model, "policy": policy, "limit": limits_of(constraints), "package": __version__}
        begun = Started(self.clock(), settings)
        if isinstance(store, SharedStore):
            chain = SlotTrail(key=self.key, signing_key=self.signing_key, name=self.name, opening=[begun])
            return Recorder(chain, model=model, threshold=threshold, clock=self.clock)
        if not isinstance(store, StreamStore) or store.path == ":memory:":
            raise ParameterError(
                "an audit trail is written in the transaction that counts an answer, for which the stream has to be "
                "kept in an SQLite file or on PostgreSQL. Give a StreamStore of a file, or a SharedStore (on the "
                "command line: --trail FILE, or --trail postgresql://...)."
            )
        trail = AuditTrail(
            store.path,
            key=self.key,
            signing_key=self.signing_key,
            name=self.name,
            durability="power" if store.synchronous == "full" else "process",
        )
        trail.append(begun)
        return Recorder(trail, model=model, threshold=threshold, clock=self.clock)


@dataclass(frozen=True)
class Started:
    """A service begins to answer with these settings: the model, the policy, the limits, the version."""

    time: float
    settings: Mapping[str, Any]

    kind = "start"
    subject = None
    about = None

    def body(self, commit: Callable[[object], str]) -> Mapping[str, object]:
        """Return the settings."""
        return self.settings
