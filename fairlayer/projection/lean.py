"""The whole call for the commonest problem in compiled sweeps: one parity between two groups, on scores in memory.

A batch that is anything else, or about which there is something to say, gets None here and goes the general way. That
is so for codes other than 0 and 1, an absent group, scores out of range, inputs that a transform follows, and a warning
that is due. So the lean way needs no message of its own. What it returns equals the general result; its `Projection` is
put together when somebody reads it, from the batch as it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from fairlayer._arrays import transforming
from fairlayer.errors import ChangedBatchError
from fairlayer.fused import kernels
from fairlayer.geometry import Entropic, Euclidean, Geometry, Likelihood
from fairlayer.geometry.probabilities import inner_margin
from fairlayer.groups import Vocabulary
from fairlayer.projection.exact import HeldSolution

if TYPE_CHECKING:
    from fairlayer.projection.plan import Plan
    from fairlayer.projection.result import Projection

__all__ = ["LeanCall", "Unread", "refuse_changed"]

_BINARY, _INT64 = (0, 1), torch.int64
_SWEEPS, _MULTIPLIER, _UNMOVED = 0, 1, 5  # places of a solution, see `fairlayer.fused.two_groups`
_FEW = 4096
_EUCLIDEAN, _ENTROPIC, _LIKELIHOOD, _LOGITS = 0, 1, 2, 3

# Looked up once: each way through a module costs as much as the call at its end.
_tracing_state, _recording = torch._C._get_tracing_state, torch.is_grad_enabled
# What a forward saves is packed by hooks where there are some: checkpointing has them, which runs the forward again.
# A torch without this name is not asked: what has a graph goes the general way then.
_hooks_of_saved: Callable[[bool], Any] = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", bool)


_CHANGED = (
    "the scores or the groups, which the gradient needs, have been modified by an inplace operation since the forward. "
    "Pass copies to the layer, or change them after the backward."
)


class _Kernels(NamedTuple):
    """What one dtype needs: compiled functions, and the terms that they take."""

    solve: Callable[..., tuple[float, ...]]
    adjoint: Callable[..., None]
    geometry: int
    lower: float
    upper: float


class Unread(NamedTuple):
    """A lean call: the batch, and what was found. As a result nobody has read it; the backward pass reads it itself."""

    call: LeanCall
    how: _Kernels
    scores: Tensor  # as the value without a graph
    codes: Tensor
    value: Tensor
    versions: tuple[int, int]  # of the scores and the codes
    vocabulary: Vocabulary
    tolerance: float
    solution: tuple[float, ...]

    def read(self) -> Projection:
        """Return the whole result.

        Raises:
            ChangedBatchError: the scores or the groups were changed in place since the call.
        """
        refuse_changed((self.scores, self.codes), self.versions)
        price, passes = self.solution[_MULTIPLIER], int(self.solution[_SWEEPS])
        faces = ((0, 0, 1) if price > 0.0 else (0, 1, 0),) if price else ()  # the higher group first
        found = HeldSolution(faces, np.full(len(faces), abs(price)), passes, value=self.value.reshape(-1))
        features = {self.call.name: self.codes}
        return self.call.plan.at_limits([self.tolerance]).resume(self.scores, features, self.vocabulary, [found])

    def again(self, scores: Tensor, codes: Tensor) -> Tensor:
        """Return the general projection of the batch, as autograd knows it."""
        plan = self.call.plan.at_limits([self.tolerance])
        return plan.run(scores, {self.call.name: codes}, None, vocabulary=self.vocabulary).value


class _LeanProjection(torch.autograd.Function):
    """scores -> value, with the exact adjoint."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, value: tuple[Tensor], found: Unread) -> Tensor:
        ctx.scores, ctx.found = scores, found
        return value[0]

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        upstream: Tensor = upstreams[0]
        found: Unread = ctx.found
        scores, codes = found.scores, found.codes
        if (scores._version, codes._version) != found.versions:
            raise RuntimeError(_CHANGED)
        if _recording():  # the derivative is differentiated in its turn: the general way can be
            value = found.again(ctx.scores, codes)
            return torch.autograd.grad(value, ctx.scores, upstream, create_graph=True)[0], None, None
        n, step = codes.numel(), 1
        if upstream.is_neg():
            upstream = upstream.resolve_neg()
        if not upstream.is_contiguous():
            if n <= _FEW and not any(upstream.stride()):
                step = 0  # one number for all, as the gradient of a sum or a mean is: read in place
            else:
                upstream = upstream.contiguous()
        gradient, how = torch.empty_like(scores), found.how
        how.adjoint(
            scores.data_ptr(),
            upstream.data_ptr(),
            step,
            codes.data_ptr(),
            gradient.data_ptr(),
            n,
            found.tolerance,
            how.geometry,
            how.lower,
            how.upper,
            *found.solution,
        )
        return gradient, None, None


# `Function.apply` without its search for wrappers of torch.func, of which there are none here. The engine calls `apply`
# of the node's class, which would look for the backward on each call: here it is the backward.
_apply: Any = super(torch.autograd.Function, _LeanProjection).apply
_node: Any = getattr(_LeanProjection, "_backward_cls", None)
if _node is not None:
    _node.apply = _LeanProjection.backward


