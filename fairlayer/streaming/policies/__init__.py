"""How a stream is held: one file for each policy, registered by its name."""

from fairlayer._keywords import explain_public
from fairlayer.streaming.policies.anytime import Anytime
from fairlayer.streaming.policies.base import (
    Answer,
    Call,
    Labelled,
    Policy,
    State,
    as_policy,
    policy_names,
    register_policy,
)
from fairlayer.streaming.policies.per_batch import PerBatch
from fairlayer.streaming.policies.present import Present
from fairlayer.streaming.policies.tracking import Tracking

__all__ = [
    "Answer",
    "Anytime",
    "Call",
    "Labelled",
    "PerBatch",
    "Policy",
    "Present",
    "State",
    "Tracking",
    "as_policy",
    "policy_names",
    "register_policy",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__, inner=("Anytime", "PerBatch", "Policy", "Present", "Tracking"))
