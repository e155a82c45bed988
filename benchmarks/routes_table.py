"""The table of `routes.py`: who wins on each set, and whether the route recommended was the right one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray

Run = dict[str, Any]
Row = dict[str, Any]
COLUMNS = (
    "accuracy", "auc", "log_loss", "brier", "calibration", "score_gap", "decision_gap", "estimated_gap",
    "expected_gap", "flips", "seconds",
)  # fmt: skip
REGRESSION = ("mse", "r2", "score_gap")


def table(runs: Sequence[Run]) -> str:
    """Return the means over seeds, set by set, and the verdicts."""
    lines: list[str] = []
    for name in dict.fromkeys(run["set"] for run in runs):
        some = [run for run in runs if run["set"] == name]
        for limit in some[0]["limits"]:
            lines += _block(name, limit, some)
    return "\n".join([*lines, "", *_losses(runs), "", *_rivals(runs), "", *_recommended(runs)])


def _block(name: str, limit: float, runs: Sequence[Run]) -> Iterator[str]:
    columns = REGRESSION if runs[0]["task"] == "regression" else COLUMNS
    rows = [[row for row in run["routes"] if row["limit"] == limit] for run in runs]
    if not rows[0]:
        return
    yield from ("", f"{name}, limit {limit}, {len(runs)} seeds, {runs[0]['test_rows']} test rows")
    yield f"{'':30}" + " ".join(f"{column.replace('_gap', ''):>11}" for column in columns)
    for title in [row["name"] for row in rows[0]]:
        own = [row for each in rows for row in each if row["name"] == title]
        means = [_mean([row[column] for row in own]) for column in columns]
        mark = " (constant)" if any(row["constant"] for row in own) else ""
        mark += f" ({len(own)} seeds)" if len(own) < len(runs) else ""
        yield f"{title:30}" + " ".join("          -" if m is None else f"{m:11.4f}" for m in means) + mark


def _mean(values: list[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _losses(runs: Sequence[Run]) -> Iterator[str]:
    yield "training loss on test rows, trained through minus projected afterwards (one standard error over the rows)"
    for name in dict.fromkeys(run["set"] for run in runs):
        paired = [run["paired"] for run in runs if run["set"] == name]
        mean, error = np.mean([p["mean"] for p in paired]), np.hypot.reduce([p["error"] for p in paired]) / len(paired)
        started = sum(p["mean"] == 0 and p["error"] == 0 for p in paired)
        told = "no worse" if mean <= error else "WORSE"
        yield f"  {name:20} {mean:+.5f} +- {error:.5f}  {told}; the start was kept in {started} of {len(paired)}"


def _rivals(runs: Sequence[Run]) -> Iterator[str]:
    """The best rows of both sides among those near a budget of the decision gap, and their paired difference."""
    yield "accuracy at a decision gap, group known: the best row of this package minus the best of the others"
    yield "  (rows whose estimated gap on test rows is within the budget on average; paired over the test rows)"
    for name in dict.fromkeys(run["set"] for run in runs if run["task"] != "regression"):
        some = [run for run in runs if run["set"] == name]
        for budget in some[0]["limits"]:
            ours, others = (_best_row(some, budget, rival=rival) for rival in (False, True))
            if ours is None or others is None:
                yield f"  {name:12} <= {budget}: no row of {'this package' if ours is None else 'the others'}"
                continue
            difference, error = _difference(some, ours, others)
            told = "no worse" if difference >= -error else "THE OTHER WINS"
            yield (
                f"  {name:12} <= {budget}: {ours[0]} (limit {ours[1]:g}, gap {_gap(some, ours):.3f}) minus "
                f"{others[0]} (limit {others[1]:g}, gap {_gap(some, others):.3f}): "
                f"{100 * difference:+.2f} +- {100 * error:.2f} points  {told}"
            )


def _rows(runs: Sequence[Run], key: tuple[str, float]) -> list[Row]:
    return [row for run in runs for row in run["routes"] if (row["name"], row["limit"]) == key]


def _gap(runs: Sequence[Run], key: tuple[str, float]) -> float:
    return float(np.mean([row["decision_gap"] for row in _rows(runs, key)]))


def _best_row(runs: Sequence[Run], budget: float, *, rival: bool) -> tuple[str, float] | None:
    keys = dict.fromkeys((row["name"], row["limit"]) for row in runs[0]["routes"] if row["rival"] is rival)
    near = [key for key in keys if np.mean([row["estimated_gap"] for row in _rows(runs, key)]) <= budget]
    return max(near, key=lambda key: np.mean([row["accuracy"] for row in _rows(runs, key)]), default=None)


def _difference(runs: Sequence[Run], one: tuple[str, float], other: tuple[str, float]) -> tuple[float, float]:
    both = [run for run in runs if _rows([run], one) and _rows([run], other)]  # slow rivals run with some seeds only
    each = [_right(a) - _right(b) for a, b in zip(_rows(both, one), _rows(both, other), strict=True)]
    errors = [d.std() / len(d) ** 0.5 for d in each]
    return float(np.mean([d.mean() for d in each])), float(np.hypot.reduce(errors) / len(each))


def _right(row: Row) -> FloatArray:
    return np.array(list(row["right"]), dtype=np.float64)


def _recommended(runs: Sequence[Run]) -> Iterator[str]:
    """How often the recommended route is the best on test rows, or within a standard error of it."""
    for kind in ("scores", "decisions"):
        asked = [run for run in runs if kind in run["recommended"]]
        judge = _best_scores if kind == "scores" else _best_decisions
        missed = [run for run in asked if not judge(run)]
        told = ", ".join(f"{run['set']} {run['seed']} ({run['recommended'][kind]})" for run in missed)
        yield (
            f"recommended for its {kind}: the best on test rows, or within one standard error of it, in "
            f"{len(asked) - len(missed)} of {len(asked)}" + (f"; missed: {told}" if missed else "")
        )
        if kind == "decisions":
            paired = sum(_best_decisions(run, paired=True) for run in asked)
            best = [sum(_knowing(run, paired=each) for run in asked) for each in (False, True)]
            yield (
                "  (compared with every route whose gap on test rows is within the limit, or no larger than its own; "
                f"by the error of the paired difference in {paired} of {len(asked)}. Who knew the best route of these "
                f"very people would find it so again on people drawn like them in {best[0]:.1f} and {best[1]:.1f})"
            )


def _own(run: Run) -> dict[str, Row]:
    first = run["limits"][0]
    return {row["name"]: row for row in run["routes"] if not row["rival"] and row["limit"] == first}


def _best_scores(run: Run) -> bool:
    kept = [name for name, row in _own(run).items() if row["score_gap"] <= run["limits"][0] + 1e-6]
    beside = run["beside"]
    return all(beside[name]["mean"] <= beside[name]["error"] + 1e-12 for name in kept or beside)


def _at_equal_gap(run: Run) -> tuple[FloatArray, list[FloatArray]]:
    """Which decisions of the recommended route are right, and of each route that is held to no larger a gap."""
    own = _own(run)
    chosen = own[run["recommended"]["decisions"]]
    allowed = max(run["limits"][0], chosen["decision_gap"])
    return _right(chosen), [_right(row) for row in own.values() if row["decision_gap"] <= allowed]


def _best_decisions(run: Run, *, paired: bool = False) -> bool:
    return _near_the_best(*_at_equal_gap(run), paired=paired)


def _near_the_best(chosen: FloatArray, others: Sequence[FloatArray], *, paired: bool) -> bool:
    """Whether no other is more accurate by more than the error of its accuracy, or of the paired difference."""
    errors = [(each - chosen if paired else each).std() / len(each) ** 0.5 for each in others]
    return all((each - chosen).mean() <= error + 1e-12 for each, error in zip(others, errors, strict=True))


def _knowing(run: Run, *, paired: bool, draws: int = 200) -> float:
    """The share of redrawn test rows on which the route that is the best on all of them passes the same test."""
    _, others = _at_equal_gap(run)
    best = max(others, key=lambda each: each.mean())
    random = np.random.default_rng(0)
    rows = random.integers(0, len(best), (draws, len(best)))
    return float(np.mean([_near_the_best(best[i], [each[i] for each in others], paired=paired) for i in rows]))
