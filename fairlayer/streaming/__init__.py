"""Streaming inference: predictions in small batches whose pooled means stay within the tolerances."""

from fairlayer.streaming.phases import Phase
from fairlayer.streaming.policy import Anytime, PerBatch, Policy, Tracking
from fairlayer.streaming.state import InferenceState

__all__ = ["Anytime", "InferenceState", "PerBatch", "Phase", "Policy", "Tracking"]
