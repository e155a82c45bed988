"""A comparison as an HTML page. Computes nothing."""

from fairlayer.report.html import render_html, write_html
from fairlayer.report.stream import StreamSection

__all__ = ["StreamSection", "render_html", "write_html"]
