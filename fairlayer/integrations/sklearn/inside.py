"""The estimator inside a fair one: copied, fitted, asked for its tags, and its scores projected."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

from sklearn import get_config
from sklearn.base import clone
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import process_routing
from sklearn.utils.validation import _num_samples, has_fit_parameter

from fairlayer._typing import FloatArray
from fairlayer.constraints import Constraint
from fairlayer.edge import Bounds, Stated, as_constraints
from fairlayer.errors import ParameterError
from fairlayer.integrations.sklearn.groups_of_rows import rows_features, without_columns
from fairlayer.integrations.sklearn.scores import has_fit
from fairlayer.projection import Projection, project

__all__ = ["features_of", "fitted", "inner_tags", "learns", "projected", "routed", "seen_by", "stated_of"]


def stated_of(constraints: Stated) -> tuple[Constraint, ...]:
    """Return the constraints, of which there may be none."""
    empty = isinstance(constraints, list | tuple) and not constraints
    return () if empty else as_constraints(constraints)


def seen_by(owner: Any, X: Any) -> Any:
    """Return the rows as the estimator inside sees them."""
    return without_columns(stated_of(owner.constraints), X) if owner.hide_features else X


def features_of(owner: Any, X: Any, given: Any) -> Any:
    """Return the sensitive features of the rows: those given, else columns of a frame."""
    return rows_features(type(owner).__name__, stated_of(owner.constraints), X, _num_samples(X), given)


def learns(estimator: Any) -> bool:
    """Return whether an estimator learns from what it is given."""
    return has_fit(estimator) and type(estimator).__name__ != "FrozenEstimator"


def _copied(estimator: Any) -> Any:
    """Return a copy that has not learnt; one made of its parameters where they are copied by it, as CatBoost does.

    A deep copy of a fitted CatBoost model shares what its predictions run on, and they may never end.
    """
    with warnings.catch_warnings():  # Keras tells that the optimiser of a fresh model has nothing to copy
        warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
        try:
            return clone(estimator, safe=False)
        except RuntimeError:
            return type(estimator)(**copy.deepcopy(estimator.get_params(deep=False)))


def fitted(estimator: Any, X: Any, y: Any, params: Mapping[str, Any]) -> Any:
    """Return a fitted copy of an estimator; a trained torch module is copied only."""
    made = _copied(estimator)
    if has_fit(made):
        if "sample_weight" in params and not has_fit_parameter(made, "sample_weight") and not hasattr(made, "steps"):
            raise ParameterError(
                f"sample_weight was given, but {type(made).__name__}.fit takes none. Leave it out, or use an estimator "
                "that weighs its samples."
            )
        made.fit(X, y, **params)
    return made


def projected(owner: Any, scores: FloatArray, bounds: Bounds, features: Any) -> Projection:
    """Return the projection of scores; constraints on labels take them as estimates of the labels."""
    stated = stated_of(owner.constraints)
    labels = scores if any(constraint.needs_labels for constraint in stated) else None
    return project(
        scores,
        stated,
        sensitive_features=features,
        label_probabilities=labels,
        bounds=bounds,
        on_infeasible=owner.on_infeasible,
    )


def routed(owner: Any, fit_params: Mapping[str, Any], weights: FloatArray | None) -> dict[str, Any]:
    """Return what the inner `fit` gets: by scikit-learn's routing where it is on, else everything."""
    given = dict(fit_params) if weights is None else {**fit_params, "sample_weight": weights}
    if not get_config()["enable_metadata_routing"] or not hasattr(owner.estimator, "get_metadata_routing"):
        return given
    return dict(process_routing(owner, "fit", **given).estimator.fit)


def inner_tags(tags: Any, estimator: Any) -> Any:
    """Return the tags with what the inner estimator says of its input."""
    if hasattr(estimator, "__sklearn_tags__"):
        inner = get_tags(estimator)
        tags.input_tags = inner.input_tags
        tags.non_deterministic = inner.non_deterministic
    return tags
