"""Errors of models without the layer."""

from __future__ import annotations

from fairlayer.errors import FairlayerError

__all__ = ["NoFixedShiftError"]


class NoFixedShiftError(FairlayerError, ValueError):
    """A constraint moves samples by more than their groups and label, so no table of shifts can stand for it."""
