"""What was decided, what it gains and costs, and what holds for it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fairlayer._notebook import table_html
from fairlayer.constraints import Measured
from fairlayer.decisions.rule import DecisionRule
from fairlayer.decisions.shown import selected_from

__all__ = ["Decisions"]


@dataclass(frozen=True)
class Decisions:
    """Decisions about one batch.

    Args:
        decisions: 0 or 1, int64, of the shape and device of the scores.
        probabilities: the probabilities with which each sample was selected, float64; 0 or 1 where no lots are drawn.
        rule: the thresholds, for use on others.
        counts: samples per cell; the sum of their weights, where weights were given.
        selected: samples selected per cell, counted in the same way.
        expected_utility: the expected utility of these decisions, per sample: the accuracy, unless another utility was
            given. Expected over the labels by y where given, else by label probabilities, else by the scores.
        utility_bound: expected utility of the best lottery between thresholds within the limits. No rule of one
            threshold per cell within them exceeds it.
        gaps: for each constraint, the number that it bounds, measured on the decisions (a largest difference, a lowest
            over highest, a lowest rate); None where nothing is compared.
        measured: the same with limit, direction and counts.
        rounding: for each constraint, what whole numbers may add to its gap: the share of one sample per cell; and how
            far thresholds stop short of a limit below 0.005 on rates within labels, where meeting it costs much.
        multipliers: price of each constraint: d utility_bound / d tolerance.
        capacity_price: expected utility, summed over the batch, of one more place; 0 where there is no capacity.
        absent: groups that a constraint compares and this batch lacks, as (constraint, group).

    Example:
        >>> import torch, fairlayer as fl
        >>> scores, groups = torch.tensor([0.9, 0.7, 0.2, 0.6]), {"sex": ["F", "F", "M", "M"]}
        >>> found = fl.decide(scores, fl.DemographicParity("sex", tolerance=0.0), sensitive_features=groups)
        >>> found.decisions.tolist(), found.gaps, found.selected
        ([1, 0, 0, 1], {"DemographicParity('sex')": 0.0}, {'sex=F': 1, 'sex=M': 1})
    """

    decisions: Tensor
    probabilities: Tensor
    rule: DecisionRule
    counts: dict[str, float]
    selected: dict[str, float]
    expected_utility: float
    utility_bound: float
    gaps: dict[str, float | None]
    measured: dict[str, Measured]
    rounding: dict[str, float]
    multipliers: dict[str, float]
    capacity_price: float
    absent: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        width = max(map(len, self.counts), default=4)
        lines = [f"Decisions({self.status}), expected utility {self.expected_utility:.4g} per sample"]
        lines.append(f"  {'cell':<{width}} {'samples':>9} {'selected':>9} {'rate':>7}  selected from")
        whom = selected_from(self.rule)
        for name, count in self.counts.items():
            lines.append(
                f"  {name:<{width}} {count:>9g} {self.selected[name]:>9g} {self.rates[name]:>7.1%}  {whom[name]}"
            )
        for name, gap in self.gaps.items():
            lines.append(f"  {name}: {'nothing to compare' if gap is None else f'{gap:.4g} of the decisions'}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        whom = selected_from(self.rule)
        rows = [
            (name, count, self.selected[name], f"{self.rates[name]:.1%}", whom[name])
            for name, count in self.counts.items()
        ]
        gaps = "; ".join(f"{name} {'-' if gap is None else f'{gap:.4g}'}" for name, gap in self.gaps.items())
        note = f"Gaps of the decisions: {gaps}. Expected utility: {self.expected_utility:.4g} per sample."
        head = ("cell", "samples", "selected", "rate", "selected from")
        return table_html(f"Decisions: {self.status}", head, rows, note=note)

    @property
    def rates(self) -> dict[str, float]:
        """Share selected per cell."""
        return {name: self.selected[name] / count if count else 0.0 for name, count in self.counts.items()}

    @property
    def thresholds(self) -> dict[str, tuple[float, ...]]:
        """Thresholds per cell; several where lots are drawn between them, none where nobody is selected."""
        return {name: cell.thresholds for name, cell in zip(self.rule.names, self.rule.cells, strict=True)}

    @property
    def status(self) -> str:
        """`unchanged` (the limits cost nothing here) or `constrained`."""
        priced = max([self.capacity_price, *self.multipliers.values()], default=0.0) > 1e-9
        return "constrained" if priced else "unchanged"
