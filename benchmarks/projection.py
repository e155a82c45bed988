"""Time the projection, forward and backward, beside other libraries: medians, ratios, memory, accuracy.

    python benchmarks/projection.py [--quick | --full] [--json out.json]

How it is measured: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from machine import describe, header, limit_threads, load
from rivals import OURS, RIVALS, missing
from timing import Children, Limits, StoppedError
from worker import Job, measure

WIDTH = 100
ALL_SIZES = (16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_000_000)
PRELOAD = ["torch", "scipy.sparse", "cvxpy", "cvxpylayers.torch", "fairness_training", "fairlayer"]


@dataclass(frozen=True)
class Table:
    """One table: a number of slabs, a dtype, and the sizes."""

    slabs: int
    dtype: str
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Goal:
    """A ratio to reach at n samples, one binary attribute, float64, one thread."""

    rival: str  # the start of the names it covers; the fastest of them counts
    n: int
    ratio: float


GOALS = (
    Goal("fairness_training", 256, 80.0),
    Goal("cvxpylayers", 256, 30.0),
    Goal("fairness_training", 4096, 700.0),
    Goal("cvxpylayers", 4096, 350.0),
)

QUICK = (
    Table(1, "float64", (16, 256, 4096)),
    Table(1, "float32", (256,)),
    Table(28, "float64", (256,)),
)
USUAL = (
    Table(1, "float64", ALL_SIZES),
    Table(28, "float64", ALL_SIZES),
    Table(1, "float32", ALL_SIZES),
)
FULL = tuple(Table(slabs, dtype, ALL_SIZES) for dtype in ("float64", "float32") for slabs in (1, 6, 28))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the outcome of the goals is printed, not returned."""
    options = read_options(argv)
    limit_threads(options.threads)
    chosen = [name for name in RIVALS if any(name.startswith(prefix) for prefix in options.rivals or [""])]
    packages = ["fairlayer", "torch", "numpy", "cvxpy", *_packages(chosen), "diffcp", "scs", "clarabel"]
    facts = describe(options.threads, packages)
    print(header("The projection layer, forward + backward", facts))
    print(_absences(chosen), flush=True)
    children = Children(PRELOAD)
    records: list[dict[str, Any]] = []
    present = [OURS, *(name for name in chosen if not missing(RIVALS[name]))]
    for table in options.tables:
        print(f"\n{_title(table)}\n\n{_columns()}", flush=True)
        for found in run_table(children, table, present, options):
            records.append(found)
    goals = judge(records)
    print("\n" + _goal_lines(goals, options))
    if options.json:
        everything = {**facts, "records": records, "goals": goals}
        Path(options.json).write_text(json.dumps(everything, indent=1) + "\n")
    return 0


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; --quick and --full set what is not given."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="about a minute: n up to 4096")
    size.add_argument("--full", action="store_true", help="every number of slabs and dtype, longer runs")
    parser.add_argument("--sizes", type=int, nargs="+", metavar="N", help="batch sizes")
    pairs = [1, 3, 6, 10, 15, 21, 28]
    parser.add_argument("--slabs", type=int, nargs="+", choices=pairs, help="pairs of groups")
    parser.add_argument("--dtypes", nargs="+", choices=["float64", "float32"])
    parser.add_argument("--rivals", nargs="*", metavar="NAME", help="only libraries whose names start so")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="length of each measurement")
    parser.add_argument("--call-budget", type=float, metavar="S", help="stop a library at a longer call")
    parser.add_argument("--memory-budget", type=float, default=8.0, metavar="GB", help="or at more memory")
    parser.add_argument("--json", metavar="FILE", help="write all numbers here too")
    options = parser.parse_args(argv)
    options.seconds = options.seconds or (0.5 if options.quick else 5.0 if options.full else 2.0)
    options.call_budget = options.call_budget or (2.0 if options.quick else 30.0)
    options.tables = _tables(options)
    return options


def _tables(options: argparse.Namespace) -> tuple[Table, ...]:
    usual = QUICK if options.quick else FULL if options.full else USUAL
    if not (options.sizes or options.slabs or options.dtypes):
        return usual
    slabs, dtypes = options.slabs or [1], options.dtypes or ["float64"]
    sizes = tuple(options.sizes or usual[0].sizes)
    return tuple(Table(count, dtype, sizes) for dtype in dtypes for count in slabs)


