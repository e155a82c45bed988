"""Errors of sweeps and fronts."""

from __future__ import annotations

from fairlayer.errors import FairlayerError

__all__ = ["MeasureError", "SweepDefinitionError", "SweepFailedError", "UnreachableError"]


class SweepDefinitionError(FairlayerError, ValueError):
    """A sweep cannot be run as defined, or its folder holds another one."""


class SweepFailedError(FairlayerError, RuntimeError):
    """Runs of a sweep failed; the others are kept."""


class MeasureError(FairlayerError, ValueError):
    """Measures of runs are missing, not finite, or not fit for what is asked of them."""


class UnreachableError(FairlayerError, ValueError):
    """No point of a front is within the limit asked for; the message names the best that is."""
