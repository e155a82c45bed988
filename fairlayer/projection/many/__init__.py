"""Several problems at once: scores (b, n), each row a batch with groups of its own."""

from __future__ import annotations

from fairlayer._keywords import explain_public
from fairlayer.projection.many.projecting import project_many
from fairlayer.projection.many.result import ManyProjections

__all__ = ["ManyProjections", "project_many"]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__)
