"""The whole call for one parity on a device: it never waits for the device, and asks it nothing.

So nobody here can see whether a batch was fit to be projected. Every prediction of a batch that the general way would
refuse is NaN: codes that are not a group, scores that are not finite or not probabilities, an absent group where that
is an error. So is every prediction of a batch whose steps have not reached the accuracy. Reading the result then raises
what the general way says of that batch. The certificate is computed when the result is read, as always.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from fairlayer._arrays import holds_no_numbers, transforming
from fairlayer._typing import FloatArray
from fairlayer.edge import read_per_sample
from fairlayer.errors import ShapeError, SolverError
from fairlayer.groups import Vocabulary
from fairlayer.passes import Passes
from fairlayer.projection.device_range import MOST_GROUPS, STEPS, DeviceBatch, adjoint, solve_range
from fairlayer.projection.exact import HeldSolution, result_dtype
from fairlayer.projection.lean import refuse_changed
from fairlayer.solve import SlabSystem, WidenedSolution
from fairlayer.solve.table import RowTable, faces_of_prices

if TYPE_CHECKING:
    from fairlayer.projection.plan import Plan
    from fairlayer.projection.result import Projection

__all__ = ["DeviceCall", "UnreadOnDevice"]

_SETTLED, _STEPS, _PRICES = 0, 1, 2  # places of a record


class _Priced(NamedTuple):
    """A solution that is known by the prices of the groups that are there."""

    price: FloatArray
    passes: int
    value: Tensor
    widening: float = 0.0

    def solved(self, passes: Passes, slabs: SlabSystem) -> WidenedSolution:
        """Return it as the solver would."""
        high, low = np.maximum(self.price, 0.0), np.maximum(-self.price, 0.0)
        faces, multipliers = faces_of_prices(slabs, RowTable.of(slabs), high, low) if self.price.any() else ((), None)
        prices = np.zeros(0) if multipliers is None else multipliers
        return HeldSolution(tuple(face.key for face in faces), prices, self.passes).solved(passes, slabs)


class _DeviceProjection(torch.autograd.Function):
    """scores -> value, with the exact adjoint."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, value: tuple[Tensor], batch: tuple[Tensor, Tensor], held: Any) -> Tensor:
        ctx.save_for_backward(scores, *batch)
        ctx.held = held
        return value[0]

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        scores, codes, price = ctx.saved_tensors
        call, vocabulary, tolerance = ctx.held
        upstream: Tensor = upstreams[0]
        if torch.is_grad_enabled():  # the derivative is differentiated in its turn: the general way can be
            value = call.again(scores, codes, vocabulary, tolerance)
            return torch.autograd.grad(value, scores, upstream, create_graph=True)[0], None, None, None
        with torch.enable_grad():
            given = scores.detach().requires_grad_()
            x = call.coordinates(given)
        batch = call.batch(x.detach(), call.safe(codes, len(price))[0], len(price), scores)
        gradient = adjoint(batch, price, upstream.reshape(-1).double(), equal=tolerance == 0.0)
        return torch.autograd.grad(x, given, gradient)[0], None, None, None


class UnreadOnDevice:
    """A result on a device that nobody has read.

    Args:
        call: how it was made.
        batch: scores, codes, value, categories and tolerance.
        record: whether the steps settled, how many it took, the price of each group, and its samples.
    """

    __slots__ = ("_batch", "_call", "_record", "_versions")

    def __init__(
        self, call: DeviceCall, batch: tuple[Tensor, Tensor, Tensor, Vocabulary, float], record: Tensor
    ) -> None:
        self._call, self._batch, self._record = call, batch, record
        self._versions = batch[0]._version, batch[1]._version

    def read(self) -> Projection:
        """Return the whole result; the record travels to the host here.

        Raises:
            ChangedBatchError: the scores or the groups were changed in place since the call.
            FairlayerError: what the general way says of a batch that cannot be projected.
            SolverError: the steps have not reached the accuracy.
        """
        scores, codes, value, vocabulary, tolerance = self._batch
        refuse_changed((scores, codes), self._versions)
        plan, features = self._call.plan.at_limits([tolerance]), {self._call.name: codes}
        record = self._record.cpu().numpy()
        if not record[_SETTLED]:
            plan.run(scores, features, None, vocabulary=vocabulary)
            raise SolverError(
                f"the {STEPS} steps that a device takes without asking the host have not reached the accuracy for this "
                "batch, so that its predictions are NaN. This happens where groups are small and nearly all scores lie "
                "outside the bounds; look at their scale, or use fairlayer.project, which asks after each step."
            )
        prices, counts = np.split(record[_PRICES:], 2)
        found: Any = _Priced(
            prices[counts > 0], int(record[_STEPS]), value.reshape(-1)
        )  # what `Found` is, by its prices
        return plan.resume(scores, features, vocabulary, [found])


