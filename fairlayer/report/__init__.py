"""An audit as a page, as Markdown and as a model card. Computes nothing."""

from fairlayer._keywords import explain_public
from fairlayer.audit import public_document
from fairlayer.report.alternatives import alternatives_among, alternatives_of
from fairlayer.report.markdown import render_card, render_markdown, write_card, write_markdown
from fairlayer.report.page import FORMATS, Format, document_text, read_document, render_page, write_page
from fairlayer.report.signing import check_signature, sign_file
from fairlayer.report.stream import StreamSection, periods_of
from fairlayer.report.stream_page import DecidedCell, DecidedStream, StreamPage, render_stream_page, write_stream_page

__all__ = [
    "FORMATS",
    "DecidedCell",
    "DecidedStream",
    "Format",
    "StreamPage",
    "StreamSection",
    "alternatives_among",
    "alternatives_of",
    "check_signature",
    "document_text",
    "periods_of",
    "public_document",
    "read_document",
    "render_card",
    "render_markdown",
    "render_page",
    "render_stream_page",
    "sign_file",
    "write_card",
    "write_markdown",
    "write_page",
    "write_stream_page",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__)
