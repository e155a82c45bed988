"""Adversarial training: heads that try to read sensitive features, and a measure of what can be read."""

from fairlayer._keywords import explain_public
from fairlayer.adversarial.adversary import Adversary
from fairlayer.adversarial.errors import AdversaryDefinitionError, CaptureError, LeakageError, ScheduleError
from fairlayer.adversarial.probing import Leakage, leakage
from fairlayer.adversarial.reading import activations
from fairlayer.adversarial.reversal import GradientReversal, gradient_reversal
from fairlayer.adversarial.schedules import constant, dann, linear

__all__ = [
    "Adversary",
    "AdversaryDefinitionError",
    "CaptureError",
    "GradientReversal",
    "Leakage",
    "LeakageError",
    "ScheduleError",
    "activations",
    "constant",
    "dann",
    "gradient_reversal",
    "leakage",
    "linear",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__)
