"""Streams of single requests under each policy, beside doing nothing and beside the optimum in hindsight.

    python benchmarks/streaming.py [--quick] [--data FOLDER] [--only PART ...] [--json out.json] [--resume kept.jsonl]

A run that is stopped goes on where it was with the same `--resume FILE`; scenarios and ways may be asked in parts.

What the columns mean, and what is held: docs/streaming.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from machine import describe, header, limit_threads, load

PARTS = ("scenarios", "replicas", "speed")
SPEED_GOALS = {"one parity": 1.5, "two constraints": 3.0, "12 cells": 3.0}  # compiled; plain at most twice these
SPEED_BATCHES, SPEED_BLOCKS = (1, 32), (50, 1)  # calls of one before the other has its turn
Records = list[dict[str, Any]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the outcome of the goals is printed, not returned."""
    options = read_options(argv)
    limit_threads(options.threads)
    import torch  # after the limit, which it reads

    torch.set_num_threads(options.threads)
    packages = ["fairlayer", "torch", "numpy", "scikit-learn", "fairness_training"]
    facts = describe(options.threads, packages)
    print(header("Streams of single requests", {**facts, "dtype": "float64 scores, state in float64"}), flush=True)
    runs = {"scenarios": run_scenarios, "replicas": run_replicas, "speed": run_speed}
    records = {part: _timed(part, runs[part], options) for part in options.only}
    goals = [goal for part in options.only for goal in JUDGES[part](records[part])]
    print("\nGoals of the policy present\n")
    for goal in goals:
        verdict = "met" if goal["met"] else "NOT MET"
        print(f"  {goal['what']:<66} {goal['goal']:>8} {goal['found']:>10}  {verdict}")
    print(f"\nLoad average at the end: {load()} (1.0 is this benchmark itself)")
    if options.json:
        Path(options.json).write_text(json.dumps({**facts, "records": records, "goals": goals}, indent=1) + "\n")
    return 0


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; --quick sets what is not given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="one seed, shorter streams, fewer calls")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="the public sets as .csv.gz")
    parser.add_argument("--seeds", type=int, help="orders and draws of each stream")
    parser.add_argument(
        "--first-seed", type=int, default=0, help="of the orders and draws; 0 was looked at while tuning"
    )
    parser.add_argument("--requests", type=int, help="longest stream")
    parser.add_argument("--scenario", nargs="+", metavar="TEXT", help="only scenarios whose name holds one of these")
    parser.add_argument("--ways", nargs="+", help="policies, by the names of the table")
    parser.add_argument("--calls", type=int, help="timed calls of the bare network and of fairlayer")
    parser.add_argument("--their-calls", type=int, help="timed calls of fairness_training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--resume", type=Path, metavar="FILE", help="keep what is found here, and leave out what is there already"
    )
    parser.add_argument("--markdown", action="store_true", help="print the scenarios as one table too")
    parser.add_argument("--json", metavar="FILE", help="write all numbers here too")
    options = parser.parse_args(argv)
    options.seeds = options.seeds or (1 if options.quick else 3)
    options.requests = options.requests or (8_000 if options.quick else 20_000)
    options.calls = options.calls or (2_000 if options.quick else 10_000)
    options.their_calls = options.their_calls or (30 if options.quick else 200)
    return options


def _timed(part: str, run: Callable[[argparse.Namespace], Records], options: argparse.Namespace) -> Records:
    print(f"running {part} ...", file=sys.stderr, flush=True)
    start = time.perf_counter()
    records = run(options)
    print(f"{part}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return records


def _print(title: str, notes: Sequence[str], head: str, rows: Iterator[str]) -> None:
    print("\n".join(["", title, *notes, "", head, "-" * len(head), *rows]), flush=True)


# ---- scenarios


def run_scenarios(options: argparse.Namespace) -> Records:
    """Print a table for each scenario and seed."""
    from streaming_kept import Kept, markdown
    from streaming_scenarios import scenarios
    from streaming_table import HEAD, NOISE, WAYS, Row, rows_of, text

    print(
        "\nWorst 1,000: the largest gap of a window of 1,000 requests after the first thousand, of all constraints."
        "\nS.e. beyond: by how many standard errors a window exceeds both its limit and its raw gap (not while a limit"
        f"\nchanges); at most {NOISE} is noise. Pooled: the gap of everything after the first thousand. Within: AUC"
        "\ninside the groups. Optimum on estimates: with P(label 1 | score, group) in place of labels."
        "\nmse/opt: squared change over that of the projection of the whole stream at once."
    )
    ways = options.ways or list(WAYS)
    records, kept = [], Kept(options.resume)
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for scenario in scenarios(options.data, seed, options.requests):
            if options.scenario and not any(part in scenario.name for part in options.scenario):
                continue
            asked = {"scenario": scenario.name, "seed": seed, "requests": len(scenario)}
            rows = [Row(**kept.get({**asked, "way": way}, run)) for way, run in rows_of(scenario, ways)]
            limits = ", ".join(f"{c.name} {c.limit:g}" for c in scenario.constraints)
            _print(f"{scenario.name}, seed {seed}: {len(scenario):,} requests, {limits}", (), HEAD, map(text, rows))
            mix = {"scenario": scenario.name, "seed": seed, "mix": scenario.moved_by_mix}
            records += [{**mix, **dataclasses.asdict(row)} for row in rows]
    if options.markdown:
        print("\n" + markdown(records), flush=True)
    return records


def _judge_scenarios(records: Records) -> Iterator[dict[str, Any]]:
    from streaming_table import NOISE

    for each in records:
        if each["way"].startswith("present"):
            what = f"{each['scenario']}, seed {each['seed']}, {each['way']}: s.e. beyond"
            yield _goal(what, NOISE, each["excess"], each["excess"] <= NOISE)
            what = f"{each['scenario']}, seed {each['seed']}, {each['way']}: at 0 or 1 above raw"
            beside = ("nothing", "offline optimum", "optimum on estimates")
            allowed = max(r["ends"] + 0.01 for r in records if r["way"] in beside and _same(r, each))
            yield _goal(what, allowed, each["ends"], each["ends"] <= allowed)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["scenario"], one["seed"]) == (other["scenario"], other["seed"])


