"""Euclidean, entropic and likelihood projections on three data sets, post hoc and in training.

    python benchmarks/geometries.py --data FOLDER [--group-known] [--quick] [--seeds 3] [--json out.json]

What the rows and columns mean: docs/geometries.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import describe, header, limit_threads, load

SETS = ("adult", "acsincome", "bank")
COLUMNS = {  # name -> (heading, decimals)
    "accuracy": ("accuracy %", 2),
    "auc": ("AUC %", 2),
    "auc_within": ("AUC within %", 2),
    "brier": ("Brier", 4),
    "log_loss": ("log loss", 4),
    "calibration": ("calib. %", 2),
    "score_gap": ("score gap %", 2),
    "decision_gap": ("dec. gap %", 2),
    "at_the_ends": ("at 0/1 %", 1),
    "seconds": ("time s", 1),
}
Records = list[dict[str, Any]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run every way on every data set and seed, and print one table per data set."""
    options = read_options(argv)
    limit_threads(options.threads)
    import torch  # after the limit, which it reads

    torch.set_num_threads(options.threads)
    facts = describe(options.threads, ["fairlayer", "torch", "numpy", "pandas", "scikit-learn"])
    facts["dtype"] = "float32 networks and scores, float64 sums"
    facts["group"] = "among the inputs" if options.group_known else "not among the inputs; known to the projection"
    print(header("Geometries, post hoc and in training", facts), flush=True)
    records: Records = []
    for name in options.sets:
        started = time.perf_counter()
        found = [record for seed in range(options.seeds) for record in run(name, seed, options)]
        records += found
        print(f"\n{table(name, found)}\n\n{time.perf_counter() - started:.0f} s for {name}", flush=True)
    print(f"\n{reading(records)}\n\nLoad average at the end: {load()} (1.0 is this benchmark itself)")
    if options.json:
        Path(options.json).write_text(json.dumps({**facts, "records": records}, indent=1) + "\n")
    return 0


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="with the files; otherwise FAIRLAYER_DATA")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--group-known", action="store_true", help="the network sees the group, too")
    parser.add_argument("--quick", action="store_true", help="one seed, 40 steps")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400, help="of each training; a warm start adds as many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write all numbers here, too")
    options = parser.parse_args(argv)
    if options.quick:
        options.seeds, options.steps = 1, 40
    return options


def run(name: str, seed: int, options: argparse.Namespace) -> Records:
    """Return one record for each way, of one data set and one seed."""
    from geometries_training import all_ways, split

    parts = split(name, seed, options.data, group_known=options.group_known)
    ways = all_ways(parts, seed, options.steps)
    return [{"data": name, "seed": seed, "way": way, **numbers} for way, numbers in ways]


def table(name: str, records: Records) -> str:
    """Return a line of means per way, and below it one of standard errors over the seeds."""
    headings = "".join(f"{heading:>14}" for heading, _ in COLUMNS.values())
    lines = [f"{name}, {len({r['seed'] for r in records})} seeds: mean, +- standard error", "", f"{'':<40}{headings}"]
    for way in dict.fromkeys(record["way"] for record in records):
        mine = [record for record in records if record["way"] == way]
        means, errors = zip(*(mean_and_error([r[column] for r in mine]) for column in COLUMNS), strict=True)
        digits = [decimals for _, decimals in COLUMNS.values()]
        lines.append(f"{way:<40}" + "".join(f"{m:>14.{d}f}" for m, d in zip(means, digits, strict=True)))
        lines.append(f"{'':<40}" + "".join(f"{f'+-{e:.{d}f}':>14}" for e, d in zip(errors, digits, strict=True)))
    return "\n".join(lines)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error; 0 for a single value."""
    n, mean = len(values), sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / max(1, n - 1)
    return mean, (variance / n) ** 0.5


def reading(records: Records) -> str:
    """Count in how many runs a network trained through a geometry is better than the plain one through the same."""
    lines = ["Trained through a geometry against the plain network projected in it: better, of all runs, on test rows"]
    for way in dict.fromkeys(record["way"] for record in records):
        if not way.startswith("through "):
            continue
        geometry = way.split()[1].rstrip(",")
        post_hoc = {(r["data"], r["seed"]): r for r in records if r["way"] == f"plain + {geometry}, post hoc"}
        mine = [(r, post_hoc[r["data"], r["seed"]]) for r in records if r["way"] == way]
        counts = [f"{what} {sum(a[key] < b[key] for a, b in mine):>2} of {len(mine)}" for what, key in _LOSSES]
        lines.append(f"  {way:<40}" + "   ".join(counts))
    return "\n".join(lines)


_LOSSES = (("log loss", "log_loss"), ("Brier", "brier"))


if __name__ == "__main__":
    raise SystemExit(main())
