"""The amortised layer: the shifts of one exact projection, kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from fairlayer.constraints import Constraint
from fairlayer.distillation.cells import CellMap
from fairlayer.distillation.fitting import fit_shifts
from fairlayer.distillation.parts import ShiftTable
from fairlayer.edge import Bounds, check_choice
from fairlayer.errors import CategoryError, MissingLabelsError, ShapeError
from fairlayer.groups import Vocabulary
from fairlayer.tensor_state import PAGE, moved, read_tensor, to_tensor

__all__ = ["AmortisedShifts"]

_KEPT = {  # tensors that are not buffers, which copies of a model average
    "shift": torch.float64,
    "counts": torch.float64,
    "fitted": torch.bool,
    "lower": torch.float64,
    "upper": torch.float64,
}
_ROOM = 4 * PAGE  # for about 500 cells

_UNKNOWN = ("unmoved", "raise")


class AmortisedShifts(nn.Module):
    """Fixed shifts per cell in place of the projection: no batch, no solver, and no promise for new samples.

        value = clip(scores + shift[cell], lower, upper)

    On the samples it was fitted to this is their exact projection. On others the constraints hold as far as those
    resemble these; `remaining_gap` measures it. `fit` makes one, `from_state_dict` reads one back.

    Where the cells depend on the label (EqualOpportunity and the like), each sample is moved by the shifts of both
    labels in proportion to its `label_probabilities`, at inference as in fitting.

    Args:
        cells: features and categories.
        table: the shift of each cell.
        bounds: (lower, upper) of the predictions, numbers or None.
        on_unknown: what is done where a group is unknown: "unmoved" (no constraint on that feature moves the sample,
            as in the projection; for a parity over one feature that is also the mean shift of everyone), or "raise".

    Source: the shifts are those of `Projection.shift`; keeping them is the design of this package.

    Example:
        >>> import torch, fairlayer as fl
        >>> scores, sex = torch.tensor([0.9, 0.7, 0.2, 0.4]), ["F", "F", "M", "M"]
        >>> fixed = AmortisedShifts.fit(scores, [fl.DemographicParity("sex", 0.1)], sensitive_features={"sex": sex})
        >>> fixed(torch.tensor([0.5]), fixed.encode({"sex": ["M"]}))
        tensor([0.7000])
    """

    shift: Tensor
    counts: Tensor
    fitted: Tensor
    lower: Tensor
    upper: Tensor

    def __init__(
        self,
        cells: CellMap,
        table: ShiftTable,
        *,
        bounds: tuple[float | None, float | None] = (None, None),
        on_unknown: str = "unmoved",
    ) -> None:
        super().__init__()
        self.cells = cells
        self.on_unknown = check_choice("on_unknown", on_unknown, _UNKNOWN)
        low, high = bounds
        self._keep(
            {
                "shift": table.shift,
                "counts": table.counts,
                "fitted": table.fitted,
                "lower": -math.inf if low is None else low,
                "upper": math.inf if high is None else high,
            }
        )

    @staticmethod
    def fit(
        scores: Tensor,
        constraints: Sequence[Constraint],
        *,
        sensitive_features: Any,
        y: Any = None,
        label_probabilities: Any = None,
        bounds: Bounds = None,
        margin: float = 0.0,
        on_infeasible: str = "raise",
        on_unknown: str = "unmoved",
        vocabulary: Vocabulary | None = None,
    ) -> AmortisedShifts:
        """Project the scores of validation data exactly, and keep the shifts.

        Args:
            scores: (n,), (n, 1) or (n, k), as for `project`.
            constraints: what the shifts are for.
            sensitive_features: see `project`; soft membership gives shifts for soft membership.
            y: labels, for constraints that read labels while their cells do not depend on them (MeanResidualParity).
            label_probabilities: estimates of the labels, where the cells depend on the label, or instead of y.
            bounds: (lower, upper), numbers or None.
            margin: see `project`.
            on_infeasible: see `project`.
            on_unknown: see the class.
            vocabulary: known categories; without one, those of these samples.

        Raises:
            NoFixedShiftError: a constraint moves samples by more than their groups and label.
            MissingLabelsError: the cells depend on the label, and there are no label probabilities.
            FairlayerError: whatever else `project` raises.
        """
        check_choice("on_unknown", on_unknown, _UNKNOWN)
        cells, table, box = fit_shifts(
            scores,
            constraints,
            sensitive_features=sensitive_features,
            y=y,
            label_probabilities=label_probabilities,
            bounds=bounds,
            margin=margin,
            on_infeasible=on_infeasible,
            vocabulary=vocabulary,
        )
        return AmortisedShifts(cells, table, bounds=box, on_unknown=on_unknown).to(scores.device)

    @staticmethod
    def from_state_dict(state: Mapping[str, Any], prefix: str = "") -> AmortisedShifts:
        """Build from the `state_dict` of another; `prefix` is where in a larger `state_dict` it stands."""
        shifts = AmortisedShifts(CellMap((), ()), ShiftTable(np.zeros((1, 1, 1)), np.zeros(1), np.zeros(1, bool)))
        shifts.set_extra_state(state[f"{prefix}_extra_state"])
        return shifts

    @property
    def by_label(self) -> bool:
        """Whether `forward` needs label probabilities."""
        return self.shift.shape[0] > 1

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return, by cell, its shift (a list over labels of lists over columns of scores) and its count."""
        shift = self.shift.transpose(0, 1).tolist()
        rows = zip(self.cells.names, shift, self.counts.tolist(), self.fitted.tolist(), strict=True)
        return {name: {"shift": moved, "count": count, "fitted": ok} for name, moved, count, ok in rows}

    def encode(self, sensitive_features: Any) -> Tensor:
        """Return the cell of each sample, an int64 tensor (n,); with soft membership, probabilities (n, cells).

        Raises:
            CategoryError: a category or combination that the shifts were not fitted to; or an unknown one, with
                on_unknown="raise".
            MissingSensitiveFeatureError: a feature is missing.
        """
        place = self.cells.place(sensitive_features)
        weight = (
            place.sum(axis=0) if place.ndim == 2 else np.bincount(place.astype(np.int64), minlength=len(self.cells))
        )
        used = weight > 0
        self._refuse(used & ~self.fitted.cpu().numpy(), "are not fitted, as no sample had them")
        if self.on_unknown == "raise":
            self._refuse(used & self.cells.unknown, 'hold an unknown group, and on_unknown="raise"')
        return torch.from_numpy(place).to(self.shift.device)

    def forward(self, scores: Tensor, cells: Tensor, label_probabilities: Tensor | None = None) -> Tensor:
        """Return the shifted scores, of the same shape; float64 stays, everything else is returned as float32.

        Args:
            scores: (n,), (n, 1) or (n, k), as many columns as in fitting.
            cells: what `encode` returns: int64 (n,), or probabilities (n, cells).
            label_probabilities: (n,) or of the shape of the scores, where `by_label`.

        Raises:
            ShapeError: cells or columns do not fit.
            MissingLabelsError: `by_label`, and no label probabilities.
        """
        self._check(scores, cells)
        dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
        shift = self._look_up(self.shift[0], cells, dtype)
        if self.by_label:
            label = self._labels(label_probabilities, scores).to(dtype)
            shift = (1.0 - label) * shift + label * self._look_up(self.shift[1], cells, dtype)
        shift = shift if scores.ndim == 2 else shift[:, 0]
        return (scores.to(dtype) + shift).clamp(self.lower.to(dtype), self.upper.to(dtype))

    def get_extra_state(self) -> Tensor:
        """Return cells, shifts and bounds as one tensor; see `fairlayer.tensor_state`."""
        state = {"features": self.cells.features, "categories": self.cells.categories, "on_unknown": self.on_unknown}
        return to_tensor("shifts", {**state, **{name: getattr(self, name) for name in _KEPT}}, room=_ROOM)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore cells, shifts and bounds.

        Raises:
            CheckpointError: it is no such tensor, or was changed; everything is as before.
        """
        self.cells, self.on_unknown, kept = self._read_state(state)
        self._keep(kept)

    def _read_state(self, state: Tensor) -> tuple[CellMap, str, dict[str, Any]]:
        def read(saved: Mapping[str, Any]) -> tuple[CellMap, str, dict[str, Any]]:
            kept = {name: saved[name] for name in _KEPT}
            return CellMap(saved["features"], saved["categories"]), saved["on_unknown"], kept

        return read_tensor("shifts", state, read)

    def _keep(self, values: Mapping[str, Any]) -> None:
        for name, dtype in _KEPT.items():
            device = getattr(self, name).device if hasattr(self, name) else "cpu"
            setattr(self, name, torch.as_tensor(values[name], dtype=dtype, device="cpu").clone().to(device))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name in _KEPT:
            setattr(self, name, moved(getattr(self, name), fn))
        return self

    def extra_repr(self) -> str:
        """Show the features, their categories and the bounds."""
        pairs = zip(self.cells.features, self.cells.categories, strict=True)
        known = ", ".join(f"{name}: {len(categories)} groups" for name, categories in pairs)
        return f"{known}, bounds=({self.lower.item():g}, {self.upper.item():g})"

    @staticmethod
    def _look_up(table: Tensor, cells: Tensor, dtype: torch.dtype) -> Tensor:
        table = table.to(dtype)
        return cells.to(dtype) @ table if cells.is_floating_point() else table.index_select(0, cells)

    @staticmethod
    def _labels(label_probabilities: Tensor | None, scores: Tensor) -> Tensor:
        """Return label probabilities (n, 1) or (n, k)."""
        if label_probabilities is None:
            raise MissingLabelsError(
                "these shifts depend on the label, but no label_probabilities were given. Pass estimates in [0, 1] of "
                "the kind that the shifts were fitted to."
            )
        if label_probabilities.shape not in (scores.shape, scores.shape[:1]):  # no set: sizes may be symbols in export
            raise ShapeError(
                f"label_probabilities must have shape (n,) or that of the scores, {tuple(scores.shape)}, but have "
                f"shape {tuple(label_probabilities.shape)}."
            )
        return label_probabilities if label_probabilities.ndim == 2 else label_probabilities[:, None]

    def _check(self, scores: Tensor, cells: Tensor) -> None:
        if scores.ndim not in (1, 2) or (scores.shape[1] if scores.ndim == 2 else 1) != self.shift.shape[2]:
            raise ShapeError(
                f"these shifts were fitted to {self.shift.shape[2]} column(s) of scores, but the scores have shape "
                f"{tuple(scores.shape)}."
            )
        soft = cells.is_floating_point()
        if cells.ndim != 1 + soft or (soft and cells.shape[1] != len(self.cells)) or cells.shape[0] != scores.shape[0]:
            raise ShapeError(
                f"cells must be what encode() returns for the {len(scores)} samples, integers (n,) or probabilities "
                f"(n, {len(self.cells)}), but are {cells.dtype} of shape {tuple(cells.shape)}."
            )

    def _refuse(self, wrong: Any, why: str) -> None:
        if wrong.any():
            names = [self.cells.names[cell] for cell in np.flatnonzero(wrong)[:5]]
            raise CategoryError(
                f"the cells {names} {why}. Fit the shifts to data that has them, or map them to a known category or "
                "to None (unknown, see on_unknown)."
            )
