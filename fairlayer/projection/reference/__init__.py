"""The reference backend: the same projections as generic convex programs, by cvxpy and cvxpylayers.

It is an oracle for the exact backend, so it shares nothing with that beyond the statements: it knows no
cells, and states every condition about the n predictions. With helpers h (the lowest and the highest member of
each spread), the program is

    minimise 1/2 |y - z|^2   subject to   A y + H h <= b,   A' y + H' h == b',   bounds,   convex constraints

Each condition is scaled to a unit row of A: rows of size 1/n are badly scaled for generic solvers.

The value comes from Clarabel on this quadratic program (accurate to about 1e-10), with its status checked.
The gradient comes from a `CvxpyLayer`, which restates the objective as a cone (accurate to about 1e-6 in the
value, so that value is only compared) and differentiates the optimality conditions.
Source: Agrawal et al. (2019), "Differentiable convex optimization layers", and Goulart, Chen (2024).
"""

from fairlayer.projection.reference.backend import solve_by_reference

__all__ = ["solve_by_reference"]


def __dir__() -> list[str]:
    return list(__all__)
