"""What only decisions can get wrong."""

from __future__ import annotations

from fairlayer.errors import CategoryError, FairlayerError, InfeasibleConstraintsError

__all__ = ["NeedsRandomisationError", "UnseenCellError", "UtilityError"]


class UnseenCellError(CategoryError):
    """A rule was applied to a combination of groups for which it has no threshold."""


class NeedsRandomisationError(InfeasibleConstraintsError):
    """No single threshold per cell was found that meets the constraints; a lottery between thresholds can."""


class UtilityError(FairlayerError, ValueError):
    """A utility matrix, a capacity or a probability that decisions cannot be judged by."""
