"""Two tables of one kind -> the sums of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fairlayer.audit.errors import TablesDifferError

if TYPE_CHECKING:
    from fairlayer.audit.table import AuditTable

__all__ = ["both", "check_alike"]


def both(a: Any, b: Any, joined: Any) -> Any:
    """Return what both tables have; what only one of them has cannot be pooled."""
    return None if a is None or b is None else joined(a, b)


def check_alike(a: AuditTable, b: AuditTable) -> None:
    """See that two tables count the same things.

    Raises:
        TablesDifferError: they differ in their columns or settings.
    """
    pairs = {
        "sensitive features": (a.features, b.features),
        "strata": (a.strata, b.strata),
        "sums": (sorted(a.sums), sorted(b.sums)),
        "favourable decisions": (a.favourable, b.favourable),
        "smallest group sizes": (a.min_group_size, b.min_group_size),
    }
    if a.task and b.task:
        pairs["tasks"] = (a.task, b.task)
    if "decisions" in a.holds and "decisions" in b.holds:
        pairs["thresholds"] = (a.threshold, b.threshold)
    for what, (mine, theirs) in pairs.items():
        if mine != theirs:
            raise TablesDifferError(
                f"the two tables have different {what}, {mine} and {theirs}, so that they cannot be added up. Make "
                "them with the same columns and settings; a small chunk of a regression needs task='regression'."
            )
