"""Named errors of the Lightning integration."""

from __future__ import annotations

from fairlayer.errors import FairlayerError

__all__ = ["BatchReadingError", "ScheduleLengthError"]


class BatchReadingError(FairlayerError, TypeError):
    """A batch, or what a step made of it, cannot be read as predictions, labels and sensitive features."""


class ScheduleLengthError(FairlayerError, ValueError):
    """A schedule over training was asked for, but nobody knows how long training is."""
