"""What only a comparison of routes can get wrong."""

from __future__ import annotations

from fairlayer.errors import FairlayerError

__all__ = ["CriterionError", "RouteError"]


class CriterionError(FairlayerError, ValueError):
    """A criterion by which routes are chosen cannot be read, or needs what the routes do not have."""


class RouteError(FairlayerError, ValueError):
    """A route was asked for that is not there, or there is nothing to compare."""
