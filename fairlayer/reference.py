"""The reference backend: the same projections as generic convex programs, by cvxpy and cvxpylayers.

It is an oracle for the exact backend, so it shares nothing with that beyond the statements: it knows no
cells, and states every line about the n predictions. With helpers h (the lowest and the highest member of
each spread), the program is

    minimise 1/2 |y - z|^2   subject to   A y + H h <= b,   A' y + H' h == b',   bounds,   convex constraints

Each line is scaled to a unit row of A: rows of size 1/n are badly scaled for generic solvers.

The value comes from Clarabel on this quadratic program (accurate to about 1e-10), with its status checked.
The gradient comes from a `CvxpyLayer`, which restates the objective as a cone (accurate to about 1e-6 in the
value, so that value is only compared) and differentiates the optimality conditions.
Source: Agrawal et al. (2019), "Differentiable convex optimization layers", and Goulart, Chen (2024).
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import FloatArray
from fairlayer.assembly import Assembly
from fairlayer.constraints import Batch, Constraint, Convex, Rows, Spread, Statement
from fairlayer.errors import (
    BackendError,
    ConstraintDefinitionError,
    InfeasibleConstraintsError,
    NonFiniteScoresError,
    SolverError,
    require,
)
from fairlayer.inputs import Box
from fairlayer.result import SolvedColumn
from fairlayer.solve import Certificate, Face

__all__ = ["solve_by_reference"]

_GAPS = ("tol_gap_abs", "tol_gap_rel", "tol_feas")
_LEAST = dict.fromkeys((f"reduced_{gap}" for gap in _GAPS), 1e-9)
# What Clarabel is asked for, in turn: with cones it may stall just short of the first, and reports a failure.
_ACCURACIES = tuple({**dict.fromkeys(_GAPS, accuracy), **_LEAST} for accuracy in (1e-12, 1e-10, 1e-9))
_ATOL = {torch.float64: 1e-9, torch.float32: 1e-6}
_ROOM = 1e-9  # what relaxing adds to the least widening, so that the program keeps an interior
_ACTIVE = 1e-8  # a multiplier above this share of the largest is no rounding


def solve_by_reference(  # noqa: PLR0917
    scores: Tensor,
    constraints: Sequence[Constraint],
    assembly: Assembly,
    batch: Batch,
    box: Box,
    relax: bool,
) -> tuple[Tensor, SolvedColumn]:
    """Project one column of scores (n,), differentiably in scores, tolerances, bounds and convex parameters.

    Args:
        scores: (n,), floating.
        constraints: all of them.
        assembly: the statements of those that are not `Convex`.
        batch: what `Convex` constraints may look at.
        box: the bounds.
        relax: widen the limits of all statements by the least amount where nothing meets them.

    Raises:
        NonFiniteScoresError: scores hold NaN or infinity.
        InfeasibleConstraintsError: nothing within the bounds meets the constraints.
        ConstraintDefinitionError: a `Convex` constraint is not DPP.
        SolverError: the accuracy was not reached, forwards or backwards.
    """
    _check_finite(scores)
    inputs = _inputs(scores, constraints, assembly, box)
    task = _Task(tuple(constraints), _with_owners(assembly, constraints), batch, inputs)
    solved = _solve(task, relax)
    value: Tensor = _Differentiable.apply(solved, *task.inputs)  # type: ignore[no-untyped-call]
    dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
    returned = value.to(device=scores.device, dtype=dtype)
    return returned, ReferenceColumn.of(task, solved, returned.detach())


# --- what is asked ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """One projection, on the host in float64.

    Inputs: scores (n,), tolerances (blocks,), lower and upper (each (n,) or (0,)), each convex parameter.
    """

    constraints: tuple[Constraint, ...]
    assembly: Assembly
    batch: Batch
    inputs: tuple[Tensor, ...]

    @property
    def numbers(self) -> list[FloatArray]:
        """The inputs as arrays."""
        return [tensor.detach().numpy() for tensor in self.inputs]

    @cached_property
    def convex(self) -> dict[int, Convex]:
        """The convex constraints, by their position."""
        return {j: c for j, c in enumerate(self.constraints) if isinstance(c, Convex)}


def _with_owners(assembly: Assembly, constraints: Sequence[Constraint]) -> Assembly:
    """Return the assembly with owners counted among all constraints, not only those with statements."""
    position = [j for j, constraint in enumerate(constraints) if not isinstance(constraint, Convex)]
    owners = tuple(position[owner] for owner in assembly.owners)
    return replace(assembly, owners=owners, constraints=len(constraints))


def _inputs(scores: Tensor, constraints: Sequence[Constraint], assembly: Assembly, box: Box) -> tuple[Tensor, ...]:
    tolerances = [_plain(statement.tolerance) for statement in assembly.statements]
    stacked = torch.stack(tolerances) if tolerances else torch.zeros(0, dtype=torch.float64)
    lower = _bound(box.lower, box.lower_tensor, len(scores))
    upper = _bound(box.upper, box.upper_tensor, len(scores))
    convex = [c.parameters.values() for c in constraints if isinstance(c, Convex)]
    return _plain(scores), stacked, lower, upper, *(_plain(p) for each in convex for p in each)


def _plain(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64, device="cpu")  # differentiable where it is a tensor


def _bound(number: Any, tensor: Tensor | None, n: int) -> Tensor:
    if number is None:
        return torch.zeros(0, dtype=torch.float64)
    return _plain(number if tensor is None else tensor).expand(n)


def _check_finite(scores: Tensor) -> None:
    bad = int((~torch.isfinite(scores.detach())).sum())
    if bad:
        raise NonFiniteScoresError(
            f"{bad} of {len(scores)} scores are NaN or infinite. Look for a diverged backbone, a log of 0, "
            "or missing values in its input."
        )


# --- statements -> lines ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    """`weights @ y + helpers @ h <= constant + slope * tolerance + widens * widening`, or `==`.

    The multiplier of an equality has a sign; the side that holds y decides how a tolerance acts.
    """

    block: int
    row: int
    role: str  # of Rows: upper, lower, equal; of Spread: high, low, width, tied
    weights: FloatArray
    helpers: tuple[tuple[int, float], ...] = ()
    constant: float = 0.0
    slope: float = 0.0
    widens: float = 0.0

    @property
    def is_equality(self) -> bool:
        return self.role in {"equal", "tied"}

    @cached_property
    def size(self) -> float:
        """Length of the weights, by which the line is divided."""
        return float(np.linalg.norm(self.weights)) or 1.0

    def slope_at(self, multiplier: float) -> float:
        """How the right-hand side moves with the tolerance, given the multiplier."""
        if not self.is_equality:
            return self.slope
        return float(np.sign(multiplier)) if self.role == "equal" else float(multiplier > 0)


def _lines(statements: Sequence[Statement], tolerances: FloatArray, *, equalities: bool) -> Iterator[_Line]:
    """State every statement; without `equalities`, as inequalities only, which can be widened."""
    helper = 0
    for block, statement in enumerate(statements):
        if isinstance(statement, Rows):
            yield from _row_lines(block, statement, float(tolerances[block]), equalities)
        elif equalities and tolerances[block] == 0 and statement.scale == 1.0:
            yield from _tied_lines(block, statement, helper)
            helper += 1
        else:
            yield from _spread_lines(block, statement, helper)
            helper += 2


def _row_lines(block: int, rows: Rows, tolerance: float, equalities: bool) -> Iterator[_Line]:
    sizes = _row_sizes(rows)
    for r, weights in enumerate(rows.matrix @ rows.means.as_weights()):
        lower, upper = float(rows.lower_offset[r]), float(rows.upper_offset[r])
        if equalities and lower - tolerance == upper + tolerance:
            yield _Line(block, r, "equal", weights, (), upper + tolerance)
            continue
        if math.isfinite(upper):
            yield _Line(block, r, "upper", weights, (), upper, 1.0, sizes[r])
        if math.isfinite(lower):
            yield _Line(block, r, "lower", -weights, (), -lower, 1.0, sizes[r])


def _row_sizes(rows: Rows) -> FloatArray:
    """How far each row moves per unit of prediction, at least 1: the unit of its widening and violation."""
    reach: FloatArray = np.abs(rows.means.as_weights()).sum(axis=1)
    return np.asarray(np.maximum(1.0, np.abs(rows.matrix) @ reach))


def _spread_lines(block: int, spread: Spread, helper: int) -> Iterator[_Line]:
    """low <= v_i <= high and scale * high - low <= tolerance."""
    low, high = helper, helper + 1
    offset = _offset(spread)
    members = spread.matrix @ spread.means.as_weights()
    for i, weights in enumerate(members):
        yield _Line(block, i, "high", weights, ((high, -1.0),), -offset[i])
        yield _Line(block, i, "low", -weights, ((low, 1.0),), offset[i])
    nothing = np.zeros(members.shape[1])
    yield _Line(block, 0, "width", nothing, ((high, spread.scale), (low, -1.0)), 0.0, 1.0, 1.0)


def _tied_lines(block: int, spread: Spread, helper: int) -> Iterator[_Line]:
    """v_i == c for every member."""
    offset = _offset(spread)
    for i, weights in enumerate(spread.matrix @ spread.means.as_weights()):
        yield _Line(block, i, "tied", weights, ((helper, -1.0),), -offset[i])


def _offset(spread: Spread) -> FloatArray:
    return np.zeros(len(spread.matrix)) if spread.offset is None else spread.offset


@dataclass(frozen=True)
class _Lines:
    """Lines of one kind as arrays, each divided by its size."""

    lines: tuple[_Line, ...]
    n: int
    helpers: int
    blocks: int

    @cached_property
    def sizes(self) -> FloatArray:
        return np.array([line.size for line in self.lines], dtype=np.float64)

    @cached_property
    def matrix(self) -> FloatArray:
        """(lines, n + helpers)."""
        matrix = np.zeros((len(self.lines), self.n + self.helpers))
        for j, line in enumerate(self.lines):
            matrix[j, : self.n] = line.weights
            for helper, weight in line.helpers:
                matrix[j, self.n + helper] = weight
        return matrix / self.sizes[:, None]

    @cached_property
    def widens(self) -> FloatArray:
        """(lines,): change of the right-hand side per unit of widening."""
        return np.array([line.widens for line in self.lines]) / self.sizes

    def constants(self, widening: float) -> FloatArray:
        """(lines,): right-hand side at tolerance 0."""
        return np.array([line.constant for line in self.lines]) / self.sizes + widening * self.widens

    def slopes(self, multipliers: FloatArray | None = None) -> FloatArray:
        """(lines, blocks): change of the right-hand side per unit of each tolerance."""
        known = np.zeros(len(self.lines)) if multipliers is None else multipliers
        slopes = np.zeros((len(self.lines), self.blocks))
        for j, line in enumerate(self.lines):
            slopes[j, line.block] = line.slope_at(float(known[j])) / self.sizes[j]
        return slopes


@dataclass(frozen=True)
class _System:
    """All lines of a task."""

    less: _Lines
    equal: _Lines

    @staticmethod
    def of(task: _Task, *, equalities: bool = True) -> _System:
        statements = task.assembly.statements
        lines = [*_lines(statements, task.numbers[1], equalities=equalities)]
        helpers = 1 + max((h for line in lines for h, _ in line.helpers), default=-1)
        n, blocks = len(task.inputs[0]), len(statements)
        less, equal = (tuple(x for x in lines if x.is_equality is kind) for kind in (False, True))
        return _System(_Lines(less, n, helpers, blocks), _Lines(equal, n, helpers, blocks))


# --- the program --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Built:
    """What a `Convex` constraint built."""

    owner: int
    name: str
    constraints: tuple[Any, ...]
    parameters: tuple[Any, ...]


@dataclass(frozen=True)
class _Point:
    """What Clarabel returned, with multipliers in the units of the scaled lines."""

    value: FloatArray
    less: FloatArray
    equal: FloatArray
    convex: tuple[tuple[int, int, float], ...]  # (owner, position in its list, multiplier)
    gap: float
    iterations: int


class _Program:
    """A projection in cvxpy, whose numbers are parameters.

    Parameters in order, those without entries left out: scores, limits of the inequalities, targets of the
    equalities, lower, upper, then those of the convex constraints.
    """

    def __init__(self, n: int, less: FloatArray, equal: FloatArray, bounded: tuple[bool, bool]) -> None:
        cp = require("cvxpy", "cvxpy")
        self.lock = threading.Lock()
        self.value = cp.Variable(n, name="prediction")
        self.helpers = cp.Variable(less.shape[1] - n) if less.shape[1] > n else None
        sizes = (n, len(less), len(equal), n, n)
        every = tuple(cp.Parameter(size) for size in sizes)
        self.scores, self.limits, self.targets, self.lower, self.upper = every
        self.less = [self.left(less) <= self.limits] if len(less) else []
        self.equal = [self.left(equal) == self.targets] if len(equal) else []
        self.bounds = [self.value >= self.lower] * bounded[0] + [self.value <= self.upper] * bounded[1]
        self.built: tuple[_Built, ...] = ()
        used = (True, len(less) > 0, len(equal) > 0, *bounded)
        self.parameters = [parameter for parameter, use in zip(every, used, strict=True) if use]

    def left(self, matrix: FloatArray) -> Any:
        """The left-hand side of lines."""
        n = self.value.size
        return matrix[:, :n] @ self.value + (0 if self.helpers is None else matrix[:, n:] @ self.helpers)

    @property
    def constraints(self) -> list[Any]:
        """Everything that must hold."""
        convex = [c for built in self.built for c in built.constraints]
        return [*self.less, *self.equal, *self.bounds, *convex]

    @cached_property
    def problem(self) -> Any:
        """The projection."""
        cp = require("cvxpy", "cvxpy")
        return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(self.value - self.scores)), self.constraints)

    @cached_property
    def layer(self) -> Any:
        """The projection as a differentiable layer."""
        module = require("cvxpylayers.torch", "cvxpy")
        require("diffcp", "cvxpy")
        try:
            return module.CvxpyLayer(self.problem, parameters=self.parameters, variables=[self.value])
        except (ValueError, NotImplementedError, RuntimeError) as error:
            raise BackendError(f"cvxpylayers cannot differentiate this program: {error}") from error

    def set(self, numbers: Sequence[FloatArray]) -> None:
        """Give every parameter its value."""
        for parameter, number in zip(self.parameters, numbers, strict=True):
            parameter.value = number

    def point(self, gap: float, iterations: int) -> _Point:
        """Read the solution."""
        less, equal = _without_noise(_dual(self.less), _dual(self.equal))
        return _Point(self.value.value, less, equal, tuple(self._convex_duals()), gap, iterations)

    def _convex_duals(self) -> Iterator[tuple[int, int, float]]:
        for built in self.built:
            for j, constraint in enumerate(built.constraints):
                yield built.owner, j, _total_dual(constraint)

    def violation(self, value: FloatArray) -> float:
        """Return the largest violation of a convex constraint at some predictions."""
        self.value.value = value
        violations = [float(np.max(c.violation())) for built in self.built for c in built.constraints]
        return max(violations, default=-math.inf)


def _dual(lines: Sequence[Any]) -> FloatArray:
    return np.atleast_1d(np.asarray(lines[0].dual_value, dtype=np.float64)) if lines else np.zeros(0)


def _without_noise(*multipliers: FloatArray) -> list[FloatArray]:
    """Set what an interior point leaves on inactive lines to zero; unit rows make a multiplier a distance."""
    least = _ACTIVE * max(1.0, *(float(np.abs(each).max(initial=0.0)) for each in multipliers))
    return [np.where(np.abs(each) > least, each, 0.0) for each in multipliers]


def _total_dual(constraint: Any) -> float:
    """Return the sum of the absolute duals of an inequality or equality; a cone's dual is no such number."""
    if isinstance(constraint.dual_value, list | tuple) or not hasattr(constraint, "expr"):
        return math.nan
    return float(np.abs(constraint.dual_value).sum())