class LeanCall:
    """The lean way of one plan.

    Args:
        plan: constraints and options; `fits` tells whether they have a lean way.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rule: Any = plan.constraints[0]
        (self.name,) = self.rule.features
        self.geometry = _number(plan.options.rule, from_logits=plan.options.from_logits)
        self._of: dict[torch.dtype, _Kernels] = {}

    @staticmethod
    def fits(plan: Plan) -> bool:
        """Return whether the plan states one parity over one feature, with plain options."""
        options, constraints = plan.options, plan.constraints
        if len(constraints) != 1 or constraints[0].spread_over() is None or constraints[0].classes is not None:
            return False
        if options.backend != "exact" or options.on_simplex or options.ranks is not None or options.fixed_box is None:
            return False
        if options.rule == Euclidean():
            return (options.fixed_box.lower is None) == (options.fixed_box.upper is None)
        return _number(options.rule, from_logits=options.from_logits) >= 0

    def __call__(self, scores: Tensor, features: Any, vocabulary: Vocabulary) -> tuple[Tensor, Unread] | None:
        """Return the value and the unread result; None where the batch must go the general way.

        Args:
            scores: (n,) or (n, 1).
            features: as they were given.
            vocabulary: the categories that are known.
        """
        codes = features
        if type(features) is dict:
            codes = features.get(self.name) if len(features) == 1 else None
        if type(scores) is not Tensor or type(codes) is not Tensor or codes.dtype is not _INT64:
            return None
        rows, shape = codes.shape, scores.shape
        if (
            len(rows) != 1
            or shape not in (rows, (*rows, 1))
            or not (codes.is_cpu and scores.is_cpu and codes.is_contiguous() and scores.is_contiguous())
            or scores.is_neg()
            or forward_ad._current_level >= 0
            or transforming()
            or _tracing_state() is not None
            or vocabulary.categories.get(self.name) != _BINARY
        ):
            return None
        how, tolerance, once = self._of.get(scores.dtype), self.rule.tolerance, self.plan.once
        if how is None:
            how = self._learn(scores.dtype, rows[0])
        followed = scores.requires_grad and _recording()
        if how is None or type(tolerance) is not float or once.due_next() or (followed and _hooks_of_saved(True)):
            return None
        try:
            versions = scores._version, codes._version
        except RuntimeError:  # tensors of inference mode have none
            return None
        plain = scores.detach()
        value = torch.empty_like(plain)
        solution = how.solve(
            plain.data_ptr(), codes.data_ptr(), value.data_ptr(), rows[0], tolerance, how.geometry, how.lower, how.upper
        )
        if not solution[_SWEEPS] > 0.0:
            return None
        once.count()
        if followed and solution[_UNMOVED]:  # a copy, whose derivative autograd has of its own
            value, followed = scores.clone(), False
        found = Unread(self, how, plain, codes, value.detach(), versions, vocabulary, tolerance, solution)
        return (_apply(scores, (value,), found) if followed else value), found

    def _learn(self, dtype: torch.dtype, rows: int) -> _Kernels | None:
        """Look up what a dtype needs, once compiled sweeps are there."""
        sweeps = kernels(rows) if dtype in {torch.float32, torch.float64} else None
        if sweeps is None:
            return None
        compiled = sweeps.two_groups
        solve, adjoint = (
            (compiled.solve_float32, compiled.adjoint_float32)
            if dtype == torch.float32
            else (compiled.solve_float64, compiled.adjoint_float64)
        )
        options = self.plan.options
        lower, upper = -np.inf, np.inf
        if options.rule.bounded:
            inner = inner_margin(dtype, options.margin)
            lower, upper = inner, 1.0 - inner
        elif options.fixed_box is not None and options.fixed_box.lower is not None:
            lower, upper = options.fixed_box.lower, options.fixed_box.upper
        self._of[dtype] = _Kernels(compiled.entry(solve), compiled.entry(adjoint), self.geometry, lower, upper)
        return self._of[dtype]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_of": {}}  # compiled functions are looked up again where they arrive


def refuse_changed(batch: tuple[Tensor, Tensor], versions: tuple[int, int]) -> None:
    """Refuse to read a result whose batch is no longer what was projected.

    Raises:
        ChangedBatchError: the scores or the groups were changed in place.
    """
    if tuple(each._version for each in batch) != versions:
        raise ChangedBatchError(
            "the result of the latest call was asked for, but its scores or its groups were changed in place since, so "
            "that nothing can be proved of it. Read the result before the tensors are reused, or pass copies."
        )


def _number(rule: Geometry, *, from_logits: bool) -> int:
    """Return a geometry as the number by which compiled sweeps know it; -1 where they do not."""
    if rule == Likelihood() and from_logits:
        return -1
    known = {Euclidean(): _EUCLIDEAN, Entropic(): _LOGITS if from_logits else _ENTROPIC, Likelihood(): _LIKELIHOOD}
    return known.get(rule, -1)
