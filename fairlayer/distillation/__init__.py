"""Models without the layer: trained through it and then let go, or with fixed shifts in its place."""

from fairlayer._keywords import explain_public
from fairlayer.distillation.amortised import AmortisedModel
from fairlayer.distillation.errors import NoFixedShiftError
from fairlayer.distillation.gaps import RemainingGap, remaining_gap
from fairlayer.distillation.shifts import AmortisedShifts
from fairlayer.distillation.without_layer import WithoutLayer

__all__ = [
    "AmortisedModel",
    "AmortisedShifts",
    "NoFixedShiftError",
    "RemainingGap",
    "WithoutLayer",
    "remaining_gap",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__)
