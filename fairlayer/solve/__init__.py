"""Plain arrays in, plain arrays out: the projection in the space of cell statistics."""

from fairlayer.solve.certificate import Certificate, certify
from fairlayer.solve.passes import Cells, Passes, RankPasses, make_passes
from fairlayer.solve.quadratic import ClashingFaces
from fairlayer.solve.slabs import Face, RowSlabs, SlabSystem, SpreadSlabs
from fairlayer.solve.solution import Solution
from fairlayer.solve.solve import Solved, solve

__all__ = [
    "Cells",
    "Certificate",
    "ClashingFaces",
    "Face",
    "Passes",
    "RankPasses",
    "RowSlabs",
    "SlabSystem",
    "Solution",
    "Solved",
    "SpreadSlabs",
    "certify",
    "make_passes",
    "solve",
]
