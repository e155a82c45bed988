"""How a metric begins: the options of torchmetrics, of which a misspelt one is answered with the name that is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torchmetrics import Metric

from fairlayer._keywords import refuse_foreign_keywords

__all__ = ["begin_metric"]

# Of torchmetrics 1.9; a later version may take more, so that these are named only where it refuses one.
_OPTIONS = (
    "compute_on_cpu",
    "dist_sync_on_step",
    "process_group",
    "dist_sync_fn",
    "distributed_available_fn",
    "sync_on_compute",
    "compute_with_cache",
)


def begin_metric(metric: Metric, options: Mapping[str, Any], own: Sequence[str]) -> None:
    """Call the constructor of torchmetrics.

    Args:
        metric: what is being constructed.
        options: keywords that it did not take for its own.
        own: the arguments that it has itself, for the message.

    Raises:
        KeywordError: torchmetrics has no such option either.
    """
    try:
        Metric.__init__(metric, **options)
    except ValueError as error:
        refused = [name for name in options if f"`{name}`" in str(error) and name not in _OPTIONS]
        refuse_foreign_keywords(type(metric).__name__, refused, (*own, *_OPTIONS))
        raise
