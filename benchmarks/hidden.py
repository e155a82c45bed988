"""What it costs to bound a gap where the group is hidden when a score is made: six data sets, methods and rivals.

    python benchmarks/hidden.py --data FOLDER --seeds 3
    python benchmarks/hidden.py --sets adult bank --seeds 1 --by high

No model has the sensitive column among its inputs. Each method has a few settings and one threshold for everybody, both
chosen on validation rows: the most accurate whose gap of decisions is within the budget, by its empirical-Bayes
estimate or by the upper end of its interval (`--by`). A regression is chosen by its error, at the gap of its means.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import describe, header, limit_threads

limit_threads(1)

import numpy as np  # noqa: E402 - after the number of threads is set
import torch  # noqa: E402
from hidden_methods import Scored, every_method  # noqa: E402
from routes import SETS, drawn  # noqa: E402

from fairlayer._typing import FloatArray, IntArray  # noqa: E402
from fairlayer.audit import Means, range_interval  # noqa: E402
from fairlayer.data.readers import READERS  # noqa: E402
from fairlayer.training import FitOptions, prepare  # noqa: E402

BUDGETS = (0.02, 0.05)
SHARES = np.arange(0.04, 0.98, 0.02)  # of yes among the validation rows, one threshold each

RIVAL, KNOWN = "rival: ", "(group known)"


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the data sets (default: FAIRLAYER_DATA, else the public originals)")
    parser.add_argument("--rows", type=int, default=6000, help="rows drawn from each set (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="the seeds are this one and those after it")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--by", default="estimate", choices=["estimate", "high"], help="what of the gap is budgeted")
    parser.add_argument("--out", default="hidden.jsonl", help="file of finished runs (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print the table of the runs that are there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out = Path(arguments.out)
    runs = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
    done = {(run["set"], run["seed"]) for run in runs}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds) if not arguments.table else ():
        for name in arguments.sets:
            if (name, seed) not in done:
                runs.append(_run(name, seed, arguments))
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(runs[-1]) + "\n")
    libraries = ("fairlayer", "torch", "numpy", "scikit-learn", "fairlearn", "fairret")
    print(header(f"The group hidden, {arguments.rows} rows of each set", describe(1, libraries)))
    print(table(runs))


@dataclass(frozen=True)
class Rows:
    """Labels (n,) and group codes (n,) of one part."""

    labels: FloatArray
    groups: IntArray

    def gap(self, values: FloatArray) -> Any:
        """The difference of the groups' means, with its estimate and its interval."""
        counts = np.bincount(self.groups).astype(float)
        sums = np.bincount(self.groups, weights=values)
        if np.isin(values, (0.0, 1.0)).all():
            return range_interval(Means.of_rates(counts, sums))
        return range_interval(Means.of_numbers(counts, sums, np.bincount(self.groups, weights=values**2)))


