"""What people do about the rows of chains in a database: override, erase and drop them, in one transaction for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any, NamedTuple, TypeVar

from fairlayer.trail.appending import Ending, prepare
from fairlayer.trail.erasing import Erasure, erase_about, not_named, rows_about
from fairlayer.trail.errors import TrailError
from fairlayer.trail.joint import connected, ending_of, names_of, shown, signers_of
from fairlayer.trail.pruning import Pruning, Retention, drop_old
from fairlayer.trail.records import Record
from fairlayer.trail.slots import Chain, schema_of

__all__ = ["ChainRow", "JointTrail", "rewritten"]

_Found = TypeVar("_Found")
_PATIENCE = 10.0  # seconds for which transactions that began before an erasure may still read

_READERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND age(backend_xmin) >= age(%s::text::xid)
"""


class ChainRow(NamedTuple):
    """Where a row stands: the name of its chain, such as "scores.0", and its number there.

    Example:
        >>> ChainRow("scores.0", 17).row
        17
    """

    chain: str
    row: int


class JointTrail:
    """The chains that the workers of a service write in a PostgreSQL database, for those who amend them.

    Each call is one transaction that holds the ends of the chains it writes, so that the workers write on after it.

    Args:
        address: postgresql://...
        key: the key that the chains are sealed with.
        signing_key: Ed25519 private key that also signs the checkpoints of segments that close.
        floor_days: the shortest time that `prune` keeps rows, on the caller's clock.

    Example:
        >>> from fairlayer.trail import TrailError
        >>> trail = JointTrail("postgresql://127.0.0.1:1/decided", key=bytes(32))
        >>> try:
        ...     trail.erase("applicant 17", time=1790000000.0, who="privacy desk")
        ... except TrailError as error:
        ...     print(str(error)[:45])
        the trail in the database 127.0.0.1:1/decided
    """

    def __init__(
        self, address: str, *, key: bytes | None = None, signing_key: bytes | None = None, floor_days: float = 183.0
    ) -> None:
        self.address, self.floor_days = address, float(floor_days)
        self._keys, self._signers = signers_of(key, signing_key)

    def append(self, chain: str, records: Record | Iterable[Record]) -> range:
        """Write records at the end of a chain, such as an `Override` of one of its rows; return their rows.

        Raises:
            TrailError: there is no such chain, or a record is about a row that is not there.
        """
        given: Any = [records] if hasattr(records, "body") else records
        prepared = prepare(given, self._keys)
        with self._ends([chain]) as ends:
            rows = ends[chain].add(prepared, refuse_back=False)
            ends[chain].write()
        return rows

    def rows_of(self, subject: str, kind: str | None = None) -> list[ChainRow]:
        """Return the rows about a subject whose content is there, of one kind or of all, in the order of their times.

        Raises:
            TrailError: the database cannot be read, or holds no chain.
        """
        found: list[tuple[float, ChainRow]] = []
        with self._ends() as ends:
            for name, end in ends.items():
                for row in rows_about(end.db, self._keys.tag(subject), kind):
                    [when] = end.db.execute("SELECT time FROM trail_rows WHERE row = ?", (row,)).fetchone()
                    found.append((when, ChainRow(name, row)))
        return [place for _, place in sorted(found)]

    def erase(self, subject: str, *, time: float, who: str, why: str = "", vacuum: bool = True) -> dict[str, Erasure]:
        """Delete the content of all rows about a subject in every chain, and record that in each; see `AuditTrail`.

        Args:
            subject: as it was named in the records.
            time: the caller's clock.
            who: the person or program that does it.
            why: the reason given. It stays, so it must not name the subject.
            vacuum: rewrite the tables at once, for which the workers wait. With False, call `compact` later.

        Raises:
            TrailError: no chain has content about this subject.
        """
        tag = self._keys.tag(subject)
        with self._ends() as ends:
            found = _each(ends, lambda end: erase_about(end, tag, time=time, who=who, why=why, refuse_back=False))
            erased = {name: each for name, each in found.items() if each is not None}
            if not erased:
                raise not_named(subject)
        if vacuum:
            self.compact()
        return erased

    def prune(
        self, *, time: float, who: str, keep_days: float | None = None, vacuum: bool = True
    ) -> dict[str, Pruning]:
        """Drop whole segments of every chain whose rows are all older than `keep_days`, and record it in each.

        Args:
            time: the caller's clock, from which days are counted back.
            who: the person or program that does it.
            keep_days: at least floor_days; default: that.
            vacuum: give the room back to the disk at once, for which the workers wait.

        Raises:
            RetentionError: keep_days is below the floor, or no checkpoint that covers the segments was exported;
                nothing is dropped from any chain.
        """
        kept = Retention(self.floor_days, keep_days)
        with self._ends() as ends:
            found = _each(ends, lambda end: drop_old(end, kept, time=time, who=who, refuse_back=False))
        if vacuum and any(each.through for each in found.values()):
            self.compact()
        return found

    def compact(self) -> None:
        """Rewrite the tables without what was deleted. The write-ahead log and the backups are the operator's.

        Raises:
            TrailError: a transaction still reads what was before; nothing is lost, call it again.
        """
        with connected(self.address) as connection:
            tables = [f"{schema_of(name)}.trail_{part}" for name in names_of(connection) for part in _PARTS]
            rewritten(connection, tables)

    @contextmanager
    def _ends(self, asked: Iterable[str] | None = None) -> Iterator[dict[str, Ending]]:
        """Hold the ends of some chains, of all by default, in a transaction."""
        with connected(self.address) as connection, connection.transaction():
            names = names_of(connection)
            wanted = names if asked is None else list(asked)
            missing = [name for name in wanted if name not in names]
            if missing or not names:
                held = ", ".join(names) or "none"
                raise TrailError(
                    f"there is no chain {', '.join(missing) or 'of a trail'} in the database {shown(self.address)}; "
                    f"it holds {held}."
                )
            yield {name: ending_of(Chain(connection.cursor(), name), self._keys, self._signers) for name in wanted}


def rewritten(connection: Any, tables: Iterable[str]) -> None:
    """Rewrite tables, so that no page has room where deleted bytes could lie.

    Args:
        connection: without an open transaction.
        tables: the tables with their schemas.

    Raises:
        TrailError: a transaction still reads what was before.
    """
    [now] = connection.execute("SELECT pg_current_xact_id()::xid::text").fetchone()
    end = monotonic() + _PATIENCE
    while connection.execute(_READERS, (now,)).fetchone()[0]:
        if monotonic() > end:
            raise TrailError(
                "a transaction in this database began before and still reads, so deleted bytes would stay in the "
                "tables. End it, then call compact() again."
            )
        sleep(0.05)
    for table in tables:
        connection.execute(f"VACUUM (FULL) {table}")


def _each(ends: dict[str, Ending], act: Callable[[Ending], _Found]) -> dict[str, _Found]:
    return {name: act(end) for name, end in ends.items()}


_PARTS = ("rows", "contents")
