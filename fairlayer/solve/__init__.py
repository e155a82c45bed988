"""Plain arrays in, plain arrays out: the projection in the space of cell statistics."""

from fairlayer.solve.accuracy import accuracy_of, gauged
from fairlayer.solve.grid import GridSolution, prices_by_block, solve_grid
from fairlayer.solve.held import HeldRows
from fairlayer.solve.limits import SystemsAtLimits
from fairlayer.solve.quadratic import ClashingFaces
from fairlayer.solve.slabs import Face, FaceKey, RowSlabs, SlabSystem, SpreadSlabs, normals_of
from fairlayer.solve.solution import Solution
from fairlayer.solve.solving import WidenedSolution, solve
from fairlayer.solve.stuck import StuckProblem

__all__ = [
    "ClashingFaces",
    "Face",
    "FaceKey",
    "GridSolution",
    "HeldRows",
    "RowSlabs",
    "SlabSystem",
    "Solution",
    "SpreadSlabs",
    "StuckProblem",
    "SystemsAtLimits",
    "WidenedSolution",
    "accuracy_of",
    "gauged",
    "normals_of",
    "prices_by_block",
    "solve",
    "solve_grid",
]


def __dir__() -> list[str]:
    return list(__all__)
