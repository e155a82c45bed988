"""Which route a run keeps: the model whose scores count, and what is done to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fairlayer._typing import FloatArray, IntArray
from fairlayer.calibration import GroupCalibrator
from fairlayer.constraints import Constraint
from fairlayer.decisions import DecisionRule
from fairlayer.decisions.inputs import ACCURACY
from fairlayer.training.batches import decide_batch

__all__ = ["THROUGH", "KeptRoute", "ScoredBy", "Step"]

Step: TypeAlias = Literal["as it is", "projected", "decision rule", "batch decisions"]
ScoredBy: TypeAlias = Literal["network", "trees", "both"]


@dataclass(frozen=True)
class KeptRoute:
    """The route that a run folder keeps.

    Args:
        name: as tables show it.
        scored_by: whether the scores are those of the "network", of boosted "trees", or the mean of "both".
        step: what is done to the scores: nothing, the projection, a rule of thresholds per cell, or decisions on each
            batch as a whole.
        rule: thresholds fitted to rows that these scores were not fitted to, for `predict --decisions`; None where none
            fit.
        calibrator: what makes label estimates of the scores, where a constraint reads labels or batches are decided;
            fitted to the same rows.
        utility: `utility[label][decision]`, by which batches are decided.
        share: the weight of the network where both score.

    Example:
        >>> route = KeptRoute("trained through", step="projected")
        >>> KeptRoute.from_dict(route.to_dict()) == route
        True
    """

    name: str = "trained through"
    scored_by: ScoredBy = "network"
    step: Step = "projected"
    rule: DecisionRule | None = None
    calibrator: GroupCalibrator | None = None
    utility: tuple[tuple[float, ...], ...] = ACCURACY
    share: float = 0.5

    @property
    def trees(self) -> bool:
        """Whether the scores need boosted trees."""
        return self.scored_by != "network"

    @property
    def fitted(self) -> str:
        """The rows that the rule was fitted to, in words."""
        rows = 0 if self.rule is None else sum(cell.count for cell in self.rule.cells)
        return f"{rows:,} rows that the scores were not fitted to"

    def decide(
        self,
        raw: FloatArray,
        constraints: Sequence[Constraint],
        sensitive: Mapping[str, Any],
        *,
        capacity: int | None = None,
        utility: Any = None,
    ) -> IntArray:
        """Return decisions (n,) on one batch of raw scores that keep the constraints there.

        Args:
            raw: (n,) the scores of the model.
            constraints: what must hold.
            sensitive: the sensitive columns of the batch.
            capacity: the most rows to select.
            utility: another utility than that of the route.
        """
        table = self.utility if utility is None else utility
        return decide_batch(raw, constraints, sensitive, calibrator=self.calibrator, utility=table, capacity=capacity)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        rule = None if self.rule is None else self.rule.to_dict()
        estimates = None if self.calibrator is None else self.calibrator.to_dict()
        return {
            "name": self.name,
            "scored_by": self.scored_by,
            "step": self.step,
            "rule": rule,
            "calibrator": estimates,
            "utility": [list(row) for row in self.utility],
            "share": self.share,
        }

    @staticmethod
    def from_dict(state: Mapping[str, Any]) -> KeptRoute:
        """Rebuild what `to_dict` wrote."""
        rule = None if state["rule"] is None else DecisionRule.from_dict(state["rule"])
        estimates = None if state["calibrator"] is None else GroupCalibrator.from_dict(state["calibrator"])
        utility = tuple(tuple(map(float, row)) for row in state.get("utility", ACCURACY))
        return KeptRoute(state["name"], state["scored_by"], state["step"], rule, estimates, utility, state["share"])


THROUGH = KeptRoute()
