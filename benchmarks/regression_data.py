"""The synthetic regression sets: 32 combinations of group share, group shift, noise, bounds and form of the score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS, FEATURES, BLOCKS, CORRELATION = 40_000, 150, 7, 0.3
TRAIN, VALIDATION = 24_000, 10_000  # the remaining 6,000 rows are for the test
Array = NDArray[np.float64]


class Setting(NamedTuple):
    """One cell of the product.

    Args:
        number: which of the 32; it seeds the set.
        share: share of group 1.
        shift: added to the score of group 0, taken from that of group 1.
        noise: standard deviation.
        bounds: of the predictions.
        nonlinear: whether squares and interactions enter the score.
    """

    number: int
    share: float
    shift: float
    noise: float
    bounds: tuple[float, float]
    nonlinear: bool


@dataclass(frozen=True)
class Part:
    """Rows of one set: features with the group as the last column (n, 151); all else is (n,)."""

    x: Tensor
    y: Tensor  # labels
    expected: Tensor  # the labels without their noise
    group: Tensor

    def take(self, rows: Any) -> Part:
        """The rows given, in that order."""
        return Part(self.x[rows], self.y[rows], self.expected[rows], self.group[rows])


class DataSet(NamedTuple):
    """Training, validation and test rows."""

    train: Part
    validation: Part
    test: Part


def settings() -> Iterator[Setting]:
    """Yield the 32 combinations; the two bounds of one set share everything else but the draw."""
    axes = product((0.2, 0.5), (3.0, 6.0), (0.125, 0.6), ((-3.5, 3.5), (0.0, 3.5)), (False, True))
    for number, (share, shift, noise, bounds, nonlinear) in enumerate(axes):
        yield Setting(number, share, shift, noise, bounds, nonlinear)


def generate(setting: Setting, seed: int = 0) -> DataSet:
    """Draw one data set; the same setting and seed give the same one.

    The label is `score(x) +- shift + noise`, standardised, and then multiplied by 0.85 in group 0. It is not clipped
    to the bounds, which are those of the predictions.
    """
    random = np.random.default_rng([seed, setting.number])
    x = _features(random)
    group = (random.random(ROWS) < setting.share).astype(np.int64)
    shift = np.where(group == 0, setting.shift, -setting.shift)
    expected = _score(x, setting.nonlinear, random) + shift
    y = expected + setting.noise * random.normal(size=ROWS)
    mean, size = y.mean(), np.where(group == 0, 0.85, 1.0) / y.std()
    columns = (np.column_stack([x, group]), (y - mean) * size, (expected - mean) * size)
    whole = Part(*(torch.tensor(column, dtype=torch.float32) for column in columns), torch.tensor(group))
    ends = (TRAIN, TRAIN + VALIDATION)
    return DataSet(whole.take(slice(ends[0])), whole.take(slice(*ends)), whole.take(slice(ends[1], None)))


def _features(random: np.random.Generator) -> Array:
    """Standard normal features in blocks of 21 or 22, with correlation 0.3 within a block."""
    common = random.normal(size=(ROWS, BLOCKS))[:, np.arange(FEATURES) * BLOCKS // FEATURES]
    x = np.sqrt(CORRELATION) * common + np.sqrt(1 - CORRELATION) * random.normal(size=(ROWS, FEATURES))
    scaled: Array = (x - x.mean(axis=0)) / x.std(axis=0)
    return scaled


def _score(x: Array, nonlinear: bool, random: np.random.Generator) -> Array:
    def weighted(columns: Array) -> Array:
        return np.asarray(columns @ random.normal(size=columns.shape[1]))

    linear = weighted(x[:, random.choice(FEATURES, 10, replace=False)])
    if not nonlinear:
        return linear
    squares = weighted(x[:, random.choice(FEATURES, 15, replace=False)] ** 2)
    first, second = random.choice(FEATURES, (2, 7), replace=False)
    interactions = weighted(x[:, first] * x[:, second])
    return 0.7 * linear + 0.2 * squares + 0.1 * interactions
