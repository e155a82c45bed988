"""How a table's rows become model input: what `predict` must repeat, as values in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from fairlayer.data import Cut, Encoder, TensorTable
from fairlayer.data.columns import sensitive_columns
from fairlayer.training.config import ModelConfig, continuous_names, feature_names

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """Model configuration, fitted encoder, cuts, and what the target was."""

    config: ModelConfig
    encoder: Encoder
    cuts: tuple[Cut, ...]
    target: str
    positive: str | None

    def sample(
        self, frame: pd.DataFrame, labels: NDArray[Any] | None = None, *, watched: Sequence[str] = ()
    ) -> TensorTable:
        """Return the frame as tensors, with the sensitive features that constraints read, and the `watched` ones.

        Labels that are not given are NaN, for nothing may read them.
        """
        constraints = self.config.parsed()
        names = dict.fromkeys([*feature_names(constraints), *watched])
        continuous = continuous_names(constraints)
        x = torch.from_numpy(self.encoder.encode(frame))
        y = torch.full((len(x),), float("nan")) if labels is None else torch.as_tensor(labels)
        return TensorTable(x, y, sensitive_columns(frame, list(names), cuts=self.cuts, continuous=continuous))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "config": self.config.to_dict(),
            "encoder": self.encoder.to_dict(),
            "cuts": [cut.to_dict() for cut in self.cuts],
            "target": self.target,
            "positive": self.positive,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Recipe:
        return cls(
            ModelConfig.from_dict(state["config"]),
            Encoder.from_dict(state["encoder"]),
            tuple(Cut.from_dict(cut) for cut in state["cuts"]),
            state["target"],
            state["positive"],
        )