def _run(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    start = time.perf_counter()
    data = drawn(READERS[name](None if name == "lending" else arguments.data), arguments.rows, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        constraint = [f"demographic_parity({SETS[name]}, 0.02)"]
        parts = prepare(data, constraint, drop_sensitive=True, seed=seed, hidden=(32,))
        scored = list(every_method(parts, SETS[name], FitOptions(epochs=arguments.epochs, batch_size=128, seed=seed)))
    names = sorted(set(parts.train.sensitive[SETS[name]].tolist()))
    valid, test = (
        Rows(part.y.double().numpy(), np.array([names.index(each) for each in part.sensitive[SETS[name]].tolist()]))
        for part in (parts.valid, parts.test)
    )
    regression = parts.recipe.config.task == "regression"
    rows = [
        {"method": method, "budget": budget, **(_found(method, scored, budget, valid, test, regression, arguments.by))}
        for method in dict.fromkeys(each.method for each in scored)
        for budget in BUDGETS
    ]
    seconds = time.perf_counter() - start
    print(f"{name} seed {seed}: {seconds:.0f} s", flush=True)
    base = float(test.labels.mean())
    constant = float(np.var(test.labels)) if regression else max(base, 1 - base)
    told = {"task": parts.recipe.config.task, "constant": constant, "test_rows": len(test.labels)}
    return {"set": name, "seed": seed, **told, "rows": rows, "seconds": seconds}


def _found(  # noqa: PLR0917 - a method, on which rows, and how it is chosen
    method: str, scored: Sequence[Scored], budget: float, valid: Rows, test: Rows, regression: bool, by: str
) -> dict[str, Any]:
    """The setting and threshold that validation rows choose, on test rows; a constant keeps every budget."""
    base = valid.labels.mean() if regression else np.round(valid.labels.mean())
    best, worth = np.full(len(test.labels), base), _worth(np.full(len(valid.labels), base), valid, regression)
    for each in scored:
        if each.method != method:
            continue
        for before, after in _settings(each, regression):
            good = _worth(before, valid, regression)
            if good > worth and getattr(valid.gap(before), by) <= budget:
                best, worth = after, good
    right = (best - test.labels) ** 2 if regression else (best == test.labels).astype(float)
    gap = test.gap(best)
    return {
        "worth": float(right.mean()),
        "each": [round(float(value), 5) for value in right],
        "gap": gap.measured,
        "estimate": gap.estimate,
        "constant": bool(np.ptp(best) < 1e-3 or (not regression and min(best.mean(), 1 - best.mean()) < 0.005)),
    }


def _worth(values: FloatArray, rows: Rows, regression: bool) -> float:
    return float(-np.mean((values - rows.labels) ** 2) if regression else np.mean(values == rows.labels))


def _settings(scored: Scored, regression: bool) -> Iterator[tuple[FloatArray, FloatArray]]:
    """What can be made of scores: predictions as they are, or decisions by one threshold for everybody."""
    if regression or scored.decided:
        yield scored.valid, scored.test
        return
    for cut in (0.5, *np.quantile(scored.valid, 1 - SHARES)):
        yield (scored.valid >= cut).astype(float), (scored.test >= cut).astype(float)


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the means over seeds, and the difference to the best rival."""
    lines = []
    for name in dict.fromkeys(run["set"] for run in runs):
        some = [run for run in runs if run["set"] == name]
        regression = some[0]["task"] == "regression"
        unit, scale = ("squared error of the constant mean", 1.0) if regression else ("accuracy of a constant", 100.0)
        constant = scale * np.mean([run["constant"] for run in some])
        lines += ["", f"{name}, {len(some)} seeds, {some[0]['test_rows']} test rows; {unit} {constant:.4g}"]
        lines += [f"{'':42}" + "".join(f"{f'budget {budget:g}':>36}" for budget in BUDGETS)]
        for method in [row["method"] for row in some[0]["rows"] if row["budget"] == BUDGETS[0]]:
            cells = (_cell([_row(run, method, budget) for run in some], scale) for budget in BUDGETS)
            lines.append(f"{method:42}" + "".join(f"{cell:>36}" for cell in cells))
        lines += [_beside_rivals(some, budget, regression, scale) for budget in BUDGETS]
    return "\n".join(lines)


def _beside_rivals(runs: Sequence[dict[str, Any]], budget: float, regression: bool, scale: float) -> str:
    """The best of ours minus the best rival whose gap on test rows is within the budget, at no larger a gap than it."""
    keys = [(row["method"], row["budget"]) for row in runs[0]["rows"] if not row["method"].startswith(KNOWN)]
    gap = {key: float(np.mean([_row(run, *key)["estimate"] for run in runs])) for key in keys}
    constant = {key for key in keys if any(_row(run, *key)["constant"] for run in runs)}
    each = {key: np.concatenate([_row(run, *key)["each"] for run in runs]) for key in keys}
    sign = -1 if regression else 1

    def best(rival: bool, allowed: float) -> tuple[str, float] | None:
        near = [
            key for key in keys if key[0].startswith(RIVAL) is rival and gap[key] <= allowed and key not in constant
        ]
        return max(near, key=lambda key: sign * each[key].mean(), default=None)

    other = best(True, budget)
    ours = best(False, budget if other is None else max(budget, gap[other]))
    if ours is None or other is None:
        return f"  <= {budget:g}: no answer but constants within it of {'ours' if ours is None else 'the rivals'}"
    difference = sign * (each[ours] - each[other])
    mean, error = scale * difference.mean(), scale * difference.std() / len(difference) ** 0.5
    told = "no worse" if mean >= -error else "THE OTHER WINS"
    return (
        f"  <= {budget:g}: {ours[0]} (estimated gap {100 * gap[ours]:.1f}) better than {other[0].removeprefix(RIVAL)} "
        f"({100 * gap[other]:.1f}) by {mean:.4g} +- {error:.2g}: {told}"
    )


def _row(run: dict[str, Any], method: str, budget: float) -> dict[str, Any]:
    return next(row for row in run["rows"] if (row["method"], row["budget"]) == (method, budget))


def _cell(rows: Sequence[dict[str, Any]], scale: float) -> str:
    """`worth @ gap measured (estimated)`, and in how many seeds the answer was a constant."""
    worth, gap, estimate = (np.mean([row[key] for row in rows]) for key in ("worth", "gap", "estimate"))
    constant = sum(row["constant"] for row in rows)
    told = f"{scale * worth:.4g} @ {100 * gap:.1f} ({100 * estimate:.1f})"
    return told + (f", {constant}x constant" if constant else "")


if __name__ == "__main__":
    main()
