"""Streams of single requests in which the past and the present part: generated ones, and rows of public data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fairlayer as fl
from fairlayer.data import read_data_set

Array = NDArray[Any]
SETS = {"Adult": ("adult", "sex"), "ACSIncome": ("acsincome", "SEX"), "Bank": ("bank", "age_group")}
SMALL = {"German": ("german", "age_group"), "Communities": ("communities_crime", "racepctblack")}
AGES = {"Adult": "age", "ACSIncome": "AGEP", "Bank": "age"}


@dataclass(frozen=True)
class Scenario:
    """Requests in the order of arrival.

    Args:
        name: what it is.
        raw: (n,) scores.
        features: name -> (n,) codes.
        constraints: what is to hold.
        labels: (n,) labels, None where there are none.
        delay: requests after which a label comes, for constraints that read labels.
        then: constraints from half-way on; None for the same.
        moved_by_mix: whether a pooled gap is made by the mix, so that no policy can hold windows and pool.
        period: requests of a season, each of which has an optimum of its own; None for no seasons.
    """

    name: str
    raw: Array
    features: dict[str, Array]
    constraints: list[fl.Constraint]
    labels: Array | None = None
    delay: int | None = None
    then: list[fl.Constraint] | None = None
    moved_by_mix: bool = False
    period: int | None = None

    def __len__(self) -> int:
        return len(self.raw)


def scenarios(folder: Path | None, seed: int, most: int) -> Iterator[Scenario]:
    """Yield every scenario of at most so many requests, for one seed."""
    yield from generated(seed, most)
    for name in SETS if folder is not None else ():
        yield from real(name, folder, seed, most)
    for name in SMALL if folder is not None else ():
        yield from drawn(name, folder, seed, most)


# ---- generated streams


def parity(tolerance: float, on: Any = "group") -> list[fl.Constraint]:
    """Return one demographic parity."""
    return [fl.DemographicParity(on, tolerance)]


def generated(seed: int, n: int) -> Iterator[Scenario]:
    """Yield streams whose laws are known."""
    random = np.random.default_rng(seed)
    group = (random.random(n) < 0.35).astype(np.int64)

    def scores(gap: Any, of: Array = group) -> Array:
        return np.clip(random.beta(2.0, 4.0, n) + 0.1 + np.asarray(gap) * of, 0.0, 1.0)

    time = np.arange(n)
    yield Scenario("stationary", scores(0.2), {"group": group}, parity(0.02))
    yield Scenario("tolerance .10, .02 half-way", scores(0.2), {"group": group}, parity(0.1), then=parity(0.02))
    for period in (2500, 1000):
        season = np.where((time // period) % 2 == 0, 0.2, -0.05)
        yield Scenario(f"seasons of {period:,}", scores(season), {"group": group}, parity(0.02), period=period)
    yield Scenario("drift .18 to -.08", scores(np.linspace(0.18, -0.08, n)), {"group": group}, parity(0.02))
    mixed = (random.random(n) < np.where((time // 1000) % 2 == 0, 0.2, 0.6)).astype(np.int64)
    level = np.where((time // 1000) % 2 == 0, 0.0, 0.3)
    raw = np.clip(random.beta(2.0, 4.0, n) + level, 0.0, 1.0)
    yield Scenario("mix alternates (Simpson)", raw, {"group": mixed}, parity(0.02), moved_by_mix=True)
    a, b = random.integers(0, 2, n), random.choice(6, n, p=[0.4, 0.3, 0.15, 0.08, 0.05, 0.02])
    cells = np.clip(random.beta(2.0, 4.0, n) + 0.1 * a + 0.03 * b, 0.0, 1.0)
    yield Scenario("12 cells", cells, {"a": a, "b": b}, parity(0.05, ("a", "b")))
    added = [*parity(0.02, "a"), *parity(0.05, "b")]
    yield Scenario("constraint added half-way", cells, {"a": a, "b": b}, parity(0.02, "a"), then=added)
    late = np.where(time >= n // 2, random.choice(3, n, p=[0.6, 0.3, 0.1]), group)
    yield Scenario("a new group half-way", scores(0.12, late), {"group": late}, parity(0.05))
    label = (random.random(n) < 0.4).astype(np.int64)
    judged = np.clip(random.normal(0.3 + 0.25 * label + 0.15 * group * label, 0.12), 0.0, 1.0)
    for delay in (0, 500, 2000, 20_000):
        odds: list[fl.Constraint] = [fl.EqualOpportunity("group", 0.02)]
        yield Scenario(f"labels {delay:,} late", judged, {"group": group}, odds, label, delay)


# ---- rows of public data, scored by a logistic regression fitted on other rows


@cache
def scored(name: str, folder: Path | None) -> tuple[Array, Array, dict[str, Array]]:
    """Return scores and labels of the half of the rows that was not fitted on, and columns: groups, and ages."""
    import pandas as pd
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    data, _ = {**SETS, **SMALL}[name]
    table = read_data_set(data, folder)
    unused = {table.target, table.split, *table.not_features}
    frame = table.frame[[column for column in table.frame.columns if column not in unused]]
    numbers = [
        c
        for c in frame.columns
        if c not in table.categorical and pd.to_numeric(frame[c], errors="coerce").notna().all()
    ]
    codes = [c for c in frame.columns if c not in numbers and frame[c].nunique() <= 60]
    parts = [frame[numbers].astype(float).fillna(0.0), *([pd.get_dummies(frame[codes].astype(str))] if codes else [])]
    x = StandardScaler().fit_transform(pd.concat(parts, axis=1).to_numpy(dtype=float))
    y = np.asarray(table.labels())
    if table.positive is None:
        y = y > np.median(y)  # a target that is a number: whether it is high
    y = y.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(y))
    fitted, rest = order[: len(y) // 2], order[len(y) // 2 :]
    model = LogisticRegression(max_iter=500).fit(x[fitted], y[fitted])
    found = {
        key: np.unique(np.asarray(column).astype(str), return_inverse=True)[1]
        for key, column in table.sensitive_features(table.sensitive).items()
    }
    age = AGES.get(name)
    if age is not None:
        found["by age"] = pd.to_numeric(frame[age]).to_numpy(dtype=float)
    return model.predict_proba(x[rest])[:, 1], y[rest], {key: column[rest] for key, column in found.items()}


def real(name: str, folder: Path | None, seed: int, most: int) -> Iterator[Scenario]:
    """Yield the scenarios of one data set, in orders drawn by the seed."""
    raw, label, columns = scored(name, folder)
    attribute = SETS[name][1]
    order = np.random.default_rng(seed).permutation(len(raw))[:most]

    def of(rows: Array, *names: str) -> tuple[Array, dict[str, Array], Array]:
        return raw[rows], {each: columns[each][rows] for each in names}, label[rows]

    z, features, y = of(order, attribute)
    for tolerance in (0.02, 0.0, 0.0005):
        yield Scenario(f"{name}, tolerance {tolerance:g}", z, features, parity(tolerance, attribute), y)
    season = (np.arange(len(z)) // 1500) % 2 == 1
    codes = features[attribute]
    flipped_codes = np.where(season, codes.max() - codes, codes)
    yield Scenario(f"{name}, seasons of 1,500", z, {attribute: flipped_codes}, parity(0.02, attribute), y, period=1500)
    odds: list[fl.Constraint] = [fl.EqualOpportunity(attribute, 0.02)]
    yield Scenario(f"{name}, labels 500 late", z, features, odds, y, 500)
    if name == "Adult":
        z, features, y = of(order, "race")
        yield Scenario("Adult, race (5 groups)", z, features, parity(0.05, "race"), y)
        z, features, y = of(order, "sex", "race")
        both = [*parity(0.02, "sex"), *parity(0.05, "race")]
        yield Scenario("Adult, sex and race", z, features, both, y)
    ages = columns["by age"][order] + np.random.default_rng(seed).normal(0.0, 0.3, len(order))
    z, features, y = of(order[np.argsort(ages, kind="stable")], attribute)
    yield Scenario(f"{name}, by age", z, features, parity(0.02, attribute), y)


def drawn(name: str, folder: Path | None, seed: int, most: int) -> Iterator[Scenario]:
    """Yield the scenarios of a small set, whose rows come again and again, drawn with replacement by the seed."""
    raw, label, columns = scored(name, folder)
    attribute = next(key for key in columns if key != "by age")
    rows = np.random.default_rng(seed).integers(0, len(raw), most)
    z, codes, y = raw[rows], columns[attribute][rows], label[rows]
    for tolerance in (0.02, 0.0):
        yield Scenario(f"{name}, tolerance {tolerance:g}", z, {attribute: codes}, parity(tolerance, attribute), y)
    season = (np.arange(len(z)) // 1500) % 2 == 1
    turned = np.where(season, codes.max() - codes, codes)
    yield Scenario(f"{name}, seasons of 1,500", z, {attribute: turned}, parity(0.02, attribute), y, period=1500)
    odds: list[fl.Constraint] = [fl.EqualOpportunity(attribute, 0.02)]
    yield Scenario(f"{name}, labels 500 late", z, {attribute: codes}, odds, y, 500)


# ---- replicas


@dataclass(frozen=True)
class Replicas:
    """Several processes with unlike traffic that exchange what they have emitted.

    Args:
        count: of processes.
        every: requests of each between two exchanges.
        rounds: exchanges.
    """

    count: int
    every: int = 400
    rounds: int = 10

    def request(self, random: np.random.Generator, replica: int) -> tuple[float, int]:
        """Return a score and a group; each replica has a mix and a level of its own."""
        spread = replica / max(self.count - 1, 1)
        group = int(random.random() < 0.2 + 0.6 * spread)
        return float(np.clip(random.beta(2.0, 3.0) + 0.2 * group + 0.15 * spread, 0.0, 1.0)), group


def exchange(states: Sequence[fl.InferenceState], exchanged: Callable[[], None]) -> None:
    """Call `sync` of every state at once, over threads in place of processes."""
    import threading

    from torch import distributed

    barrier, box, local = threading.Barrier(len(states)), {}, threading.local()

    def gather(into: list[Any], value: Any, group: Any = None) -> None:
        box[local.rank] = value
        barrier.wait()
        into[:] = [box[rank] for rank in range(len(states))]
        barrier.wait()

    def sync(rank: int) -> None:
        local.rank = rank
        states[rank].sync()

    before = distributed.get_world_size, distributed.all_gather_object
    distributed.get_world_size, distributed.all_gather_object = (lambda group=None: len(states)), gather
    try:
        threads = [threading.Thread(target=sync, args=(rank,)) for rank in range(len(states))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        distributed.get_world_size, distributed.all_gather_object = before
    exchanged()
