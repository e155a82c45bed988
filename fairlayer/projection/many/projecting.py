"""project_many: from scores (b, n), groups and a mask to the projections of b problems, without a loop over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from fairlayer._arrays import plain_tensor
from fairlayer._typing import BoolArray, FloatArray
from fairlayer.constraints import Affine, Batch, Constraint
from fairlayer.edge import Stated, as_constraints, as_score_tensor, read_groups, read_sample_weight
from fairlayer.edge.numbers import as_numbers
from fairlayer.errors import (
    BackendError,
    EmptyBatchError,
    FairlayerError,
    InvalidBoundsError,
    NonFiniteScoresError,
    ParameterError,
    ShapeError,
)
from fairlayer.geometry.probabilities import check_probabilities
from fairlayer.groups import Vocabulary
from fairlayer.passes import Passes, Point, make_passes
from fairlayer.projection.assembly import Assembly, assemble
from fairlayer.projection.certificate import RawBatch
from fairlayer.projection.exact import result_dtype
from fairlayer.projection.many.following import Terms, followed, terms_of
from fairlayer.projection.many.layout import CellPlaces, Layout
from fairlayer.projection.many.result import ManyProjections, _SolvedAssembly
from fairlayer.projection.options import Options, ProjectionOptions, options_of
from fairlayer.projection.plan import Plan
from fairlayer.projection.result import Projection
from fairlayer.solve.many import solve_many
from fairlayer.solve.many_rows import solve_many_rows

__all__ = ["project_many"]

_MOST_PAIRS = 128  # of one problem that are cheap to have as rows; with more, rows have prices and spreads levels
_MOST_ENTRIES = 2**25  # of the rows in force of all problems; with more, they are solved one by one
_TIGHT = 1e-9  # a row this near its limit is at it


def project_many(
    scores: Any,
    constraints: Stated,
    *,
    sensitive_features: Any = None,
    mask: Any = None,
    y: Any = None,
    sample_weight: Any = None,
    **options: Unpack[ProjectionOptions],
) -> ManyProjections:
    """Return the projections of several problems that share their constraints, each row of scores a batch of its own.

        for each p:   minimise sum_i weight_pi d(value_pi, score_pi)   subject to   every constraint on row p,   bounds

    Args:
        scores: (b, n), floating.
        constraints: what must hold of each row, as for `project`; all that compare means of groups.
        sensitive_features: dict of name -> column, (b, n), or (n,) where all rows share it; or for one name the column
            alone. Names and codes as for `project`.
        mask: (b, n), True where there is a sample: rows may be of different length. None for everywhere.
        y: labels, (b, n).
        sample_weight: (b, n), >= 0.
        options: as for `project`, with bounds that are numbers.

    Raises:
        InfeasibleConstraintsError: of a problem, which it names, nothing within the bounds meets the constraints.
        BackendError: a constraint weighs each sample by itself (soft groups, a covariance, rows over samples, pairs),
            or the options are for the simplex, several processes or the reference backend.
        FairlayerError: a named subclass, as for `project`.

    Source: Bertsekas (1982), see `fairlayer.solve.many`. A problem that the common method does not finish is solved by
        itself, as by `project`, and the result names it in `alone`.

    Example:
        >>> import torch, fairlayer as fl
        >>> scores = torch.tensor([[0.9, 0.5, 0.1], [0.3, 0.4, 0.0]])
        >>> groups, mask = torch.tensor([[0, 0, 1], [0, 1, 0]]), torch.tensor([[True, True, True], [True, True, False]])
        >>> found = fl.project_many(scores, fl.DemographicParity("g", 0.0), sensitive_features=groups, mask=mask)
        >>> found.value, found.certificate(0).holds
        (tensor([[0.7000, 0.3000, 0.5000],
                [0.3500, 0.3500, 0.0000]]), True)
    """
    stated = as_constraints(constraints)
    checked = options_of("project_many", options, ("mask", "y", "sample_weight", "sensitive_features"))
    _check_options(checked, stated)
    scores = as_score_tensor(scores)
    if scores.ndim != 2 or not scores.is_floating_point():
        raise ShapeError(f"project_many takes scores (b, n), one problem per row, but they have {tuple(scores.shape)}.")
    if not scores.numel():
        raise EmptyBatchError(f"there are no scores: they have the shape {tuple(scores.shape)}.")
    problem = _Problem.read(scores, stated, sensitive_features, mask, y, sample_weight, checked)
    return problem.solve()


def _check_options(options: Options, constraints: tuple[Constraint, ...]) -> None:
    if options.on_simplex or options.ranks is not None or options.backend != "exact":
        raise BackendError(
            "project_many solves problems on a box, in one process and by the exact backend; project the rows one by "
            "one for bounds='simplex', a process_group or another backend."
        )
    box = options.fixed_box
    plain = isinstance(box.lower, float | None) and isinstance(box.upper, float | None) if box is not None else False
    if not plain and not options.rule.bounded:
        raise InvalidBoundsError(f"project_many takes bounds that are numbers, but they are {options.bounds!r}.")
    for constraint in constraints:
        if isinstance(constraint, Affine) or constraint.classes is not None:
            raise BackendError(
                f"{constraint!r} speaks of rows or columns of one batch, which several problems do not share. Project "
                "the rows one by one."
            )


class _Problem:
    """Everything that was given, flattened: the samples of all problems, one problem after the other."""

    def __init__(
        self, scores: Tensor, constraints: tuple[Constraint, ...], options: Options, inside: BoolArray
    ) -> None:
        self.scores, self.constraints, self.options, self.inside = scores, constraints, options, inside
        self.count, self.n = scores.shape
        rows = np.repeat(np.arange(self.count), self.n)
        self.problems = np.where(inside.ravel(), rows, -1)
        self.plan = Plan(constraints, options)
        self.columns: dict[str, Any] = {}
        self.labels: FloatArray | None = None
        self.weights: FloatArray | None = None
        self.vocabulary: Vocabulary | None = None

    @staticmethod
    def read(  # noqa: PLR0917 - as `project_many`
        scores: Tensor,
        constraints: tuple[Constraint, ...],
        features: Any,
        mask: Any,
        y: Any,
        sample_weight: Any,
        options: Options,
    ) -> _Problem:
        shape = tuple(scores.shape)
        inside = np.ones(shape, dtype=bool) if mask is None else _table("mask", mask, shape).astype(bool)
        made = _Problem(scores, constraints, options, inside)
        made.columns = _columns(features, constraints, shape, inside)
        if y is not None:
            made.labels = np.where(inside, _table("y", y, shape), 0.0)
        if sample_weight is not None:
            made.weights = _weights(sample_weight, inside)
        made._check_scores()
        return made

    def _check_scores(self) -> None:
        given = plain_tensor(self.scores).double().cpu().numpy()[self.inside]
        bad = int((~np.isfinite(given)).sum())
        if bad:
            raise NonFiniteScoresError(f"{bad} of {len(given)} scores are NaN or infinite, where the mask is True.")
        if self.options.rule.bounded and not self.options.from_logits and len(given):
            check_probabilities(float(given.min()), float(given.max()), self.options.rule.name)

    def solve(self) -> ManyProjections:
        """Solve all problems together, and those that this does not finish by themselves."""
        rule, scores = self.options.rule, self.scores
        safe = torch.where(self._mask(), scores, torch.full_like(scores, 0.5))  # what is not there moves nothing
        x = rule.coordinates(safe.reshape(-1), from_logits=self.options.from_logits, margin=self.options.margin)
        assembly = self._assembly()
        box = self.options.box(scores.reshape(-1))
        passes = make_passes(plain_tensor(x), assembly.cells, box.lower, box.upper, rule)
        layout, found_multipliers, converged, point, sweeps = self._common(assembly, passes)
        dtype = result_dtype(scores)
        if scores.requires_grad or forward_ad._current_level >= 0:
            terms = terms_of(found_multipliers, layout, assembly.cells, x.device)
            flat = followed(x.double().reshape(scores.shape), terms, rule, box.lower, box.upper)
        else:
            flat = passes.as_tensor(point.value).to(scores.device)
        value = rule.inside(flat.to(dtype)).reshape(scores.shape)
        alone = {int(i): self._alone(int(i)) for i in np.flatnonzero(~converged)}
        if alone:
            value = value.clone()
            for i, one in alone.items():
                value[i, self._mask()[i]] = one.value
        value = torch.where(self._mask(), value, torch.zeros_like(value))
        lower, upper = (0.0, 1.0) if rule.bounded else (box.lower, box.upper)
        raw = RawBatch(plain_tensor(x), assembly.stated, rule, lower, upper, assembly.cells.weights, None)
        changed = self._changed(point, found_multipliers)
        solved = _SolvedAssembly(assembly, layout, raw, self.problems, found_multipliers, changed)
        prices = solved.prices()
        for i, one in alone.items():
            prices[i] = [float(one.multipliers[name]) for name in self.plan.names]
        named = {name: torch.from_numpy(prices[:, j].copy()) for j, name in enumerate(self.plan.names)}
        return ManyProjections(value, named, sweeps, alone, self.plan.names, solved)

    def terms(self) -> Terms:
        """Return what the solutions depend on besides the scores.

        Raises:
            BackendError: the common method does not finish a problem.
        """
        rule, scores = self.options.rule, self.scores
        x = rule.coordinates(scores.reshape(-1), from_logits=self.options.from_logits, margin=self.options.margin)
        assembly = self._assembly()
        box = self.options.box(scores.reshape(-1))
        passes = make_passes(x, assembly.cells, box.lower, box.upper, rule)
        layout, multipliers, converged, _, _ = self._common(assembly, passes)
        for index in np.flatnonzero(~converged).tolist():
            self._alone(index)  # raises where nothing meets the constraints
            raise BackendError(
                f"problem {index} of those that torch.vmap hides needs a solver of its own, which transforms cannot "
                "follow. Use fl.project_many, or a loop."
            )
        return terms_of(multipliers, layout, assembly.cells, scores.device)

    def _common(self, assembly: Assembly, passes: Passes) -> tuple[Layout, FloatArray, BoolArray, Point, int]:
        """Return rows and multipliers, which problems have converged, the point there, and the sweeps it took."""
        places = CellPlaces.of(assembly, self.problems, self.count)
        pairs, members = places.rows_of(assembly)
        if pairs > _MOST_PAIRS:
            if members * places.place.size > _MOST_ENTRIES:
                none = Layout.none(assembly, places)
                return none, none.rows.limit, np.zeros(self.count, dtype=bool), passes.at(None), 1
            priced = solve_many_rows(passes, assembly.slabs, places.owner, self.count)
            layout, multipliers = Layout.in_force(assembly, places, priced)
            found = priced.converged, priced.point, priced.sweeps
        else:
            layout = Layout.of(assembly, places)
            solved = solve_many(passes, layout.rows, layout.rows.gathered(1.0 / assembly.cells.counts))
            multipliers, found = solved.multipliers, (solved.converged, solved.point, solved.sweeps)
        converged = found[0] & ~self._open(assembly, layout, found[1])
        return layout, np.where(converged[:, None], multipliers, 0.0), converged, *found[1:]

    def _open(self, assembly: Assembly, layout: Layout, point: Point) -> BoolArray:
        """Return in which problems rows at their limits that depend on each other leave it open where some sample goes.

        That is a sample of a cell in which nothing counts: the smallest prices are to move it (see `weightless`).
        """
        found = np.zeros(self.count, dtype=bool)
        codes, place = assembly.cells.codes, layout.rows.place
        if self.weights is None or codes is None:
            return found
        counted = np.bincount(codes, self.weights.ravel(), len(assembly.cells.counts) + 1) > 0.0
        counted[-1] = True  # the place of no cell
        met = layout.rows.gradient(point.statistics) >= -_TIGHT * np.maximum(1.0, np.abs(layout.rows.limit))
        doubtful = ~counted[place].all(axis=1) & (met.sum(axis=1) > 1)
        for i in np.flatnonzero(doubtful):
            rows = layout.rows.matrix[i][met[i]]
            seen = np.where(counted[place[i]], rows, 0.0)
            seen = seen / np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-300)
            found[i] = np.linalg.matrix_rank(seen, tol=1e-9) < len(rows)
        return found

    def _mask(self) -> Tensor:
        return torch.from_numpy(self.inside).to(self.scores.device)

    def _assembly(self) -> Assembly:
        total = self.count * self.n
        groups = read_groups(self.columns or None, self.constraints, total, self.vocabulary)
        labels = None if self.labels is None else self.labels.ravel()
        weights = None if self.weights is None else self.weights.ravel()
        raw = plain_tensor(self.scores).double().cpu().numpy().ravel()
        if self.options.from_logits:
            raw = 1.0 / (1.0 + np.exp(-raw))
        batch = Batch(groups, total, labels, None, lambda: raw, weights, problems=self.problems)
        assembly = assemble(self.constraints, batch, on_empty=self.options.on_empty)
        for (statement, _), owner in zip(assembly.stated, assembly.owners, strict=True):
            if statement.means.codes is None:
                raise BackendError(
                    f"{self.constraints[owner].name} weighs each sample by itself (soft groups, a covariance, pairs), "
                    "which several problems at once do not offer. Project the rows one by one."
                )
        return assembly

    def _changed(self, point: Any, multipliers: FloatArray) -> BoolArray:
        changed = (multipliers > 0.0).any(axis=1)
        if point.free is not None:
            free = np.asarray(point.free if isinstance(point.free, np.ndarray) else point.free.cpu())
            clipped = ~free & (self.problems >= 0)
            changed = changed | (np.bincount(self.problems[clipped], minlength=self.count) > 0)
        return np.asarray(changed)

    def _alone(self, index: int) -> Projection:
        """Return the projection of one problem by itself."""
        here = self.inside[index]
        size = self.count * self.n
        columns = {
            name: column.reshape(self.count, self.n)[index][here]
            for name, column in self.columns.items()
            if len(column) == size
        }
        try:
            return self.plan.run(
                self.scores[index][torch.from_numpy(here).to(self.scores.device)],
                columns or None,
                None if self.labels is None else self.labels[index][here],
                sample_weight=None if self.weights is None else self.weights[index][here],
            )
        except FairlayerError as error:
            error.args = (f"problem {index}: {error.args[0]}", *error.args[1:])
            raise


def _table(name: str, values: Any, shape: tuple[int, ...]) -> FloatArray:
    try:
        array = as_numbers(values).astype(np.float64)
    except TypeError as error:
        raise ShapeError(f"{name} must be numbers of shape {shape}, but is not ({error}).") from error
    if array.shape not in {shape, shape[1:]}:
        raise ShapeError(f"{name} must have the shape of the scores, {shape}, but has {array.shape}.")
    return np.broadcast_to(array, shape)


def _weights(sample_weight: Any, inside: BoolArray) -> FloatArray:
    weights = np.where(inside, _table("sample_weight", sample_weight, inside.shape), 0.0)
    read_sample_weight(weights[inside], int(inside.sum()))  # for what it refuses
    nothing = np.flatnonzero(inside.any(axis=1) & ~weights.any(axis=1))
    if len(nothing):
        raise ParameterError(
            f"problem {nothing[0]}: sample_weight is 0 for all {int(inside[nothing[0]].sum())} samples, so there is "
            "nothing to measure or move."
        )
    return weights


def _columns(
    features: Any, constraints: tuple[Constraint, ...], shape: tuple[int, ...], inside: BoolArray
) -> dict[str, Any]:
    """Return each column that a constraint names as (b n,), an entry of nobody where the mask is False."""
    names = tuple(dict.fromkeys(name for constraint in constraints for name in constraint.features))
    if features is None:
        return {}
    if not isinstance(features, Mapping):
        if len(names) != 1:
            raise ShapeError(
                f"sensitive_features must be a dict of columns (b, n) for the features {', '.join(map(repr, names))}, "
                f"but {type(features).__name__} was given."
            )
        features = {names[0]: features}
    read = {}
    for name in names:
        if name not in features:
            continue  # the constraint says what it misses
        column = features[name]
        array = plain_tensor(column).cpu().numpy() if isinstance(column, Tensor) else np.asarray(column)
        if array.shape not in {shape, shape[1:]}:
            raise ShapeError(
                f"sensitive feature '{name}' must have the shape of the scores, {shape}, or {shape[1:]} where all "
                f"problems share it, but has {array.shape}."
            )
        whole = np.broadcast_to(array, shape)
        if not inside.all():
            # Nobody is there, so nothing that stands there may become a category.
            filler = whole[inside][0] if inside.any() else whole.flat[0]
            whole = np.where(inside, whole, filler)
        read[name] = np.ascontiguousarray(whole).ravel()
    return read
