"""Logistic regression whose mean log-odds on the training data meet constraints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from fairlayer._typing import FloatArray
from fairlayer.constraints import Constraint, Spread, Statement
from fairlayer.errors import BackendError, ParameterError
from fairlayer.integrations.sklearn.newton import minimise
from fairlayer.integrations.sklearn.routing import router_of
from fairlayer.integrations.sklearn.training_data import Centred, Demands, check_positive, read_demands, read_weights

__all__ = ["FairLogisticRegression", "LogisticGaps"]


class LogisticGaps(NamedTuple):
    """What a constraint compares, for the log-odds (which it bounds), the probabilities and the 0/1 decisions.

    Example:
        >>> import numpy as np, fairlayer as fl
        >>> X, y, sex = np.array([[0.0], [1.0], [1.0], [2.0]]), ["no", "no", "yes", "yes"], ["F", "F", "M", "M"]
        >>> model = FairLogisticRegression([fl.DemographicParity("sex", tolerance=0.5)])
        >>> gaps = model.fit(X, y, sensitive_features={"sex": sex}).gaps_["DemographicParity('sex')"]
        >>> round(gaps.log_odds, 6), gaps.probabilities < gaps.log_odds, gaps.decisions
        (0.5, True, 0.5)
    """

    log_odds: float
    probabilities: float
    decisions: float


class FairLogisticRegression(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The logistic regression of least penalised log loss whose training log-odds meet the constraints.

        minimise   sum_i s_i log(1 + exp(-t_i z_i)) + |w|^2 / (2 C)          t_i = +-1,  z_i = x_i w + b
        subject to the constraints, on the log-odds z_i of the training data

    Mean probabilities are not a linear function of the coefficients, but mean log-odds are. So those are bounded,
    and a tolerance is in units of log-odds. The gaps of probabilities and decisions usually shrink with it, but nothing
    bounds them, even at tolerance 0: `gaps_` shows all three. To bound probabilities, put `project(...)` on
    `predict_proba`. Predicting needs no sensitive features, unless they are columns of X.

    Args:
        constraints: comparisons of means: DemographicParity, EqualOpportunity, PredictiveEquality, EqualizedOdds,
            ConditionalParity, CovarianceBound, or Affine rows that do not change when all scores rise by one number.
        C: inverse strength of the penalty, > 0; in the units of scikit-learn's LogisticRegression.
        max_iter: Newton steps, each a quadratic program in the coefficients; 5 to 15 are usual.

    Attributes:
        classes_: the two labels, in order; probabilities and log-odds are those of the second.
        coef_: (1, features).
        intercept_: (1,).
        multipliers_: price of each constraint: minus the derivative of the optimal loss above by its tolerance, in
            nats (summed over samples) per unit of log-odds. At tolerance 0, that of widening it.
        certificate_: `Optimality`, computed on the training data.
        gaps_: `LogisticGaps` of each constraint, for the training data; NaN where it compares nothing.
        absent_: groups that a constraint compares and the training data lack, as (constraint, group).
        n_iter_: Newton steps taken.

    Raises (from `fit`):
        FairlayerError: a named subclass; see `fairlayer.errors`. A constraint on levels of
            probabilities (MinimumRate, MeanResidualParity, ...) is a BackendError.

    Source: Zafar et al. (2017), "Fairness constraints: mechanisms for fair classification": a bound on a linear
    function of the distances from the decision boundary, under which logistic regression stays convex.

    Example:
        >>> import numpy as np, fairlayer as fl
        >>> X, y, sex = np.array([[0.0], [1.0], [1.0], [2.0]]), ["no", "no", "yes", "yes"], ["F", "F", "M", "M"]
        >>> model = FairLogisticRegression([fl.DemographicParity("sex", tolerance=0.5)])
        >>> model = model.fit(X, y, sensitive_features={"sex": sex})
        >>> round(model.gaps_["DemographicParity('sex')"].log_odds, 6), model.predict([[2.0]]).tolist()
        (0.5, ['yes'])
    """

    def __init__(self, constraints: Sequence[Constraint] = (), *, C: float = 1.0, max_iter: int = 100) -> None:
        self.constraints = constraints
        self.C = C
        self.max_iter = max_iter

    def fit(
        self, X: Any, y: Any, *, sensitive_features: Any = None, sample_weight: Any = None
    ) -> FairLogisticRegression:
        """Solve the program.

        Args:
            X: features (n, d).
            y: labels (n,), of two classes.
            sensitive_features: dict of name -> column, a frame, or an array (n,) or (n, a) in the order in which the
                constraints name them.
            sample_weight: how many samples each row stands for (n,); it weighs the loss and the group means, not
                CovarianceBound, nor rows that Affine states on single samples.
        """
        C = check_positive("FairLogisticRegression", "C", self.C)
        X, y = validate_data(self, X, y, dtype=np.float64)
        weights = read_weights(sample_weight, X)
        self.classes_, positive = _two_classes(y, weights)
        given = None if sample_weight is None else weights
        demands = read_demands("FairLogisticRegression", self.constraints, sensitive_features, positive, given)
        data = Centred.of(X, weights)
        _check_comparisons(demands, len(X))
        solution = minimise(data, positive, C, demands, self.max_iter)
        slopes, intercept = data.coefficients(solution.theta)
        self.coef_, self.intercept_ = slopes[None, :], np.array([intercept])
        self.multipliers_, self.certificate_, self.n_iter_ = solution.prices, solution.certificate, solution.steps
        self.gaps_ = _gaps(demands, data.predictors @ solution.theta)
        self.absent_ = demands.absent
        return self

    def decision_function(self, X: Any) -> FloatArray:
        """Return the log-odds of the second class (n,)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(X @ self.coef_[0] + self.intercept_[0])

    def get_metadata_routing(self) -> Any:
        """Return what this estimator asks for."""
        return router_of(self)

    def predict_proba(self, X: Any) -> FloatArray:
        """Return the probabilities of both classes (n, 2)."""
        log_odds = self.decision_function(X)
        return np.column_stack([_sigmoid(-log_odds), _sigmoid(log_odds)])

    def predict_log_proba(self, X: Any) -> FloatArray:
        """Return the logarithms of the probabilities (n, 2)."""
        log_odds = self.decision_function(X)
        return np.column_stack([-np.logaddexp(0.0, log_odds), -np.logaddexp(0.0, -log_odds)])

    def predict(self, X: Any) -> Any:
        """Return the more probable class of each sample (n,)."""
        second = self.decision_function(X) > 0
        return self.classes_[second.astype(int)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


def _sigmoid(z: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-np.logaddexp(0.0, -z)))


def _two_classes(y: Any, weights: FloatArray) -> tuple[Any, FloatArray]:
    """Return the classes, and 1.0 where the label is the second."""
    check_classification_targets(y)
    kind = type_of_target(y)
    if kind != "binary":
        raise ParameterError(
            f"Only binary classification is supported. The type of the target is {kind}. "
            "Fit one FairLogisticRegression per class, each on (y == class)."
        )
    classes, codes = np.unique(y, return_inverse=True)
    present = np.unique(codes[weights > 0])
    if len(present) < 2:
        found = classes[present].tolist()
        raise ParameterError(f"FairLogisticRegression needs samples of two classes, but found one class: {found}.")
    return classes, codes.astype(np.float64)


def _check_comparisons(demands: Demands, n: int) -> None:
    """Refuse what speaks of levels of probabilities, which log-odds do not have."""
    for owner, statement in zip(demands.owners, demands.statements, strict=True):
        if not _compares(statement, n):
            raise BackendError(
                f"FairLogisticRegression bounds mean log-odds, so it takes comparisons of means (DemographicParity, "
                f"EqualizedOdds, CovarianceBound, ...), but {demands.names[owner]} speaks of levels of the "
                "probabilities. Use FairModel, or project(...) on predict_proba."
            )


def _compares(statement: Statement, n: int) -> bool:
    """Return whether the statement is the same when all scores rise by one number."""
    rise = statement.matrix @ statement.means.of(np.ones(n))
    weights = statement.means.weights
    reach = np.abs(statement.matrix) @ (
        np.ones(statement.matrix.shape[1]) if weights is None else np.abs(weights).sum(axis=1)
    )
    if isinstance(statement, Spread):
        plain = statement.scale == 1.0 and statement.offset is None
        return plain and bool(np.ptp(rise) <= 1e-9 * reach.max(initial=0.0))
    return bool((np.abs(rise) <= 1e-9 * reach).all())


def _gaps(demands: Demands, log_odds: FloatArray) -> dict[str, LogisticGaps]:
    kinds = (log_odds, _sigmoid(log_odds), (log_odds > 0).astype(np.float64))
    each = [demands.numbers(values) for values in kinds]
    return {name: LogisticGaps(*(values[name] for values in each)) for name in demands.names}
