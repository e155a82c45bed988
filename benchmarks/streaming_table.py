"""What each policy makes of a scenario, beside doing nothing and the offline optimum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score
from streaming_scenarios import Replicas, Scenario, exchange, parity

import fairlayer as fl

WINDOW, FIRST = 1000, 1000  # requests of a window, and of the start that is left out
NOISE = 2.5  # standard errors that a window's gap may lie beyond what is held
Array = NDArray[Any]
WAYS: dict[str, dict[str, Any]] = {
    "present": {"policy": "present"},
    "present, entropic": {"policy": "present", "geometry": "entropic"},
    "tracking": {"policy": "tracking"},
    "anytime": {"policy": "anytime"},
}


@dataclass(frozen=True)
class Row:
    """One way to answer a scenario.

    Args:
        way: its name.
        worst: the largest gap of a window of 1,000 after the first thousand, over all constraints.
        excess: by how much a window exceeds both its limit and its raw gap, in standard errors of the window's gap.
        pooled: the largest gap of everything after the first thousand.
        ends: share of answers at 0 or 1.
        auc: of all; NaN without labels.
        within: mean AUC within the groups of the first feature.
        accuracy: at 0.5.
        distortion: squared change over that of the optimum.
    """

    way: str
    worst: float
    excess: float
    pooled: float
    ends: float
    auc: float
    within: float
    accuracy: float
    distortion: float


HEAD = (
    f"{'way':<20} {'worst 1,000':>11} {'s.e. beyond':>11} {'pooled':>7} {'at 0/1':>7} "
    f"{'AUC':>6} {'within':>6} {'accur.':>6} {'mse/opt':>8}"
)


def rows_of(scenario: Scenario, ways: Sequence[str]) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield, for doing nothing, for the optimum in hindsight, and for each way, how its row is found."""
    best = cache(lambda: optimum(scenario))

    def found(way: str, values: Callable[[], Array]) -> tuple[str, Callable[[], dict[str, Any]]]:
        return way, lambda: asdict(_row(way, scenario, values(), best()))

    yield found("nothing", lambda: scenario.raw)
    yield found("offline optimum", best)
    if scenario.delay is not None:
        yield found("optimum on estimates", lambda: optimum_on_estimates(scenario))
    for way in ways:
        yield found(way, lambda way=way: stream(scenario, **WAYS[way]))


def stream(scenario: Scenario, **options: Any) -> Array:
    """Answer every request alone, and deliver labels when they come."""
    state = fl.InferenceState(scenario.constraints, **{"bounds": (0.0, 1.0), **options})
    emitted, half = np.empty(len(scenario)), len(scenario) // 2
    columns = {name: column.tolist() for name, column in scenario.features.items()}
    labelled = scenario.labels is not None and scenario.delay is not None
    for i, score in enumerate(scenario.raw.tolist()):
        if i == half and scenario.then is not None:
            state.change_constraints(scenario.then)
        features = {name: [column[i]] for name, column in columns.items()}
        ids = [i] if labelled else None
        emitted[i] = state.emit(torch.tensor([score], dtype=torch.float64), features, ids=ids).item()
        if labelled and i >= scenario.delay:
            j = i - scenario.delay
            state.observe_labels([j], [float(scenario.labels[j])])
    return emitted


def optimum(scenario: Scenario) -> Array:
    """Return the exact projection of everything, each half by itself where limits change, each season by itself."""
    half, n = len(scenario) // 2, len(scenario)
    parts = [(slice(0, n), scenario.constraints)]
    if scenario.then is not None:
        parts = [(slice(0, half), scenario.constraints), (slice(half, n), scenario.then)]
    if scenario.period is not None:
        starts = range(0, n, scenario.period)
        parts = [(slice(start, min(start + scenario.period, n)), scenario.constraints) for start in starts]
    return np.concatenate([_projected(scenario, part, constraints) for part, constraints in parts])


def optimum_on_estimates(scenario: Scenario) -> Array:
    """Return the projection of everything with P(label 1 | score, group) in place of labels that have not come."""
    assert scenario.labels is not None
    group, estimate = next(iter(scenario.features.values())), np.empty(len(scenario))
    for each in np.unique(group):
        mine = group == each
        curve = IsotonicRegression(out_of_bounds="clip").fit(scenario.raw[mine], scenario.labels[mine])
        estimate[mine] = curve.predict(scenario.raw[mine])
    return fl.project(
        torch.from_numpy(scenario.raw),
        scenario.constraints,
        sensitive_features=scenario.features,
        label_probabilities=torch.from_numpy(estimate),
        bounds=(0.0, 1.0),
    ).value.numpy()


