"""Which route a run keeps: the model whose scores count, and what is done to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fairlayer.calibration import GroupCalibrator
from fairlayer.decisions import DecisionRule

__all__ = ["THROUGH", "KeptRoute", "Step"]

Step: TypeAlias = Literal["as it is", "projected", "decision rule"]


@dataclass(frozen=True)
class KeptRoute:
    """The route that a run folder keeps.

    Args:
        name: as tables show it.
        trees: whether the scores are those of boosted trees; otherwise those of the network.
        step: what is done to the scores: nothing, the projection, or a rule of thresholds per cell.
        rule: thresholds fitted to the validation rows of these scores, for `predict --decisions`; None where none fit.
        calibrator: what makes label estimates of the scores, where a constraint reads labels; fitted to the validation
            rows.

    Example:
        >>> route = KeptRoute("trained through", step="projected")
        >>> KeptRoute.from_dict(route.to_dict()) == route
        True
    """

    name: str = "trained through"
    trees: bool = False
    step: Step = "projected"
    rule: DecisionRule | None = None
    calibrator: GroupCalibrator | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        rule = None if self.rule is None else self.rule.to_dict()
        estimates = None if self.calibrator is None else self.calibrator.to_dict()
        return {"name": self.name, "trees": self.trees, "step": self.step, "rule": rule, "calibrator": estimates}

    @staticmethod
    def from_dict(state: Mapping[str, Any]) -> KeptRoute:
        """Rebuild what `to_dict` wrote."""
        rule = None if state["rule"] is None else DecisionRule.from_dict(state["rule"])
        estimates = None if state["calibrator"] is None else GroupCalibrator.from_dict(state["calibrator"])
        return KeptRoute(state["name"], bool(state["trees"]), state["step"], rule, estimates)


THROUGH = KeptRoute()
