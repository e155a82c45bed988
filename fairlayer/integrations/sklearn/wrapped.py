"""Any model behind the interface of scikit-learn, its predictions moved until they meet constraints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import StratifiedKFold, check_cv
from sklearn.utils import indexable
from sklearn.utils._indexing import _safe_indexing
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    _check_method_params,
    _check_sample_weight,
    _num_samples,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from fairlayer._numbers import is_whole
from fairlayer._typing import FloatArray, IntArray
from fairlayer.decisions import DecisionRule, Decisions, decide
from fairlayer.edge import Bounds, Stated
from fairlayer.errors import ParameterError
from fairlayer.integrations.sklearn.inside import (
    features_of,
    fitted,
    inner_tags,
    learns,
    projected,
    routed,
    seen_by,
    stated_of,
)
from fairlayer.integrations.sklearn.routing import router_of
from fairlayer.integrations.sklearn.scores import amounts_of, probabilities_of, ranking_of
from fairlayer.projection import Projection

__all__ = ["FairClassifier", "FairRegressor"]


class FairClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Any classifier of two classes whose mean probabilities, or whose decisions, meet the constraints.

        predict_proba(X)    the classifier's probabilities, projected onto the constraints over the rows of X
        predict(X)          the more probable class; with `decisions=True` thresholds per group, which meet the
                            constraints on the rows that they were fitted to

    The estimator is anything with `fit` and `predict_proba` (scikit-learn, XGBoost, LightGBM, CatBoost, a pipeline), a
    compiled Keras model that ends in a sigmoid or a softmax, or a trained torch module that gives probabilities. It is
    copied, and learns from labels 0 and 1, as floats where yours are floats. One that is trained already goes into
    `sklearn.frozen.FrozenEstimator`.

    Args:
        estimator: the classifier.
        constraints: what must hold: a constraint, its text, or several.
        decisions: bound the decisions instead of the mean probabilities. `predict_proba` then gives the probabilities
            as they are, and `predict` need not be its more probable class.
        randomised: with `decisions`, draw lots between thresholds, where exact parity needs it.
        cv: with `decisions`, the number of folds, or a splitter of scikit-learn: the thresholds are fitted to scores of
            rows that the estimator has not learnt from. A torch module or a frozen estimator does not learn here, and
            scores all rows at once.
        hide_features: leave columns of a frame X that the constraints name out of what the estimator sees.
        on_infeasible: "raise", or "relax" as in `project`.

    Attributes:
        estimator_: the fitted estimator.
        classes_: the two classes.
        rule_: the `DecisionRule`, with `decisions`.

    Raises (from `fit` and the predictions):
        FairlayerError: a named subclass; see `fairlayer.errors`.

    Source: Hardt, Price, Srebro (2016) for thresholds per group; see `project` and `decide`.
    Limits: a projection holds on the rows of the call, all at once: predict for the batch that the promise is about,
        and not row by row. Thresholds hold on the rows that they were fitted to, on others up to chance.

    Example:
        >>> import numpy as np
        >>> from sklearn.linear_model import LogisticRegression
        >>> sex = np.arange(200) % 2
        >>> X = np.random.default_rng(0).normal(size=(200, 2)) + sex[:, None]
        >>> model = FairClassifier(LogisticRegression(), "demographic_parity(sex, 0.02)")
        >>> shown = model.fit(X, X[:, 0] > 0.5).predict_proba(X, sensitive_features={"sex": sex})[:, 1]
        >>> round(float(shown[sex == 1].mean() - shown[sex == 0].mean()), 4)
        0.02
    """

    def __init__(
        self,
        estimator: Any,
        constraints: Stated = (),
        *,
        decisions: bool = False,
        randomised: bool = False,
        cv: Any = 5,
        hide_features: bool = False,
        on_infeasible: str = "raise",
    ) -> None:
        self.estimator = estimator
        self.constraints = constraints
        self.decisions = decisions
        self.randomised = randomised
        self.cv = cv
        self.hide_features = hide_features
        self.on_infeasible = on_infeasible

    def fit(
        self, X: Any, y: Any, *, sensitive_features: Any = None, sample_weight: Any = None, **fit_params: Any
    ) -> FairClassifier:
        """Fit a copy of the estimator, and with `decisions` the thresholds.

        Args:
            X: rows, in any form that the estimator takes.
            y: labels of two classes (n,).
            sensitive_features: the sensitive features, needed with `decisions`; as for `project`, or None to take
                columns of a frame X.
            sample_weight: how many samples each row stands for (n,), for the estimator and the rates.
            fit_params: keywords for the estimator's own `fit`.
        """
        validate_data(self, X, skip_check_array=True)
        classes, codes = _two_classes(type(self).__name__, y)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        if len(codes) != _num_samples(X):
            raise ParameterError(
                f"{type(self).__name__} was given {_num_samples(X)} rows of X, but {len(codes)} labels. Give one label "
                "per row."
            )
        seen = seen_by(self, X)
        params = routed(self, fit_params, weights)
        rule = self._rule(X, seen, codes, sensitive_features, weights, params) if self.decisions else None
        self.estimator_ = fitted(self.estimator, seen, codes, params)
        self.classes_ = classes
        if rule is not None:
            self.rule_ = rule
        return self

    def predict_proba(self, X: Any, *, sensitive_features: Any = None) -> FloatArray:
        """Return the probabilities of both classes (n, 2); with `decisions` as the estimator has them."""
        check_is_fitted(self)
        if self.decisions:
            second = probabilities_of(self.estimator_, seen_by(self, X))
        else:
            second = np.asarray(self.project(X, sensitive_features=sensitive_features).value)
        return np.column_stack([1.0 - second, second])

    def predict(self, X: Any, *, sensitive_features: Any = None) -> Any:
        """Return the class of each row (n,)."""
        check_is_fitted(self)
        if not self.decisions:
            second = self.predict_proba(X, sensitive_features=sensitive_features)[:, 1] >= 0.5
            return self.classes_[second.astype(int)]
        features = features_of(self, X, sensitive_features)
        scores = ranking_of(self.estimator_, seen_by(self, X))
        return self.classes_[self.rule_.apply(scores, sensitive_features=features, seed=0).numpy()]

    def project(self, X: Any, *, sensitive_features: Any = None) -> Projection:
        """Return the projection of the second class's probabilities over the rows of X, with its certificate.

        Constraints on labels take the estimator's own probabilities as estimates of the labels.
        """
        check_is_fitted(self)
        scores = probabilities_of(self.estimator_, seen_by(self, X))
        return projected(self, scores, (0.0, 1.0), features_of(self, X, sensitive_features))

    def decide(self, X: Any, *, sensitive_features: Any = None, **options: Any) -> Decisions:
        """Return decisions for the rows of X together, which meet the constraints there; options as for `decide`."""
        check_is_fitted(self)
        scores, features = probabilities_of(self.estimator_, seen_by(self, X)), features_of(self, X, sensitive_features)
        return decide(scores, stated_of(self.constraints), sensitive_features=features, **options)

    def score(self, X: Any, y: Any, sample_weight: Any = None, *, sensitive_features: Any = None) -> float:
        """Return the accuracy."""
        found = self.predict(X, sensitive_features=sensitive_features)
        return float(accuracy_score(y, found, sample_weight=sample_weight))

    def get_metadata_routing(self) -> Any:
        """Return what this estimator, and the one inside, ask for."""
        return router_of(self)

    def __sklearn_tags__(self) -> Any:
        tags = inner_tags(super().__sklearn_tags__(), self.estimator)
        tags.classifier_tags.multi_class = False
        return tags

    def _rule(  # noqa: PLR0917 - what `fit` has read
        self,
        X: Any,
        seen: Any,
        codes: FloatArray | IntArray,
        given: Any,
        weights: FloatArray | None,
        params: Mapping[str, Any],
    ) -> DecisionRule:
        return DecisionRule.fit(
            self._scores_unseen(seen, codes, params),
            stated_of(self.constraints),
            sensitive_features=features_of(self, X, given),
            y=codes,
            randomised=self.randomised,
            sample_weight=weights,
        )

    def _scores_unseen(self, X: Any, codes: FloatArray | IntArray, params: Mapping[str, Any]) -> FloatArray:
        """Return scores of rows that the estimator has not learnt from."""
        if not learns(self.estimator):
            return ranking_of(fitted(self.estimator, X, codes, params), X)
        [rows] = indexable(X)
        scores = np.full(len(codes), np.nan)
        for train, test in _folds(self.cv, codes):
            part = _check_method_params(rows, params, indices=train)
            model = fitted(self.estimator, _safe_indexing(rows, train), codes[train], part)
            scores[test] = ranking_of(model, _safe_indexing(rows, test))
        return scores


class FairRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Any regressor whose predictions meet the constraints over the rows that it predicts for.

        predict(X)    the regressor's predictions, projected onto the constraints over the rows of X

    The estimator is anything with `fit` and `predict`, a compiled Keras model, or a trained torch module.

    Args:
        estimator: the regressor; it is copied.
        constraints: what must hold: a constraint, its text, or several.
        bounds: (lower, upper) of the predictions; None for no bounds.
        hide_features: leave columns of a frame X that the constraints name out of what the estimator sees.
        on_infeasible: "raise", or "relax" as in `project`.

    Attributes:
        estimator_: the fitted estimator.

    Raises (from `fit` and `predict`):
        FairlayerError: a named subclass; see `fairlayer.errors`.

    Limits: those of `FairClassifier`. The constraints hold on the rows of one call.

    Example:
        >>> import numpy as np
        >>> from sklearn.linear_model import Ridge
        >>> sex = np.arange(200) % 2
        >>> X = np.random.default_rng(0).normal(size=(200, 2)) + sex[:, None]
        >>> model = FairRegressor(Ridge(), "demographic_parity(sex, 0.1)").fit(X, X.sum(axis=1))
        >>> found = model.predict(X, sensitive_features=sex)
        >>> round(float(found[sex == 1].mean() - found[sex == 0].mean()), 4)
        0.1
    """

    def __init__(
        self,
        estimator: Any,
        constraints: Stated = (),
        *,
        bounds: Bounds = None,
        hide_features: bool = False,
        on_infeasible: str = "raise",
    ) -> None:
        self.estimator = estimator
        self.constraints = constraints
        self.bounds = bounds
        self.hide_features = hide_features
        self.on_infeasible = on_infeasible

    def fit(
        self, X: Any, y: Any, *, sensitive_features: Any = None, sample_weight: Any = None, **fit_params: Any
    ) -> FairRegressor:
        """Fit a copy of the estimator.

        Args:
            X: rows, in any form that the estimator takes.
            y: numbers (n,).
            sensitive_features: they are not needed, and accepted so that both kinds are called alike.
            sample_weight: weights for the estimator (n,).
            fit_params: keywords for the estimator's own `fit`.
        """
        validate_data(self, X, skip_check_array=True)
        seen = seen_by(self, X)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        self.estimator_ = fitted(self.estimator, seen, column_or_1d(y, warn=True), routed(self, fit_params, weights))
        return self

    def predict(self, X: Any, *, sensitive_features: Any = None) -> FloatArray:
        """Return the predictions (n,)."""
        return np.asarray(self.project(X, sensitive_features=sensitive_features).value)

    def project(self, X: Any, *, sensitive_features: Any = None) -> Projection:
        """Return the projection of the predictions over the rows of X, with its certificate."""
        check_is_fitted(self)
        scores = amounts_of(self.estimator_, seen_by(self, X))
        return projected(self, scores, self.bounds, features_of(self, X, sensitive_features))

    def score(self, X: Any, y: Any, sample_weight: Any = None, *, sensitive_features: Any = None) -> float:
        """Return the coefficient of determination."""
        found = self.predict(X, sensitive_features=sensitive_features)
        return float(r2_score(y, found, sample_weight=sample_weight))

    def get_metadata_routing(self) -> Any:
        """Return what this estimator, and the one inside, ask for."""
        return router_of(self)

    def __sklearn_tags__(self) -> Any:
        return inner_tags(super().__sklearn_tags__(), self.estimator)


def _two_classes(owner: str, y: Any) -> tuple[Any, Any]:
    """Return the classes, and 1 where the label is the second: a float where labels are, as torch's losses ask."""
    y = column_or_1d(y, warn=True)
    check_classification_targets(y)
    kind = type_of_target(y)
    classes, codes = np.unique(y, return_inverse=True)
    if kind != "binary":
        raise ParameterError(
            f"Only binary classification is supported. The type of the target is {kind}. Fit one {owner} per class, "
            "each on (y == class)."
        )
    if len(classes) < 2:
        raise ParameterError(f"{owner} needs samples of two classes, but found one class: {classes.tolist()}.")
    return classes, codes.astype(classes.dtype if classes.dtype.kind == "f" else np.int64)


def _folds(cv: Any, codes: FloatArray | IntArray) -> Any:
    """Return pairs of rows to learn from and rows to score."""
    if not is_whole(cv):
        return check_cv(cv, codes, classifier=True).split(np.zeros(len(codes)), codes)
    fewest = int(np.bincount(codes.astype(np.int64), minlength=2).min())
    if not 2 <= cv <= fewest:
        raise ParameterError(
            f"FairClassifier(decisions=True) was given cv={cv!r}, and the rarer class has {fewest} rows. Each of at "
            "least 2 folds needs one of them: give a cv between 2 and that number, or a trained estimator in "
            "sklearn.frozen.FrozenEstimator."
        )
    return StratifiedKFold(cv, shuffle=True, random_state=0).split(np.zeros(len(codes)), codes)
