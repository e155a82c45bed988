"""A trained run in use: an HTTP scorer over one durable stream, and a table streamed row by row."""

from fairlayer._keywords import explain_public
from fairlayer.serving.app import create_app
from fairlayer.serving.decided import decided_stream
from fairlayer.serving.journal import Journal
from fairlayer.serving.records import RequestError
from fairlayer.serving.scorer import Scorer, new_stream
from fairlayer.serving.section import stored_section, stream_section
from fairlayer.serving.table import StreamedTable, stream_sample, stream_table

__all__ = [
    "Journal",
    "RequestError",
    "Scorer",
    "StreamedTable",
    "create_app",
    "decided_stream",
    "new_stream",
    "stored_section",
    "stream_sample",
    "stream_section",
    "stream_table",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__)
