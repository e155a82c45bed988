"""The projection: statements in numbers, the solve as a torch operation, the proof, and the result."""

from fairlayer._keywords import explain_public
from fairlayer.projection.assembly import Assembly, assemble
from fairlayer.projection.certificate import Certificate
from fairlayer.projection.layer import FairProjection
from fairlayer.projection.plan import Plan, project
from fairlayer.projection.result import Projection

__all__ = ["Assembly", "Certificate", "FairProjection", "Plan", "Projection", "assemble", "project"]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__, inner=("Assembly", "Plan"))
