"""An audit as a page, as Markdown and as a model card. Computes nothing."""

from fairlayer.audit import public_document
from fairlayer.report.alternatives import alternatives_of
from fairlayer.report.markdown import render_card, render_markdown, write_card, write_markdown
from fairlayer.report.page import FORMATS, Format, document_text, read_document, render_page, write_page
from fairlayer.report.stream import StreamSection
from fairlayer.report.stream_page import DecidedCell, DecidedStream, StreamPage, render_stream_page, write_stream_page

__all__ = [
    "FORMATS",
    "DecidedCell",
    "DecidedStream",
    "Format",
    "StreamPage",
    "StreamSection",
    "alternatives_of",
    "document_text",
    "public_document",
    "read_document",
    "render_card",
    "render_markdown",
    "render_page",
    "render_stream_page",
    "write_card",
    "write_markdown",
    "write_page",
    "write_stream_page",
]


def __dir__() -> list[str]:
    return list(__all__)