@lru_cache(maxsize=8)
def _cached_program(n: int, width: int, less: bytes, equal: bytes, bounded: tuple[bool, bool]) -> _Program:
    """Build a program for lines given by content: groups and counts are its constants, so part of the key."""
    lines = [np.frombuffer(content).reshape(-1, width) for content in (less, equal)]
    return _Program(n, lines[0], lines[1], bounded)


def _program(task: _Task, system: _System) -> _Program:
    """Return the program of a task; convex constraints are built anew, for `build` may read anything."""
    n = len(task.inputs[0])
    bounded = (len(task.inputs[2]) > 0, len(task.inputs[3]) > 0)
    less, equal = system.less.matrix, system.equal.matrix
    if not task.convex:
        return _cached_program(n, less.shape[1], less.tobytes(), equal.tobytes(), bounded)
    program = _Program(n, less, equal, bounded)
    program.built = tuple(_build(j, convex, program.value, task.batch) for j, convex in task.convex.items())
    program.parameters += [parameter for built in program.built for parameter in built.parameters]
    return program


def _build(owner: int, convex: Convex, prediction: Any, batch: Batch) -> _Built:
    cp = require("cvxpy", "cvxpy")
    parameters = {
        key: cp.Parameter(tuple(value.shape), name=key, nonneg=bool((value >= 0).all()))
        for key, value in convex.parameters.items()
    }
    constraints = convex.build(prediction, batch, **parameters)
    listed = isinstance(constraints, list | tuple)
    if not listed or not all(isinstance(c, cp.Constraint) for c in constraints):
        raise ConstraintDefinitionError(
            f"{convex.name}: build must return a list of cvxpy constraints, but it returned {constraints!r}."
        )
    _check_disciplined(convex, constraints, list(parameters.values()))
    return _Built(owner, convex.name, tuple(constraints), tuple(parameters.values()))


