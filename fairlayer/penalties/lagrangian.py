"""Augmented Lagrangian whose multipliers a PI controller moves.

With e the excess of a face (<= 0 where it holds), l >= 0 its multiplier and rho the augmentation, the term is

    psi(e, l) = ([l + rho e]_+^2 - l^2) / (2 rho) = l e + rho/2 e^2   if l + rho e >= 0,   else -l^2 / (2 rho)

whose gradient is `[l + rho e]_+ de` (for rho = 0: `l e`). With xi the running mean of past excesses, one update is

    l  <- [l + k_i e + k_p (1 - nu) (e - xi)]_+        xi <- nu xi + (1 - nu) e

At the first excess of a face xi is that excess, so the proportional part starts at 0. With nu = 0, xi is the
previous excess. k_i = rho, k_p = 0 is the classical method of multipliers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from fairlayer._typing import called_like
from fairlayer.constraints import Constraint
from fairlayer.edge import Stated
from fairlayer.errors import ConstraintDefinitionError, FairlayerError
from fairlayer.penalties.excess import FaceValues, face_values
from fairlayer.penalties.reading import StatementReader, outside_graphs, result_dtype
from fairlayer.penalties.term import LossTerm
from fairlayer.tensor_state import PAGE, moved, read_tensor, refuse_foreign, to_tensor

__all__ = ["AugmentedLagrangian", "NothingObservedError", "augmented_term", "controlled_update"]

_KEPT = {"multipliers": torch.float64, "mean_excess": torch.float64, "seen": torch.bool}  # one entry per face
_ROOM = 4 * PAGE  # for about 150 faces


class NothingObservedError(FairlayerError, RuntimeError):
    """An update of the multipliers was asked for without a batch to make it from."""


def augmented_term(excess: Tensor, multipliers: Tensor, augmentation: float) -> Tensor:
    """Return `sum psi(excess, multipliers)`, see the head of this file; both (faces,).

    Source: Rockafellar (1973), "The multiplier method of Hestenes and Powell applied to convex programming".

    Example:
        >>> augmented_term(torch.tensor([0.5, -9.0]), torch.tensor([1.0, 1.0]), 2.0)
        tensor(0.5000)
    """
    pulls = multipliers + augmentation * excess >= 0
    inside = multipliers * excess + 0.5 * augmentation * excess.square()
    outside = -multipliers.square() / (2.0 * max(augmentation, 1e-300))
    return torch.where(pulls, inside, outside).sum()


def controlled_update(
    multipliers: Tensor, excess: Tensor, mean: Tensor, *, integral: float, proportional: float, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Return the next multipliers and the next mean of excesses, see the head of this file; all (faces,).

    Source: Sohrabi et al. (2024), "On PI controllers for updating Lagrange multipliers in constrained optimization",
        the nuPI update in its recursive form.

    Example:
        >>> one = torch.ones(1)
        >>> controlled_update(one, 0.5 * one, 0.1 * one, integral=1.0, proportional=10.0, smoothing=0.0)
        (tensor([5.5000]), tensor([0.5000]))
    """
    step = integral * excess + proportional * (1.0 - smoothing) * (excess - mean)
    return (multipliers + step).clamp_min(0.0), smoothing * mean + (1.0 - smoothing) * excess


