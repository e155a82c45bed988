"""The exact backend: one column of scores, solved in the space of its cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import without_derivatives
from fairlayer._typing import FloatArray
from fairlayer.constraints import Batch, Constraint
from fairlayer.edge import Box
from fairlayer.errors import InfeasibleConstraintsError, NonFiniteScoresError, SolverError
from fairlayer.passes import Passes, RankPasses, make_passes
from fairlayer.projection.assembly import Assembly
from fairlayer.projection.autograd import Job, differentiable_solve
from fairlayer.projection.certificate import Certificate, certify
from fairlayer.solve import ClashingFaces, SlabSystem, Solved, solve

__all__ = ["ExactColumn", "solve_exactly"]

_LARGEST = 1e100  # squares and sums must not overflow


class ExactColumn:
    """A column solved in the space of its cells."""

    def __init__(self, assembly: Assembly, job: Job, value: Tensor) -> None:
        self.assembly, self.job, self.value = assembly, job, value

    @cached_property
    def certificate(self) -> Certificate:
        return certify(self.job.passes, self.job.solved.slabs, self.job.solved.solution, self.value)

    @property
    def widening(self) -> float:
        return self.job.solved.widening

    @property
    def passes(self) -> int:
        return self.job.solved.solution.passes

    @property
    def rows(self) -> int:
        return self.job.passes.n

    @cached_property
    def changed(self) -> bool:
        solution = self.job.solved.solution
        clipped = solution.unclipped is not None and not bool(solution.unclipped.all())
        return bool(solution.faces) or clipped

    def settle(self) -> None:
        """Work out now what takes an exchange between processes, so that any of them may read it by itself."""
        self.__dict__["changed"] = self.certificate.distance > 0 or bool(self.job.solved.solution.faces)

    def prices(self) -> FloatArray:
        """One price per constraint."""
        prices = np.zeros(self.assembly.constraints)
        for owner, _, multiplier in self.active():
            prices[owner] += multiplier
        return prices

    def shift(self) -> FloatArray:
        """One shift per statistic."""
        k = len(self.assembly.cells.counts)
        nu = self.job.solved.solution.nu
        return 0.0 - np.append(nu[:k] / self.assembly.cells.counts, nu[k:])

    def active(self) -> list[tuple[int, str, float]]:
        """(constraint, statement, multiplier) of each face that holds with equality."""
        solution = self.job.solved.solution
        return [
            (self.assembly.owners[face.key[0]], self.assembly.describe(face), float(multiplier) / face.scale)
            for face, multiplier in zip(solution.faces, solution.multipliers, strict=True)
        ]


def solve_exactly(  # noqa: PLR0917 - the signature of a backend
    scores: Tensor, constraints: Sequence[Constraint], assembly: Assembly, batch: Batch, box: Box, relax: bool
) -> tuple[Tensor, ExactColumn]:
    def run(plain: Tensor, lower: Tensor | None, upper: Tensor | None) -> tuple[Tensor, Passes, Solved]:
        here = make_passes(plain, assembly.cells, _value(lower, box.lower), _value(upper, box.upper))
        _check_finite(here, plain)
        passes = here if batch.ranks is None else RankPasses(here, batch.ranks)
        try:
            solved = solve(passes, assembly.slabs, relax=relax)
        except ClashingFaces as clash:
            raise _infeasible(_fewest(clash, passes, assembly), constraints, assembly, box) from None
        return passes.export(solved.solution.value, result_dtype(plain)), passes, solved

    tolerances, blocks = _differentiable_tolerances(assembly, scores)
    job = Job(run, blocks)
    value = differentiable_solve(scores, box.lower_tensor, box.upper_tensor, tolerances, job)
    column = ExactColumn(assembly, job, value.detach())
    if batch.ranks is not None:
        column.settle()
    return value, column


def _value(given: Tensor | None, checked: Any) -> Any:
    """A bound in the form in which the operation receives it, which is plain even inside a transform."""
    if given is None:
        return checked
    plain = without_derivatives(given)
    return float(plain) if plain.ndim == 0 else plain


def _differentiable_tolerances(assembly: Assembly, scores: Tensor) -> tuple[Tensor | None, list[int]]:
    tensors: list[Tensor] = []
    blocks: list[int] = []
    for block, statement in enumerate(assembly.statements):
        tolerance = statement.tolerance
        if isinstance(tolerance, Tensor):  # it may take a gradient, or carry a tangent that no flag shows
            tensors.append(tolerance.to(device=scores.device, dtype=torch.float64))
            blocks.append(block)
    return (torch.stack(tensors) if tensors else None), blocks


def _fewest(clash: ClashingFaces, passes: Passes, assembly: Assembly) -> ClashingFaces:
    """Leave out constraints without which the others clash still, so that an error names nobody in vain."""
    owners = list(dict.fromkeys(assembly.owners[f.key[0]] for f in clash.faces if f.key[0] < len(assembly.owners)))
    for owner in tuple(owners):
        others = [other for other in owners if other != owner]
        blocks = [b for b, of in zip(assembly.slabs.blocks, assembly.owners, strict=True) if of in others]
        try:
            solve(passes, SlabSystem(blocks))
        except ClashingFaces:
            owners = others
        except SolverError:
            continue
    faces = [f for f in clash.faces if f.key[0] >= len(assembly.owners) or assembly.owners[f.key[0]] in owners]
    return ClashingFaces(faces)


def _infeasible(
    clash: ClashingFaces, constraints: Sequence[Constraint], assembly: Assembly, box: Box
) -> InfeasibleConstraintsError:
    known = [face for face in clash.faces if face.key[0] < len(assembly.owners)]
    names = dict.fromkeys(constraints[assembly.owners[face.key[0]]].name for face in known)
    statements = "; ".join(dict.fromkeys(assembly.describe(face) for face in known))
    within = "" if box.lower is None and box.upper is None else f" within the bounds ({box.lower}, {box.upper})"
    return InfeasibleConstraintsError(
        f"no predictions{within} meet {' and '.join(names)} together; clashing statements: {statements}. "
        'Loosen one of them, or use on_infeasible="relax" for the smallest widening.'
    )


def _check_finite(passes: Passes, scores: Tensor) -> None:
    size = passes.size
    if size < _LARGEST:
        return
    if math.isfinite(size):
        raise NonFiniteScoresError(f"scores go up to {size:.3g}, but must stay below {_LARGEST:g}; rescale them.")
    bad = int((~torch.isfinite(scores)).sum())
    raise NonFiniteScoresError(
        f"{bad} of {len(scores)} scores are NaN or infinite. Look for a diverged backbone, a log of 0, or missing "
        "values in its input."
    )


def result_dtype(scores: Tensor) -> torch.dtype:
    """float64 stays; everything else is returned as float32, which half precision could not promise 1e-6 in."""
    return torch.float64 if scores.dtype == torch.float64 else torch.float32
