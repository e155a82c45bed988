"""Decisions: scores -> yes or no under the constraints, at the level of decisions."""

from fairlayer.decisions.decide import decide
from fairlayer.decisions.errors import NeedsRandomisationError, UnseenCellError, UtilityError
from fairlayer.decisions.expected import ExpectedGap, Spreading
from fairlayer.decisions.result import Decisions
from fairlayer.decisions.rule import CellRule, DecisionRule
from fairlayer.decisions.stream import DecisionStream

__all__ = [
    "CellRule",
    "DecisionRule",
    "DecisionStream",
    "Decisions",
    "ExpectedGap",
    "NeedsRandomisationError",
    "Spreading",
    "UnseenCellError",
    "UtilityError",
    "decide",
]
