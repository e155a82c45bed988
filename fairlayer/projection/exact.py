"""The exact backend: scores solved in the space of their cells, as one value that everything else reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import outside_transforms, plain_tensor
from fairlayer._typing import FloatArray
from fairlayer.constraints import Constraint
from fairlayer.edge import Box
from fairlayer.errors import InfeasibleConstraintsError, InvalidBoundsError, NonFiniteScoresError, SolverError
from fairlayer.passes import Passes, RankPasses, make_passes
from fairlayer.passes.pairs import PairPasses
from fairlayer.projection.assembly import Assembly
from fairlayer.projection.autograd import attach
from fairlayer.projection.certificate import Certificate, Held, RawBatch, certify
from fairlayer.projection.derivative import Derivative
from fairlayer.projection.options import Options
from fairlayer.projection.weightless import with_least_prices
from fairlayer.solve import (
    ClashingFaces,
    Face,
    FaceKey,
    SlabSystem,
    Solution,
    StuckProblem,
    WidenedSolution,
    accuracy_of,
    gauged,
    normals_of,
    solve,
)
from fairlayer.solve.coupled import solve_coupled

__all__ = ["ExactProblem", "HeldSolution", "check_finite", "pose", "project_exactly", "result_dtype"]

_LARGEST = 1e100  # squares and sums must not overflow
_ROUNDING_OF_ROWS = 1e-6  # of a softmax in float32


class HeldSolution(NamedTuple):
    """A solution that is known by what holds it: what is left is to put it in words, or to differentiate it.

    Args:
        faces: the inequalities that hold it.
        multipliers: their prices.
        passes: sweeps over the batch that it took.
        widening: by how much every limit was widened for it.
        value: the predictions after their last cast, where they are known, too.
    """

    faces: tuple[FaceKey, ...]
    multipliers: FloatArray
    passes: int
    widening: float = 0.0
    value: Tensor | None = None

    @staticmethod
    def of(column: ExactProblem) -> HeldSolution:
        """Read what holds a solved column."""
        solution = column.solved.solution
        keys = tuple(face.key for face in solution.faces)
        return HeldSolution(keys, solution.multipliers, solution.passes, column.widening)

    def solved(self, passes: Passes, slabs: SlabSystem) -> WidenedSolution:
        """Return it as the solver would."""
        start = passes.at(None)
        wide = slabs.widened(self.widening) if self.widening else slabs
        wide = gauged(passes, wide, start, accuracy_of(passes))
        if not self.faces:
            return WidenedSolution(Solution.unmoved(start), wide, self.widening)
        faces = tuple(wide.face(key) for key in self.faces)
        nu = self.multipliers @ normals_of(faces, len(start.statistics))
        solution = Solution.at(passes.at(nu), nu, faces, self.multipliers, passes=self.passes)
        return WidenedSolution(solution, wide, self.widening)


class ExactProblem:
    """One solved problem: a column of scores, or on the simplex all of them.

    Args:
        assembly: the statements in numbers.
        raw: the batch as it came, for the certificate.
        passes: the batch as the solver saw it.
        solved: the solution, and the slabs that it meets.
        value: the predictions, of the shape of the scores, after their last cast.
    """

    def __init__(
        self, assembly: Assembly, raw: RawBatch, passes: Passes, solved: WidenedSolution, value: Tensor
    ) -> None:
        self.assembly, self.raw, self.solver_passes, self.solved, self.value = assembly, raw, passes, solved, value
        self.smooth = raw.geometry.smooth
        self.pair_multipliers: FloatArray | None = None
        if isinstance(passes, PairPasses):
            self.pair_multipliers = passes.multipliers(solved.solution.point, solved.solution.nu)
        self.parts = passes.parts

    @cached_property
    def derivative(self) -> Derivative:
        """The derivative at the solution."""
        return Derivative(self.solver_passes, self.solved)

    @cached_property
    def certificate(self) -> Certificate:
        """Proof on the value."""
        held = [
            Held(face.key[0], face.key[1], face.key[2], float(multiplier) / face.scale)
            for face, multiplier in self._active()
        ]
        held += [Held(*pair) for pair in self._active_pairs()]
        return certify(self.raw, held, self.widening, self.value)

    @property
    def widening(self) -> float:
        """By how much every limit was widened."""
        return self.solved.widening

    @property
    def passes(self) -> int:
        """Passes over the batch that the solver took."""
        return self.solved.solution.passes

    @property
    def rows(self) -> int:
        """Samples of the batch, wherever they are."""
        return self.solver_passes.n

    @cached_property
    def clipped(self) -> int:
        """Samples here that the geometry cannot move any more, because a bound holds them."""
        return self.solved.solution.point.held

    @cached_property
    def changed(self) -> bool:
        """Whether anything but rounding was moved."""
        clipped = self.value.ndim == 1 and self.clipped > 0
        return bool(self.solved.solution.faces) or clipped or bool(self._active_pairs()) or self._came_from_outside()

    def settle(self) -> None:
        """Work out now what takes an exchange between processes, so that any of them may read it by itself."""
        outside = self.raw.total(np.array([float(self._came_from_outside())]))[0] > 0
        self.__dict__["changed"] = self.certificate.distance > 0 or bool(self.solved.solution.faces) or outside

    def _came_from_outside(self) -> bool:
        """Whether rows were moved onto the simplex before anything else; a smooth geometry refuses such rows."""
        if self.smooth or self.value.ndim == 1 or not len(self.value):
            return False
        return float((self.value.detach() - self.raw.scores.detach()).abs().max()) > _ROUNDING_OF_ROWS

    def prices(self) -> FloatArray:
        """Return one price per constraint, (constraints,); on the simplex one per constraint and class."""
        prices = np.zeros((self.assembly.constraints, self.assembly.classes))
        for owner, column, _, multiplier in self.active():
            prices[owner, column] += multiplier
        return prices

    def shift(self) -> FloatArray:
        """Return one shift per cell and per dense row, (statistics,); on the simplex (cells, classes)."""
        k, m = self.assembly.classes, len(self.assembly.cells.counts)
        nu = self.solved.solution.nu
        cells = nu[: k * m].reshape(k, m) / self.assembly.cells.counts
        return 0.0 - (np.append(cells[0], nu[m:]) if k == 1 else cells.T)

    def active(self) -> list[tuple[int, int, str, float]]:
        """Return (constraint, class, statement, multiplier) of each face that holds with equality."""
        assembly = self.assembly
        return [
            (
                assembly.owners[face.key[0]],
                assembly.statement_class(face.key[0]),
                assembly.describe(face),
                float(multiplier) / face.scale,
            )
            for face, multiplier in self._active()
        ] + [
            (assembly.owners[place], 0, assembly.describe_pair(place, row, side), multiplier)
            for place, row, side, multiplier in self._active_pairs()
        ]

    def _active_pairs(self) -> list[tuple[int, int, int, float]]:
        return [] if self.pair_multipliers is None else self.assembly.held_pairs(self.pair_multipliers)

    def _active(self) -> list[tuple[Face, float]]:
        solution = self.solved.solution
        return list(zip(solution.faces, solution.multipliers.tolist(), strict=True))

    def limits_by_tolerance(self, device: torch.device) -> Tensor:
        """Return the matrix (tolerances, held rows) of d limit / d tolerance.

        Only rows with a price count: an equality without one does not open on either side. Where the limits were
        widened, the least widening depends on the tolerances too.
        """
        held, table = self.derivative.held, []
        for block in self.assembly.differentiable_blocks:
            table.append(held.opening * ((held.block == block) - self.solved.widening_by_limit(block)))
        shape = len(self.assembly.differentiable_blocks), len(held)
        return torch.tensor(np.array(table), dtype=torch.float64, device=device).reshape(shape)


def project_exactly(  # noqa: PLR0917 - a batch, what must hold, and how
    scores: Tensor,
    dtype: torch.dtype,
    constraints: Sequence[Constraint],
    assembly: Assembly,
    box: Box,
    options: Options,
    found: HeldSolution | None = None,
    *,
    owned: bool = False,
) -> tuple[Tensor, ExactProblem]:
    """Project scores (n,), or (n, k) on the simplex, given in the coordinate of the geometry.

    Args:
        scores: what is projected; may take a gradient.
        dtype: the dtype of the predictions.
        constraints: for the names in errors.
        assembly: the statements in numbers.
        box: the bounds.
        options: geometry, processes, whether limits may be widened.
        found: the solution, where it is known.
        owned: whether the scores were made for this call, so that nobody else can change them.

    Raises:
        InfeasibleConstraintsError: nothing within the bounds meets the constraints, and they may not be widened.
    """
    with outside_transforms():
        raw, passes = pose(scores, constraints, assembly, box, options, owned=owned)
        try:
            if found is not None:
                solved = found.solved(passes, assembly.slabs)
            elif isinstance(passes, PairPasses):
                solved = solve_coupled(passes, assembly.slabs)
            else:
                solved = with_least_prices(passes, solve(passes, assembly.slabs, relax=options.relax))
        except ClashingFaces as clash:
            raise _infeasible(clash, constraints, assembly, box) from None
        except SolverError as error:
            error.problem = StuckProblem.of(passes, assembly.slabs)
            raise
        value = None if found is None else found.value
        if value is None:
            value = passes.export(solved.solution.point, dtype)
        solved.solution.point.forget()
        passes.forget()
    column = ExactProblem(assembly, raw, passes, solved, value)
    tensors = [tolerance.to(scores.device, torch.float64) for tolerance in assembly.tolerances]
    tolerances = torch.stack(tensors) if tensors else None
    returned = attach(scores, box.lower_tensor, box.upper_tensor, tolerances, column)
    if raw.ranks is not None:
        column.settle()
    return returned, column


def pose(
    scores: Tensor,
    constraints: Sequence[Constraint],
    assembly: Assembly,
    box: Box,
    options: Options,
    *,
    owned: bool = False,
) -> tuple[RawBatch, Passes]:
    """Return a batch as it came, and as a solver sees it; arguments as for `project_exactly`.

    Raises:
        InvalidBoundsError: pairs of samples are held together, and a bound is a tensor.
        NonFiniteScoresError: some scores are NaN, infinite or too large.
    """
    rule, ranks = options.rule, assembly.batch.ranks
    plain = plain_tensor(scores)
    lower = None if rule.on_simplex else _value(box.lower_tensor, box.lower)
    upper = None if rule.on_simplex else _value(box.upper_tensor, box.upper)
    here: Any
    if assembly.pairs is None:
        here = make_passes(plain, assembly.cells, lower, upper, rule, owned=owned)
    else:
        _check_bounds(constraints, assembly, box)
        check_finite(plain)
        here = PairPasses(plain, assembly.cells, (lower, upper), rule, assembly.pairs, plain.device)
    _check_finite(here, plain)
    open_domain = rule.bounded or rule.on_simplex  # there a margin moves scores, and bounds no prediction
    ends = (0.0, 1.0) if open_domain else (lower, upper)
    raw = RawBatch(plain, assembly.stated, rule, *ends, assembly.cells.weights, ranks)
    return raw, here if ranks is None else RankPasses(here, ranks)


def _check_bounds(constraints: Sequence[Constraint], assembly: Assembly, box: Box) -> None:
    if box.lower_tensor is not None or box.upper_tensor is not None:
        name = constraints[assembly.owners[len(assembly.slabs.blocks)]].name
        raise InvalidBoundsError(f"{name} takes bounds that are numbers, but one of them is a tensor.")


def _value(given: Tensor | None, checked: float | Tensor | None) -> float | Tensor | None:
    """Return a bound without graph or transform around it."""
    if given is None:
        return checked
    plain = plain_tensor(given)
    return float(plain) if plain.ndim == 0 else plain


def _infeasible(
    clash: ClashingFaces, constraints: Sequence[Constraint], assembly: Assembly, box: Box
) -> InfeasibleConstraintsError:
    if not clash.faces:  # pairs of samples take part, and no few faces say it
        among = " and ".join(constraint.name for constraint in constraints)
        return InfeasibleConstraintsError(
            f"no predictions meet {among} together, within the bounds: people who are alike cannot get predictions as "
            "far apart as the groups ask for. Loosen the tolerance of one, or raise the constant; "
            'on_infeasible="relax" does not widen what is asked of pairs.'
        )
    names = dict.fromkeys(constraints[assembly.owners[face.key[0]]].name for face in clash.faces)
    statements = "; ".join(dict.fromkeys(assembly.describe(face) for face in clash.faces))
    within = "" if box.lower is None and box.upper is None else f" within the bounds ({box.lower}, {box.upper})"
    asked = " and ".join(names) + (" together" if len(names) > 1 else "")
    return InfeasibleConstraintsError(
        f"no predictions{within} meet {asked}; clashing statements: {statements}. "
        'Loosen one of them, or use on_infeasible="relax" for the smallest widening.'
    )


def _check_finite(passes: Passes, scores: Tensor) -> None:
    size = passes.size
    if size < _LARGEST:
        return
    if math.isfinite(size):
        raise NonFiniteScoresError(f"scores go up to {size:.3g}, but must stay below {_LARGEST:g}; rescale them.")
    check_finite(scores)


def check_finite(scores: Tensor) -> None:
    """Refuse scores that are NaN or infinite.

    Raises:
        NonFiniteScoresError: some are.
    """
    bad = int((~torch.isfinite(scores)).sum())
    if not bad:
        return
    raise NonFiniteScoresError(
        f"{bad} of {len(scores)} scores are NaN or infinite. Look for a diverged backbone, a log of 0, or missing "
        "values in its input."
    )


def result_dtype(scores: Tensor) -> torch.dtype:
    """Return the dtype of a result: float64 stays, and all else becomes float32, since half cannot promise 1e-6."""
    return torch.float64 if scores.dtype == torch.float64 else torch.float32
