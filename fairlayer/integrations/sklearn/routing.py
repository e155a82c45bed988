"""Scikit-learn's metadata routing, through which a dict of sensitive features is split along with the rows.

A search splits what it can index by rows, and hands everything else over whole; a dict is indexed by names. What a
parent hands to an estimator it asks the estimator's own router for, so the router gives a table in place of a dict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping

from fairlayer.errors import require

__all__ = ["as_table", "router_of"]


class _TableRouter(MetadataRouter):  # type: ignore[misc]
    def __sklearn_clone__(self) -> _TableRouter:
        made = _TableRouter(owner=self.owner)
        made.__dict__.update(super().__sklearn_clone__().__dict__)
        return made

    def _route_params(self, *, params: Mapping[str, Any], method: str, parent: Any, caller: str) -> Any:
        given = {name: as_table(value) if isinstance(value, Mapping) else value for name, value in params.items()}
        return super()._route_params(params=given, method=method, parent=parent, caller=caller)


def router_of(owner: Any) -> MetadataRouter:
    """Return what an estimator, and the one inside it where there is one, ask for."""
    router = _TableRouter(owner=type(owner).__name__).add_self_request(owner)
    inner = getattr(owner, "estimator", None)
    if hasattr(inner, "get_metadata_routing"):
        router.add(estimator=inner, method_mapping=MethodMapping().add(caller="fit", callee="fit"))
    return router


def as_table(columns: Mapping[str, Any]) -> Any:
    """Return a dict of columns of one length as a frame; anything else as it is, to be refused by who reads it.

    Example:
        >>> as_table({"sex": ["F", "M", "F"]}).iloc[[0, 2]]["sex"].tolist()
        ['F', 'F']
        >>> as_table({"sex": ["F"], "age": [30, 40]})
        {'sex': ['F'], 'age': [30, 40]}
    """
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    lengths = {len(array) if array.ndim == 1 else -1 for array in arrays.values()}
    return require("pandas", "train").DataFrame(arrays) if len(lengths) == 1 and lengths != {-1} else columns
