"""Tables larger than memory, projected chunk by chunk."""

from fairlayer.scoring.project import TableProjection, project_chunks
from fairlayer.scoring.table import score_table

__all__ = ["TableProjection", "project_chunks", "score_table"]


def __dir__() -> list[str]:
    return list(__all__)
