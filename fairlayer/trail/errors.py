"""What can go wrong with a trail, by name."""

from __future__ import annotations

from fairlayer.errors import FairlayerError

__all__ = ["RetentionError", "TrailClockError", "TrailError", "TrailKeyError"]


class TrailError(FairlayerError, RuntimeError):
    """The trail cannot be opened, read or written; it is as it was before the call."""


class TrailKeyError(TrailError):
    """The key is missing, is not the one that the trail was begun with, or cannot be read."""


class TrailClockError(TrailError):
    """The caller's clock went back, and the trail was told to refuse that."""


class RetentionError(TrailError):
    """A segment may not be dropped: it is too young, or its checkpoint was never exported."""
