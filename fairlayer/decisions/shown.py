"""A rule as a short table, and whom each cell selects: for the console, and for a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fairlayer._notebook import table_html

if TYPE_CHECKING:
    from fairlayer.decisions.rule import CellRule, DecisionRule

__all__ = ["rule_html", "rule_text", "selected_from"]

_SHOWN = 20  # cells; a rule of more says how many there are


def rule_text(rule: DecisionRule) -> str:
    """Return a line about the rule and one for each cell: its name, rows fitted, rate, and thresholds."""
    rows, left = _rows(rule)
    width = max([4, *(len(row[0]) for row in rows)])
    lines = [_title(rule), f"  {'cell':<{width}} {'fitted':>9} {'rate':>7}  selected from"]
    lines += [f"  {name:<{width}} {count:>9} {rate:>7}  {thresholds}" for name, count, rate, thresholds in rows]
    return "\n".join([*lines, f"  and {left} more cells"] if left else lines)


def rule_html(rule: DecisionRule) -> str:
    """Return the same as HTML."""
    rows, left = _rows(rule)
    note = f"And {left} more cells." if left else ""
    return table_html(_title(rule), ("cell", "fitted", "rate", "selected from"), rows, note=note)


def selected_from(rule: DecisionRule) -> dict[str, str]:
    """Return in words from where on each cell selects."""
    return {name: _thresholds(cell) for name, cell in zip(rule.names, rule.cells, strict=True)}


def _title(rule: DecisionRule) -> str:
    features = ", ".join(rule.features) or "no sensitive feature"
    lots = "with lots between thresholds" if rule.randomised else "without lots"
    return f"DecisionRule on {features}, {len(rule.cells)} {'cell' if len(rule.cells) == 1 else 'cells'}, {lots}"


def _rows(rule: DecisionRule) -> tuple[list[tuple[str, str, str, str]], int]:
    pairs = list(zip(rule.names, rule.cells, strict=True))
    rows = [(name, f"{cell.count}", f"{cell.rate:.1%}", _thresholds(cell)) for name, cell in pairs[:_SHOWN]]
    return rows, len(pairs) - len(rows)


def _thresholds(cell: CellRule) -> str:
    """Return the thresholds, and of each what share of those above it is selected, where that is not everybody."""
    if not cell.thresholds:
        return "nobody"
    return ", ".join(map(_threshold, cell.thresholds, _shares(cell.weights)))


def _threshold(threshold: float, share: float) -> str:
    where = "everybody" if threshold == float("-inf") else f"{threshold:.4g}"
    return where if share > 1.0 - 1e-9 else f"{where} ({share:.0%})"


def _shares(weights: Sequence[float]) -> list[float]:
    """Return the probability of being selected from each threshold on, down to the next."""
    return [sum(weights[: number + 1]) for number in range(len(weights))]
