"""A comparison as an HTML page. Computes nothing."""

from fairlayer.report.html import render_html, write_html

__all__ = ["render_html", "write_html"]