class AugmentedLagrangian(LossTerm):
    """The constraints as a term of the loss whose weights are learnt, so that nobody has to tune them.

        loss + lagrangian(scores, sensitive_features=..., y=...)        minimised by the model's optimiser
        lagrangian.update()                                             once per step, after it

    One multiplier per face: per ordered pair of groups of a spread, per finite limit of a row (see `Excess`). Signed
    pairs keep the noise of small batches from adding up: their excesses average out, those of `max - min` do not.
    A face about a group that the batch lacks keeps its multiplier. Multipliers are created at 0 when a face is first
    seen. They follow `.to(device)` and travel in the `state_dict`, but are not buffers, which model averages mix.

    Args:
        constraints: one constraint, or several.
        augmentation: rho >= 0, loss per squared unit of excess.
        integral: k_i > 0, how fast a multiplier follows the excess.
        proportional: k_p >= 0, damps: answers to the change of the excess.
        smoothing: nu in [0, 1), share of the past in the mean that the proportional part compares with.

    Raises:
        ConstraintDefinitionError: an argument outside its range.

    Source: Rockafellar (1973); Sohrabi et al. (2024) for the update.
    Limits: what holds in the end holds for mean scores over the training batches, up to their noise, and not for any
        single batch. With several processes each updates from its own batches.

    Example:
        >>> import fairlayer as fl
        >>> lagrangian = AugmentedLagrangian(fl.DemographicParity("sex", tolerance=0.1), augmentation=1.0)
        >>> z = torch.tensor([0.2, 0.8])
        >>> y = z.clone().requires_grad_()
        >>> for _ in range(200):
        ...     loss = (y - z).square().sum() / 2 + lagrangian(y, sensitive_features={"sex": ["F", "M"]})
        ...     y = (y - 0.3 * torch.autograd.grad(loss, y)[0]).detach().requires_grad_()
        ...     lagrangian.update()
        >>> [round(v, 3) for v in y.tolist()], {k: round(v, 3) for k, v in lagrangian.named_multipliers().items() if v}
        ([0.45, 0.55], {"DemographicParity('sex'): mean[sex=M] - mean[sex=F]": 0.25})
    """

    multipliers: Tensor
    mean_excess: Tensor
    seen: Tensor

    def __init__(
        self,
        constraints: Stated,
        *,
        augmentation: float = 10.0,
        integral: float = 0.1,
        proportional: float = 1.0,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.reader = StatementReader(constraints)
        self.augmentation = _within("augmentation", augmentation, "[0, inf)", 0.0 <= augmentation < math.inf)
        self.integral = _within("integral", integral, "(0, inf)", 0.0 < integral < math.inf)
        self.proportional = _within("proportional", proportional, "[0, inf)", 0.0 <= proportional < math.inf)
        self.smoothing = _within("smoothing", smoothing, "[0, 1)", 0.0 <= smoothing < 1.0)
        for name, dtype in _KEPT.items():
            setattr(self, name, torch.zeros(0, dtype=dtype, device="cpu"))
        self._places: dict[str, int] = {}
        self._observed: FaceValues | None = None

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What must hold."""
        return self.reader.constraints

    def fit_categories(self, sensitive_features: Any) -> None:
        """Learn the categories of the features, and close the vocabulary: an unseen category is an error."""
        self.reader.fit_categories(sensitive_features)

    def named_multipliers(self) -> dict[str, float]:
        """Return the multiplier of each face seen so far, in loss per unit of its limit."""
        return dict(zip(self._places, self.multipliers.tolist(), strict=True))

    @outside_graphs
    def forward(
        self, scores: Tensor, *, sensitive_features: Any = None, y: Any = None, label_probabilities: Any = None
    ) -> Tensor:
        """Return the term of the loss, 0-d; in training mode remember the excess for `update`."""
        read = self.reader(scores, sensitive_features, y, label_probabilities)
        values = face_values(scores, self.constraints, read)
        self._make_room(values.names)
        multipliers = self.multipliers[self._index(values)].to(values.excess)
        if self.training:
            self._observed = values._replace(excess=values.excess.detach())
        in_graph = (scores.to(result_dtype(scores)) * 0.0).sum()
        return in_graph + augmented_term(values.excess, multipliers, self.augmentation)

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    @torch.no_grad()
    def update(self) -> None:
        """Move the multipliers of the faces that the latest training batch spoke of.

        Raises:
            NothingObservedError: no training batch since the last update.
        """
        if self._observed is None:
            raise NothingObservedError(
                "AugmentedLagrangian.update() was called, but no batch went through it in training mode since the last "
                "update. Call lagrangian(scores, ...) first, once per update, with lagrangian.train()."
            )
        values, self._observed = self._observed, None
        here = torch.as_tensor(values.present, device=self.multipliers.device)
        index = self._index(values)[here]
        excess = values.excess.to(self.multipliers)[here]
        mean = torch.where(self.seen[index], self.mean_excess[index], excess)
        self.multipliers[index], self.mean_excess[index] = controlled_update(
            self.multipliers[index],
            excess,
            mean,
            integral=self.integral,
            proportional=self.proportional,
            smoothing=self.smoothing,
        )
        self.seen[index] = True

    def after_step(self) -> None:
        """Update, if a training batch went through since the last update."""
        if self._observed is not None:
            self.update()

    def reset(self) -> None:
        """Set every multiplier to 0 and forget the excesses; the categories stay."""
        for name in _KEPT:
            getattr(self, name).zero_()
        self._observed = None

    def _make_room(self, names: Sequence[str]) -> None:
        new = [name for name in names if name not in self._places]
        if new:
            for name in new:
                self._places[name] = len(self._places)
            for name in _KEPT:
                old = getattr(self, name)
                setattr(self, name, torch.cat([old, old.new_zeros(len(new))]))

    def _index(self, values: FaceValues) -> Tensor:
        return torch.tensor([self._places[name] for name in values.names], device=self.multipliers.device).long()

    def get_extra_state(self) -> Tensor:
        """Return the faces and their multipliers as one tensor; see `fairlayer.tensor_state`."""
        kept = {name: getattr(self, name) for name in _KEPT}
        return to_tensor("multipliers", {"faces": list(self._places), **kept}, room=_ROOM)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the faces and their multipliers.

        Raises:
            CheckpointError: it is no such tensor, was changed, or is of other constraints; nothing has changed.
        """
        faces, kept = self._read_state(state)
        self._places = {name: k for k, name in enumerate(faces)}
        for name, value in zip(_KEPT, kept, strict=True):
            setattr(self, name, value.to(self.multipliers.device))
        self._observed = None

    def _read_state(self, state: Tensor) -> tuple[list[str], list[Tensor]]:
        faces, kept = read_tensor("multipliers", state, lambda s: (list(s["faces"]), [s[name] for name in _KEPT]))
        own = tuple(constraint.name for constraint in self.constraints)
        if not any(face.startswith(own) for face in faces):
            refuse_foreign("multipliers", faces, own)
        return faces, kept

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name in _KEPT:
            setattr(self, name, moved(getattr(self, name), fn))
        return self

    def extra_repr(self) -> str:
        """Show the gains."""
        return (
            f"augmentation={self.augmentation:g}, integral={self.integral:g}, proportional={self.proportional:g}, "
            f"smoothing={self.smoothing:g}"
        )


def _within(name: str, value: float, allowed: str, holds: bool) -> float:
    if not holds:
        raise ConstraintDefinitionError(f"AugmentedLagrangian: {name} must be in {allowed}, but is {value!r}.")
    return float(value)
