"""Named errors of the Lightning integration."""

from __future__ import annotations

from fairlayer.errors import FairlayerError

__all__ = ["BatchReadingError", "NotKeptError", "ScheduleLengthError"]


class BatchReadingError(FairlayerError, TypeError):
    """A batch, or what a step made of it, cannot be read as predictions, labels and sensitive features."""


class NotKeptError(FairlayerError, TypeError):
    """A checkpoint does not hold everything that its module is built from."""


class ScheduleLengthError(FairlayerError, ValueError):
    """A schedule over training was asked for, but nobody knows how long training is."""