def _projected(scenario: Scenario, part: slice, constraints: list[fl.Constraint]) -> Array:
    raw = torch.from_numpy(scenario.raw[part])
    y = None if scenario.delay is None or scenario.labels is None else torch.from_numpy(scenario.labels[part])
    features = {name: column[part] for name, column in scenario.features.items()}
    return fl.project(raw, constraints, sensitive_features=features, y=y, bounds=(0.0, 1.0)).value.numpy()


def _row(way: str, scenario: Scenario, values: Array, best: Array) -> Row:
    worst, excess = 0.0, -np.inf
    for start in range(FIRST, len(scenario) - WINDOW + 1, WINDOW):
        part = slice(start, start + WINDOW)
        half = len(scenario) // 2
        changing = scenario.then is not None and half <= start < half + 2 * WINDOW
        for constraint in scenario.then if scenario.then and start >= half else scenario.constraints:
            gap, raw, error = _gaps(scenario, constraint, values, part)
            worst = max(worst, gap)
            held = max(float(constraint.limit or 0.0), raw)
            if not changing and error > 0:
                excess = max(excess, (gap - held) / error)
    last = scenario.then or scenario.constraints
    pooled = max(_gaps(scenario, constraint, values, slice(FIRST, None))[0] for constraint in last)
    change = float(((best - scenario.raw) ** 2).mean())
    return Row(
        way,
        worst,
        excess,
        pooled,
        float(((values <= 1e-6) | (values >= 1.0 - 1e-6)).mean()),
        *_quality(scenario, values),
        float(((values - scenario.raw) ** 2).mean()) / change if change > 1e-12 else float("nan"),
    )


def _gaps(scenario: Scenario, constraint: fl.Constraint, values: Array, part: slice) -> tuple[float, float, float]:
    """Return emitted gap, raw gap, and the standard error of the difference of the two groups that make the first."""
    features = {name: column[part] for name, column in scenario.features.items()}
    y = None if scenario.delay is None or scenario.labels is None else scenario.labels[part]
    found, raw = (constraint.measure(each[part], sensitive_features=features, y=y) for each in (values, scenario.raw))
    sizes = [found.counts[name] for name in found.worst]
    error = float(scenario.raw[part].std()) * float(np.sqrt(sum(1.0 / max(size, 1.0) for size in sizes)))
    return abs(found.value or 0.0), abs(raw.value or 0.0), error


def _quality(scenario: Scenario, values: Array) -> tuple[float, float, float]:
    if scenario.labels is None:
        return float("nan"), float("nan"), float("nan")
    group = next(iter(scenario.features.values()))
    inside = []
    for each in np.unique(group):
        mine = group == each
        if len(np.unique(scenario.labels[mine])) == 2:
            inside.append(float(roc_auc_score(scenario.labels[mine], values[mine])))
    whole = float(roc_auc_score(scenario.labels, values))
    return whole, float(np.mean(inside)), float(((values >= 0.5) == (scenario.labels == 1)).mean())


def text(row: Row) -> str:
    """Return a row of the table."""
    excess = "-" if row.excess == -np.inf else f"{row.excess:.1f}"
    quality = " ".join("     -" if np.isnan(each) else f"{each:6.3f}" for each in (row.auc, row.within, row.accuracy))
    numbers = f"{row.worst:>11.3f} {excess:>11} {row.pooled:>7.3f} {row.ends:>7.1%}"
    return f"{row.way:<20} {numbers} {quality} {row.distortion:>8.2f}"


def replicas(setting: Replicas, seed: int, **options: Any) -> dict[str, Any]:
    """Return the pooled gap of all replicas after each exchange, and the share of answers at 0 or 1."""
    from fairlayer.groups import Vocabulary

    words = Vocabulary().learn({"group": [0, 1]})
    states = [fl.InferenceState(parity(0.02), bounds=(0.0, 1.0), **options) for _ in range(setting.count)]
    for state in states:
        state.adopt(words)
    randoms = [np.random.default_rng([seed, replica]) for replica in range(setting.count)]
    sums, counts, ends, gaps, last = np.zeros(2), np.zeros(2), 0, [], []
    for _ in range(setting.rounds):
        part, size = np.zeros(2), np.zeros(2)
        for replica, state in enumerate(states):
            for _ in range(setting.every):
                score, group = setting.request(randoms[replica], replica)
                tensor = torch.tensor([score], dtype=torch.float64)
                value = state.emit(tensor, {"group": [group]}, vocabulary=words).item()
                part[group] += value
                size[group] += 1.0
                ends += value <= 1e-6 or value >= 1.0 - 1e-6
        sums, counts = sums + part, counts + size
        gaps.append(float(np.diff(sums / counts)[0]))
        last.append(float(np.diff(part / size)[0]))
        exchange(states, lambda: None)
    return {"pooled": gaps, "rounds": last, "ends": ends / counts.sum()}
