"""Streaming inference: predictions in small batches whose group gaps are held by a policy."""

from fairlayer._keywords import explain_public
from fairlayer.streaming.phases import Phase
from fairlayer.streaming.policies import Answer, Anytime, PerBatch, Policy, Present, Tracking, register_policy
from fairlayer.streaming.reporting.report import BucketReport, StreamReport
from fairlayer.streaming.state import InferenceState
from fairlayer.streaming.stores.recording import Recorder
from fairlayer.streaming.transition import Event

__all__ = [
    "Answer",
    "Anytime",
    "BucketReport",
    "Event",
    "InferenceState",
    "PerBatch",
    "Phase",
    "Policy",
    "Present",
    "Recorder",
    "StreamReport",
    "Tracking",
    "register_policy",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__, inner=("InferenceState.emit_simply",))
