"""Projection of scores onto affine fairness constraints: the differentiable function, its result, the module."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fairlayer._typing import FloatArray
from fairlayer.assembly import Assembly, assemble
from fairlayer.constraints import Batch, Constraint
from fairlayer.errors import (
    BackendError,
    EmptyBatchError,
    InfeasibleConstraintsError,
    InvalidBoundsError,
    NonFiniteScoresError,
    ShapeError,
)
from fairlayer.groups import Groups, Vocabulary, read_sensitive_features
from fairlayer.solve import Certificate, ClashingFaces, Passes, Solved, certify, make_passes, solve
from fairlayer.solve.derivative import Job, differentiable_solve

__all__ = ["ActiveSlab", "FairProjection", "Projection", "project"]

Bound = float | Tensor | None
Bounds = tuple[Bound, Bound] | None


@dataclass(frozen=True)
class ActiveSlab:
    """A statement that holds with equality, and its multiplier (loss per unit of its limit, >= 0)."""

    constraint: str
    statement: str
    multiplier: float


class SolvedColumn(Protocol):
    """One projected column of scores, whichever backend solved it."""

    assembly: Assembly

    @property
    def certificate(self) -> Certificate: ...
    @property
    def widening(self) -> float: ...
    @property
    def passes(self) -> int: ...
    @property
    def changed(self) -> bool: ...
    def prices(self) -> FloatArray: ...
    def shift(self) -> FloatArray: ...
    def active(self) -> list[tuple[int, str, float]]: ...


@dataclass(frozen=True)
class _ExactColumn:
    """A column solved in the space of its cells."""

    assembly: Assembly
    job: Job
    value: Tensor  # (n,), detached

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
    def changed(self) -> bool:
        solution = self.job.solved.solution
        clipped = solution.unclipped is not None and not bool(solution.unclipped.all())
        return bool(solution.faces) or clipped

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
        return -np.append(nu[:k] / self.assembly.cells.counts, nu[k:])

    def active(self) -> list[tuple[int, str, float]]:
        """(constraint, statement, multiplier) of each face that holds with equality."""
        solution = self.job.solved.solution
        return [
            (self.assembly.owners[face.key[0]], self.assembly.describe(face), float(multiplier))
            for face, multiplier in zip(solution.faces, solution.multipliers, strict=True)
        ]


@dataclass(frozen=True)
class Projection:
    """A projected batch, with what it cost and the proof.

    Args:
        value: predictions, of the shape and device of the scores; same dtype (float32 for half precision).
        names: name of each constraint.
        columns: one solved problem per column of scores.
        groups: the groups of the batch.
    """

    value: Tensor
    names: tuple[str, ...]
    columns: tuple[SolvedColumn, ...]
    groups: Groups

    @property
    def status(self) -> str:
        """`unchanged` (the scores met the constraints), `projected`, or `relaxed` (limits were widened)."""
        if self.widening > 0:
            return "relaxed"
        return "projected" if any(column.changed for column in self.columns) else "unchanged"

    @cached_property
    def multipliers(self) -> dict[str, Tensor]:
        """Price of each constraint: minus the derivative of the optimal `1/2 |value - scores|^2` by its tolerance.

        The sum of its slabs' multipliers, in squared prediction units per unit of tolerance; 0-d, or (k,) for k
        columns of scores.
        """
        prices = np.array([column.prices() for column in self.columns])
        return {name: self._per_column(prices[:, j]) for j, name in enumerate(self.names)}

    @cached_property
    def shift(self) -> Tensor:
        """How far each cell was moved, in prediction units: `value = clip(scores + shift[cell])`.

        Shape (cells,), or (cells, k); named by `cells`. For a dense row (a covariance, label estimates) it is the
        amount per unit of the row's weight.
        """
        return self._per_column(np.array([column.shift() for column in self.columns]).T, axis=1)

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the cells, in the order of `shift`."""
        return self.columns[0].assembly.cell_names

    @property
    def counts(self) -> dict[str, int]:
        """Samples in each cell (0 for a dense row)."""
        cells = self.columns[0].assembly.cells
        codes = np.zeros(0, dtype=np.int64) if cells.codes is None else cells.codes
        counts = np.bincount(codes, minlength=len(cells.counts))
        return dict(zip(self.cells, (int(c) for c in counts), strict=False))

    @cached_property
    def certificate(self) -> Certificate:
        """Proof on the returned value; the worst over columns of scores."""
        each = [column.certificate for column in self.columns]
        return Certificate(
            violation=max(c.violation for c in each),
            bound_violation=max(c.bound_violation for c in each),
            duality_gap=max(c.duality_gap for c in each),
            distance=math.sqrt(sum(c.distance**2 for c in each)),
            atol=min(c.atol for c in each),
        )

    @cached_property
    def active(self) -> tuple[ActiveSlab, ...]:
        """The statements that hold with equality, with their multipliers."""
        return tuple(
            ActiveSlab(self.names[owner], statement, multiplier)
            for column in self.columns
            for owner, statement, multiplier in column.active()
        )

    @property
    def absent(self) -> tuple[tuple[str, str], ...]:
        """Groups that a constraint compares and this batch lacks, as (constraint, group)."""
        return self.columns[0].assembly.absent

    @property
    def unknown(self) -> dict[str, int]:
        """Samples of unknown category, per sensitive feature; no constraint on that feature moves them."""
        return self.groups.unknown_counts()

    @property
    def widening(self) -> float:
        """By how much every limit was widened (0 unless `on_infeasible="relax"` had to)."""
        return max(column.widening for column in self.columns)

    @property
    def passes(self) -> int:
        """Passes over the batch that the solver took; the most over columns of scores."""
        return max(column.passes for column in self.columns)

    def _per_column(self, array: FloatArray, axis: int = 0) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor if self.value.ndim == 2 and self.value.shape[1] > 1 else tensor.select(axis, 0)


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
    constraints = tuple(constraints)
    flat = _check_scores(scores)
    groups = _read_groups(sensitive_features, constraints, len(flat), vocabulary)
    check_choice("on_empty", on_empty, ("skip", "raise"))
    check_choice("on_infeasible", on_infeasible, ("raise", "relax"))
    box = Box.read(bounds, margin, flat)
    labels = _read_per_sample("y", y, flat)
    estimates = _read_per_sample("label_probabilities", label_probabilities, flat)
    solve_column = _backend(backend)
    values, columns = [], []
    for j, column in enumerate(flat.unbind(1)):
        batch = Batch(groups, len(flat), _pick(labels, j), _pick(estimates, j), partial(_to_numpy, column))
        assembly = assemble(constraints, batch, on_empty=on_empty)
        value, solved = solve_column(column, constraints, assembly, batch, box, on_infeasible == "relax")
        values.append(value)
        columns.append(solved)
    value = values[0] if len(values) == 1 else torch.stack(values, dim=1)
    return Projection(value.reshape(scores.shape), _unique(constraints), tuple(columns), groups)


