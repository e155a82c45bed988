"""Sensitive features -> groups: the only room that knows how group membership is encoded."""

from fairlayer._keywords import explain_public
from fairlayer.groups.encoding import EncodedFeature
from fairlayer.groups.groups import Groups, read_sensitive_features
from fairlayer.groups.naming import cell_name, group_labels, unknown_label
from fairlayer.groups.reading import read_column, read_columns
from fairlayer.groups.vocabulary import Vocabulary

__all__ = [
    "EncodedFeature",
    "Groups",
    "Vocabulary",
    "cell_name",
    "group_labels",
    "read_column",
    "read_columns",
    "read_sensitive_features",
    "unknown_label",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__, inner=("EncodedFeature", "Groups", "Vocabulary"))
