"""Limits that no predictions of a batch meet end a fit in order."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from fairlayer.integrations.lightning.layers import layers_of
from fairlayer.projection import FairProjection

__all__ = ["InfeasibleStop"]


class InfeasibleStop:
    """Layers that would raise `InfeasibleConstraintsError` widen their limits instead, and the fit then ends.

    A layer that was made to widen its limits is left alone: its fit goes on.
    """

    def __init__(self) -> None:
        self._layers: list[FairProjection] = []
        self._relaxing = ExitStack()
        self._clash: str | None = None

    def begin(self, module: nn.Module) -> None:
        """Let the layers of a module widen their limits."""
        self._layers = [layer for layer in layers_of(module) if not layer.options.relax]
        for layer in self._layers:
            self._relaxing.enter_context(layer.relaxed())

    def end(self) -> None:
        """Let the layers raise again."""
        self._relaxing.close()
        self._layers = []

    def note(self, layer: FairProjection) -> None:
        """Take note of a layer that widened its limits."""
        if layer not in self._layers or layer.last is None:
            return
        names = ", ".join(constraint.name for constraint in layer.constraints)
        self._clash = f"no predictions meet {names} together; every limit was widened by {layer.last.widening:.3g}"

    def forget(self) -> None:
        """Forget what was noted."""
        self._clash = None

    def stop(self, trainer: Any) -> str | None:
        """End the fit where a layer of any process widened its limits; return why, where this call ends it."""
        if not self._layers:
            return None
        clash = self._clash is not None
        if trainer.world_size > 1:
            clash = trainer.strategy.reduce_boolean_decision(clash, all=False)
        if not clash or trainer.should_stop:
            return None
        trainer.should_stop = True
        reason = self._clash or "limits could not be met on another process"
        rank_zero_warn(f"training stops in step {trainer.global_step}: {reason}. Loosen the limits.")
        return reason
