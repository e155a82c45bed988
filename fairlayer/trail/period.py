"""What happened in a period, as data: counts only, no person's row."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from fairlayer.trail.reading import Row, rows_of
from fairlayer.trail.tables import described, open_to_read

__all__ = ["CellCount", "PeriodReport", "report"]

_MOST_GAPS = 100
Counts: TypeAlias = dict[str, int]


def _counts() -> Counts:
    return defaultdict(int)


@dataclass
class CellCount:
    """What was decided in one cell: counts per decision, and the sums of the scores that are numbers.

    Example:
        >>> from fairlayer.trail import AuditTrail, Decision, report
        >>> with AuditTrail("counted.sqlite") as trail:
        ...     one, other = ({"cells": {"sex": sex}, "raw": 0.4, "emitted": 0.5, "decision": 1} for sex in "FM")
        ...     rows = trail.append([Decision(time=0.0, **one), Decision(time=1.0, **other)])
        >>> [women, men] = report("counted.sqlite").cells
        >>> women.cells, women.rows, dict(women.decisions), women.mean_raw
        ({'sex': 'F'}, 1, {'1': 1}, 0.4)
    """

    cells: dict[str, Any]
    rows: int = 0
    decisions: Counts = field(default_factory=_counts)
    scored: int = 0
    raw_sum: float = 0.0
    emitted_sum: float = 0.0

    @property
    def mean_raw(self) -> float | None:
        """The mean raw score; None where no row has both scores."""
        return self.raw_sum / self.scored if self.scored else None

    @property
    def mean_emitted(self) -> float | None:
        """The mean emitted score; None where no row has both scores."""
        return self.emitted_sum / self.scored if self.scored else None


@dataclass
class PeriodReport:
    """Counts over the rows with start <= time < end.

    `kinds` counts rows by kind, `erased` those whose content is gone (their cells are not known any more); `overrides`
    by person, and `overridden` by decision before and after; `reads` and `exports` by person; `erasures` and
    `prunings` count events; `configurations` lists changes. `models` and `policies` count decisions. `gaps` are rows
    missing from the sequence of the whole file, and `clock_back` the rows of the period whose time lies before that
    of the row before: neither replaces `verify`.

    Example:
        >>> from fairlayer.trail import AuditTrail, Decision, Override, report
        >>> with AuditTrail("period.sqlite") as trail:
        ...     [row] = trail.append([Decision(time=0.0, cells={"sex": "F"}, decision=0)])
        ...     _ = trail.append([Override(time=1.0, row=row, decision=1, who="A. Miller", why="income proven")])
        >>> found = report("period.sqlite")
        >>> found.rows, dict(found.kinds), dict(found.overrides)
        (2, {'decision': 1, 'override': 1}, {'A. Miller': 1})
    """

    trail: str
    start: float | None
    end: float | None
    rows: int = 0
    first_time: float | None = None
    last_time: float | None = None
    kinds: Counts = field(default_factory=_counts)
    erased: int = 0
    cells: list[CellCount] = field(default_factory=list)
    overrides: Counts = field(default_factory=_counts)
    overridden: Counts = field(default_factory=_counts)
    reads: Counts = field(default_factory=_counts)
    exports: Counts = field(default_factory=_counts)
    erasures: int = 0
    erased_by: Counts = field(default_factory=_counts)
    prunings: int = 0
    configurations: list[dict[str, Any]] = field(default_factory=list)
    models: Counts = field(default_factory=_counts)
    policies: Counts = field(default_factory=_counts)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    clock_back: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        plain = _plain(self)
        plain["cells"] = [
            _plain(cell) | {"mean_raw": cell.mean_raw, "mean_emitted": cell.mean_emitted} for cell in self.cells
        ]
        return plain


def _plain(counted: CellCount | PeriodReport) -> dict[str, Any]:
    return {name: dict(value) if isinstance(value, dict) else value for name, value in vars(counted).items()}


def report(path: str | Path, start: float | None = None, end: float | None = None) -> PeriodReport:
    """Count what the trail says of the period start <= time < end; None for no bound.

    The file may be in use, and no key is needed. Memory does not grow with the number of rows.

    Args:
        path: the path of the trail.

    Raises:
        TrailError: the file cannot be read.

    Example:
        >>> from fairlayer.trail import AuditTrail, Decision, report
        >>> with AuditTrail("reported.sqlite") as trail:
        ...     rows = trail.append(Decision(time=float(i), cells={"sex": "FM"[i % 2]}, decision=1) for i in range(5))
        >>> [(cell.cells, cell.rows, dict(cell.decisions)) for cell in report("reported.sqlite", 1.0).cells]
        [({'sex': 'F'}, 2, {'1': 2}), ({'sex': 'M'}, 2, {'1': 2})]
    """
    with open_to_read(path) as db:
        found = PeriodReport(described(db).trail, start, end)
        cells: dict[str, CellCount] = {}
        for row in rows_of(db, start, end):
            _count(found, row)
            if row.kind == "decision" and row.body is not None:
                _count_decision(found, cells, row.body)
            elif row.kind == "override" and row.body is not None:
                _count_override(found, db, row.body)
        found.cells = [cells[name] for name in sorted(cells)]
        found.gaps = _gaps(db)
        found.clock_back = _clock_back(db, start, end)
    return found


def _count(found: PeriodReport, row: Row) -> None:
    found.rows += 1
    found.first_time = row.time if found.first_time is None else min(found.first_time, row.time)
    found.last_time = row.time if found.last_time is None else max(found.last_time, row.time)
    found.kinds[row.kind] += 1
    if row.body is None:
        found.erased += 1
    elif row.kind in ("read", "export"):
        (found.reads if row.kind == "read" else found.exports)[str(row.body.get("who"))] += 1
    elif row.kind == "erasure":
        found.erasures += 1
        found.erased_by[str(row.body.get("who"))] += sum(last - first + 1 for first, last in row.body["rows"])
    elif row.kind == "pruning":
        found.prunings += 1
    elif row.kind == "configuration":
        found.configurations.append({"row": row.row, "time": row.time, **row.body})


def _count_decision(found: PeriodReport, cells: dict[str, CellCount], body: dict[str, Any]) -> None:
    named = json.dumps(body.get("cells", {}), sort_keys=True, ensure_ascii=False)
    cell = cells.setdefault(named, CellCount(body.get("cells", {})))
    cell.rows += 1
    cell.decisions[_word(body.get("decision"))] += 1
    raw, emitted = body.get("raw"), body.get("emitted")
    if isinstance(raw, int | float) and isinstance(emitted, int | float):
        cell.scored += 1
        cell.raw_sum += raw
        cell.emitted_sum += emitted
    for name, counter in (("model", found.models), ("policy", found.policies)):
        if name in body:
            counter[_word(body[name])] += 1


def _count_override(found: PeriodReport, db: sqlite3.Connection, body: dict[str, Any]) -> None:
    found.overrides[str(body.get("who"))] += 1
    before = db.execute("SELECT CAST(payload AS BLOB) FROM trail_contents WHERE row = ?", (body.get("row"),)).fetchone()
    was = _word(json.loads(before[0]).get("decision")) if before else "unknown"
    found.overridden[f"{was} -> {_word(body.get('decision'))}"] += 1


def _gaps(db: sqlite3.Connection) -> list[tuple[int, int]]:
    """Return the spans of rows that are missing between rows that are there."""
    return db.execute(
        "SELECT r.row + 1, (SELECT min(n.row) FROM trail_rows n WHERE n.row > r.row) - 1 FROM trail_rows r "
        "WHERE NOT EXISTS (SELECT 1 FROM trail_rows n WHERE n.row = r.row + 1) "
        "AND r.row < (SELECT max(row) FROM trail_rows) ORDER BY r.row LIMIT ?",
        (_MOST_GAPS,),
    ).fetchall()


def _clock_back(db: sqlite3.Connection, start: float | None, end: float | None) -> int:
    found = db.execute(
        "SELECT count(*) FROM trail_rows r JOIN trail_rows b ON b.row = r.row - 1 WHERE r.time < b.time "
        "AND (?1 IS NULL OR r.time >= ?1) AND (?2 IS NULL OR r.time < ?2)",
        (start, end),
    ).fetchone()
    return int(found[0])


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
