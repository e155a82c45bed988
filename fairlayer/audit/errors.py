"""Named errors of the audit."""

from __future__ import annotations

from fairlayer.errors import FairlayerError

__all__ = ["MetricError", "TablesDifferError"]


class MetricError(FairlayerError, ValueError):
    """A metric is unknown, is registered twice, or cannot be computed from what a table holds."""


class TablesDifferError(FairlayerError, ValueError):
    """Two tables do not speak of the same things, so that they cannot be added up."""
