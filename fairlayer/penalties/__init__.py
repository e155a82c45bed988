"""The constraints as losses: penalties, dependence measures, and an augmented Lagrangian."""

from fairlayer._keywords import explain_public
from fairlayer.penalties.adapters import cooper_problem, dual_optimizer
from fairlayer.penalties.dependence import HSIC, MMD
from fairlayer.penalties.excess import Excess
from fairlayer.penalties.fairret_adapter import fairret_penalty
from fairlayer.penalties.lagrangian import AugmentedLagrangian
from fairlayer.penalties.penalty import Penalty, penalise
from fairlayer.penalties.term import LossTerm

__all__ = [
    "HSIC",
    "MMD",
    "AugmentedLagrangian",
    "Excess",
    "LossTerm",
    "Penalty",
    "cooper_problem",
    "dual_optimizer",
    "fairret_penalty",
    "penalise",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__)