def _check_disciplined(convex: Convex, constraints: Sequence[Any], parameters: Sequence[Any]) -> None:
    for constraint in constraints:
        if not constraint.is_dcp():
            raise ConstraintDefinitionError(
                f"{convex.name}: {constraint} is not convex by cvxpy's rules (DCP). Write it as convex <= concave."
            )
        if not constraint.is_dpp():
            raise ConstraintDefinitionError(
                f"{convex.name}: {constraint} is convex, but not DPP: cvxpylayers needs it affine in the "
                "parameters, with no product of two parameters. Pass such a product as one parameter."
            )
    used = {p.id: p for constraint in constraints for p in constraint.parameters()}
    given = {p.id: p for p in parameters}
    odd = [p.name() for key, p in {**used, **given}.items() if (key in used) != (key in given)]
    if odd:
        raise ConstraintDefinitionError(
            f"{convex.name}: build must use exactly the parameters it is given, but {', '.join(odd)} are not "
            "on both sides. Name them in parameters={...}, and use each one."
        )


# --- solving ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Solved:
    """A task solved."""

    program: _Program
    system: _System
    widening: float
    point: _Point
    value: FloatArray

    def held(self) -> Iterator[tuple[_Lines, FloatArray]]:
        """The lines and their multipliers."""
        yield self.system.less, self.point.less
        yield self.system.equal, self.point.equal

    def arguments(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the program's parameters as functions of the task's inputs."""
        scores, tolerances, lower, upper, *convex = inputs
        sides = []
        for lines, multipliers in self.held():
            slopes = torch.from_numpy(lines.slopes(multipliers))
            sides.append(torch.from_numpy(lines.constants(self.widening)) + slopes @ tolerances)
        return [scores, *(each for each in (*sides, lower, upper) if len(each)), *convex]


def _solve(task: _Task, relax: bool) -> _Solved:
    system = _System.of(task)
    program = _program(task, system)
    status, point = _run(program, _numbers(task, system, 0.0))
    if point is None:
        system, program, widening, point = _relaxed(task, status, relax)
    else:
        widening = 0.0
    return _Solved(program, system, widening, point, _clipped(point.value, task))


def _relaxed(task: _Task, status: str, relax: bool) -> tuple[_System, _Program, float, _Point]:
    """Solve with the least widening, or say that there is none, or that none is needed."""
    system = _System.of(task, equalities=False)
    program = _program(task, system)
    least, clashing = _least_widening(task, system, program)
    if least <= _ROOM:
        raise SolverError(f"Clarabel ended with status {status!r} on a feasible program. {_ADVICE}")
    if not relax or not math.isfinite(least):
        raise _infeasible(task, least, clashing)
    widening = least + _ROOM * max(1.0, least)
    status, point = _run(program, _numbers(task, system, widening))
    if point is None:
        raise SolverError(f"Clarabel ended with status {status!r} after widening by {widening:g}. {_ADVICE}")
    return system, program, widening, point


_ADVICE = 'Bring the scores to the scale of 1, or use backend="exact" where all constraints are linear.'


def _numbers(task: _Task, system: _System, widening: float) -> list[FloatArray]:
    scores, tolerances, lower, upper, *convex = task.numbers
    sides = [lines.constants(widening) + lines.slopes() @ tolerances for lines in (system.less, system.equal)]
    return [scores, *(each for each in (*sides, lower, upper) if len(each)), *convex]


def _run(program: _Program, numbers: Sequence[FloatArray]) -> tuple[str, _Point | None]:
    """Solve the projection; the point is None unless Clarabel calls it solved, to 1e-9 at least."""
    with program.lock:
        program.set(numbers)
        status, raw = _clarabel(program.problem)
        if not status.startswith("optimal"):
            return status, None
        return status, program.point(abs(raw.obj_val - raw.obj_val_dual), raw.iterations)


def _clarabel(problem: Any) -> tuple[str, Any]:
    """Solve a problem, and return cvxpy's status and Clarabel's own solution.

    "optimal_inaccurate" means within the `reduced_` accuracies, which are set to 1e-9.
    """
    require("clarabel", "cvxpy")
    for accuracy in _ACCURACIES:
        status, raw = _clarabel_to(problem, dict(accuracy))
        if status.startswith(("optimal", "infeasible")):
            break
    return status, raw


def _clarabel_to(problem: Any, accuracy: dict[str, float]) -> tuple[str, Any]:
    cp = require("cvxpy", "cvxpy")
    data, chain, inverse = problem.get_problem_data(cp.CLARABEL, solver_opts=accuracy)
    raw = chain.solve_via_data(problem, data, solver_opts=accuracy)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "may be inaccurate": the status is checked instead
            problem.unpack_results(raw, chain, inverse)
    except cp.error.SolverError:
        return str(raw.status), raw
    return str(problem.status), raw


def _least_widening(task: _Task, system: _System, program: _Program) -> tuple[float, list[str]]:
    """Return the least widening of all statements, and the names of the constraints that ask for it."""
    cp = require("cvxpy", "cvxpy")
    by = cp.Variable(nonneg=True)
    numbers = _numbers(task, system, 0.0)
    limits = numbers[1] if program.less else np.zeros(0)
    less = [program.left(system.less.matrix) <= limits + system.less.widens * by] if program.less else []
    rest = [c for c in program.constraints if not any(c is each for each in program.less)]
    with program.lock:
        program.set(numbers)
        status, _ = _clarabel(cp.Problem(cp.Minimize(by), [*less, *rest]))
        if not status.startswith("optimal"):
            return math.inf, [convex.name for convex in task.convex.values()]
        return float(by.value), _names_of(task, system, _dual(less))


def _names_of(task: _Task, system: _System, multipliers: FloatArray) -> list[str]:
    held = np.flatnonzero(multipliers > 1e-5 * np.abs(multipliers).max(initial=0.0))
    owners = {task.assembly.owners[system.less.lines[j].block] for j in held}
    return [task.constraints[owner].name for owner in sorted(owners | set(task.convex))]


def _infeasible(task: _Task, least: float, clashing: Sequence[str]) -> InfeasibleConstraintsError:
    within = " within the bounds" if len(task.inputs[2]) or len(task.inputs[3]) else ""
    asked = f"no predictions{within} meet {' and '.join(clashing)}{' together' if len(clashing) > 1 else ''}"
    if not math.isfinite(least):
        return InfeasibleConstraintsError(f"{asked}, and no widening helps a convex constraint. Loosen it.")
    return InfeasibleConstraintsError(
        f"{asked}: the limits would have to be {least:g} wider. Loosen one of them, or use "
        'on_infeasible="relax" for the smallest widening.'
    )


def _clipped(value: FloatArray, task: _Task) -> FloatArray:
    """Take off what an interior point leaves outside the bounds: a log loss must not see -1e-13."""
    _, _, lower, upper, *_ = task.numbers
    value = np.maximum(value, lower) if len(lower) else value
    return np.minimum(value, upper) if len(upper) else value


# --- the gradient -------------------------------------------------------------------------------------------


class _Differentiable(torch.autograd.Function):
    """The solved value, with the derivative of the layer."""

    @staticmethod
    def forward(ctx: Any, solved: _Solved, *inputs: Tensor) -> Tensor:
        ctx.solved = solved
        ctx.save_for_backward(*inputs)
        return torch.from_numpy(solved.value.copy())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[1:]
        inputs = [t.detach().requires_grad_(need) for t, need in zip(ctx.saved_tensors, needs, strict=True)]
        size = float(upstream.abs().max())
        if size == 0.0:
            return None, *(torch.zeros_like(t) if t.requires_grad else None for t in inputs)
        # diffcp takes an upstream below 1e-8 for zero: hand it one of size 1.
        value = _through_layer(ctx.solved, inputs)
        wanted = [t for t in inputs if t.requires_grad]
        found = iter(torch.autograd.grad(value, wanted, upstream / size, allow_unused=True))
        return None, *(_scaled(next(found), size) if t.requires_grad else None for t in inputs)


def _scaled(gradient: Tensor | None, size: float) -> Tensor | None:
    return None if gradient is None else gradient * size


def _through_layer(solved: _Solved, inputs: Sequence[Tensor]) -> Tensor:
    """Solve again through the layer, with predictions of size 1: lines scale, convex constraints may not.

    Raises:
        SolverError: it found another point; diffcp does not report the status of Clarabel.
    """
    failed = require("diffcp.cone_program", "cvxpy").SolverError
    options = {"solve_method": "Clarabel", "mode": "lsmr", **_ACCURACIES[0]}
    largest = max(1.0, float(np.abs(solved.value).max()))
    unit = 1.0 if solved.program.built else largest
    try:
        with torch.enable_grad(), solved.program.lock:
            arguments = [argument / unit for argument in solved.arguments(inputs)]
            value: Tensor = unit * solved.program.layer(*arguments, solver_args=options)[0]
    except failed as error:
        raise SolverError(f"the gradient was not found: {error}. {_ADVICE}") from error
    off = float((value.detach() - torch.from_numpy(solved.value)).abs().max())
    if not off <= 1e-4 * largest:
        raise SolverError(f"the gradient was not found: cvxpylayers solved to within {off:g} only. {_ADVICE}")
    return value


# --- the result ---------------------------------------------------------------------------------------------


@dataclass
class ReferenceColumn:
    """A column solved by the reference backend; see `fairlayer.result.SolvedColumn`."""

    assembly: Assembly
    value: Tensor
    solved: _Solved
    certificate: Certificate
    changed: bool

    @staticmethod
    def of(task: _Task, solved: _Solved, returned: Tensor) -> ReferenceColumn:
        """Judge the returned value.

        Raises:
            SolverError: it violates a constraint by more than the accuracy promised.
        """
        final = returned.double().cpu().numpy()
        certificate = _certify(task, solved, final, _ATOL[returned.dtype])
        if not certificate.holds:
            raise SolverError(f"the accuracy was not reached: {certificate}. {_ADVICE}")
        scores = task.numbers[0]
        changed = max(_violation(task, solved, scores), _outside(task, scores)) > 0.0
        return ReferenceColumn(task.assembly, returned, solved, certificate, changed)

    @property
    def widening(self) -> float:
        """By how much the limits of all statements were widened."""
        return self.solved.widening

    @property
    def passes(self) -> int:
        """Iterations of the interior-point solver."""
        return self.solved.point.iterations

    def prices(self) -> FloatArray:
        """One price per constraint."""
        prices = np.zeros(self.assembly.constraints)
        per_block = np.zeros(len(self.assembly.statements))
        for lines, multipliers in self.solved.held():
            per_block += multipliers @ lines.slopes(multipliers)
        np.add.at(prices, np.array(self.assembly.owners, dtype=np.int64), per_block)
        for owner, _, multiplier in self.solved.point.convex:
            prices[owner] += multiplier
        return prices

    def shift(self) -> FloatArray:
        """One shift per statistic; NaN beside convex constraints, which move each sample on its own."""
        cells = self.assembly.cells
        if self.solved.program.built:
            return np.full(cells.size, np.nan)
        pull, dense = self._pulls()
        shift = np.zeros(len(cells.counts))
        if cells.codes is not None:
            inside = cells.codes < len(shift)
            shift[cells.codes[inside]] = -pull[inside]
        return np.append(shift, -dense)

    def active(self) -> list[tuple[int, str, float]]:
        """(constraint, statement, multiplier) of each statement that holds with equality."""
        found = [
            (self.assembly.owners[key[0]], self.assembly.describe(Face(key, np.zeros(0), 0.0)), multiplier)
            for key, multiplier in self._faces()
        ]
        convex = self.solved.point.convex
        return found + [(owner, f"constraint {j}", dual) for owner, j, dual in convex if not dual <= _ACTIVE]

    def _multipliers(self) -> Iterator[tuple[_Line, float]]:
        """Each line that holds, with its multiplier in the units of the statement."""
        for lines, multipliers in self.solved.held():
            for j in np.flatnonzero(multipliers):
                yield lines.lines[j], float(multipliers[j] / lines.sizes[j])

    def _pulls(self) -> tuple[FloatArray, FloatArray]:
        """What the hard groups take off each sample, and the multiplier of each dense row."""
        pull = np.zeros(len(self.solved.value))
        statements = self.assembly.statements
        dense = {s.means.key: np.zeros(len(s.means)) for s in statements if s.means.codes is None}
        for line, multiplier in self._multipliers():
            statement = statements[line.block]
            if statement.means.codes is not None:
                pull += multiplier * line.weights
            elif line.role != "width":
                sign = -1.0 if line.role in {"lower", "low"} else 1.0
                dense[statement.means.key] += sign * multiplier * statement.matrix[line.row]
        return pull, np.concatenate([np.zeros(0), *dense.values()])

    def _faces(self) -> Iterator[tuple[tuple[int, int, int], float]]:
        """(block, row, side) or (block, high, low), with the multiplier."""
        ends: dict[int, tuple[dict[int, float], dict[int, float]]] = {}
        for line, multiplier in self._multipliers():
            if line.role in {"upper", "lower", "equal"}:
                side = -1 if line.role == "lower" or multiplier < 0 else 1
                yield (line.block, line.row, side), abs(multiplier)
            elif line.role != "width":
                high, low = ends.setdefault(line.block, ({}, {}))
                (low if line.role == "low" or multiplier < 0 else high)[line.row] = abs(multiplier)
        for block, (high, low) in ends.items():
            for i, j, multiplier in _pairs(high, low):
                yield (block, i, j), multiplier


def _pairs(high: dict[int, float], low: dict[int, float]) -> Iterator[tuple[int, int, float]]:
    """Split the multipliers of both ends of a spread into pairs, in one of many ways (north-west corner)."""
    total, rest = sum(high.values()), list(low.items())
    for i, amount in high.items():
        share = amount / total * sum(low.values())  # the high end carries `scale` times the low end
        while rest and share > _ACTIVE * total:
            j, left = rest.pop(0)
            taken = min(share, left)
            yield i, j, taken
            share -= taken
            if left - taken > _ACTIVE * total:
                rest.insert(0, (j, left - taken))


def _certify(task: _Task, solved: _Solved, final: FloatArray, atol: float) -> Certificate:
    """Judge a value. The duality gap is Clarabel's own, plus what clip and cast added to the objective."""
    scores = task.numbers[0]
    primal = 0.5 * float(((final - scores) ** 2).sum())
    added = primal - 0.5 * float(((solved.point.value - scores) ** 2).sum())
    limits = [abs(line.constant) for line in solved.system.less.lines + solved.system.equal.lines]
    atol *= max(1.0, float(np.abs(scores).max()), *limits)
    distance = math.sqrt(2.0 * primal)
    return Certificate(
        violation=_violation(task, solved, final),
        bound_violation=_outside(task, final),
        duality_gap=solved.point.gap + added,
        distance=distance,
        atol=atol,
        gap_atol=atol * math.sqrt(len(final)) * max(1.0, distance),
    )


def _violation(task: _Task, solved: _Solved, value: FloatArray) -> float:
    """Return the largest violation of a statement (rows in units of their widening) or convex constraint."""
    tolerances = task.numbers[1]
    each = [
        _statement_violation(statement, value, float(tolerance)) - solved.widening
        for statement, tolerance in zip(task.assembly.statements, tolerances, strict=True)
    ]
    return max([*each, solved.program.violation(value)])


def _statement_violation(statement: Statement, value: FloatArray, tolerance: float) -> float:
    v = statement.matrix @ (statement.means.as_weights() @ value)
    if isinstance(statement, Spread):
        v = v + _offset(statement)
        return float(statement.scale * v.max() - v.min()) - tolerance
    outside = np.maximum(v - statement.upper_offset, statement.lower_offset - v) - tolerance
    return float((outside / _row_sizes(statement)).max())


def _outside(task: _Task, value: FloatArray) -> float:
    _, _, lower, upper, *_ = task.numbers
    below = float((lower - value).max()) if len(lower) else 0.0
    above = float((value - upper).max()) if len(upper) else 0.0
    return max(0.0, below, above)