class DeviceCall:
    """The way of one plan on a device.

    Args:
        plan: constraints and options; `fits` tells whether they have such a way.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        (self.name,) = plan.constraints[0].features

    @staticmethod
    def fits(plan: Plan) -> bool:
        """Whether the plan states one parity over one feature, on a box that is the same for every sample."""
        options, constraints = plan.options, plan.constraints
        if len(constraints) != 1 or constraints[0].spread_over() is None or constraints[0].classes is not None:
            return False
        return (
            options.backend == "exact"
            and not options.on_simplex
            and options.ranks is None
            and options.fixed_box is not None
        )

    def __call__(
        self, scores: Tensor, features: Any, vocabulary: Vocabulary, labels: dict[str, Any]
    ) -> tuple[Tensor, UnreadOnDevice] | None:
        """Return the value and the unread result; None where the batch must go the general way.

        Args:
            scores: (n,) or (n, 1), on a device.
            features: as they were given.
            vocabulary: the categories that are known; the groups are codes 0, 1, ... of a closed one.
            labels: labels and estimates by name, at which nobody looks here; what is wrong with their shape is said.
        """
        codes = features
        if type(features) is dict:
            codes = features.get(self.name) if len(features) == 1 else None
        known = vocabulary.categories.get(self.name, ())
        tolerance = self.plan.constraints[0].tolerance  # type: ignore[attr-defined]
        if (
            not isinstance(codes, Tensor)
            or vocabulary.open
            or not 1 < len(known) <= MOST_GROUPS
            or known != tuple(range(len(known)))
            or type(tolerance) is not float
            or not _fit(scores, codes)
        ):
            return None
        for what, given in labels.items():
            _check_length(what, given, scores)
        with torch.no_grad():
            value, price, record = self._solve(scores.detach(), codes, len(known), tolerance)
        unread = UnreadOnDevice(self, (scores.detach(), codes, value.detach(), vocabulary, tolerance), record)
        if scores.requires_grad and torch.is_grad_enabled():
            value = _DeviceProjection.apply(scores, (value,), (codes, price), (self, vocabulary, tolerance))  # type: ignore[no-untyped-call]
        return value, unread

    def _solve(self, scores: Tensor, codes: Tensor, groups: int, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the value, the prices, and the record of one batch."""
        rule = self.plan.options.rule
        safe, legal = self.safe(codes, groups)
        batch = self.batch(self.coordinates(scores), safe, groups, scores)
        found = solve_range(batch, tolerance)
        fit = found.settled & legal & torch.isfinite(scores).all()
        if rule.bounded and not self.plan.options.from_logits:
            fit = fit & (scores >= -1e-6).all() & (scores <= 1.0 + 1e-6).all()
        if self.plan.options.on_empty == "raise":
            fit = fit & batch.present.all()
        value = rule.inside(found.value.to(result_dtype(scores)))
        value = torch.where(fit, value, torch.nan).reshape(scores.shape)
        counts = torch.where(batch.present, batch.size, 0.0)
        return value, found.price, torch.cat([fit.double()[None], found.steps[None], found.price, counts])

    def coordinates(self, scores: Tensor) -> Tensor:
        """Return scores (n,) or (n, 1) in the coordinate of the geometry, (n,) float64, differentiably."""
        options = self.plan.options
        x: Tensor = options.rule.coordinates(scores, from_logits=options.from_logits, margin=options.margin)
        return x.reshape(-1).double()

    def batch(self, x: Tensor, codes: Tensor, groups: int, scores: Tensor) -> DeviceBatch:
        """Return the batch of some scores, ready to be swept."""
        box = self.plan.options.box(scores)
        return DeviceBatch.of(x, codes, groups, box.lower, box.upper, self.plan.options.rule)

    @staticmethod
    def safe(codes: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """Return codes 0 to `groups`, the last for samples of unknown group, and whether all of them had a meaning."""
        whole = codes.long()
        known = (whole >= 0) & (whole < groups)
        return torch.where(known, whole, groups), (known | (whole == -1)).all()

    def again(self, scores: Tensor, codes: Tensor, vocabulary: Vocabulary, tolerance: float) -> Tensor:
        """Return the general projection of a batch."""
        return self.plan.at_limits([tolerance]).run(scores, {self.name: codes}, None, vocabulary=vocabulary).value


def _fit(scores: Tensor, codes: Tensor) -> bool:
    """Whether a batch has the form that is served, and nothing but a backward pass will follow it."""
    n = scores.numel()
    return (
        scores.device == codes.device
        and scores.is_floating_point()
        and not codes.is_floating_point()
        and not codes.is_complex()
        and codes.shape == (n,)
        and 0 < n == scores.shape[0]
        and scores.dim() in {1, 2}
        and scores.layout is torch.strided
        and not holds_no_numbers(scores)
        and not torch.is_inference_mode_enabled()
        and not codes.is_inference()
        and torch._C._get_tracing_state() is None
        and not torch.compiler.is_compiling()
        and not transforming()
        and forward_ad._current_level < 0
    )


def _check_length(what: str, given: Any, scores: Tensor) -> None:
    """Refuse labels of another length; their values stay on the device, unread.

    Raises:
        ShapeError: there is not one per score.
    """
    if given is None:
        return
    if not isinstance(given, Tensor) or given.is_cpu:
        read_per_sample(what, given, tuple(scores.shape))
    elif given.numel() != scores.numel():
        raise ShapeError(
            f"{what} must have one entry per score, but has shape {tuple(given.shape)} for scores of shape "
            f"{tuple(scores.shape)}. Give one per sample, in the order of the scores."
        )
