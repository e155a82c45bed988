"""The layers of fairlayer inside a module: what their latest projections say, and the streams that they hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from fairlayer.model import FairModel
from fairlayer.projection import FairProjection
from fairlayer.projection.result import Projection
from fairlayer.tensor_state import from_tensor

__all__ = [
    "LayerWatch",
    "Streams",
    "Vocabularies",
    "constraint_keys",
    "key_of",
    "layer_numbers",
    "layers_of",
    "models_of",
]


def layers_of(module: nn.Module) -> list[FairProjection]:
    """Every projection layer, those inside a `FairModel` included."""
    return [found for found in module.modules() if isinstance(found, FairProjection)]


def models_of(module: nn.Module) -> list[FairModel]:
    """Every `FairModel`."""
    return [found for found in module.modules() if isinstance(found, FairModel)]


def constraint_keys(layers: Sequence[FairProjection]) -> list[list[str]]:
    """Return a key for each constraint of each layer, of letters that every logger takes; repeated ones are numbered.

    Example:
        >>> from fairlayer.constraints import DemographicParity
        >>> constraint_keys([FairProjection([DemographicParity(("sex", "age band"), 0.1)])])
        [['demographic_parity_sex_age_band']]
    """
    taken: dict[str, int] = {}

    def numbered(plain: str) -> str:
        taken[plain] = taken.get(plain, 0) + 1
        return plain if taken[plain] == 1 else f"{plain}_{taken[plain]}"

    return [[numbered(key_of(constraint.name)) for constraint in layer.constraints] for layer in layers]


def key_of(name: str) -> str:
    """Return a name in small letters, digits and underscores.

    Example:
        >>> key_of("EqualizedOdds('sex')")
        'equalized_odds_sex'
    """
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")


class LayerWatch:
    """What the projections of each layer say, gathered by forward hooks until `numbers` is read.

    Args:
        certified: also read the certificate and the multipliers of each projection, which costs a pass over the batch.
        on_widened: a function that is told of each layer that had to widen its limits.
    """

    def __init__(
        self, module: nn.Module, *, certified: bool, on_widened: Callable[[FairProjection], None] | None = None
    ) -> None:
        self._layers = layers_of(module)
        self._keys = constraint_keys(self._layers)
        self._certified, self._on_widened = certified, on_widened
        self.enabled = True
        self.clear()
        self._handles = [
            layer.register_forward_hook(self._hook(keys)) for layer, keys in zip(self._layers, self._keys, strict=True)
        ]

    def __bool__(self) -> bool:
        return bool(self._layers)

    def clear(self) -> None:
        """Forget what was gathered."""
        self._prices: dict[str, list[float]] = {key: [] for keys in self._keys for key in keys}
        self._violations: list[float] = []
        self._widenings: list[float] = []
        self.broken: list[str] = []

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def parts(self) -> dict[str, list[float]]:
        """Return the numbers that were gathered, as plain values that processes can exchange."""
        prices = {f"multiplier/{key}": values for key, values in self._prices.items()}
        return {**prices, "violation": self._violations, "widening": self._widenings}

    def read(self, projection: Projection, keys: Sequence[str]) -> None:
        """Take the numbers of one projection."""
        widening = float(projection.widening)
        self._widenings.append(widening)
        if not self._certified:
            return
        certificate = projection.certificate
        self._violations.append(float(certificate.violation))
        if not certificate.holds:
            self.broken.append(str(certificate))
        rows = max(1, projection.rows)
        for key, price in zip(keys, projection.multipliers.values(), strict=True):
            self._prices[key].append(float(price.sum()) / rows)

    def _hook(self, keys: Sequence[str]) -> Callable[..., None]:
        def look(layer: FairProjection, inputs: Any, output: Any) -> None:
            if self.enabled and isinstance(layer.last, Projection):
                self.read(layer.last, keys)
                if self._on_widened is not None and self._widenings[-1] > 0:
                    self._on_widened(layer)

        return look


def layer_numbers(parts: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return mean multipliers (per row), and the largest violation and widening; NaN where nothing was projected."""
    reduce: dict[bool, Callable[[Sequence[float]], Any]] = {True: np.mean, False: np.max}
    return {
        key: float(reduce[key.startswith("multiplier/")](values)) if len(values) else float("nan")
        for key, values in parts.items()
    }


class Streams:
    """The streams of a module's models, put away while something else is streamed."""

    def __init__(self, module: nn.Module) -> None:
        self._kept = [(model, model.get_extra_state()) for model in models_of(module)]

    def begin(self) -> None:
        """Begin new, empty streams."""
        for model, state in self._kept:
            if from_tensor("stream", state):
                model.reset_inference_state()

    def put_back(self) -> None:
        """Go on with the streams that were put away."""
        for model, state in self._kept:
            model.set_extra_state(state)


class Vocabularies:
    """The categories that a module's layers knew at some moment."""

    def __init__(self, module: nn.Module) -> None:
        self._kept = [(layer, layer.vocabulary) for layer in layers_of(module)]

    def put_back(self) -> None:
        """Let the layers know no more than then."""
        for layer, vocabulary in self._kept:
            layer.vocabulary = vocabulary
