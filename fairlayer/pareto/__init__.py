"""Trade-offs between quality and gap: sweeps over tolerances or strengths, their fronts, and descent on both."""

from fairlayer._keywords import explain_public
from fairlayer.pareto.descent import descend
from fairlayer.pareto.errors import MeasureError, SweepDefinitionError, SweepFailedError, UnreachableError
from fairlayer.pareto.front import Front
from fairlayer.pareto.measures import gap_measures
from fairlayer.pareto.result import Sweep
from fairlayer.pareto.runs import FrontPoint, SweepRun
from fairlayer.pareto.sweep import pareto_sweep
from fairlayer.pareto.volume import hypervolume

__all__ = [
    "Front",
    "FrontPoint",
    "MeasureError",
    "Sweep",
    "SweepDefinitionError",
    "SweepFailedError",
    "SweepRun",
    "UnreachableError",
    "descend",
    "gap_measures",
    "hypervolume",
    "pareto_sweep",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__)
