"""What is gathered while one stage runs: group sums for each loader, and what the layers say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from fairlayer.integrations.lightning.capture import Capture
from fairlayer.integrations.lightning.errors import BatchReadingError
from fairlayer.integrations.lightning.layers import LayerWatch, layer_numbers
from fairlayer.integrations.lightning.reading import BatchLabels, as_scores, check_returned, read_labelled, scores_in
from fairlayer.integrations.lightning.sums import Counted, Disparities, GroupSums, disparities, merged
from fairlayer.projection import FairProjection

__all__ = ["Found", "Reading", "Stage"]

_WITHOUT_DECISIONS = ("score_gap", "smallest_group")
_WITH_DECISIONS = ("demographic_parity_difference", "equalized_odds_difference", *_WITHOUT_DECISIONS)


@dataclass(frozen=True)
class Reading:
    """How predictions, labels and groups are read from a batch; see `FairnessCallback`."""

    names: tuple[str, ...]
    threshold: float | None
    logits: bool
    batch_adapter: Callable[[Any], Any] | None
    predict: Callable[[nn.Module, Any, Any], Tensor] | None

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the numbers, the same in every epoch."""
        return _WITHOUT_DECISIONS if self.threshold is None else _WITH_DECISIONS

    def labelled(self, batch: Any) -> BatchLabels:
        """Return labels and groups."""
        return read_labelled(batch if self.batch_adapter is None else self.batch_adapter(batch), self.names)

    def scores(self, module: nn.Module, batch: Any, outputs: Any, capture: Capture, n: int) -> Tensor:
        """Return one score per row: by `predict`, else as the step returned them, else as hooks caught them."""
        if self.predict is not None:
            with torch.no_grad():
                found: Tensor | None = self.predict(module, batch, outputs)
        else:
            found = scores_in(outputs)
        if found is None and self.predict is not None:
            raise BatchReadingError("predict= returned None; it is to return the predictions of the batch.")
        if found is None:
            found = capture.predictions(n)
            check_returned(outputs, found)
        return as_scores(found, n, logits=self.logits)


@dataclass(frozen=True)
class Found:
    """What one stage found, over all processes: the same on each of them.

    Args:
        numbers: what is to be logged.
        by_loader: the disparities of each loader, by feature.
        broken: the certificates that do not hold, in words.
        outside: whether some scores lay outside [0, 1].
    """

    numbers: dict[str, float]
    by_loader: list[dict[str, Disparities]]
    broken: list[str]
    outside: bool


class Stage:
    """One run over one or several loaders.

    Args:
        loaders: their number.
        measure: gather group sums and certificates, not only whether limits were widened.
        of_layers: return the numbers of the layers; one of several callbacks does.
    """

    def __init__(
        self,
        module: nn.Module,
        reading: Reading,
        loaders: int,
        *,
        measure: bool,
        of_layers: bool = True,
        on_widened: Callable[[FairProjection], None],
    ) -> None:
        self.reading, self.measure, self.of_layers = reading, measure, of_layers
        self.layers = LayerWatch(module, certified=measure and of_layers, on_widened=on_widened)
        self._capture = Capture(module) if measure and reading.predict is None else None
        self._loaders = loaders
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.layers.clear()
        self._outside = torch.zeros((), dtype=torch.long)
        names, threshold = self.reading.names, self.reading.threshold
        self._sums = [{name: GroupSums(name, threshold) for name in names} for _ in range(self._loaders)]

    def begin_step(self) -> None:
        """Forget the predictions of the step before."""
        if self._capture is not None:
            self._capture.clear()

    def end_step(self, module: nn.Module, batch: Any, outputs: Any, loader: int = 0) -> None:
        """Add the batch of a step that has just ended."""
        if not self.measure:
            return
        rows = self.reading.labelled(batch)
        scores = self.reading.scores(module, batch, outputs, self._capture, len(rows))  # type: ignore[arg-type]
        self._outside = self._outside.to(scores.device) + ((scores < 0) | (scores > 1)).any()
        for name, sums in self._sums[loader].items():
            sums.update(scores, rows.y, rows.sensitive[name])
        self.begin_step()

    def pause(self, paused: bool) -> None:
        """Look away while another stage runs inside this one."""
        self.layers.enabled = not paused

    def close(self) -> None:
        """Take all hooks off."""
        self.layers.remove()
        if self._capture is not None:
            self._capture.remove()

    def found(self, ranks: int) -> Found:
        """Return what was found, over all processes; asks the device."""
        counted = [{name: sums.counted() for name, sums in loader.items()} for loader in self._sums]
        parts = _gathered((counted, self.layers.parts(), self.layers.broken, bool(self._outside)), ranks)
        found: dict[str, float] = {}
        pooled = [_pooled([part[0][i] for part in parts]) for i in range(self._loaders)] if self.measure else []
        for i, by_feature in enumerate(pooled):
            suffix = f"/dataloader_idx_{i}" if len(pooled) > 1 else ""
            found |= {key + suffix: value for key, value in _named(by_feature, self.reading.measured).items()}
        numbers = found | self._of_layers([part[1] for part in parts])
        broken = [words for part in parts for words in part[2]]
        return Found(numbers, pooled, broken, any(part[3] for part in parts))

    def _of_layers(self, parts: Sequence[Mapping[str, list[float]]]) -> dict[str, float]:
        if not (self.layers and self.of_layers):
            return {}
        together = {key: [value for part in parts for value in part[key]] for key in parts[0]}
        numbers = layer_numbers(together)
        return numbers if self.measure else {"widening": numbers["widening"]}


def _gathered(part: Any, ranks: int) -> list[Any]:
    """Return the part of each process."""
    if ranks == 1:
        return [part]
    everyone: list[Any] = [None] * ranks
    distributed.all_gather_object(everyone, part)
    return everyone


def _pooled(parts: Sequence[Mapping[str, Counted]]) -> dict[str, Disparities]:
    return {name: disparities(merged([part[name] for part in parts])) for name in parts[0]}


def _named(by_feature: Mapping[str, Disparities], names: Sequence[str]) -> dict[str, float]:
    """Each number for the feature where it is worst; where there are several features, also for each by itself."""
    found = {}
    for name in names:
        each = {feature: float(asdict(numbers)[name]) for feature, numbers in by_feature.items()}
        worst = np.min if name == "smallest_group" else np.max
        found[name] = float(worst(list(each.values())))  # NaN if any feature could not be observed
        if len(each) > 1:
            found |= {f"{name}/{feature}": value for feature, value in each.items()}
    return found
