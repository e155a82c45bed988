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
from fairlayer._typing import FloatArray
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

_BINARY = (0, 1)
_MULTIPLIER, _PASSES, _RECORD = 0, 7, 9  # places of a record, see `fairlayer.fused.two_groups`
_FEW = 4096
_EUCLIDEAN, _ENTROPIC, _LIKELIHOOD, _LOGITS = 0, 1, 2, 3


class _Kernels(NamedTuple):
    """What one dtype needs."""

    solve: Callable[..., int]
    adjoint: Callable[..., None]
    terms: FloatArray  # the geometry and the bounds


class _LeanProjection(torch.autograd.Function):
    """scores -> value, with the exact adjoint."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, value: tuple[Tensor], codes: Any, held: Any) -> Tensor:
        ctx.save_for_backward(scores, codes[0])
        ctx.held = held
        return value[0]

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        upstream: Tensor = upstreams[0]
        scores, codes = ctx.saved_tensors
        call, how, record, vocabulary, tolerance = ctx.held
        if torch.is_grad_enabled():  # the derivative is differentiated in its turn: the general way can be
            value = call.again(scores, codes, vocabulary, tolerance)
            return torch.autograd.grad(value, scores, upstream, create_graph=True)[0], None, None, None
        step = 1
        upstream = upstream.resolve_neg()
        if not upstream.is_contiguous():
            if codes.numel() <= _FEW and not any(upstream.stride()):
                step = 0  # one number for all, as the gradient of a sum or a mean is: read in place
            else:
                upstream = upstream.contiguous()
        gradient = torch.empty_like(scores)
        upstream_and_codes = upstream.data_ptr(), step, codes.data_ptr()
        how.adjoint(scores.data_ptr(), *upstream_and_codes, gradient.data_ptr(), codes.numel(), how.terms, record)
        return gradient, None, None, None


# `Function.apply` without its search for wrappers of torch.func, of which there are none here.
_apply: Any = super(torch.autograd.Function, _LeanProjection).apply


_Batch = tuple[Tensor, Tensor, Tensor, Vocabulary, float]  # scores, codes, value, categories, tolerance


class Unread:
    """A lean result that nobody has read: the batch, and what was found."""

    __slots__ = ("_batch", "_call", "_record", "_versions")

    def __init__(
        self,
        call: LeanCall,
        batch: tuple[Tensor, Tensor, Tensor, Vocabulary, float],
        versions: tuple[int, int],
        record: Any,
    ) -> None:
        self._call, self._batch, self._versions, self._record = call, batch, versions, record

    def read(self) -> Projection:
        """Return the whole result.

        Raises:
            ChangedBatchError: the scores or the groups were changed in place since the call.
        """
        scores, codes, value, vocabulary, tolerance = self._batch
        refuse_changed((scores, codes), self._versions)
        price, passes = float(self._record[_MULTIPLIER]), int(self._record[_PASSES])
        faces = ((0, 0, 1) if price > 0.0 else (0, 1, 0),) if price else ()  # the higher group first
        found = HeldSolution(faces, np.full(len(faces), abs(price)), passes, value=value.reshape(-1))
        return self._call.plan.at_limits([tolerance]).resume(scores, {self._call.name: codes}, vocabulary, [found])


class LeanCall:
    """The lean way of one plan.

    Args:
        plan: constraints and options; `fits` tells whether they have a lean way.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        (self.name,) = plan.constraints[0].features
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
        plan, name = self.plan, self.name
        if type(scores) is not Tensor or plan.once.due_next():
            return None
        codes = features
        if type(features) is dict:
            codes = features.get(name)
            if len(features) != 1:
                return None
        n = scores.numel()
        if (
            type(codes) is not Tensor
            or codes.dtype is not torch.int64
            or codes.numel() != n
            or codes.dim() != 1
            or not n
            or scores.dim() not in {1, 2}
            or scores.shape[0] != n
            or scores.is_neg()
            or _saved_elsewhere()
            or vocabulary.categories.get(name) != _BINARY
            or not (codes.is_cpu and scores.is_cpu and codes.is_contiguous() and scores.is_contiguous())
            or torch.is_inference_mode_enabled()
            or torch._C._get_tracing_state() is not None
            or codes.is_inference()
            or transforming()
            or forward_ad._current_level >= 0
        ):
            return None
        how = self._of.get(scores.dtype) or self._learn(scores.dtype, n)
        tolerance = plan.constraints[0].tolerance  # type: ignore[attr-defined]
        if how is None or type(tolerance) is not float:
            return None
        plain = scores.detach()
        value, record = torch.empty_like(plain), np.empty(_RECORD)
        addresses = plain.data_ptr(), codes.data_ptr(), value.data_ptr()
        ended = how.solve(*addresses, n, tolerance, how.terms, record)
        if ended != 0:
            return None
        plan.once.count()
        batch = plain, codes, value.detach(), vocabulary, tolerance
        unread = Unread(self, batch, (plain._version, codes._version), record)
        if scores.requires_grad and torch.is_grad_enabled():
            value = _apply(scores, (value,), (codes,), (self, how, record, vocabulary, tolerance))
        return value, unread

    def again(self, scores: Tensor, codes: Tensor, vocabulary: Vocabulary, tolerance: float) -> Tensor:
        """Return the general projection of a batch."""
        return self.plan.at_limits([tolerance]).run(scores, {self.name: codes}, None, vocabulary=vocabulary).value

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
        self._of[dtype] = _Kernels(solve, adjoint, np.array([self.geometry, lower, upper]))
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


def _saved_elsewhere() -> bool:
    """Return whether what a forward saves is packed by hooks, as by checkpointing, which runs the forward again."""
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return top is not None and top(True) is not None


def _number(rule: Geometry, *, from_logits: bool) -> int:
    """Return a geometry as the number by which compiled sweeps know it; -1 where they do not."""
    if rule == Likelihood() and from_logits:
        return -1
    known = {Euclidean(): _EUCLIDEAN, Entropic(): _LOGITS if from_logits else _ENTROPIC, Likelihood(): _LIKELIHOOD}
    return known.get(rule, -1)
