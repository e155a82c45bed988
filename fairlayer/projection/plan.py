"""Projection of scores onto affine fairness constraints: the differentiable function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import host_float64, transforming
from fairlayer.collective import Ranks
from fairlayer.constraints import Batch, Constraint, without_convex
from fairlayer.edge import (
    Bounds,
    Box,
    as_columns,
    as_constraints,
    check_alike,
    check_choice,
    pick,
    read_groups,
    read_per_sample,
)
from fairlayer.errors import BackendError
from fairlayer.groups import Vocabulary
from fairlayer.projection.assembly import Assembly, assemble
from fairlayer.projection.exact import solve_exactly
from fairlayer.projection.result import Projection, SolvedColumn

__all__ = ["Plan", "project"]

_Backend = Callable[[Tensor, Sequence[Constraint], Assembly, Batch, Box, bool], tuple[Tensor, SolvedColumn]]


def project(
    scores: Tensor,
    constraints: Sequence[Constraint],
    *,
    sensitive_features: Any = None,
    y: Any = None,
    bounds: Bounds = None,
    margin: float = 0.0,
    label_probabilities: Any = None,
    on_empty: str = "skip",
    on_infeasible: str = "raise",
    backend: str = "exact",
    vocabulary: Vocabulary | None = None,
    process_group: Any = None,
) -> Projection:
    """Return the nearest predictions that meet every constraint and the bounds, differentiably.

        minimise 1/2 |value - scores|^2   subject to   lower <= C mean(value) <= upper,   bounds

    Args:
        scores: (n,), (n, 1), or (n, k) for k independent scores; float16/bfloat16 are computed and returned as
            float32, whose rounding the promised accuracy needs.
        constraints: what must hold for the mean predictions of this batch.
        sensitive_features: dict of name -> column, a frame, or an integer tensor (n,) or (n, a) in the order in
            which the constraints name them. NaN, None and -1 mean unknown.
        y: labels (n,) (or of the shape of the scores), for constraints that look at labels.
        bounds: (lower, upper), each None, a number, or a tensor (0-d or (n,)) that may take a gradient.
        margin: inner box: bounds become (lower + margin, upper - margin), so that a log loss keeps its gradient.
        label_probabilities: estimates of the labels (n,) in [0, 1], used where y is None.
        on_empty: "skip" (a group without samples constrains nothing, and is recorded) or "raise".
        on_infeasible: "raise", or "relax" by the smallest widening of all limits, which the result states.
        backend: "exact", or "cvxpylayers", the reference.
        vocabulary: known categories; without one, those of this batch.
        process_group: None: the samples here are the batch. "world", or a torch.distributed group: the batch is that
            of all its processes together. Every process must then project, and go backward, equally often.

    Raises:
        FairlayerError: a named subclass; see `fairlayer.errors`.

    Source: Amos, Kolter (2017) for the layer; the reduction to one shift per cell is this package's.

    Example:
        >>> import torch, fairlayer as fl
        >>> scores = torch.tensor([0.9, 0.7, 0.2, 0.4], requires_grad=True)
        >>> result = fl.project(scores, [fl.DemographicParity("sex", tolerance=0.1)],
        ...                     sensitive_features={"sex": ["F", "F", "M", "M"]}, bounds=(0.0, 1.0))
        >>> [round(v, 3) for v in result.shift.tolist()], result.certificate.holds
        ([-0.2, 0.2], True)
    """
    plan = Plan(
        constraints,
        bounds=bounds,
        margin=margin,
        on_empty=on_empty,
        on_infeasible=on_infeasible,
        backend=backend,
        process_group=process_group,
    )
    return plan.run(scores, sensitive_features, y, label_probabilities, vocabulary)


class Plan:
    """What stays the same from batch to batch, checked once; arguments as for `project`."""

    def __init__(
        self,
        constraints: Sequence[Constraint],
        *,
        bounds: Bounds,
        margin: float,
        on_empty: str,
        on_infeasible: str,
        backend: str,
        process_group: Any = None,
    ) -> None:
        self.constraints = as_constraints(constraints)
        self.names = _unique(self.constraints)
        self.bounds, self.margin = bounds, margin
        self._box = _fixed_box(bounds, margin)
        self.on_empty = check_choice("on_empty", on_empty, ("skip", "raise"))
        self.relax = check_choice("on_infeasible", on_infeasible, ("raise", "relax")) == "relax"
        self.backend = check_choice("backend", backend, ("exact", "cvxpylayers"))
        self.stated = self.constraints if self.backend == "exact" else without_convex(self.constraints)
        self.ranks = Ranks.of(process_group)
        if self.ranks is not None and self.backend != "exact":
            raise BackendError(f'backend="{backend}" sees one process only; use backend="exact" with a process_group.')

    def run(
        self,
        scores: Tensor,
        sensitive_features: Any,
        y: Any,
        label_probabilities: Any,
        vocabulary: Vocabulary | None,
        *,
        alone: bool = False,
    ) -> Projection:
        """Project one batch; arguments as for `project`. `alone`: this process by itself, whatever its group."""
        run = self._run if alone or self.ranks is None else self._run_together
        if torch.compiler.is_compiling():  # the solver is no graph: break the graph here
            outside: Callable[..., Projection] = torch.compiler.disable(run)  # type: ignore[no-untyped-call]
            return outside(scores, sensitive_features, y, label_probabilities, vocabulary)
        return run(scores, sensitive_features, y, label_probabilities, vocabulary)

    def _run_together(
        self, scores: Tensor, sensitive_features: Any, y: Any, label_probabilities: Any, vocabulary: Vocabulary | None
    ) -> Projection:
        assert self.ranks is not None
        with self.ranks.together():
            if transforming():
                raise BackendError("torch.func transforms cannot reach other processes; use process_group=None there.")
            return self._run(scores, sensitive_features, y, label_probabilities, vocabulary, self.ranks)

    def _run(  # noqa: PLR0917 - as `project`
        self,
        scores: Tensor,
        sensitive_features: Any,
        y: Any,
        label_probabilities: Any,
        vocabulary: Vocabulary | None,
        ranks: Ranks | None = None,
    ) -> Projection:
        columns = as_columns(scores, empty=ranks is not None)
        n, shape = len(columns[0]), tuple(scores.shape)
        groups = read_groups(sensitive_features, self.constraints, n, vocabulary, ranks)
        box = self._box or Box.read(self.bounds, self.margin, columns[0])
        labels = read_per_sample("y", y, shape)
        estimates = read_per_sample("label_probabilities", label_probabilities, shape)
        if ranks is not None:
            check_alike(ranks, self.names, columns, box, groups, y=labels, label_probabilities=estimates)
        solve_column = _backend(self.backend)
        values, solved = [], []
        for j, column in enumerate(columns):
            batch = Batch(groups, n, pick(labels, j), pick(estimates, j), partial(host_float64, column), ranks=ranks)
            assembly = assemble(self.stated, batch, on_empty=self.on_empty)
            value, outcome = solve_column(column, self.constraints, assembly, batch, box, self.relax)
            values.append(value)
            solved.append(outcome)
        value = values[0] if scores.ndim == 1 else torch.stack(values, dim=1)
        return Projection(value, self.names, tuple(solved), groups)


def _fixed_box(bounds: Bounds, margin: float) -> Box | None:
    """Return the box where it depends on no batch; tensors may change between batches, or take a gradient."""
    if isinstance(bounds, tuple | list) and any(isinstance(bound, Tensor | np.ndarray) for bound in bounds):
        return None
    return Box.read(bounds, margin, torch.empty(0))


def _backend(name: str) -> _Backend:
    if name == "exact":
        return solve_exactly
    from fairlayer.projection.reference import solve_by_reference

    return solve_by_reference


def _unique(constraints: Sequence[Constraint]) -> tuple[str, ...]:
    """Return the constraints' names, numbered from the second of the same name on."""
    names = [constraint.name for constraint in constraints]
    if len(set(names)) == len(names):
        return tuple(names)
    numbers = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return tuple(name if k == 1 else f"{name} #{k}" for name, k in zip(names, numbers, strict=True))
