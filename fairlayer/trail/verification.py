"""What a verification answers: what was found, and what the answer is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["LEVELS", "Finding", "Findings", "Level", "Verification"]

Level = Literal["chain", "sealed", "signed", "anchored"]
LEVELS: tuple[Level, ...] = ("chain", "sealed", "signed", "anchored")
_WORTH = {
    "chain": "whoever can write the file could have rewritten these rows and their hashes",
    "sealed": "only who has the key could have rewritten these rows",
    "signed": "only who has the private signing key could have rewritten these rows",
    "anchored": "these rows are those of the checkpoint that was held outside",
}
_KEPT = 100  # findings that are kept; all are counted


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was written: where, and what was found there.

    Example:
        >>> import sqlite3
        >>> from fairlayer.trail import AuditTrail, Decision, verify
        >>> with AuditTrail("changed.sqlite") as trail:
        ...     rows = trail.append(Decision(time=float(i), emitted=0.5) for i in range(3))
        >>> with sqlite3.connect("changed.sqlite") as file:
        ...     _ = file.execute("UPDATE trail_rows SET time = 9.0 WHERE row = 2")
        >>> [finding.where for finding in verify("changed.sqlite").findings][:1]
        ['row 2']
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Findings:
    """Collects findings: the first hundred, and how many there were."""

    def __init__(self) -> None:
        self.first: list[Finding] = []
        self.count = 0

    def add(self, where: str, what: str) -> None:
        """Note one."""
        self.count += 1
        if len(self.first) < _KEPT:
            self.first.append(Finding(where, what))


@dataclass(frozen=True)
class Verification:
    """The answer of `verify`.

    `found` counts what is not as it was written, `findings` holds the first hundred. `rows` is the last row, `read`
    the first row that was read. `reach` says up to which row each level holds. `erased` rows have no content any more,
    segments up to `pruned` no rows; `clock_back` counts rows whose time lies before that of the row before.

    Example:
        >>> from fairlayer.trail import AuditTrail, Decision, verify
        >>> with AuditTrail("verified.sqlite", key=bytes(32)) as trail:
        ...     rows = trail.append(Decision(time=float(i), emitted=0.5) for i in range(3))
        >>> found = verify("verified.sqlite", key=bytes(32))
        >>> found.ok, found.rows, found.findings
        (True, 3, ())
    """

    trail: str | None
    rows: int
    read: int
    segments: int
    reach: Mapping[Level, int]
    erased: int
    pruned: int
    clock_back: int
    findings: tuple[Finding, ...]
    found: int

    @property
    def ok(self) -> bool:
        """Whether everything is as it was written, as far as the level can tell."""
        return not self.found

    @property
    def level(self) -> Level:
        """The level that holds for every row."""
        return self.level_of(self.rows)

    def level_of(self, row: int) -> Level:
        """Return the level that holds for a row and all rows before it."""
        reaching: list[Level] = [level for level in LEVELS if level in self.reach and self.reach[level] >= row]
        return reaching[-1] if reaching else "chain"

    def __str__(self) -> str:
        if not self.ok:
            more = [f"... and {self.found - len(self.findings)} more"] if self.found > len(self.findings) else []
            return "\n".join([f"TAMPERED OR DAMAGED: {self.found} found", *map(str, self.findings), *more])
        read = f"rows {self.read} to {self.rows}" if self.read <= self.rows else "the file, which holds no row to read,"
        lines = [f"Nothing found in {read} of trail {self.trail}."]
        if self.read > 1:
            lines.append(f"Rows 1 to {self.read - 1} were not read: dropped by segments, or taken from the checkpoint.")
        lines += self._levels()
        lines.append(
            f"Closed segments: {self.segments}, of which {self.pruned} were dropped; rows erased: {self.erased}; "
            f"times that the clock went back: {self.clock_back}."
        )
        return "\n".join(lines)

    def _levels(self) -> list[str]:
        lines, done = [], 0
        for level in reversed(LEVELS):
            reach = self.reach.get(level, 0)
            if reach > done:
                lines.append(f"Rows {done + 1} to {reach}: {level} ({_WORTH[level]}).")
                done = reach
        anchored = self.reach.get("anchored", 0)
        if anchored < self.rows or not self.rows:
            lines.append(
                f"Rows after {anchored or 'the last one seen outside'} that were cut off, or a file put back to an "
                "older copy, cannot be seen: that needs a later checkpoint held outside."
            )
        return lines
