"""FairModel: batch -> backbone -> cells -> projection -> prediction. Owns no arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fairlayer.constraints import Constraint, DemographicParity
from fairlayer.constraints.statements import Tolerance
from fairlayer.errors import (
    ConstraintDefinitionError,
    MissingLabelsError,
    MissingSensitiveFeatureError,
    OutputError,
    ShapeError,
    SmallBatchError,
)
from fairlayer.inputs import Bounds, as_constraints
from fairlayer.projection import FairProjection
from fairlayer.result import Projection

__all__ = ["FairModel"]


class FairModel(nn.Module):
    """Any module whose predictions meet affine fairness constraints on every batch.

        forward(x) = projection of scores(x) onto the constraints and bounds, differentiably

    Wrap a backbone, or subclass and define `scores(self, *args, **kwargs)`.

    Args:
        backbone: module whose output is (n,), (n, 1), or (n, k) for k independent scores (or has such `.logits`).
        constraints: what must hold for the mean predictions of each batch.
        bounds: (lower, upper) of the predictions, for example (0.0, 1.0); None for no bounds.
        margin: inner box (lower + margin, upper - margin), so that a log loss keeps its gradient.
        b_tau: batch size from which `inference=True` projects the batch by itself.
        protected_attr_idx: a column of x, or several, used as sensitive features named `x[i]`.
        tolerance: with `protected_attr_idx`: one DemographicParity(`x[i]`, tolerance) for each column.
        on_empty: "skip" or "raise", see `project`.
        on_infeasible: "raise" or "relax", see `project`.
        backend: "exact", or "cvxpylayers", the reference.

    Raises:
        FairlayerError: a named subclass; see `fairlayer.errors`.

    Example:
        >>> import torch, fairlayer as fl
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Sigmoid())
        >>> model = fl.FairModel(net, [fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0))
        >>> scores = model(torch.randn(64, 3), sensitive_features={"sex": torch.arange(64) % 2})
        >>> scores.shape, model.last_projection.certificate.holds
        (torch.Size([64, 1]), True)
    """

    def __init__(
        self,
        backbone: nn.Module | None = None,
        constraints: Sequence[Constraint] = (),
        *,
        bounds: Bounds = None,
        margin: float = 0.0,
        b_tau: int = 256,
        protected_attr_idx: int | Sequence[int] | None = None,
        tolerance: Tolerance | None = None,
        on_empty: str = "skip",
        on_infeasible: str = "raise",
        backend: str = "exact",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.protected_attr_idx = _as_indices(protected_attr_idx)
        self.b_tau = b_tau
        self.projection = FairProjection(
            [*as_constraints(constraints), *_column_constraints(self.protected_attr_idx, tolerance)],
            bounds=bounds,
            margin=margin,
            on_empty=on_empty,
            on_infeasible=on_infeasible,
            backend=backend,
        )

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What must hold."""
        return self.projection.constraints

    @property
    def last_projection(self) -> Projection | None:
        """The whole result of the latest forward, detached from the graph."""
        return self.projection.last

    def fit_categories(self, sensitive_features: Any) -> None:
        """Learn the categories of the features, and close the vocabulary: an unseen category is an error."""
        self.projection.fit_categories(sensitive_features)

    def scores(self, *args: Any, **kwargs: Any) -> Any:
        """Return the backbone's scores; override it in a subclass without a backbone."""
        if self.backbone is None:
            raise OutputError(
                f"{type(self).__name__} has no backbone. Pass one, or define scores(self, *args, **kwargs)."
            )
        return self.backbone(*args, **kwargs)

    def raw_scores(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the scores as a tensor, before the projection."""
        return _as_scores(self.scores(*args, **kwargs))

    def forward(
        self,
        *args: Any,
        sensitive_features: Any = None,
        y: Any = None,
        label_probabilities: Any = None,
        inference: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """Return predictions that meet the constraints; shape and device of the backbone's output.

        Args:
            *args: passed to the backbone.
            sensitive_features: see `project`.
            y: labels, for constraints that look at labels; needed in training mode only.
            label_probabilities: estimates of the labels in [0, 1], used where there is no y; by default, in
                evaluation mode, the raw scores.
            inference: the regime of production, for batches of at least `b_tau`.
            **kwargs: passed to the backbone.

        Raises:
            SmallBatchError: `inference` with fewer than `b_tau` samples.
            MissingLabelsError: a label-based constraint in training mode without y.
        """
        scores = self.raw_scores(*args, **kwargs)
        if inference and len(scores) < self.b_tau:
            raise SmallBatchError(
                f"inference=True was asked for a batch of {len(scores)}, but b_tau={self.b_tau} is the smallest "
                "batch that is projected by itself. Gather larger batches, or lower b_tau."
            )
        if y is None and label_probabilities is None:
            label_probabilities = self._estimated_labels(scores, inference)
        features = self._with_columns(sensitive_features, args)
        projected: Tensor = self.projection(
            scores, sensitive_features=features, y=y, label_probabilities=label_probabilities
        )
        return projected

    def _estimated_labels(self, scores: Tensor, inference: bool) -> Tensor | None:
        """Raw scores stand in for labels in evaluation, where a constraint needs them and they are probabilities."""
        needing = [constraint.name for constraint in self.constraints if constraint.needs_labels]
        if not needing:
            return None
        if self.training and not inference:
            raise MissingLabelsError(
                f"{needing[0]} looks at labels, but no y was given in training mode. Pass y=labels; "
                "in evaluation mode (model.eval()) label estimates are used instead."
            )
        return scores.detach()

    def _with_columns(self, sensitive_features: Any, args: tuple[Any, ...]) -> Any:
        if not self.protected_attr_idx:
            return sensitive_features
        if sensitive_features is not None and not isinstance(sensitive_features, Mapping):
            raise ShapeError("with protected_attr_idx, give further sensitive_features as a dict of name -> column.")
        if not args or not isinstance(args[0], Tensor) or args[0].ndim != 2:
            raise MissingSensitiveFeatureError(
                "protected_attr_idx reads columns of the first positional input, which must be a tensor (n, d). "
                "Pass sensitive_features= instead."
            )
        width = args[0].shape[1]
        if not all(-width <= i < width for i in self.protected_attr_idx):
            raise ShapeError(f"protected_attr_idx={self.protected_attr_idx} was asked, but x has {width} columns.")
        columns = {f"x[{i}]": args[0][:, i] for i in self.protected_attr_idx}
        return {**columns, **(sensitive_features or {})}


def _as_indices(index: int | Sequence[int] | None) -> tuple[int, ...]:
    if index is None:
        return ()
    return (index,) if isinstance(index, int) else tuple(int(i) for i in index)


def _column_constraints(indices: tuple[int, ...], tolerance: Tolerance | None) -> list[Constraint]:
    if tolerance is None:
        return []
    if not indices:
        raise ConstraintDefinitionError(
            "tolerance= goes with protected_attr_idx=; otherwise give the tolerance to each constraint."
        )
    return [DemographicParity(f"x[{i}]", tolerance) for i in indices]


def _as_scores(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, torch.Tensor):
        return logits
    raise OutputError(
        f"the backbone returned {type(output).__name__}, but scores must be a tensor (n,), (n, 1) or (n, k), or have "
        "such `.logits`. Subclass FairModel and define scores(self, ...) to pick them."
    )