@dataclass(frozen=True)
class Box:
    """Bounds on every prediction: what the solver reads, and the tensors that take a gradient."""

    lower: Any = None  # None, float, or float64 tensor (n,)
    upper: Any = None
    lower_tensor: Tensor | None = None
    upper_tensor: Tensor | None = None

    @staticmethod
    def read(bounds: Bounds, margin: float, scores: Tensor) -> Box:
        """Check bounds and margin, and move the bounds inwards by the margin."""
        if not (isinstance(margin, int | float) and math.isfinite(margin) and margin >= 0):
            raise InvalidBoundsError(f"margin must be a number >= 0, but is {margin!r}.")
        if bounds is None:
            if margin:
                raise InvalidBoundsError(f"margin={margin:g} needs bounds; give bounds=(lower, upper) or margin=0.")
            return Box()
        if not isinstance(bounds, tuple | list) or len(bounds) != 2:
            raise InvalidBoundsError(f"bounds must be (lower, upper), each None or a number, but is {bounds!r}.")
        inner = (_moved(bounds[0], margin), _moved(bounds[1], -margin))
        lower, upper = (_bound("lower", bound, scores) for bound in inner)
        if lower is not None and upper is not None and _any_above(lower, upper):
            raise InvalidBoundsError(
                f"bounds must have lower <= upper, but they are {bounds} with margin={margin:g}. "
                "Swap them, or give a smaller margin."
            )
        if isinstance(lower, Tensor) or isinstance(upper, Tensor):
            lower, upper = _as_vector(lower, scores), _as_vector(upper, scores)
        return Box(lower, upper, *(_differentiable(bound, scores) for bound in inner))


def _moved(bound: Bound, by: float) -> Bound:
    return bound if bound is None or by == 0 else bound + by


def _bound(side: str, bound: Bound, scores: Tensor) -> Any:
    if bound is None:
        return None
    tensor = torch.as_tensor(bound).detach().to(torch.float64)
    if tensor.ndim > 1 or (tensor.ndim == 1 and len(tensor) != len(scores)):
        raise InvalidBoundsError(
            f"the {side} bound must be a number or have shape (n,) = ({len(scores)},), but has shape "
            f"{tuple(tensor.shape)}."
        )
    if not torch.isfinite(tensor).all():
        raise InvalidBoundsError(f"the {side} bound must be finite; use None for no bound.")
    return float(tensor) if tensor.ndim == 0 else tensor.to(scores.device)


