"""Tables larger than memory, projected chunk by chunk."""

from fairlayer._keywords import explain_public
from fairlayer.scoring.project import TableProjection, project_chunks
from fairlayer.scoring.table import score_table

__all__ = ["TableProjection", "project_chunks", "score_table"]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__)
