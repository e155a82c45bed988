"""Everything that decides how a model is built and trained, as plain values that travel in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from fairlayer.constraints import Constraint, CovarianceBound
from fairlayer.constraints.text import parse_constraint
from fairlayer.errors import DataError
from fairlayer.geometry import Geometry, geometry_of
from fairlayer.model import FairModel
from fairlayer.networks import mlp

__all__ = ["FitOptions", "ModelConfig", "Task"]

Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class FitOptions:
    """How long and in what steps to train.

    Args:
        weight_decay: the weight decay of AdamW; it shrinks the weights, which helps where features are many or rows are
            few. Weights beyond about 1 / weight_decay cannot last, so that a model of your own whose inputs or target
            are not in standard units needs 0.
        patience: epochs without a better validation loss after which training stops.

    Example:
        >>> FitOptions(epochs=5, seed=1)
        FitOptions(epochs=5, batch_size=1024, learning_rate=0.003, weight_decay=0.5, patience=5, seed=1)
    """

    epochs: int = 30
    batch_size: int = 1024
    learning_rate: float = 3e-3
    weight_decay: float = 0.5
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.patience) < 1 or self.learning_rate <= 0:
            raise DataError(f"{self}: epochs, batch_size and patience are at least 1, learning_rate is above 0.")


class Rescale(nn.Module):
    """centre + scale * x, with fixed numbers: the network works in standard units of the target."""

    def __init__(self, centre: float, scale: float) -> None:
        super().__init__()
        self.centre, self.scale = centre, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.centre + self.scale * x


@dataclass(frozen=True)
class ModelConfig:
    """An MLP and the layer after it.

    Args:
        width: number of encoded features.
        constraints: the constraints as text; see `parse_constraint`.
        bounds: lowest and highest prediction; None for no bounds (regression only).
        margin: the distance that predictions keep from the bounds in the euclidean geometry, which clips them.
        b_tau: smallest inference batch that is projected as a whole.
        on_infeasible: "raise", or "relax" by the smallest widening of all limits.
        geometry: what nearest means, see `project`; None for the one that belongs to the task: "entropic" for
            classification, "euclidean" for regression. The loss is the one that belongs to the geometry.
        centre, scale: mean and standard deviation of a regression's target; the backbone starts from them.

    Example:
        >>> config = ModelConfig(width=4, constraints=("demographic_parity(sex, 0.02)",), hidden=(8,))
        >>> config.rule, config.loss, ModelConfig.from_dict(config.to_dict()) == config
        (Entropic(), 'cross_entropy', True)
    """

    width: int
    constraints: tuple[str, ...]
    task: Task = "classification"
    hidden: tuple[int, ...] = (64, 32)
    bounds: tuple[float, float] | None = (0.0, 1.0)
    margin: float = 1e-4
    b_tau: int = 256
    on_infeasible: str = "raise"
    geometry: str | None = None
    centre: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.task == "classification" and self.bounds != (0.0, 1.0):
            raise DataError(f"bounds={self.bounds} with classification; its scores are probabilities in (0, 1).")
        if any(size < 1 for size in self.hidden):
            raise DataError(f"hidden={self.hidden}: the sizes of hidden layers are at least 1.")
        if self.task == "regression" and self.rule.bounded:
            raise DataError(
                f"geometry={self.geometry!r} moves probabilities, but the task is a regression. Use "
                "geometry='euclidean', or leave it out."
            )

    @property
    def rule(self) -> Geometry:
        """The geometry."""
        return geometry_of(self.geometry or ("entropic" if self.task == "classification" else "euclidean"))

    @property
    def loss(self) -> str:
        """The loss that belongs to the geometry: "cross_entropy" or "squared_error"."""
        return self.rule.loss

    def parsed(self) -> tuple[Constraint, ...]:
        return tuple(parse_constraint(text) for text in self.constraints)

    def network(self) -> nn.Sequential:
        """Return the backbone: ReLU layers, and at the end a sigmoid, or the target's units for regression."""
        if self.task == "classification":
            return mlp(self.width, self.hidden)
        return mlp(self.width, self.hidden, emits="numbers").append(Rescale(self.centre, self.scale))

    def model(self) -> FairModel:
        """Return a fresh backbone inside the layer."""
        return self.around(self.network())

    def around(self, backbone: nn.Module) -> FairModel:
        """Return the layer after a backbone of one's own."""
        # a geometry of probabilities never reaches 0 or 1, so that cross-entropy keeps its gradient without a margin
        margin = 0.0 if self.bounds is None or self.rule.bounded else self.margin
        return FairModel(
            backbone,
            self.parsed(),
            bounds=self.bounds,
            margin=margin,
            geometry=self.rule.name,
            b_tau=self.b_tau,
            on_infeasible=self.on_infeasible,
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> ModelConfig:
        lists = {name: tuple(state[name]) for name in ("constraints", "hidden")}
        bounds = None if state["bounds"] is None else (float(state["bounds"][0]), float(state["bounds"][1]))
        return cls(**{**state, **lists, "bounds": bounds})


def feature_names(constraints: tuple[Constraint, ...]) -> tuple[str, ...]:
    """Every sensitive feature that some constraint reads, once each."""
    return tuple(dict.fromkeys(name for constraint in constraints for name in constraint.features))


def continuous_names(constraints: tuple[Constraint, ...]) -> tuple[str, ...]:
    """Return the features that are read as numbers, not as groups."""
    bounds = [constraint for constraint in constraints if isinstance(constraint, CovarianceBound)]
    return tuple(dict.fromkeys(name for constraint in bounds for name in constraint.on))
