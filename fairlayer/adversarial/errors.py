"""Named errors of adversaries; each says what was asked, what was found and what to do."""

from __future__ import annotations

from fairlayer.errors import FairlayerError

__all__ = ["AdversaryDefinitionError", "CaptureError", "LeakageError", "ScheduleError"]


class AdversaryDefinitionError(FairlayerError, ValueError):
    """An adversary cannot be built as asked (unknown module, nothing to read, ...)."""


class CaptureError(FairlayerError, RuntimeError):
    """The output that an adversary reads is not there: no forward since, changed in place, or removed."""


class ScheduleError(FairlayerError, ValueError):
    """A progress outside [0, 1], or a reversal strength that is negative or not finite."""


class LeakageError(FairlayerError, ValueError):
    """Leakage cannot be measured on what was given."""
