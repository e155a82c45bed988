"""Projection of scores onto affine fairness constraints: the differentiable function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairlayer._arrays import hidden_batch, outside_transforms, transforming
from fairlayer.collective import Ranks
from fairlayer.constraints import Batch, Constraint, without_convex
from fairlayer.constraints.varying import copy_at_limit
from fairlayer.edge import (
    Bounds,
    Box,
    OnceWarner,
    Stated,
    as_constraints,
    warn_of_unmeant,
)
from fairlayer.errors import BackendError
from fairlayer.geometry import Geometry
from fairlayer.groups import Vocabulary
from fairlayer.passes import Passes
from fairlayer.projection.assembly import Assembly, assemble
from fairlayer.projection.certificate import RawBatch
from fairlayer.projection.device import DeviceCall
from fairlayer.projection.exact import HeldSolution, pose, project_exactly, result_dtype
from fairlayer.projection.lean import LeanCall
from fairlayer.projection.options import Options
from fairlayer.projection.reading import BatchReader
from fairlayer.projection.result import Projection, SolvedProblem

__all__ = ["Plan", "PosedProblem", "project"]


def project(
    scores: Any,
    constraints: Stated,
    *,
    sensitive_features: Any = None,
    y: Any = None,
    sample_weight: Any = None,
    bounds: Bounds | str = None,
    margin: float = 0.0,
    geometry: str | Geometry = "euclidean",
    from_logits: bool = False,
    label_probabilities: Any = None,
    on_empty: str = "skip",
    on_infeasible: str = "raise",
    backend: str = "exact",
    vocabulary: Vocabulary | None = None,
    process_group: Any = None,
) -> Projection:
    """Return the nearest predictions that meet every constraint and the bounds, differentiably.

        minimise sum_i weight_i d(value_i, score_i)   subject to   lower <= C mean(value) <= upper,   bounds

    Args:
        scores: tensor or array (n,), (n, 1), or (n, k) for k independent scores, or for k classes with
            `bounds="simplex"`; float16 and bfloat16 are computed and returned as float32, whose rounding the promised
            accuracy needs.
        constraints: what must hold for the mean predictions of this batch: a constraint, its text, or a list of them.
        sensitive_features: dict of name -> column, a frame, or an integer tensor (n,) or (n, a) in the order in
            which the constraints name them. NaN, None and -1 mean unknown.
        y: labels (n,) (or of the shape of the scores), for constraints that look at labels; with `bounds="simplex"`
            class labels 0, ..., k - 1.
        sample_weight: (n,), >= 0: how many samples each row stands for, in the means and in the distance. It takes no
            gradient.
        bounds: (lower, upper), each None, a number, or a tensor (0-d or (n,)) that may take a gradient; or "simplex":
            each row of scores (n, k) stays a vector of class probabilities. Geometries of probabilities imply (0, 1).
        margin: inner box: bounds become (lower + margin, upper - margin), so that a log loss keeps its gradient. In a
            geometry of probabilities it is how far scores of 0 and 1 are first moved inwards; where it is 0, by the
            resolution of the dtype.
        geometry: what nearest means. "euclidean": d = 1/2 (value - score)^2, each cell shifted and clipped.
            "entropic": d = KL(value given score), each cell's log-odds shifted. "likelihood": d = KL(score given
            value), the excess log loss. Take the one that matches the loss.
        from_logits: the scores are log-odds (logits of the classes, with `bounds="simplex"`); what is returned are
            probabilities.
        label_probabilities: estimates of the labels (n,) in [0, 1], used where y is None.
        on_empty: "skip" (a group without samples constrains nothing, and is recorded) or "raise".
        on_infeasible: "raise", or "relax" by the smallest widening of all limits, which the result states.
        backend: "exact", or "cvxpylayers", the reference.
        vocabulary: known categories; without one, those of this batch.
        process_group: None: the samples here are the batch. "world", or a torch.distributed group: the batch is that
            of all its processes together. Every process must then project, and go backward, equally often.

    Raises:
        FairlayerError: a named subclass; see `fairlayer.errors`.

    Source: Amos, Kolter (2017) for the layer; Csiszar (1975) for the entropic projection; the reduction to one shift
        per cell is this package's.

    Example:
        >>> import torch, fairlayer as fl
        >>> scores = torch.tensor([0.9, 0.7, 0.2, 0.4], requires_grad=True)
        >>> result = fl.project(scores, [fl.DemographicParity("sex", tolerance=0.1)],
        ...                     sensitive_features={"sex": ["F", "F", "M", "M"]}, bounds=(0.0, 1.0))
        >>> [round(v, 3) for v in result.shift.tolist()], result.certificate.holds
        ([-0.2, 0.2], True)
    """
    options = Options(
        bounds=bounds,
        margin=margin,
        geometry=geometry,
        from_logits=from_logits,
        on_empty=on_empty,
        on_infeasible=on_infeasible,
        backend=backend,
        process_group=process_group,
    )
    return Plan(constraints, options).run(
        scores,
        sensitive_features,
        y,
        label_probabilities=label_probabilities,
        sample_weight=sample_weight,
        vocabulary=vocabulary,
    )


class Plan:
    """Constraints and options, checked once, ready for any number of batches.

    Example:
        >>> import torch, fairlayer as fl
        >>> plan = Plan([fl.DemographicParity("sex", tolerance=0.1)])
        >>> plan.run(torch.tensor([0.9, 0.3]), {"sex": ["F", "M"]}, None).value
        tensor([0.6500, 0.5500])
    """

    def __init__(self, constraints: Stated, options: Options | None = None) -> None:
        self.constraints = as_constraints(constraints)
        self.names = _unique(self.constraints)
        self.options = options or Options()
        self.once = OnceWarner()
        self.reader = BatchReader(self.constraints, self.names, self.options)
        self.stated = self.constraints if self.options.backend == "exact" else without_convex(self.constraints)

    def run(
        self,
        scores: Any,
        sensitive_features: Any,
        y: Any,
        *,
        label_probabilities: Any = None,
        sample_weight: Any = None,
        vocabulary: Vocabulary | None = None,
        alone: bool = False,
    ) -> Projection:
        """Project one batch; arguments as for `project`. `alone`: this process by itself, whatever its group."""
        if isinstance(scores, Tensor) and transforming() and hidden_batch(scores)[1] is not None:
            from fairlayer.projection.many.vmapped import project_hidden

            return project_hidden(  # type: ignore[return-value]
                scores, self.constraints, self.options, sensitive_features, y, sample_weight, vocabulary
            )
        here = alone or self.options.ranks is None
        run: Callable[..., Projection] = self._run if here else partial(self._together, self._run)
        if torch.compiler.is_compiling():  # the solver is not a graph: break the graph here
            outside: Callable[..., Projection] = torch.compiler.disable(run)  # type: ignore[no-untyped-call]
            run = outside
        return run(scores, sensitive_features, y, label_probabilities, sample_weight, vocabulary)

    @cached_property
    def lean(self) -> LeanCall | None:
        """The lean way, where constraints and options have one; it serves the batches that it can."""
        return LeanCall(self) if LeanCall.fits(self) else None

    @cached_property
    def on_device(self) -> DeviceCall | None:
        """The way on a device that never waits for it, where constraints and options have one."""
        return DeviceCall(self) if DeviceCall.fits(self) else None

    def resume(
        self,
        scores: Tensor,
        features: Any,
        vocabulary: Vocabulary,
        found: Sequence[HeldSolution],
        *,
        y: Any = None,
        label_probabilities: Any = None,
        sample_weight: Any = None,
    ) -> Projection:
        """Return the result of a batch whose solution is known, one for each problem that it holds."""
        return self._run(scores, features, y, label_probabilities, sample_weight, vocabulary, found=found)

    def at_limits(self, limits: Sequence[float | None]) -> Plan:
        """Return the plan as it was when the limits of its constraints were these (None: as they are now)."""
        if all(
            limit is None or rule.limit_value() == limit for rule, limit in zip(self.constraints, limits, strict=True)
        ):
            return self
        then = [
            rule if limit is None else copy_at_limit(rule, limit)
            for rule, limit in zip(self.constraints, limits, strict=True)
        ]
        return type(self)(then, self.options)

    def pose(self, *inputs: Any) -> PosedProblem | None:
        """Return one batch as a solver sees it, unsolved; None where it is not one column for the exact backend.

        The batch is read, and its user is told what `project` would tell. Inputs as `BatchReader.read` takes them.
        """
        pose = self._posed if self.options.ranks is None else partial(self._together, self._posed)
        return pose(*inputs)

    def _posed(self, *inputs: Any, ranks: Ranks | None = None) -> PosedProblem | None:
        read, options = self.reader.read(*inputs, ranks=ranks), self.options
        if len(read.columns) != 1 or options.backend != "exact" or options.on_simplex:
            return None
        assembly = assemble(self.stated, read.views[0], on_empty=options.on_empty, once=self.once)
        x = self._coordinates(read.columns[0])
        with outside_transforms():
            raw, passes = pose(x, self.constraints, assembly, read.box, options, owned=x is not read.columns[0])
        self._warn(read.scores, [assembly], read.box)
        return PosedProblem(assembly, raw, passes)

    def _together(self, run: Callable[..., Any], *inputs: Any) -> Any:
        ranks = self.options.ranks
        assert ranks is not None
        with ranks.together():
            if transforming():
                raise BackendError("torch.func transforms cannot reach other processes; use process_group=None there.")
            return run(*inputs, ranks=ranks)

    def _run(self, *inputs: Any, ranks: Ranks | None = None, found: Sequence[HeldSolution] | None = None) -> Projection:
        read = self.reader.read(*inputs, ranks=ranks)
        value, solved = self._solve(read.scores, read.columns, read.views, found)
        if found is None:
            self._warn(read.scores, [column.assembly for column in solved], read.box)
            self._warn_if_clipped(value, solved)
        return Projection(
            value, self.names, solved, read.groups, options=self.options, labels=read.labels, at_the_ends=read.ends
        )

    def _warn(self, scores: Tensor, parts: Sequence[Assembly], box: Box) -> None:
        """Tell the user, once each, of statements that cannot be meant."""
        options = self.options
        stated = (
            (self.constraints[owner], statement)
            for part in parts
            for owner, (statement, _) in zip(part.owners, part.stated, strict=True)
        )
        warn_of_unmeant(scores, stated, box, self.once, simplex=options.on_simplex, from_logits=options.from_logits)

    def _warn_if_clipped(self, value: Tensor, solved: Sequence[SolvedProblem]) -> None:
        """Tell the user, once, of a batch that a bound holds whole."""
        if value.requires_grad and all(column.clipped == len(value) for column in solved):
            self.once.warn(
                "clipped",
                f"every one of the {len(value)} predictions of this batch is held by a bound, so that no gradient "
                "reaches the scores, and training stands still. Look at the scale of the scores: logits need a sigmoid "
                "(or from_logits=True in the entropic geometry), other scores a better start.",
            )

    def _solve(
        self, scores: Tensor, columns: Sequence[Tensor], views: Sequence[Batch], found: Sequence[HeldSolution] | None
    ) -> tuple[Tensor, tuple[SolvedProblem, ...]]:
        options, dtype, coordinates = self.options, result_dtype(scores), self._coordinates
        if options.on_simplex:
            assembly = assemble(self.stated, views[0], on_empty=options.on_empty, classes=views, once=self.once)
            box = options.box(columns[0])
            known = None if found is None else found[0]
            value, one = project_exactly(coordinates(scores), dtype, self.constraints, assembly, box, options, known)
            return value, (one,)
        values, solved = [], []
        for j, (column, view) in enumerate(zip(columns, views, strict=True)):
            of = j if len(columns) > 1 else None
            assembly = assemble(self.stated, view, on_empty=options.on_empty, column=of, once=self.once)
            box = options.box(column)
            outcome: SolvedProblem
            if options.backend == "exact":
                x, stated = coordinates(column), self.constraints
                known = None if found is None else found[j]
                value, outcome = project_exactly(x, dtype, stated, assembly, box, options, known, owned=x is not column)
            else:
                from fairlayer.projection.reference import solve_by_reference

                value, outcome = solve_by_reference(column, self.constraints, assembly, box, options.relax)
            values.append(value)
            solved.append(outcome)
        return (values[0] if scores.ndim == 1 else torch.stack(values, dim=1)), tuple(solved)

    def _coordinates(self, scores: Tensor) -> Tensor:
        """Return scores in the coordinate of the geometry."""
        options = self.options
        return options.rule.coordinates(scores, from_logits=options.from_logits, margin=options.margin)


class PosedProblem(NamedTuple):
    """One column of scores, read and not solved."""

    assembly: Assembly
    raw: RawBatch
    passes: Passes


def _unique(constraints: Sequence[Constraint]) -> tuple[str, ...]:
    """Return the constraints' names, numbered from the second of the same name on."""
    names = [constraint.name for constraint in constraints]
    if len(set(names)) == len(names):
        return tuple(names)
    numbers = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return tuple(name if k == 1 else f"{name} #{k}" for name, k in zip(names, numbers, strict=True))
