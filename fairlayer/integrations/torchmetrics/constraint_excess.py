"""ConstraintExcess: by how much everything that was seen breaks a constraint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from fairlayer._typing import Category
from fairlayer.constraints import Constraint, Measured
from fairlayer.edge import as_constraints
from fairlayer.errors import CategoryError, MissingLabelsError, NonFiniteScoresError, ParameterError, ShapeError
from fairlayer.groups import Vocabulary, read_sensitive_features
from fairlayer.integrations.torchmetrics.beginning import begin_metric
from fairlayer.integrations.torchmetrics.reading import as_tensor, read_scores, read_weights
from fairlayer.integrations.torchmetrics.states import alike, check_saved, identity

__all__ = ["ConstraintExcess"]


class ConstraintExcess(Metric):
    """The largest signed excess of a constraint in the pooled rows: it holds there where this is <= 0.

        a spread: scale * max_g v_g - min_g v_g - tolerance      a row: v - (upper + tolerance), (lower - tolerance) - v

    with v the group means that the constraint speaks of, in prediction units; so of `DemographicParity` it is the
    score gap less the tolerance: the `excess` of `Constraint.measure`, of which `measured()` gives the rest. NaN where
    nothing is compared (fewer than two groups). Any constraint may be given that states linear rows, so the rows are
    kept: 8 bytes for each score, label, feature and weight.

    Args:
        constraint: what should hold; the object, or its text.
        categories: feature -> its categories, in an order that is the same on all ranks; needed for features that
            come as names, not for codes or numbers.
        threshold: measure the decisions `score >= threshold` instead of the scores.
        options: the options of `torchmetrics.Metric`.

    Example:
        >>> import fairlayer as fl
        >>> metric = ConstraintExcess(fl.DemographicParity("sex", tolerance=0.05), categories={"sex": ["F", "M"]})
        >>> metric.update(torch.tensor([0.2, 0.4]), None, ["F", "F"])
        >>> metric.update(torch.tensor([0.9]), None, ["M"])
        >>> round(float(metric.compute()), 6)
        0.55
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False

    scores: list[Tensor]
    labels: list[Tensor]
    weights: list[Tensor]
    about: Tensor

    def __init__(
        self,
        constraint: Constraint | str,
        categories: Mapping[str, Sequence[Category]] | None = None,
        *,
        threshold: float | None = None,
        **options: Any,
    ) -> None:
        begin_metric(self, options, ("constraint", "categories", "threshold"))
        [self.constraint] = as_constraints(constraint)
        self.threshold = threshold
        known = {name: tuple(given) for name, given in (categories or {}).items()}
        self.vocabulary = Vocabulary(known, open=False)
        self.set_dtype(torch.float64)  # of the empty state that a rank without rows contributes
        for state in self._rows_kept:
            self.add_state(state, [], dist_reduce_fx="cat")
        self.add_state("about", identity(self.constraint.features, known), dist_reduce_fx=alike)

    def update(self, preds: Any, target: Any, groups: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            preds: scores (n,) or (n, 1).
            target: labels (n,); None if the constraint looks at none.
            groups: sensitive features, as `project` takes them; of a single feature, its column alone will do.
            sample_weight: how many rows each stands for (n,), 0 or more; None for one each.

        Raises:
            MissingLabelsError: the constraint looks at labels, and there is no target.
            NonFiniteScoresError, CategoryError, ShapeError, ParameterError: values that cannot be read.
        """
        if target is None and self.constraint.needs_labels:
            raise MissingLabelsError(f"{self.constraint.name} looks at labels, but target is None. Pass the labels.")
        scores, unfit = read_scores(preds)
        if int(unfit):
            raise NonFiniteScoresError(f"{int(unfit)} predictions are NaN or infinite. Look at the model's output.")
        labels = torch.full_like(scores, torch.nan) if target is None else _as_column("target", target, scores)
        weights, unfit = read_weights(sample_weight, scores)
        if int(unfit):
            raise ParameterError(
                f"ConstraintExcess reads sample_weight as how many rows each stands for, but {int(unfit)} weights are "
                "negative, infinite or NaN. Give finite weights, and 0 to leave a row out."
            )
        columns = [_as_column(name, column, scores) for name, column in self._read(groups).items()]
        self.scores.append(scores)
        self.labels.append(labels)
        self.weights.append(weights)
        for state, column in zip(self._columns, columns, strict=True):
            getattr(self, state).append(column)

    def compute(self) -> Tensor:
        """Return the largest excess over everything seen, on all ranks."""
        found = self._measure()
        excess = torch.nan if found is None or found.excess is None else found.excess
        return torch.tensor(excess, dtype=torch.float64, device=self.device)

    def measured(self) -> Measured | None:
        """Return the number that the constraint bounds, with its limit, over all ranks (each must then call this).

        None before anything was seen.
        """
        with self.sync_context():
            return self._measure()

    def _measure(self) -> Measured | None:
        scores, weights = _joined(self.scores), _joined(self.weights)
        if len(scores) == 0 or not bool(weights.any()):
            return None
        return self.constraint.measure(
            scores if self.threshold is None else (scores >= self.threshold).to(scores),
            sensitive_features=self._pooled(),
            y=_joined(self.labels) if self.constraint.needs_labels else None,
            sample_weight=weights,
        )

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Return a figure and its axes: of `compute()`, or of one or several values given, as torchmetrics does."""
        return self._plot(val, ax)

    def state_dict(  # type: ignore[override]  # the signature of torchmetrics
        self, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """Return the persistent states, each as one tensor; see `torchmetrics.Metric.persistent`."""
        saved: dict[str, Any] = super().state_dict(destination, prefix, keep_vars)
        for name in self._rows_kept:
            if prefix + name in saved:
                saved[prefix + name] = _joined(saved[prefix + name])
        return saved

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        check_saved(self, state_dict, prefix, unknown="labels")
        super()._load_from_state_dict(state_dict, prefix, *args)
        for name in self._rows_kept:
            kept = getattr(self, name)
            if isinstance(kept, Tensor):
                setattr(self, name, [kept.to(torch.float64)])

    @property
    def _rows_kept(self) -> tuple[str, ...]:
        return ("scores", "labels", "weights", *self._columns)

    @property
    def _columns(self) -> tuple[str, ...]:
        return tuple(f"feature_{i}" for i in range(len(self.constraint.features)))

    def _read(self, groups: Any) -> dict[str, Any]:
        """Return each feature as numbers: codes for names, -1 unknown, and numbers as they are."""
        names = self.constraint.features
        read = read_sensitive_features(groups, names, self.vocabulary)
        columns = {}
        for name in names:
            if name not in read.raw:
                read.column(name)  # raises, and says what is missing
            raw = read.raw[name]
            if raw.ndim == 2:
                raise CategoryError(
                    f"ConstraintExcess reads one category per row, but '{name}' is soft membership of shape "
                    f"{raw.shape}. Give the groups themselves, or use a metric of group rates."
                )
            if raw.dtype.kind not in "iufb" and name not in self.vocabulary.categories:
                raise CategoryError(
                    f"'{name}' holds names, and batches and ranks must agree on their codes. Pass "
                    f"categories={{'{name}': [...]}} with every category."
                )
            columns[name] = read.column(name).codes if name in self.vocabulary.categories else raw
        return columns

    def _pooled(self) -> dict[str, Any]:
        return {
            name: _joined(getattr(self, state)).cpu().numpy()
            for state, name in zip(self._columns, self.constraint.features, strict=True)
        }


def _as_column(name: str, column: Any, scores: Tensor) -> Tensor:
    values = as_tensor(column)
    values = values.squeeze(1) if values.ndim == 2 and values.shape[1] == 1 else values
    if values.shape != scores.shape:
        raise ShapeError(
            f"there are {len(scores)} predictions, but '{name}' has shape {tuple(values.shape)}. Give one entry per "
            "prediction."
        )
    return values.to(device=scores.device, dtype=torch.float64)


def _joined(parts: Any) -> Tensor:
    return dim_zero_cat(parts) if len(parts) else torch.zeros(0, dtype=torch.float64)
