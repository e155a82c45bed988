"""What only people can say: purpose, reasons, roles of the columns, pathways, who signs. Read from a YAML file.

Nothing of it is computed, and nothing of it is invented: an entry that nobody gave is printed as "not supplied".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairlayer.errors import DataError, ParameterError, require

__all__ = ["ROLES", "Supplied", "read_supplied"]

ROLES = ("sensitive", "proxy", "mediator", "outcome", "feature")
_TEXTS = (
    "title",
    "purpose",
    "system",
    "affected",
    "harm",
    "metric_reason",
    "technique",
    "technique_reason",
    "limits_of_use",
    "human_review",
    "monitoring",
    "changes",
    "sensitive_data",
    "residual_risk",
    "data_source",
    "distribution_date",
)
_LISTS = ("pathways", "queries", "recommendations", "assumptions", "rejected_criteria", "approvers", "auditor")


@dataclass(frozen=True)
class Supplied:
    """What people said about a system.

    Args:
        texts: entry -> text: title, purpose, system, affected, harm, metric_reason, technique, technique_reason,
            limits_of_use, human_review, monitoring, changes, sensitive_data, residual_risk, data_source,
            distribution_date.
        lists: entry -> several texts: pathways, queries, recommendations, assumptions, rejected_criteria, approvers,
            auditor. An entry may also be a mapping, such as {"from": ..., "to": ..., "judged": ..., "by": ...,
            "why": ...} for a pathway.
        roles: column -> "sensitive", "proxy", "mediator", "outcome" or "feature".

    Example:
        >>> Supplied({"purpose": "loans"}).text("purpose"), Supplied().text("purpose")
        ('loans', None)
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)

    def text(self, name: str) -> str | None:
        """Return an entry, or None where nobody gave it."""
        return self.texts.get(name)

    def list(self, name: str) -> list[Any]:
        """Return an entry of several texts; empty where nobody gave it."""
        return list(self.lists.get(name, ()))

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON, with every entry; None, or an empty list, where nobody gave it."""
        texts = {name: self.text(name) for name in _TEXTS}
        lists = {name: [_plain(one) for one in self.list(name)] for name in _LISTS}
        return {**texts, **lists, "roles": dict(self.roles)}


def read_supplied(path: str | Path, columns: Sequence[str] = ()) -> Supplied:
    """Read the YAML file, and check the roles against the columns of the table.

    Args:
        path: the path of the file.
        columns: the columns of the table; not checked where there are none.

    Raises:
        DataError: the file cannot be read, or is not a mapping.
        ParameterError: an entry or a role is unknown, or a role is given to a column that the table does not have.
        MissingExtraError: PyYAML is not installed.

    Example:
        >>> _ = Path("supplied.yaml").write_text("purpose: loans of up to 5,000 euros")
        >>> read_supplied("supplied.yaml").text("purpose")
        'loans of up to 5,000 euros'
    """
    yaml = require("yaml", "train")
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no file at '{path}'. Give a YAML file that says what the numbers cannot (--about).")
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' could not be read as YAML: {error}.") from error
    if not isinstance(told, dict):
        raise DataError(f"'{path}' must be a mapping of entries such as 'purpose: ...', but is {type(told).__name__}.")
    return _supplied(told, columns)


def _supplied(told: Mapping[str, Any], columns: Sequence[str]) -> Supplied:
    unknown = [name for name in told if name not in (*_TEXTS, *_LISTS, "roles")]
    if unknown:
        raise ParameterError(
            f"the entries {', '.join(map(str, unknown))} are not known. Known are: {', '.join((*_TEXTS, *_LISTS))}, "
            "and roles."
        )
    roles = {str(column): str(role) for column, role in (told.get("roles") or {}).items()}
    wrong = sorted({role for role in roles.values() if role not in ROLES})
    if wrong:
        raise ParameterError(f"a column has one of the roles {', '.join(ROLES)}, not {', '.join(wrong)}.")
    missing = [column for column in roles if columns and column not in columns]
    if missing:
        raise ParameterError(
            f"roles were given to {', '.join(missing)}, but the table has no such column. It has: "
            f"{', '.join(map(str, columns))}."
        )
    texts = {name: str(told[name]).strip() for name in _TEXTS if told.get(name) is not None}
    lists = {name: _several(told[name]) for name in _LISTS if told.get(name) is not None}
    return Supplied(texts, lists, roles)


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _plain(value: Any) -> Any:
    return {str(key): str(item) for key, item in value.items()} if isinstance(value, Mapping) else str(value)
