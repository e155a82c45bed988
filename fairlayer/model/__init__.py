"""FairModel: any module whose predictions meet affine fairness constraints on every batch."""

from fairlayer.model.fair_model import FairModel

__all__ = ["FairModel"]


def __dir__() -> list[str]:
    return list(__all__)
