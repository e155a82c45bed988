"""Newton's method on the log loss under limits: each step is a quadratic program in the coefficients.

With n samples as exponential cones, a conic solver takes time and memory for each of them; here they enter only as a
gradient and a Hessian (coefficients, coefficients). The problem is convex, so the local steps end at the optimum, and
the dual value at the end proves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.errors import SolverError
from fairlayer.integrations.sklearn.limits import LinearLimits
from fairlayer.integrations.sklearn.optimality import Optimality
from fairlayer.integrations.sklearn.program import Whitening, nearest
from fairlayer.integrations.sklearn.training_data import Centred, Demands

__all__ = ["NewtonOptimum", "minimise"]

_TIGHT = 1e-3  # the steps go on past what the certificate asks, as each squares the error
_ARMIJO, _HALVINGS = 1e-4, 40


class NewtonOptimum(NamedTuple):
    """The optimum; prices by constraint."""

    theta: FloatArray
    prices: dict[str, float]
    certificate: Optimality
    steps: int


@dataclass(frozen=True)
class LogLoss:
    """`sum_i s_i log(1 + exp(-t_i z_i)) + |w|^2 / (2 C)` with z = Z theta, theta = (w, m)."""

    data: Centred
    positive: FloatArray  # (n,), 1.0 where the label is the second class
    C: float

    @property
    def penalty(self) -> FloatArray:
        return np.append(np.full(self.data.predictors.shape[1] - 1, 1.0 / self.C), 0.0)

    def value(self, theta: FloatArray) -> float:
        z = self.data.predictors @ theta
        return float(self.data.weights @ (np.logaddexp(0.0, z) - self.positive * z) + 0.5 * self.penalty @ theta**2)

    def slopes(self, theta: FloatArray) -> FloatArray:
        """Return the derivative of each sample's loss by its log-odds, `s_i (p_i - positive_i)`."""
        z = self.data.predictors @ theta
        # 1 - p without cancellation, so that the slope of a sample that is safely right keeps its digits
        slope = np.exp(-np.logaddexp(0.0, np.where(self.positive > 0, z, -z)))
        return np.asarray(self.data.weights * np.where(self.positive > 0, -slope, slope))

    def gradient(self, theta: FloatArray) -> FloatArray:
        return np.asarray(self.data.predictors.T @ self.slopes(theta) + self.penalty * theta)

    def hessian(self, theta: FloatArray) -> FloatArray:
        Z = self.data.predictors
        z = np.abs(Z @ theta)
        curvature = self.data.weights * np.exp(-z - 2.0 * np.logaddexp(0.0, -z))
        return np.asarray((Z * curvature[:, None]).T @ Z + np.diag(self.penalty))

    def dual_value(self, theta: FloatArray, limits: LinearLimits, multipliers: FloatArray) -> float:
        """Return a lower bound on the loss of all theta that meet the limits.

        With a the slopes at theta, `loss_i(z) >= a_i z + s_i h(|a_i| / s_i)`, h the entropy in nats. The slopes of the
        heavier class are scaled down to sum to zero, as the intercept is free. What is left is least where
        `w = -C (Z' a + force)`:
        """
        a = self.slopes(theta)
        up, down = a[a > 0].sum(), -a[a < 0].sum()
        a = np.where(a > 0, a * min(1.0, down / up), a * min(1.0, up / down))
        force = self.data.predictors.T @ a + limits.matrix.T @ multipliers
        share = np.abs(a) / np.where(self.data.weights > 0, self.data.weights, 1.0)
        entropy = self.data.weights @ (_entropy(share) + _entropy(1.0 - share))
        return float(entropy - 0.5 * self.C * (force[:-1] @ force[:-1]) - limits.limit @ multipliers)


def minimise(data: Centred, positive: FloatArray, C: float, demands: Demands, max_iter: int) -> NewtonOptimum:
    """Return the coefficients of least loss that meet the demands.

    Raises:
        SolverError: no proof of optimality within `max_iter` steps.
        InfeasibleConstraintsError: no coefficients meet the demands.
    """
    loss, limits = LogLoss(data, positive, C), demands.limits(data)
    theta = np.zeros(data.predictors.shape[1])
    found = None
    for step in range(1, max_iter + 1):
        target, multipliers = _quadratic_step(loss, theta, limits, demands.names)
        theta = _line_search(loss, theta, target) if step > 1 else target  # the first step makes it feasible
        found = _proof(loss, theta, demands, loss.dual_value(theta, limits, multipliers))
        if found.duality_gap <= _TIGHT * found.gap_atol or (step == max_iter and found.holds):
            prices = limits.prices(multipliers, len(demands.names)).tolist()
            return NewtonOptimum(theta, dict(zip(demands.names, prices, strict=True)), found, step)
    state = "" if found is None else f" (duality gap {found.duality_gap:.1e} of a loss of {found.objective:.6g})"
    raise SolverError(
        f"FairLogisticRegression did not reach its optimum in max_iter={max_iter} steps{state}. "
        "Standardise the features, give a smaller C, or raise max_iter."
    )


def _proof(loss: LogLoss, theta: FloatArray, demands: Demands, bound: float) -> Optimality:
    predictions = loss.data.predictors @ theta
    violation = demands.violation(predictions)
    start = float(loss.data.weights.sum()) * np.log(2.0)
    return Optimality.measured(loss.value(theta), bound, violation, start=start, predictions=predictions)


def _quadratic_step(
    loss: LogLoss, theta: FloatArray, limits: LinearLimits, names: tuple[str, ...]
) -> tuple[FloatArray, FloatArray]:
    """Minimise the quadratic model under the limits; with theta = T u it is `N/2 |u - u0|^2`."""
    N = float(loss.data.weights.sum())
    whitening = Whitening.of(loss.hessian(theta) / N)
    u0 = whitening.inverse @ theta - whitening.T.T @ loss.gradient(theta) / N
    u, duals = nearest(u0, limits.transformed(whitening.T), names)
    return whitening.T @ u, limits.balanced(N * duals)


def _line_search(loss: LogLoss, theta: FloatArray, target: FloatArray) -> FloatArray:
    """Halve the step until the loss falls by a part of what its slope promises; both ends meet the limits."""
    start, direction = loss.value(theta), target - theta
    slope = float(loss.gradient(theta) @ direction)
    rounding = 1e-14 * abs(start)
    for _ in range(_HALVINGS):
        if loss.value(theta + direction) <= start + _ARMIJO * slope + rounding:
            break
        direction, slope = 0.5 * direction, 0.5 * slope
    return theta + direction


def _entropy(share: FloatArray) -> FloatArray:
    """Return `-p log p`, 0 at 0."""
    return -share * np.log(np.where(share > 0, share, 1.0))
