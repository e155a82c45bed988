"""Trade-offs between quality and gap: sweeps over tolerances or strengths, their fronts, and descent on both."""

from fairlayer.pareto.descent import descend
from fairlayer.pareto.errors import MeasureError, SweepDefinitionError, SweepFailedError, UnreachableError
from fairlayer.pareto.front import Front
from fairlayer.pareto.hypervolume import hypervolume
from fairlayer.pareto.measures import gap_measures
from fairlayer.pareto.result import Point, Sweep
from fairlayer.pareto.runs import Run
from fairlayer.pareto.sweep import pareto_sweep

__all__ = [
    "Front",
    "MeasureError",
    "Point",
    "Run",
    "Sweep",
    "SweepDefinitionError",
    "SweepFailedError",
    "UnreachableError",
    "descend",
    "gap_measures",
    "hypervolume",
    "pareto_sweep",
]
