"""Streams of small batches under each policy: gap, distortion, real data, speed.

    python benchmarks/streaming.py [--quick] [--data FOLDER] [--only PART ...] [--json out.json]

What the columns mean, and what the guarantee is: docs/streaming.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from machine import describe, header, limit_threads, load

PARTS = ("stationary", "drifting", "real", "speed")
COLD_GOAL, WARM_GOAL, DRIFT_GOAL = 1.10, 1.07, 1.3
SPEED_GOALS = {1: 2.0, 32: 1.5}
SPEED_BLOCKS = (50, 1)  # calls of one before the other has its turn
Records = list[dict[str, Any]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the outcome of the goals is printed, not returned."""
    options = read_options(argv)
    limit_threads(options.threads)
    import torch  # after the limit, which it reads

    torch.set_num_threads(options.threads)
    packages = ["fairlayer", "torch", "numpy", "scikit-learn", "fairness_training"]
    facts = describe(options.threads, packages)
    dtypes = "float64 scores in the drawn streams, float32 networks elsewhere; state in float64"
    print(header("Streams of small batches", {**facts, "dtype": dtypes}), flush=True)
    runs = {
        "stationary": run_stationary,
        "drifting": run_drifting,
        "real": run_real,
        "speed": run_speed,
    }
    records = {part: _timed(part, runs[part], options) for part in options.only}
    goals = [goal for part in options.only for goal in JUDGES[part](records[part])]
    print("\nGoals (distortion counts only where the gap is within tolerance after the first 10 %)\n")
    for goal in goals:
        verdict = "met" if goal["met"] else "NOT MET"
        print(f"  {goal['what']:<60} {goal['goal']:>8} {goal['found']:>10}  {verdict}")
    print(f"\nLoad average at the end: {load()} (1.0 is this benchmark itself)")
    if options.quick:
        print("A quick run: fewer seeds and calls, so expect numbers to vary.")
    if options.json:
        Path(options.json).write_text(json.dumps({**facts, "records": records, "goals": goals}, indent=1) + "\n")
    return 0


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; --quick sets what is not given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="about a minute: two seeds, fewer calls")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="adult.csv.gz and acsincome_ne.csv.gz")
    parser.add_argument("--seeds", type=int, help="streams of each kind")
    parser.add_argument("--calls", type=int, help="timed calls of the bare network and of fairlayer")
    parser.add_argument("--their-calls", type=int, help="timed calls of fairness_training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write all numbers here too")
    options = parser.parse_args(argv)
    options.seeds = options.seeds or (2 if options.quick else 5)
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


# ---- a stationary stream


def run_stationary(options: argparse.Namespace) -> Records:
    """Print the table of the stationary stream."""
    import streaming_synthetic as made

    records = made.run_stationary(range(options.seeds), (1, 4, 16))
    title = (
        f"Stationary stream: {made.REQUESTS:,} requests, raw gap about {made.RAW_GAP}, "
        f"tolerance {made.TOLERANCE}, minority {made.MINORITY:.0%}"
    )
    notes = [
        f"{options.seeds} seeds. Excess: largest of (pooled gap - tolerance) after any batch and any seed, and the",
        "same after the first 10 %. Distortion: squared change over that of the exact projection of the",
        f"whole stream, mean over seeds. Warm: the feed-forward begins with {made.WARM_UP:,} other samples.",
    ]
    head = f"{'policy':<22} {'batch':>5} {'start':>6} {'excess':>10} {'after 10 %':>11} {'distortion':>11}  within"
    _print(title, notes, head, (_stationary_row(each) for each in records))
    return records


def _stationary_row(each: dict[str, Any]) -> str:
    return (
        f"{each['policy']:<22} {each['batch']:>5} {each['start']:>6} {_signed(each['excess']):>10} "
        f"{_signed(each['late_excess']):>11} {each['ratio']:>10.3f}x  {_yes(each['within'])}"
    )


def _judge_stationary(records: Records) -> Iterator[dict[str, Any]]:
    for each in records:
        if each["policy"] == "tracking":
            goal = COLD_GOAL if each["start"] == "cold" else WARM_GOAL
            what = f"stationary, tracking, {each['start']}, batch {each['batch']}: distortion"
            yield _goal(what, goal, each["ratio"], each["within"] and each["ratio"] <= goal)


# ---- a drifting stream


def run_drifting(options: argparse.Namespace) -> Records:
    """Print the table of the drifting stream."""
    import streaming_synthetic as made

    records = made.run_drifting(range(options.seeds), (None, 4_000.0, 1_000.0))
    title = f"Drifting stream: {made.REQUESTS:,} single requests, gap 0.1 + 0.1 sin (two waves), + 0.1 half-way"
    notes = [
        f"{options.seeds} seeds, cold start. Distortion beside the exact projections of windows of {made.WINDOW:,},",
        "each within tolerance by itself, and beside the one projection of the whole stream.",
    ]
    head = (
        f"{'policy':<22} {'half-life':>9} {'after 10 %':>11} {'over windows':>13} {'over whole':>11}  "
        f"{'within':<7} {'phase at end'}"
    )
    _print(title, notes, head, (_drifting_row(each) for each in records))
    return records


