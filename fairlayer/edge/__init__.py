"""The edge: what a caller gives, checked once and made plain."""

from fairlayer.constraints.weights import read_sample_weight
from fairlayer.edge.agreement import check_alike
from fairlayer.edge.bounds import Bound, Bounds, Box, plain_bounds
from fairlayer.edge.features import read_features, read_groups
from fairlayer.edge.loaders import LoaderBatch, read_batch, read_loader
from fairlayer.edge.meaning import (
    OnceWarner,
    nothing_to_compare,
    warn_if_nothing_to_compare,
    warn_of_unmeant,
)
from fairlayer.edge.numbers import as_numbers
from fairlayer.edge.per_sample import pick, read_per_sample
from fairlayer.edge.row_order import check_row_order
from fairlayer.edge.scores import as_columns, as_score_tensor
from fairlayer.edge.stated import Stated, as_constraints, check_choice, feature_names

__all__ = [
    "Bound",
    "Bounds",
    "Box",
    "LoaderBatch",
    "OnceWarner",
    "Stated",
    "as_columns",
    "as_constraints",
    "as_numbers",
    "as_score_tensor",
    "check_alike",
    "check_choice",
    "check_row_order",
    "feature_names",
    "nothing_to_compare",
    "pick",
    "plain_bounds",
    "read_batch",
    "read_features",
    "read_groups",
    "read_loader",
    "read_per_sample",
    "read_sample_weight",
    "warn_if_nothing_to_compare",
    "warn_of_unmeant",
]


def __dir__() -> list[str]:
    return list(__all__)
