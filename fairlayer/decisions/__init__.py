"""Decisions: scores -> yes or no under the constraints, at the level of decisions."""

from fairlayer._keywords import explain_public
from fairlayer.decisions.deciding import decide
from fairlayer.decisions.errors import NeedsRandomisationError, UnseenCellError, UtilityError
from fairlayer.decisions.expected import ExpectedGap, Spreading
from fairlayer.decisions.referring import REFERRED, ReferredDecisions, reject_option
from fairlayer.decisions.result import Decisions
from fairlayer.decisions.rule import CellRule, DecisionRule
from fairlayer.decisions.stream import DecisionStream

__all__ = [
    "REFERRED",
    "CellRule",
    "DecisionRule",
    "DecisionStream",
    "Decisions",
    "ExpectedGap",
    "NeedsRandomisationError",
    "ReferredDecisions",
    "Spreading",
    "UnseenCellError",
    "UtilityError",
    "decide",
    "reject_option",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__, inner=("CellRule",))
