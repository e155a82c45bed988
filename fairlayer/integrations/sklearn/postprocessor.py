"""FairPostprocessor: a FairClassifier or a FairRegressor, as the estimator is one or the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from fairlayer._typing import FloatArray
from fairlayer.edge import Bounds, Stated
from fairlayer.errors import ParameterError
from fairlayer.integrations.sklearn.routing import router_of
from fairlayer.integrations.sklearn.wrapped import FairClassifier, FairRegressor
from fairlayer.projection import Projection

__all__ = ["FairPostprocessor"]


def _kind(estimator: Any) -> str:
    """Return "classifier", "regressor", or "" for what does not tell."""
    if not hasattr(estimator, "__sklearn_tags__"):  # an older estimator says it in an attribute
        return str(getattr(estimator, "_estimator_type", None) or "")
    return "classifier" if is_classifier(estimator) else "regressor" if is_regressor(estimator) else ""


def _classifies(owner: FairPostprocessor) -> bool:
    return _kind(owner.estimator) == "classifier"


class FairPostprocessor(BaseEstimator):  # type: ignore[misc]
    """Any estimator of scikit-learn's kind, its predictions moved until they meet the constraints.

    It is a `FairClassifier` around a classifier and a `FairRegressor` around a regressor; see these. What does not tell
    which of the two it is, such as a Keras model or a torch module, goes into one of them.

    Args:
        estimator: a classifier or a regressor.
        constraints: what must hold: a constraint, its text, or several.
        decisions: see `FairClassifier`; for classifiers only.
        bounds: see `FairRegressor`; for regressors only.
        randomised: see `FairClassifier`.
        cv: see `FairClassifier`.
        hide_features: leave columns of a frame X that the constraints name out of what the estimator sees.
        on_infeasible: "raise", or "relax" as in `project`.

    Attributes:
        fitted_: the `FairClassifier` or `FairRegressor`.
        classes_: the two classes, of a classifier.

    Raises (from `fit`):
        ParameterError: the estimator is neither, or an argument is of the other kind.

    Example:
        >>> import numpy as np, fairlayer as fl
        >>> from sklearn.ensemble import HistGradientBoostingClassifier
        >>> sex = np.arange(400) % 2
        >>> X = np.random.default_rng(0).normal(size=(400, 2)) + 0.5 * sex[:, None]
        >>> trees, parity = HistGradientBoostingClassifier(max_iter=20), fl.DemographicParity("sex", tolerance=0.02)
        >>> model = FairPostprocessor(trees, [parity], decisions=True)
        >>> model.fit(X, X[:, 0] > 0.5, sensitive_features=sex).predict(X, sensitive_features=sex).dtype
        dtype('bool')
    """

    def __init__(
        self,
        estimator: Any,
        constraints: Stated = (),
        *,
        decisions: bool = False,
        bounds: Bounds = None,
        randomised: bool = False,
        cv: Any = 5,
        hide_features: bool = False,
        on_infeasible: str = "raise",
    ) -> None:
        self.estimator = estimator
        self.constraints = constraints
        self.decisions = decisions
        self.bounds = bounds
        self.randomised = randomised
        self.cv = cv
        self.hide_features = hide_features
        self.on_infeasible = on_infeasible

    def fit(
        self, X: Any, y: Any, *, sensitive_features: Any = None, sample_weight: Any = None, **fit_params: Any
    ) -> FairPostprocessor:
        """Fit a copy of the estimator, and with `decisions` the thresholds; arguments as for `FairClassifier.fit`."""
        made = self._made()
        made.fit(X, y, sensitive_features=sensitive_features, sample_weight=sample_weight, **fit_params)
        self.fitted_ = made
        for name in ("classes_", "n_features_in_", "feature_names_in_"):
            if hasattr(made, name):
                setattr(self, name, getattr(made, name))
        return self

    def predict(self, X: Any, *, sensitive_features: Any = None) -> Any:
        """Return the classes, or the projected numbers (n,)."""
        return self._ready().predict(X, sensitive_features=sensitive_features)

    @available_if(_classifies)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any, *, sensitive_features: Any = None) -> FloatArray:
        """Return the probabilities of both classes (n, 2)."""
        return np.asarray(self._ready().predict_proba(X, sensitive_features=sensitive_features))

    def project(self, X: Any, *, sensitive_features: Any = None) -> Projection:
        """Return the projection of the scores over the rows of X, with its certificate."""
        found: Projection = self._ready().project(X, sensitive_features=sensitive_features)
        return found

    def score(self, X: Any, y: Any, sample_weight: Any = None, *, sensitive_features: Any = None) -> float:
        """Return the accuracy, or the coefficient of determination."""
        return float(self._ready().score(X, y, sample_weight, sensitive_features=sensitive_features))

    def get_metadata_routing(self) -> Any:
        """Return what this estimator, and the one inside, ask for."""
        return router_of(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if _kind(self.estimator):
            inner = get_tags(self._made())
            tags.estimator_type, tags.target_tags = inner.estimator_type, inner.target_tags
            tags.classifier_tags, tags.regressor_tags = inner.classifier_tags, inner.regressor_tags
            tags.input_tags, tags.non_deterministic = inner.input_tags, inner.non_deterministic
        return tags

    def _ready(self) -> Any:
        check_is_fitted(self)
        return self.fitted_

    def _made(self) -> Any:
        common: dict[str, Any] = {"hide_features": self.hide_features, "on_infeasible": self.on_infeasible}
        kind = _kind(self.estimator)
        if kind == "classifier":
            if self.bounds is not None:
                raise ParameterError(
                    f"bounds={self.bounds!r} was given, but {type(self.estimator).__name__} is a classifier, whose "
                    "probabilities lie in (0, 1). Leave it out."
                )
            chosen: dict[str, Any] = {"decisions": self.decisions, "randomised": self.randomised, "cv": self.cv}
            return FairClassifier(self.estimator, self.constraints, **chosen, **common)
        if kind == "regressor":
            if self.decisions:
                raise ParameterError(
                    f"decisions=True was given, but {type(self.estimator).__name__} is a regressor, which decides "
                    "nothing. Leave it out, or fit a classifier."
                )
            return FairRegressor(self.estimator, self.constraints, bounds=self.bounds, **common)
        raise ParameterError(
            f"FairPostprocessor was given a {type(self.estimator).__name__}, which does not tell whether it "
            "classifies. Use FairClassifier or FairRegressor."
        )
