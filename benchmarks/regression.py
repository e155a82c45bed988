"""Parity of mean predictions in regression: 32 synthetic sets, test error beside the floor that no method can beat.

    python benchmarks/regression.py [--quick] [--sets NUMBER ...] [--seed N] [--json out.json]

What the sets are and what the columns mean: docs/regression-experiment.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import describe, header, limit_threads, load

QUICK = (0, 7, 17, 30)
ALLOWED = 0.015  # excess over the floor that FairModel may have
Records = list[dict[str, Any]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment; the outcome of the goal is printed, not returned."""
    options = read_options(argv)
    limit_threads(options.threads)
    import torch  # after the limit, which it reads

    torch.set_num_threads(options.threads)
    facts = describe(options.threads, ["fairlayer", "torch", "numpy", "scikit-learn", "cvxpy", "clarabel"])
    dtypes = "float32 networks, float64 linear models and sums"
    print(header("Mean prediction parity in regression", {**facts, "dtype": dtypes}), flush=True)
    records = [record for number in options.sets for record in run(number, options.seed)]
    print(f"\n{table(records)}\n")
    print("Mean over the sets, on test batches of 2,000. gap: of the groups' mean predictions, tolerance 0.05.")
    print(f"\n{goal(records)}")
    print(f"Load average at the end: {load()} (1.0 is this benchmark itself)")
    if options.json:
        Path(options.json).write_text(json.dumps({**facts, "records": records}, indent=1) + "\n")
    return 0


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help=f"four sets: {QUICK}")
    parser.add_argument("--sets", type=int, nargs="+", metavar="NUMBER", help="which of the 32 sets (0 to 31)")
    parser.add_argument("--seed", type=int, default=0, help="of the sets and the networks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write all numbers here, too")
    options = parser.parse_args(argv)
    options.sets = options.sets or (QUICK if options.quick else range(32))
    if not all(0 <= number < 32 for number in options.sets):
        parser.error("--sets are numbers from 0 to 31")
    return options


def run(number: int, seed: int) -> Records:
    """Return one record for each method on one set."""
    import torch
    from regression_data import generate, settings
    from regression_methods import NAMES, all_methods, evaluate

    started = time.perf_counter()
    setting = list(settings())[number]
    torch.manual_seed(seed)
    data = generate(setting, seed)
    scores = [evaluate(predict, data.test) for predict in all_methods(setting, data)]
    form = "nonlinear" if setting.nonlinear else "linear"
    print(
        f"set {number:>2}  share {setting.share}  shift {setting.shift:g}  noise {setting.noise:<5}  "
        f"bounds {setting.bounds}  {form:<9}  floor {scores[0].mse:.3f}  FairModel {scores[2].mse:.3f}  "
        f"({time.perf_counter() - started:.0f} s)",
        flush=True,
    )
    where = {**setting._asdict(), "form": form}
    return [{**where, "method": name, **score._asdict()} for name, score in zip(NAMES, scores, strict=True)]


def table(records: Records) -> str:
    """Return one line per method."""
    columns = ("all sets", "- floor", "linear", "nonlinear", "mean gap", "worst gap")
    lines = [f"{'test MSE':<46}" + "".join(f"{column:>11}" for column in columns)]
    floor = mean_of(records, records[0]["method"], "mse")
    for method in dict.fromkeys(record["method"] for record in records):
        mse = mean_of(records, method, "mse")
        parts = [mean_of([r for r in records if r["form"] == form], method, "mse") for form in ("linear", "nonlinear")]
        worst = max(record["worst_gap"] for record in records if record["method"] == method)
        numbers = (mse, mse - floor, *parts, mean_of(records, method, "gap"), worst)
        lines.append(f"{method:<46}" + "".join(f"{number:>11.3f}" for number in numbers))
    return "\n".join(lines)


def mean_of(records: Records, method: str, field: str) -> float:
    """Return the mean of a field over the sets; NaN where there is none."""
    values = [record[field] for record in records if record["method"] == method]
    return sum(values) / len(values) if values else float("nan")


def goal(records: Records) -> str:
    """Say whether FairModel is near enough to the floor."""
    floor, ours = (mean_of(records, records[i]["method"], "mse") for i in (0, 2))
    verdict = "met" if ours <= floor + ALLOWED else "NOT MET"
    return f"Goal: FairModel at most {ALLOWED} above the floor: {ours:.3f} against {floor:.3f} + {ALLOWED}: {verdict}"


if __name__ == "__main__":
    raise SystemExit(main())