# ---- replicas


def run_replicas(options: argparse.Namespace) -> Records:
    """Print what several processes emit together."""
    from streaming_kept import Kept
    from streaming_scenarios import Replicas
    from streaming_table import replicas

    ways = ("present", "tracking")
    kept, seed = Kept(options.resume), options.first_seed
    records = [
        kept.get(
            {"part": "replicas", "way": way, "count": count, "seed": seed},
            lambda way=way, count=count: {"way": way, "count": count, **replicas(Replicas(count), seed, policy=way)},
        )
        for count in (1, 4, 16)
        for way in ways
    ]
    rows = (
        f"{each['way']:<10} {each['count']:>3} {each['ends']:>7.1%}  "
        + " ".join(f"{gap:+.3f}" for gap in each["pooled"])
        + "\n"
        + " " * 24
        + " ".join(f"{gap:+.3f}" for gap in each["rounds"])
        for each in records
    )
    notes = ["400 requests of each between two exchanges; gaps of everything, and below of the last round"]
    _print(
        "Replicas with unlike traffic, tolerance 0.02", notes, f"{'way':<10} {'n':>3} {'at 0/1':>7}  after each", rows
    )
    return records


def _judge_replicas(records: Records) -> Iterator[dict[str, Any]]:
    for each in records:
        if each["way"] == "present" and each["count"] > 1:  # a single one begins within tolerance, and varies
            shrinks = all(abs(b) <= abs(a) + 0.01 for a, b in zip(each["pooled"], each["pooled"][1:], strict=False))
            grown = max(abs(b) - abs(a) for a, b in zip(each["pooled"], each["pooled"][1:], strict=False))
            yield _goal(f"{each['count']} replicas: growth of the pooled gap at an exchange", 0.01, grown, shrinks)


# ---- speed


def run_speed(options: argparse.Namespace) -> Records:
    """Print what a call costs."""
    import streaming_speed as speed

    ways = (True, False) if importlib.util.find_spec("numba") is not None else (False,)
    records = [
        speed.run_speed(batch, block, options.calls, theirs, asked=asked, compiled=compiled)
        for asked in SPEED_GOALS
        for compiled in ways
        for batch in SPEED_BATCHES
        for block in (SPEED_BLOCKS if asked == "one parity" else SPEED_BLOCKS[:1])
        for theirs in [options.their_calls if asked == "one parity" and compiled is ways[0] else 0]
    ]
    title = f"Speed: MLP 30-64-32-1, float32, no_grad, policy present, {options.threads} thread"
    notes = [
        f"{options.calls:,} calls, in turns with the bare network; {options.their_calls:,} of fairness_training.",
        "Turns of 50 calls: caches are warm, as in a loop that does nothing else. Turns of 1: the bare network",
        "finds them cold, and we find its rows loaded. The mean includes calls that solve for the feed-forward.",
    ]
    head = f"{'asked':<16} {'way':<8} {'batch':>5} {'turns':>5} {'':<20}"
    head += f" {'median us':>10} {'ratio':>8} {'mean us':>10} {'ratio':>8}"
    _print(title, notes, head, (row for each in records for row in _speed_rows(each)))
    return records


def _speed_rows(each: dict[str, Any]) -> Iterator[str]:
    for name, us in each["us"].items():
        ratio = each["ratio"][name]
        first = name == next(iter(each["us"]))
        asked, way, batch, block = (each[k] if first else "" for k in ("asked", "way", "batch", "block"))
        yield (
            f"{asked:<16} {way:<8} {batch:>5} {block:>5} {name:<20} {us['median']:>10.1f} {_ratio(ratio['median']):>8} "
            f"{us['mean']:>10.1f} {_ratio(ratio['mean']):>8}"
        )
    if each.get("skipped", "not asked for here") != "not asked for here":
        yield f"            fairness_training    skipped: {each['skipped']}"


def _judge_speed(records: Records) -> Iterator[dict[str, Any]]:
    for each in records:
        goal = SPEED_GOALS[each["asked"]] * (1.0 if each["way"] == "compiled" else 2.0)
        for kind, ratio in each["ratio"]["fairlayer"].items():
            what = f"{each['asked']}, {each['way']}, batch {each['batch']}, turns of {each['block']}: {kind} ratio"
            yield _goal(what, goal, ratio, ratio <= goal)


def _goal(what: str, goal: float, found: float, met: bool) -> dict[str, Any]:
    return {"what": what, "goal": f"<= {goal:.2f}", "found": f"{found:.3f}", "met": bool(met)}


def _ratio(value: float) -> str:
    return f"{value:.2f}x" if value < 10 else f"{value:,.0f}x"


JUDGES: dict[str, Callable[[Records], Iterator[dict[str, Any]]]] = {
    "scenarios": _judge_scenarios,
    "replicas": _judge_replicas,
    "speed": _judge_speed,
}


if __name__ == "__main__":
    sys.exit(main())