def _any_above(lower: Any, upper: Any) -> bool:
    return bool((torch.as_tensor(lower) > torch.as_tensor(upper)).any())


def _as_vector(bound: Any, scores: Tensor) -> Tensor | None:
    if bound is None or isinstance(bound, Tensor):
        return bound
    return torch.full((len(scores),), bound, dtype=torch.float64, device=scores.device)


def _differentiable(bound: Bound, scores: Tensor) -> Tensor | None:
    if isinstance(bound, Tensor) and bound.requires_grad:
        return bound.to(device=scores.device, dtype=torch.float64)
    return None


def _solve_exactly(
    scores: Tensor, constraints: Sequence[Constraint], assembly: Assembly, batch: Batch, box: Box, relax: bool
) -> tuple[Tensor, SolvedColumn]:
    def run(plain: Tensor) -> tuple[Tensor, Passes, Solved]:
        _check_finite(plain)
        passes = make_passes(plain.to(torch.float64, copy=True), assembly.cells, box.lower, box.upper)
        try:
            solved = solve(passes, assembly.slabs, relax=relax)
        except ClashingFaces as clash:
            raise _infeasible(clash, constraints, assembly, box) from None
        value = passes.as_tensor(solved.solution.value).to(_result_dtype(plain), copy=True)
        return value, passes, solved

    tolerances, blocks = _differentiable_tolerances(assembly, scores)
    job = Job(run, blocks)
    value = differentiable_solve(scores, box.lower_tensor, box.upper_tensor, tolerances, job)
    return value, _ExactColumn(assembly, job, value.detach())


def _differentiable_tolerances(assembly: Assembly, scores: Tensor) -> tuple[Tensor | None, list[list[int]]]:
    tensors: list[Tensor] = []
    blocks: list[list[int]] = []
    for block, statement in enumerate(assembly.statements):
        tolerance = statement.tolerance
        if isinstance(tolerance, Tensor) and tolerance.requires_grad:
            tensors.append(tolerance.to(device=scores.device, dtype=torch.float64))
            blocks.append([block])
    return (torch.stack(tensors) if tensors else None), blocks


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


def _check_scores(scores: Tensor) -> Tensor:
    """Return the scores as (n, k)."""
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        found = f"a tensor of {scores.dtype}" if isinstance(scores, Tensor) else type(scores).__name__
        raise ShapeError(f"scores must be a floating tensor (n,), (n, 1) or (n, k), but found {found}.")
    if scores.ndim not in (1, 2):
        raise ShapeError(f"scores must have shape (n,), (n, 1) or (n, k), but have {tuple(scores.shape)}.")
    if scores.numel() == 0:
        raise EmptyBatchError(f"the batch is empty: scores have shape {tuple(scores.shape)}.")
    return scores.unsqueeze(1) if scores.ndim == 1 else scores


def _check_finite(scores: Tensor) -> None:
    if math.isfinite(float(scores.sum())):  # the sum in float64 is finite only if every score is
        return
    bad = int((~torch.isfinite(scores)).sum())
    raise NonFiniteScoresError(
        f"{bad} of {len(scores)} scores are NaN or infinite. Look for a diverged backbone, a log of 0, or missing "
        "values in its input."
    )


def _read_groups(
    features: Any, constraints: Sequence[Constraint], n: int, vocabulary: Vocabulary | None
) -> Groups:
    if features is None:
        return Groups({}, n, vocabulary)
    names = tuple(dict.fromkeys(name for constraint in constraints for name in constraint.features))
    groups = read_sensitive_features(features, names, vocabulary)
    if groups.names and groups.n != n:
        raise ShapeError(f"there are {n} scores, but the sensitive features have {groups.n} entries.")
    return groups


def _read_per_sample(name: str, values: Any, scores: Tensor) -> FloatArray | None:
    """Return labels or their estimates as (n, 1) or (n, k)."""
    if values is None:
        return None
    array = _to_numpy(values) if isinstance(values, Tensor) else np.asarray(values, dtype=np.float64)
    n, k = scores.shape
    if array.shape not in {(n,), (n, k)}:
        raise ShapeError(
            f"{name} must have shape ({n},) or that of the scores, ({n}, {k}), but has shape {array.shape}. "
            "Use .squeeze(-1) or .unsqueeze(-1) to match."
        )
    if not np.isfinite(array).all():
        raise NonFiniteScoresError(f"{name} holds NaN or infinite values; drop or impute those samples.")
    return array.reshape(n, -1)


