"""A made-up lending population whose bias is known exactly. Nothing here describes real people.

Each applicant has a sex, a region and an age band (drawn independently), standard normal inner scores for
income, debt and payment history, and

    income  = mean_income(sex, region) + i          mean_income = - income_shift [female] - region_shift
    [rural] history = mean_history(age) + h                 mean_history = - history_shift [under 30]
    P(repays | applicant) = sigmoid(intercept + b_income * income - b_debt * debt + b_history * history)
    P(label = 1 | applicant) = (1 - label_bias [female]) * P(repays | applicant)

Two things are wrong, on purpose: women earn less (a difference of the world, seen in `repays`), and the
recorded label forgets a share `label_bias` of the women who do repay (a bias of the record alone).
`occupation` is a proxy for sex: dropping the sex column does not remove it.

Within sex x region x age the logit is normal, so every base rate is an integral of the logistic function
against a normal density, done here by Gauss-Hermite quadrature: `true_rates` holds to about 1e-9 and needs no
sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairlayer.data.errors import ColumnError

__all__ = ["LendingPopulation", "normal_logistic_mean"]

ATTRIBUTES = ("sex", "region", "age_band")
OCCUPATIONS = ("care", "clerical", "sales", "technical", "construction")
# P(occupation | sex) at full proxy strength; at strength 0 both are uniform
_OCCUPATION_SHARES = {"female": (0.42, 0.30, 0.18, 0.08, 0.02), "male": (0.06, 0.14, 0.22, 0.30, 0.28)}


@dataclass(frozen=True)
class LendingPopulation:
    """Parameters of the population; shifts are in standard deviations of the shifted score.

    Example:
        >>> population = LendingPopulation()
        >>> round(population.true_gap("sex"), 3), round(population.true_gap("sex", of="repays"), 3)
        (0.182, 0.118)
        >>> columns = population.sample(1000, seed=0)
        >>> sorted(set(columns["sex"]))
        ['female', 'male']
    """

    female_share: float = 0.45
    rural_share: float = 0.3
    age_shares: tuple[float, float, float] = (0.25, 0.55, 0.2)
    income_shift: float = 0.6
    region_shift: float = 0.3
    history_shift: float = 0.5
    label_bias: float = 0.15
    proxy_strength: float = 0.8
    missing_share: float = 0.03
    intercept: float = 0.5
    income_weight: float = 1.2
    debt_weight: float = 0.8
    history_weight: float = 0.9

    def __post_init__(self) -> None:
        shares = {
            "female_share": self.female_share,
            "rural_share": self.rural_share,
            "label_bias": self.label_bias,
        }
        shares |= {"proxy_strength": self.proxy_strength, "missing_share": self.missing_share}
        for name, share in shares.items():
            if not 0.0 <= share <= 1.0:
                raise ColumnError(f"LendingPopulation({name}={share}): a share lies in [0, 1].")
        if min(self.age_shares) < 0 or abs(sum(self.age_shares) - 1.0) > 1e-9:
            raise ColumnError(f"LendingPopulation(age_shares={self.age_shares}): shares are >= 0 and sum to 1.")

    def groups(self) -> Iterator[tuple[dict[str, str], float]]:
        """Each sex x region x age band with its share of the population."""
        for (sex, a), (region, b), (age, c) in product(*self._shares().values()):
            yield {"sex": sex, "region": region, "age_band": age}, a * b * c

    def _shares(self) -> dict[str, list[tuple[str, float]]]:
        return {
            "sex": [("female", self.female_share), ("male", 1 - self.female_share)],
            "region": [("rural", self.rural_share), ("urban", 1 - self.rural_share)],
            "age_band": list(zip(("18-29", "30-59", "60+"), self.age_shares, strict=True)),
        }

    def mean_logit(self, sex: Any, region: Any, age_band: Any) -> Any:
        """Return the mean of the repayment logit within a group (strings, or arrays of strings)."""
        income, history = self._mean_income(sex, region), self._mean_history(age_band)
        return self.intercept + self.income_weight * income + self.history_weight * history

    def _mean_income(self, sex: Any, region: Any) -> Any:
        return -self.income_shift * (sex == "female") - self.region_shift * (region == "rural")

    def _mean_history(self, age_band: Any) -> Any:
        return -self.history_shift * (age_band == "18-29")

    @property
    def logit_deviation(self) -> float:
        """Standard deviation of the repayment logit within any group."""
        return float(np.sqrt(self.income_weight**2 + self.debt_weight**2 + self.history_weight**2))

    def true_rates(self, attribute: str, *, of: str = "label") -> dict[str, float]:
        """Return the population base rate of `of` ("label" as recorded, or "repays") in each group of `attribute`."""
        total: dict[str, float] = {}
        share: dict[str, float] = {}
        for group, weight in self.groups():
            name = group[attribute]
            rate = normal_logistic_mean(self.mean_logit(**group), self.logit_deviation)
            if of == "label":
                rate *= 1 - self.label_bias * (group["sex"] == "female")
            total[name] = total.get(name, 0.0) + weight * rate
            share[name] = share.get(name, 0.0) + weight
        return {name: total[name] / share[name] for name in total if share[name] > 0}

    def true_gap(self, attribute: str, *, of: str = "label") -> float:
        """Return the largest minus the smallest population base rate over the groups of `attribute`."""
        rates = self.true_rates(attribute, of=of).values()
        return max(rates) - min(rates)

    def sample(self, n: int, *, seed: int) -> dict[str, NDArray[Any]]:
        """Draw `n` applicants: features, sensitive columns, `repays` (the truth) and `label` (the record)."""
        random = np.random.default_rng(seed)
        who = {name: _draw(random, pairs, n) for name, pairs in self._shares().items()}
        inner = random.standard_normal((3, n))  # income, debt, history around their group means
        weights = np.array([self.income_weight, -self.debt_weight, self.history_weight])
        repays = random.random(n) < _sigmoid(self.mean_logit(**who) + weights @ inner)
        forgotten = (who["sex"] == "female") & (random.random(n) < self.label_bias)
        label = repays & ~forgotten
        return {
            **self._features(random, who, inner),
            **who,
            "repays": repays.astype(int),
            "label": label.astype(int),
        }

    def _features(
        self, random: np.random.Generator, who: dict[str, NDArray[Any]], inner: NDArray[np.float64]
    ) -> dict[str, NDArray[Any]]:
        income = inner[0] + self._mean_income(who["sex"], who["region"])
        history = inner[2] + self._mean_history(who["age_band"])
        monthly = np.exp(8.0 + 0.45 * income).round(0)
        monthly[random.random(len(monthly)) < self.missing_share] = np.nan
        return {
            "monthly_income": monthly,
            "debt_ratio": _sigmoid(-0.8 + 0.7 * inner[1]).round(3),
            "history_months": np.exp(3.5 + 0.5 * history).round(0),
            "amount": np.exp(9.0 + 0.5 * random.standard_normal(len(monthly))).round(-2),
            "occupation": self._occupation(random, who["sex"]),
        }

    def _occupation(self, random: np.random.Generator, sex: NDArray[Any]) -> NDArray[Any]:
        uniform = 1 / len(OCCUPATIONS)
        shares = {
            name: [self.proxy_strength * p + (1 - self.proxy_strength) * uniform for p in full]
            for name, full in _OCCUPATION_SHARES.items()
        }
        drawn = {name: _draw(random, list(zip(OCCUPATIONS, p, strict=True)), len(sex)) for name, p in shares.items()}
        return np.where(sex == "female", drawn["female"], drawn["male"])

    def describe(self) -> str:
        """Return the parameters and the true gaps, in words and numbers."""
        parameters = ", ".join(f"{name} {value}" for name, value in asdict(self).items())
        gaps = "; ".join(
            f"{name} {self.true_gap(name):.4f} ({self.true_gap(name, of='repays'):.4f})" for name in ATTRIBUTES
        )
        return (
            "GENERATED data: a made-up lending population, no real people. "
            f"Parameters: {parameters}. "
            f"True population gap of the recorded label (of actual repayment): {gaps}."
        )


def normal_logistic_mean(mean: float, deviation: float, nodes: int = 64) -> float:
    """Return E[sigmoid(X)] for X ~ Normal(mean, deviation^2), by Gauss-Hermite quadrature.

    int sigmoid(mean + deviation x) phi(x) dx = sum_k w_k sigmoid(mean + sqrt(2) deviation x_k) / sqrt(pi)

    Example:
        >>> round(normal_logistic_mean(0.0, 1.7), 12)
        0.5
    """
    x, w = np.polynomial.hermite.hermgauss(nodes)
    return float(w @ _sigmoid(mean + np.sqrt(2.0) * deviation * x) / np.sqrt(np.pi))


def _sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def _draw(random: np.random.Generator, pairs: list[tuple[str, float]], n: int) -> NDArray[Any]:
    names, shares = zip(*pairs, strict=True)
    return np.array(names, dtype=object)[random.choice(len(names), size=n, p=np.array(shares))]
