"""Numbers for scraping (Prometheus text), read from the stream when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fairlayer.errors import require
from fairlayer.serving.decider import Decider
from fairlayer.serving.scorer import Scorer
from fairlayer.streaming import Phase

__all__ = ["Metrics"]

_PER_CONSTRAINT = {
    "pooled_gap": "Gap of the pooled means of all predictions so far; absent while nothing compares",
    "window_gap": "Gap of the window of the stream; absent where no window was asked for",
    "limit": "The limit of the gap that the policy holds",
    "multiplier": "Price per prediction: half the squared move that one more unit of the limit would save",
}
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class Metrics:
    """One registry per scorer.

    Args:
        scorer: the scorer whose stream is read.
        decider: the decider whose decisions are read; None for none.

    Raises:
        MissingExtraError: prometheus_client is not installed.
    """

    def __init__(self, scorer: Scorer, decider: Decider | None = None) -> None:
        self._scorer, self._decider = scorer, decider
        client = require("prometheus_client", "serve")
        self._registry = client.CollectorRegistry()
        self._seconds = client.Histogram(
            "fairlayer_request_seconds",
            "Time to answer a request",
            ["endpoint", "status"],
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self._registry.register(self)

    def observe(self, endpoint: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._seconds.labels(endpoint, str(status)).observe(seconds)

    def text(self) -> tuple[bytes, str]:
        """Return the page and its content type."""
        client = require("prometheus_client", "serve")
        return client.generate_latest(self._registry), client.CONTENT_TYPE_LATEST

    def collect(self) -> Iterator[Any]:
        """Yield what the stream knows; called by the registry."""
        core = require("prometheus_client.core", "serve")
        found = self._scorer.describe()
        for key, words in _PER_CONSTRAINT.items():
            family = core.GaugeMetricFamily(f"fairlayer_{key}", words, labels=["constraint"])
            _fill(family, {name: numbers[key] for name, numbers in found["constraints"].items()})
            yield family
        phase = core.GaugeMetricFamily("fairlayer_phase", "1 for the phase that the stream is in", labels=["phase"])
        _fill(phase, {each.value: float(each.value == found["phase"]) for each in Phase})
        yield phase
        counts = core.CounterMetricFamily("fairlayer_predictions", "Predictions emitted per cell", labels=["cell"])
        _fill(counts, {name: cell["count"] for name, cell in found["cells"].items()})
        yield counts
        shifts = core.GaugeMetricFamily("fairlayer_shift", "Feed-forward shift per cell", labels=["cell"])
        _fill(shifts, {name: cell["shift"] for name, cell in found["cells"].items()})
        yield shifts
        yield core.GaugeMetricFamily(
            "fairlayer_mean_squared_change", "Mean of (prediction - raw score)^2", value=found["mean_squared_change"]
        )
        unseen = core.CounterMetricFamily(
            "fairlayer_unseen_levels", "Values of categorical features that no training row had", labels=["column"]
        )
        _fill(unseen, found["unseen_levels"])
        yield unseen
        uncovered = core.CounterMetricFamily(
            "fairlayer_uncovered", "Predictions whose sensitive category training has not met", labels=["column"]
        )
        _fill(uncovered, found["uncovered_categories"])
        yield uncovered
        if found["window"] is not None:
            window = core.GaugeMetricFamily(
                "fairlayer_window", "Predictions in the window, and shares of them", labels=["what"]
            )
            _fill(window, {name: found["window"][name] for name in ("samples", "moved", "at_bound", "flips")})
            yield window
        if self._decider is not None:
            yield from self._decisions(core)

    def _decisions(self, core: Any) -> Iterator[Any]:
        found = self._decider.describe() if self._decider is not None else {}
        gaps = core.GaugeMetricFamily("fairlayer_decision_gap", "Gap of all decisions so far", labels=["constraint"])
        _fill(gaps, found["gaps"])
        yield gaps
        for key, words in (("count", "Requests decided per cell"), ("selected", "Requests granted per cell")):
            family = core.CounterMetricFamily(f"fairlayer_decisions_{key}", words, labels=["cell"])
            _fill(family, {name: cell[key] for name, cell in found["cells"].items()})
            yield family


def _fill(family: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if value is not None:
            family.add_metric([name], value)
