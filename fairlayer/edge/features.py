"""Sensitive features of the samples of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlayer.collective import Ranks
from fairlayer.constraints import Constraint
from fairlayer.edge.stated import feature_names
from fairlayer.groups import Groups, Vocabulary, read_sensitive_features

__all__ = ["read_features", "read_groups"]


def read_groups(
    features: Any,
    constraints: Sequence[Constraint],
    n: int,
    vocabulary: Vocabulary | None,
    ranks: Ranks | None = None,
) -> Groups:
    """Read the sensitive features of n samples that the constraints name, and no others.

    Raises:
        ShapeError: they are not columns of n samples.
    """
    names = () if features is None or isinstance(features, Mapping) else feature_names(constraints)
    groups = read_features(features, names, n, vocabulary, ranks)
    for constraint in constraints:
        for name in constraint.features:
            if name in groups.raw:
                groups.raw[name]  # a bad column is refused before anything is computed
    return groups


def read_features(
    features: Any, names: Sequence[str], n: int, vocabulary: Vocabulary | None = None, ranks: Ranks | None = None
) -> Groups:
    """Read the sensitive features `names` of n samples; None gives none. See `read_sensitive_features`.

    Raises:
        ShapeError: they are not columns.
    """
    if features is None:
        return Groups({}, n, vocabulary, ranks)
    return read_sensitive_features(features, names, vocabulary, ranks, n)