def _drifting_row(each: dict[str, Any]) -> str:
    half_life = "none" if each["half_life"] is None else f"{each['half_life']:,.0f}"
    return (
        f"{each['policy']:<22} {half_life:>9} {_signed(each['late_excess']):>11} {each['ratio_windows']:>12.3f}x "
        f"{each['ratio_whole']:>10.3f}x  {_yes(each['within']):<7} {each['last_phase'] or ''}"
    ).rstrip()


def _judge_drifting(records: Records) -> Iterator[dict[str, Any]]:
    for each in records:
        if each["policy"] == "tracking":
            half_life = "none" if each["half_life"] is None else f"{each['half_life']:,.0f}"
            what = f"drifting, tracking, half-life {half_life}: distortion over windows"
            yield _goal(what, DRIFT_GOAL, each["ratio_windows"], each["within"] and each["ratio_windows"] <= DRIFT_GOAL)


# ---- real data


def run_real(options: argparse.Namespace) -> Records:
    """Print a table for each data set."""
    import streaming_real as real

    records: Records = []
    for name in real.DATA:
        found = real.run_real(name, options.data, (1, 4, 32))
        title = f"{name}: {found[0]['rows']:,} test rows through an MLP ({real.EPOCHS} epochs, no constraint)"
        notes = [
            f"Tolerance {real.TOLERANCE} on the score gap between the sexes, random order, cold start, tracking and",
            "anytime with their defaults. Reported: the average per-batch gap, which per_batch steers by.",
        ]
        head = (
            f"{'policy':<20} {'batch':>5} {'score gap':>10} {'reported':>9} {'decision gap':>13} {'accuracy':>9} "
            f"{'AUC':>7} {'change':>8}"
        )
        _print(title, notes, head, (_real_row(each) for each in found))
        records += found
    print("\nScore gap: of pooled means. Decision gap: at threshold 0.5, which nothing here bounds.")
    print("Change: mean absolute difference from the raw scores.")
    return records


def _real_row(each: dict[str, Any]) -> str:
    batch = "" if each["batch"] is None else each["batch"]
    reported = "" if each.get("reported") is None else f"{each['reported']:.4f}"
    return (
        f"{each['way']:<20} {batch:>5} {each['pooled_gap']:>10.4f} {reported:>9} {each['decision_gap']:>13.4f} "
        f"{each['accuracy']:>9.4f} {each['auc']:>7.4f} {each['mean_change']:>8.4f}"
    )


# ---- speed


def run_speed(options: argparse.Namespace) -> Records:
    """Print what a call costs."""
    import streaming_speed as speed

    records = [
        speed.run_speed(batch, block, options.calls, options.their_calls)
        for batch in SPEED_GOALS
        for block in SPEED_BLOCKS
    ]
    title = f"Speed: MLP 30-64-32-1, float32, no_grad, policy tracking, {options.threads} thread"
    notes = [
        f"{options.calls:,} calls, in turns with the bare network; {options.their_calls:,} of fairness_training.",
        "Turns of 50 calls: caches are warm, as in a loop that does nothing else. Turns of 1: the bare network",
        "finds them cold, and we find its rows loaded. The mean includes calls that solve for the feed-forward.",
    ]
    head = f"{'batch':>5} {'turns':>5} {'':<20} {'median us':>10} {'ratio':>8} {'mean us':>10} {'ratio':>8}"
    _print(title, notes, head, (row for each in records for row in _speed_rows(each)))
    return records


def _speed_rows(each: dict[str, Any]) -> Iterator[str]:
    for name, us in each["us"].items():
        ratio = each["ratio"][name]
        batch, block = (each["batch"], each["block"]) if name == next(iter(each["us"])) else ("", "")
        yield (
            f"{batch:>5} {block:>5} {name:<20} {us['median']:>10.1f} {_ratio(ratio['median']):>8} "
            f"{us['mean']:>10.1f} {_ratio(ratio['mean']):>8}"
        )
    if "skipped" in each:
        yield f"            fairness_training    skipped: {each['skipped']}"


def _judge_speed(records: Records) -> Iterator[dict[str, Any]]:
    for each in records:
        goal = SPEED_GOALS[each["batch"]]
        for kind, ratio in each["ratio"]["fairlayer"].items():
            what = f"speed, batch {each['batch']}, turns of {each['block']}: {kind} over the bare network"
            yield _goal(what, goal, ratio, ratio <= goal)


def _goal(what: str, goal: float, found: float, met: bool) -> dict[str, Any]:
    return {"what": what, "goal": f"<= {goal:.2f}x", "found": f"{found:.3f}x", "met": bool(met)}


def _signed(value: float) -> str:
    return f"{value if abs(value) > 5e-7 else 0.0:+.6f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}x" if value < 10 else f"{value:,.0f}x"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


JUDGES: dict[str, Callable[[Records], Iterator[dict[str, Any]]]] = {
    "stationary": _judge_stationary,
    "drifting": _judge_drifting,
    "real": lambda _: iter(()),
    "speed": _judge_speed,
}


if __name__ == "__main__":
    sys.exit(main())