def run_table(
    children: Children, table: Table, names: Sequence[str], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Measure each size and library, print the rows of each size, and yield the records."""
    call, megabytes = options.call_budget, 1e3 * options.memory_budget
    limits = Limits(10 * call, call, megabytes, options.seconds)
    stopped: set[str] = set()
    for n in table.sizes:
        rows = []
        for name in (name for name in names if name not in stopped):
            job = Job(name, n, table.slabs, table.dtype, options.threads, options.seconds)
            record = _run(children, job, limits)
            if "stopped" in record:
                stopped.add(name)
            yield record
            rows += _rows(record)
        _progress("")
        print("\n".join(rows), flush=True)


def _run(children: Children, job: Job, limits: Limits) -> dict[str, Any]:
    where = {"rival": job.rival, "n": job.n, "slabs": job.slabs, "dtype": job.dtype, "threads": job.threads}
    label = f"{job.dtype}, slabs {job.slabs}, n {job.n:,}: {job.rival}"
    try:
        result = children.run(measure, replace(job), limits, lambda stage: _progress(f"{label}: {stage}"))
        return {**where, **result}
    except StoppedError as error:
        return {**where, "stopped": str(error)}


def _progress(text: str) -> None:
    """Show what is running, on stderr: in place on a terminal, else one line for each library."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text[: WIDTH - 1]}", end="", file=sys.stderr, flush=True)
    elif text.endswith(": build"):
        print(text.removesuffix(": build"), file=sys.stderr, flush=True)


def _title(table: Table) -> str:
    kind = "1 slab (two groups)" if table.slabs == 1 else f"{table.slabs} slabs (all pairs of groups)"
    return f"{kind}, {table.dtype}, bounds (0, 1)"


def _columns() -> str:
    heads = _row("n", "library", "median ms", "ratio", "peak MB", "violation", "distance", "gradient")
    return f"{heads}\n{'-' * len(heads)}"


def _row(n: str, name: str, ms: str, ratio: str, *rest: str) -> str:
    return f"{n:>9} {name:<26} {ms:>10} {ratio:>8} " + " ".join(f"{cell:>9}" for cell in rest).rstrip()


def _rows(record: dict[str, Any]) -> list[str]:
    name, n = record["rival"], f"{record['n']:,}" if record["rival"] == OURS else ""
    if "stopped" in record:
        lead = f"{n:>9} {name:<26} "
        text = f"stopped: {record['stopped']}"
        return [lead + (text if len(lead + text) <= WIDTH else text[: WIDTH - len(lead) - 3] + "...")]
    times = record["median_ms"]
    accuracy = (f"{record['violation']:.0e}", f"{record['distance']:.0e}", f"{record['gradient']:.0e}")
    memory = f"{record['peak_mb']:,.1f}" if record["peak_mb"] >= 0.1 else "< 0.1"
    first = _row(n, name, _ms(times[name]), _ratio(times[name] / times[OURS]), memory, *accuracy)
    others = [other for other in times if name == OURS and other != OURS]
    return [
        first,
        *(_row("", each, _ms(times[each]), _ratio(times[each] / times[OURS])).rstrip() for each in others),
    ]


def _ms(value: float) -> str:
    return f"{value:,.3f}" if value < 100 else f"{value:,.0f}"


def _ratio(value: float) -> str:
    if value < 0.1:
        return f"{value:.1g}x"
    return f"{value:.2f}x" if value < 10 else f"{value:,.0f}x"


def judge(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare each goal with the fastest of the libraries that it covers."""
    outcomes = []
    for goal in GOALS:
        ratio = min((_measured_ratio(record) for record in records if _counts(record, goal)), default=None)
        met = None if ratio is None else ratio >= goal.ratio
        outcomes.append({"rival": goal.rival, "n": goal.n, "goal": goal.ratio, "ratio": ratio, "met": met})
    return outcomes


def _counts(record: dict[str, Any], goal: Goal) -> bool:
    setting = (record["n"], record["slabs"], record["dtype"], record["threads"])
    return record["rival"].startswith(goal.rival) and setting == (goal.n, 1, "float64", 1) and "stopped" not in record


def _measured_ratio(record: dict[str, Any]) -> float:
    return record["median_ms"][record["rival"]] / record["median_ms"][OURS]


def _goal_lines(outcomes: Sequence[dict[str, Any]], options: argparse.Namespace) -> str:
    lines = ["Goals: time of the other / time of fairlayer; 1 slab, float64, 1 thread, fastest solver", ""]
    for outcome in outcomes:
        measured = "not measured" if outcome["ratio"] is None else f"measured {_ratio(outcome['ratio']):>7}"
        verdict = {None: "", True: "met", False: "NOT MET"}[outcome["met"]]
        goal = f"goal >= {outcome['goal']:.0f}x"
        where = f"  n = {outcome['n']:>5,}  {outcome['rival']:<20}"
        lines.append(f"{where} {goal:<14} {measured:<18} {verdict}".rstrip())
    lines += ["", f"Load average at the end: {load()} (1.0 is this benchmark itself)"]
    if options.quick:
        lines += ["", "A quick run: the measurements are short, so expect ratios to vary."]
    return "\n".join(lines)


def _packages(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(RIVALS[name].package for name in names if not missing(RIVALS[name])))


def _absences(names: Sequence[str]) -> str:
    absent = [name for name in names if missing(RIVALS[name])]
    return f"skipped   not installed: {', '.join(absent)}" if absent else "skipped   none"


if __name__ == "__main__":
    sys.exit(main())
