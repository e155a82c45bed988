"""A stream as a table in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairlayer._notebook import table_html

if TYPE_CHECKING:
    from fairlayer.streaming.state import InferenceState

__all__ = ["page_of"]


def page_of(stream: InferenceState) -> str:
    """Return the pooled gaps of a stream as HTML."""
    rows = [
        (name, number.value, f"{'>=' if number.at_least else '<='} {number.limit:.4g}", number.statement)
        for name, number in stream.measured().items()
        if number is not None
    ]
    title = f"Stream of {stream.samples} predictions, policy {stream.policy.name}, phase {stream.phase.value}"
    head = ("constraint", "of everything emitted", "limit", "what it compares")
    waiting = stream.waiting_labels
    return table_html(title, head, rows, note=f"{waiting} predictions wait for a label." if waiting else "")
