"""What a geometry says: how one sample answers a pull, and what it costs to move it.

For a sample with coordinate x (its raw score, or the log-odds of it) and pull q the emitted prediction is

    y(x, q) = argmin_y  d(y, x) + q y        over the domain of the geometry

Everything else (Newton's method on the dual, its line search, prices, streams, processes) is common to all
geometries. The arrays are NumPy's or torch's; the formulas are written once for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch

from fairlayer.errors import BackendError

__all__ = ["Geometry", "library", "stable_sigmoid"]


def library(array: Any) -> Any:
    """Return the module whose functions work on the array: `torch` or `numpy`."""
    return torch if isinstance(array, torch.Tensor) else np


def stable_sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)) without overflow, accurate for large negative x."""
    xp = library(x)
    # In torch not -abs(x), whose derivative at 0 it takes as 0.
    small = xp.exp(torch.where(x >= 0, -x, x) if xp is torch else -abs(x))
    return xp.where(x >= 0, xp.ones_like(small), small) / (1.0 + small)


class Geometry(ABC):
    """One notion of nearness; a new one is a file with one class of these methods.

    `free` is what `step` hands on to the derivative: a mask of the samples that can move, or None where all can.

    Example:
        >>> import numpy as np
        >>> from fairlayer.geometry import Euclidean
        >>> Euclidean().divergence(np.array([0.5, 0.5]), np.array([0.7, 0.5]), None, None).round(3).tolist()
        [0.02, 0.0]
    """

    name: str
    """How callers write it in `geometry=`."""

    unit: str
    """The unit of a shift, for reports."""

    loss: str = "cross_entropy"
    """The loss that a model trained through it should take: "cross_entropy", or "squared_error"."""

    on_simplex: bool = False
    """Whether a sample is a row of class probabilities (n, k) that sum to 1, instead of one number."""

    smooth: bool = True
    """Whether the derivative changes with the prediction; otherwise the step is piecewise linear."""

    bounded: bool = True
    """Whether predictions are probabilities, so that the bounds are (0, 1)."""

    takes_logits: bool = True
    """Whether `from_logits=True` has a meaning."""

    longest_step: float = 4.0
    """How far a pull may change at once, beyond its own size, while Newton's method looks for the solution."""

    @abstractmethod
    def coordinates(self, scores: torch.Tensor, *, from_logits: bool, margin: float) -> torch.Tensor:
        """Return the scores in the coordinate of the geometry, differentiably."""

    @abstractmethod
    def step(self, x: Any, pull: Any, lower: Any, upper: Any) -> tuple[Any, Any]:
        """Return y(x, q), and the mask `free` (None: all)."""

    @abstractmethod
    def weigh(self, value: Any, x: Any, free: Any, v: Any) -> Any:
        """Return W v with W = -dy/dq, which is symmetric; W is the identity where all are free to move."""

    @abstractmethod
    def follow(self, value: Any, x: Any, free: Any, v: Any) -> Any:
        """Return (dy/dx) v, which is symmetric."""

    def carry(self, value: Any, x: Any, free: Any, v: Any) -> Any:
        """Return (dy/dx) v where `follow` is its transpose; the same where each sample answers for itself."""
        return self.follow(value, x, free, v)

    def slope(self, value: Any, x: Any) -> Any:
        """Return the derivative of d(value, x) by the value: minus the pull that takes a sample there.

        Raises:
            BackendError: the geometry does not tell.
        """
        raise BackendError(
            f"geometry={self.name!r} does not tell its slope, which LipschitzFairness needs. Use geometry='euclidean', "
            "'entropic' or 'likelihood'."
        )

    def softness(self, value: Any, x: Any) -> Any:
        """Return 1 / d''(value, x) of each number by itself, in NumPy: how far it moves per unit of its slope."""
        return self.weigh(value, x, None, np.ones_like(value))

    def share(self, give: Any, force: Any) -> Any:
        """Return how each number moves under a force, where by itself it would give way by `give` per unit of it.

        Rows of the simplex keep their sums.
        """
        moved = give * force
        if not self.on_simplex:
            return moved
        whole = give.sum(-1)[..., None]
        return moved - give * (moved.sum(-1)[..., None] / np.where(whole > 0, whole, 1.0))

    @abstractmethod
    def divergence(self, value: Any, x: Any, lower: Any, upper: Any) -> Any:
        """Return d(value, x) - min_y d(y, x) of each sample: 0 where the value is as near as the domain allows.

        Without bounds it is d(value, x) itself.
        """

    @abstractmethod
    def least(self, x: Any, pull: Any, lower: Any, upper: Any) -> Any:
        """Return a lower limit of min_y [d(y, x) + q y] - min_y d(y, x) of each sample, without the code of `step`."""

    def answer(self, scores: Any, pull: Any, lower: Any, upper: Any) -> Any:
        """Return y of raw scores (n,), NumPy arrays: the step from the coordinates of the scores."""
        x = self.coordinates(torch.from_numpy(scores), from_logits=False, margin=0.0).numpy()
        return self.step(x, pull, lower, upper)[0]

    def value(self, x: Any, pull: Any, lower: Any, upper: Any) -> Any:
        """Return y(x, q) of coordinates and pulls, NumPy arrays, without telling which samples can move."""
        return self.step(x, pull, lower, upper)[0]

    def answer_one(self, score: float, pull: float, lower: float | None, upper: float | None) -> float:
        """Return y of one raw score, in plain numbers: for requests that come alone."""
        return float(self.answer(np.array([score]), np.array([pull]), lower, upper)[0])

    def magnitude(self, value: Any, x: Any, free: Any) -> Any:
        """Return how large the numbers are that made each prediction, which bounds how it rounds."""
        return abs(value)

    def inside(self, value: Any) -> Any:
        """Return predictions after their last cast, kept strictly inside an open domain."""
        return value

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))
