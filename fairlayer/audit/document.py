"""An audit as a value, and as the document from which the page, the JSON and the console are made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairlayer._notebook import table_html
from fairlayer.audit.checklists import annex_iv, audit_list, record, validation_list
from fairlayer.audit.compatible import Compatibility
from fairlayer.audit.cost import Cost
from fairlayer.audit.grouping import Grouping, plain
from fairlayer.audit.headline import headline
from fairlayer.audit.judging import metrics_asked
from fairlayer.audit.outcome import EXIT_CODES, Outcome, gravest
from fairlayer.audit.plan import AuditPlan
from fairlayer.audit.provenance import Provenance
from fairlayer.audit.statement import Statement
from fairlayer.audit.strata import Stratified
from fairlayer.audit.supplied import Supplied
from fairlayer.audit.table import AuditTable

__all__ = ["Audit"]

FORMAT = 3


@dataclass(frozen=True)
class Audit:
    """Everything that is said about a set of predictions.

    Args:
        asked: the question.
        table: what was counted.
        before: the same people's predictions before; None where none were given.
        statements: every limit with its outcome.
        groupings: the groups of every grouping, first those that were asked for.
        costs: the quality of the predictions, before and after.
        strata: groups compared within strata.
        together: grouping -> which criteria can hold together on these base rates.
        warnings: what a reader must know before using the numbers.
        left_out: (reason, rows) of rows that were not counted.
        provenance: where the numbers come from.
        supplied: what only people can say.
        sections: further parts of the document, by name: "run", "alternatives", "checks", "impact", "lending",
            "proxies", "coverage", "individual", "stream".

    Example:
        >>> from fairlayer.audit import AuditTable, audit, compatibility
        >>> decided, sex = [1] * 30 + [0] * 170 + [1] * 120 + [0] * 80, ["F"] * 200 + ["M"] * 200
        >>> found = audit(decisions=decided, sensitive_features={"sex": sex}, limits=["selection_rate_ratio < 0.8"])
        >>> [str(statement.outcome) for statement in found.statements], found.exit_code
        (['FAIL'], 1)
    """

    asked: AuditPlan
    table: AuditTable
    before: AuditTable | None
    statements: tuple[Statement, ...]
    groupings: tuple[Grouping, ...]
    costs: tuple[Cost, ...]
    strata: tuple[Stratified, ...]
    together: Mapping[str, Compatibility]
    warnings: tuple[str, ...]
    left_out: tuple[tuple[str, int], ...]
    provenance: Provenance
    supplied: Supplied
    sections: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """The gravest of the verdicts; NOT EVALUATED where no limit was asked for."""
        return gravest(said.outcome for said in self.statements)

    @property
    def exit_code(self) -> int:
        """0 PASS, 1 FAIL, 3 INCONCLUSIVE, 4 NOT EVALUATED."""
        return EXIT_CODES[self.outcome]

    def _repr_html_(self) -> str:
        rows = [(said.limit, str(said.outcome), said.answer) for said in self.statements]
        return table_html(f"Audit: {self.outcome}", ("limit", "outcome", "answer"), rows, note=" ".join(self.warnings))

    def to_dict(self) -> dict[str, Any]:
        """Return the document: plain containers, as `fairlayer/audit/schema.json` describes them.

        It holds counts, rates and names of groups; no row of the table, and no value of a person.
        """
        document: dict[str, Any] = {
            "format": FORMAT,
            "kind": "fairlayer audit",
            "title": self.supplied.text("title") or "Audit of decisions by group",
            "outcome": str(self.outcome),
            "exit_code": self.exit_code,
            "headline": headline(
                self.outcome,
                self.statements,
                self.groupings,
                shown=metrics_asked(self.asked.limits),
                costs=self.costs,
                table=self.table,
                before=self.before,
                strata=self.strata,
                left_out=self.left_out,
            ),
            "asked": self.asked.to_dict(self.table),
            "rows": self._rows(),
            "verdicts": [said.to_dict() for said in self.statements],
            "groupings": [one.to_dict() for one in self.groupings],
            "cost": [one.to_dict() for one in self.costs],
            "strata": [_plain_strata(one) for one in self.strata],
            "compatibility": [_plain_together(by, found) for by, found in self.together.items()],
            "warnings": list(self.warnings),
            "run": None,
            "stream": None,
            "alternatives": [],
            "checks": [],
            "impact": None,
            "lending": [],
            "proxies": [],
            "coverage": [],
            "individual": None,
            "supplied": self.supplied.to_dict(),
            "provenance": self.provenance.to_dict(),
            **self.sections,
        }
        lists = {"audit": audit_list(document), "validation": validation_list(document)}
        return {**document, "checklists": lists, "annex_iv": annex_iv(document), "record": record(document)}

    def to_json(self) -> str:
        """Return the document as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    def write_json(self, path: str | Path) -> Path:
        """Write the document; return its path."""
        path = Path(path)
        path.write_text(self.to_json(), encoding="utf-8")
        return path

    def _rows(self) -> dict[str, Any]:
        rows = self.table.sums["rows"]
        return {
            "counted": self.table.rows,
            "labelled": float(rows[:, :3].sum()),
            "decided": float(rows[:, :, :2].sum()),
            "left_out": [{"why": why, "rows": count} for why, count in self.left_out],
        }


def _plain_together(by: str, found: Compatibility) -> dict[str, Any]:
    return {
        "by": by,
        "tolerance": found.tolerance,
        "accuracy": plain(found.accuracy),
        "best": plain(found.best),
        "separation": plain(found.separation),
        "calibration_tolerance": plain(found.calibration_tolerance),
        "groups": [_plain_values(vars(group)) for group in found.groups],
        "sets": [
            {
                "criteria": list(one.criteria),
                "smallest_tolerance": plain(one.smallest_tolerance),
                "best_accuracy": plain(one.best_accuracy),
                "cost": plain(one.cost),
            }
            for one in found.sets
        ],
        "sentences": list(found.sentences()),
    }


def _plain_strata(found: Stratified) -> dict[str, Any]:
    numbers = ("pooled", "stratified", "odds_ratio", "p_cmh", "p_breslow_day")
    return {
        "metric": found.metric,
        "group": found.group,
        "reference": found.reference,
        **{name: plain(getattr(found, name)) for name in numbers},
        "reversal": found.reversal,
        "headline": found.headline,
        "strata": [_plain_values(vars(one)) for one in found.strata],
    }


def _plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(value) if isinstance(value, float) else value for name, value in values.items()}
