"""Ridge regression whose mean predictions of the training data meet constraints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from fairlayer._typing import FloatArray
from fairlayer.constraints import Constraint
from fairlayer.integrations.sklearn.optimality import Optimality
from fairlayer.integrations.sklearn.program import Whitening, nearest
from fairlayer.integrations.sklearn.routing import router_of
from fairlayer.integrations.sklearn.training_data import Centred, Demands, check_positive, read_demands, read_weights

__all__ = ["FairRidge"]


class FairRidge(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """The linear model of least penalised squared error whose training predictions meet the constraints.

        minimise   sum_i s_i (y_i - x_i w - b)^2 + alpha |w|^2
        subject to the constraints, on the predictions x_i w + b of the training data

    The constraints hold for the training data; other data they hold for up to sampling error. Predicting needs no
    sensitive features, unless they are columns of X. There are no bounds on single predictions.

    Args:
        constraints: what must hold for the predictions; any constraint of this package but GroupCalibration, whose
            bins would depend on the coefficients, and Convex.
        alpha: strength of the penalty, > 0; in the units of scikit-learn's Ridge.

    Attributes:
        coef_: (features,).
        intercept_: float.
        multipliers_: price of each constraint: minus the derivative of the optimal loss above by its tolerance, in
            squared label units (times samples) per unit of tolerance. At tolerance 0, that of widening it.
        certificate_: `Optimality`, computed on the training data.
        gaps_: for each constraint, the number that it bounds, of the training predictions; NaN if it compares nothing.
        absent_: groups that a constraint compares and the training data lack, as (constraint, group).

    Raises (from `fit`):
        FairlayerError: a named subclass; see `fairlayer.errors`.

    Source: Hoerl, Kennard (1970) for the loss; Calders et al. (2013), "Controlling attribute effect in linear
    regression", for equal group means as linear equations on the coefficients.

    Example:
        >>> import numpy as np, fairlayer as fl
        >>> X, y, sex = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0.0, 1.0, 2.0, 3.0]), ["F", "F", "M", "M"]
        >>> model = FairRidge([fl.DemographicParity("sex", tolerance=0.5)], alpha=1e-6)
        >>> model = model.fit(X, y, sensitive_features={"sex": sex})
        >>> model.predict(X).round(3).tolist(), model.certificate_.holds
        ([1.125, 1.375, 1.625, 1.875], True)
    """

    def __init__(self, constraints: Sequence[Constraint] = (), *, alpha: float = 1.0) -> None:
        self.constraints = constraints
        self.alpha = alpha

    def fit(self, X: Any, y: Any, *, sensitive_features: Any = None, sample_weight: Any = None) -> FairRidge:
        """Solve the program.

        Args:
            X: features (n, d).
            y: labels (n,).
            sensitive_features: dict of name -> column, a frame, or an array (n,) or (n, a) in the order in which the
                constraints name them.
            sample_weight: how many samples each row stands for (n,); it weighs the loss and the group means, not
                CovarianceBound, nor rows that Affine states on single samples.
        """
        alpha = check_positive("FairRidge", "alpha", self.alpha)
        X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64)
        y = np.asarray(y, dtype=np.float64)
        weights = read_weights(sample_weight, X)
        given = None if sample_weight is None else weights
        demands = read_demands("FairRidge", self.constraints, sensitive_features, y, given)
        data = Centred.of(X, weights)
        theta, multipliers, certificate = _optimum(data, y, alpha, demands)
        predictions = data.predictors @ theta
        self.coef_, self.intercept_ = data.coefficients(theta)
        self.multipliers_ = multipliers
        self.certificate_ = certificate
        self.gaps_ = demands.numbers(predictions)
        self.absent_ = demands.absent
        return self

    def get_metadata_routing(self) -> Any:
        """Return what this estimator asks for."""
        return router_of(self)

    def predict(self, X: Any) -> FloatArray:
        """Return the predictions (n,)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(X @ self.coef_ + self.intercept_)


def _optimum(
    data: Centred, y: FloatArray, alpha: float, demands: Demands
) -> tuple[FloatArray, dict[str, float], Optimality]:
    """Solve in u with theta = T u, where the loss is `N |u - u0|^2 + f0`, N the sum of the weights."""
    Z, weights, limits = data.predictors, data.weights, demands.limits(data)
    N = float(weights.sum())
    penalty = np.append(np.full(Z.shape[1] - 1, alpha), 0.0)
    moment = (Z * weights[:, None]).T @ Z + np.diag(penalty)
    whitening = Whitening.of(moment / N)
    u0 = whitening.T.T @ (Z.T @ (weights * y)) / N
    u, duals = nearest(u0, limits.transformed(whitening.T), demands.names)
    theta, multipliers = whitening.T @ u, limits.balanced(2.0 * N * duals)

    def loss(at: FloatArray) -> float:
        return float(weights @ (y - Z @ at) ** 2 + penalty @ at**2)

    # min over u of N |u - u0|^2 + f0 + force.u - limit.multipliers
    force = whitening.T.T @ (limits.matrix.T @ multipliers)
    bound = loss(whitening.T @ u0) + force @ u0 - force @ force / (4.0 * N) - limits.limit @ multipliers
    prices = dict(zip(demands.names, limits.prices(multipliers, len(demands.names)).tolist(), strict=True))
    predictions = Z @ theta
    start = float(weights @ y**2) or N * float(np.abs(limits.limit).max(initial=0.0)) ** 2
    certificate = Optimality.measured(
        loss(theta), float(bound), demands.violation(predictions), start=start, predictions=predictions
    )
    return theta, prices, certificate