def _pick(values: FloatArray | None, column: int) -> FloatArray | None:
    return None if values is None else values[:, min(column, values.shape[1] - 1)]


def _to_numpy(tensor: Tensor) -> FloatArray:
    return np.asarray(tensor.detach().cpu().double().numpy())


def _result_dtype(scores: Tensor) -> torch.dtype:
    return torch.float64 if scores.dtype == torch.float64 else torch.float32


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return the value if it is one of the choices."""
    if value not in choices:
        raise BackendError(f"{name} must be one of {', '.join(map(repr, choices))}, but is {value!r}.")
    return value


def _backend(name: str) -> Any:
    check_choice("backend", name, ("exact", "cvxpylayers"))
    if name == "exact":
        return _solve_exactly
    from fairlayer.reference import solve_by_reference

    return solve_by_reference


def _unique(constraints: Sequence[Constraint]) -> tuple[str, ...]:
    """Return the constraints' names, numbered from the second of the same name on."""
    seen: dict[str, int] = {}
    names = []
    for constraint in constraints:
        seen[constraint.name] = seen.get(constraint.name, 0) + 1
        count = seen[constraint.name]
        names.append(constraint.name if count == 1 else f"{constraint.name} #{count}")
    return tuple(names)


class FairProjection(nn.Module):
    """The projection as a layer, for use inside any module.

    Args:
        constraints: what must hold for the mean predictions of each batch.
        bounds: see `project`.
        margin: see `project`.
        on_empty: see `project`.
        on_infeasible: see `project`.
        backend: see `project`.

    The categories of the sensitive features are learnt by `fit_categories`, or from the batches seen in training
    mode (in evaluation mode, from the first batch); they travel in the `state_dict`.

    Example:
        >>> import torch, fairlayer as fl
        >>> layer = fl.FairProjection([fl.DemographicParity("sex", tolerance=0.0)])
        >>> layer(torch.tensor([1.0, 3.0]), sensitive_features={"sex": ["F", "M"]})
        tensor([2., 2.])
    """

    def __init__(
        self,
        constraints: Sequence[Constraint],
        *,
        bounds: Bounds = None,
        margin: float = 0.0,
        on_empty: str = "skip",
        on_infeasible: str = "raise",
        backend: str = "exact",
    ) -> None:
        super().__init__()
        self.constraints = tuple(constraints)
        self.bounds, self.margin = bounds, margin
        self.on_empty = check_choice("on_empty", on_empty, ("skip", "raise"))
        self.on_infeasible = check_choice("on_infeasible", on_infeasible, ("raise", "relax"))
        self.backend = check_choice("backend", backend, ("exact", "cvxpylayers"))
        self.vocabulary = Vocabulary()
        self.last: Projection | None = None

    def fit_categories(self, sensitive_features: Any) -> None:
        """Learn the categories of the features, and close the vocabulary: an unseen category is an error."""
        names = tuple(dict.fromkeys(name for c in self.constraints for name in c.features))
        self.vocabulary = self.vocabulary.learn(sensitive_features, names)

    def forward(
        self, scores: Tensor, *, sensitive_features: Any = None, y: Any = None, label_probabilities: Any = None
    ) -> Tensor:
        """Return the projected scores; `last` then holds the whole result, detached from the graph."""
        result = project(
            scores,
            self.constraints,
            sensitive_features=sensitive_features,
            y=y,
            bounds=self.bounds,
            margin=self.margin,
            label_probabilities=label_probabilities,
            on_empty=self.on_empty,
            on_infeasible=self.on_infeasible,
            backend=self.backend,
            vocabulary=self._vocabulary_for_batch(),
        )
        self.vocabulary = result.groups.vocabulary
        self.last = replace(result, value=result.value.detach())
        return result.value

    def _vocabulary_for_batch(self) -> Vocabulary:
        words = self.vocabulary
        closed = words.categories and not self.training
        return words.closed() if closed else words

    def get_extra_state(self) -> dict[str, Any]:
        """Return the vocabulary in plain containers."""
        return self.vocabulary.to_state()

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore the vocabulary."""
        self.vocabulary = Vocabulary.from_state(state)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "last": None}

    def extra_repr(self) -> str:
        """Show the constraints and bounds."""
        return f"{', '.join(map(repr, self.constraints))}, bounds={self.bounds}"
