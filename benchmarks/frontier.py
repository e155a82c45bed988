"""Accuracy against group gaps on Adult / sex: every method, several seeds, one table.

    python benchmarks/frontier.py [--quick] [--seeds 5] [--data FOLDER] [--out FOLDER] [--plot FILE] [--json FILE]

Runs are kept in --out, so that a stopped benchmark goes on where it was. What is compared: docs/frontier.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import describe, header, limit_threads, load

if TYPE_CHECKING:
    from frontier_data import Splits
    from frontier_jobs import Job
    from frontier_table import Finished
    from frontier_training import Protocol

PACKAGES = ["fairlayer", "torch", "numpy", "scikit-learn", "fairlearn", "fairret"]
QUICK_JOBS = ("plain", "trained through layer", "Penalty on soft decisions", "fairret norm", "trees")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, and print the table of all runs."""
    options = read_options(argv)
    limit_threads(1)
    facts = describe(1, PACKAGES)
    title = f"Adult / sex, 40/30/30, {options.seeds} seeds, float32 networks, sex not among the inputs"
    print(header(title, facts), flush=True)
    from frontier_goals import goals_text  # after the limit, which the libraries read
    from frontier_table import answers, text

    runs = collect(jobs(options.quick), options)
    rows = answers(runs)
    print(f"\n{text(rows)}\n\n{goals_text(rows)}\n\nLoad average at the end: {load()}")
    if options.json:
        records = {title: [row.to_dict() for row in each] for title, each in rows.items()}
        Path(options.json).write_text(json.dumps({**facts, "records": records}, indent=1) + "\n")
    if options.plot:
        from frontier_plot import draw

        draw(runs, options.plot)
    return 0


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="a few methods with one setting each")
    parser.add_argument("--seeds", type=int, default=5, help="number of splits and initial weights")
    parser.add_argument("--data", type=Path, default=os.environ.get("FAIRLAYER_DATA"), help="folder of adult.csv.gz")
    parser.add_argument("--out", type=Path, default=Path("frontier-runs"), help="folder that keeps finished runs")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the frontier (.svg or .png)")
    parser.add_argument("--json", metavar="FILE", help="write the table here too")
    parser.add_argument("--synthetic", action="store_true", help="small generated data and network: a smoke test")
    return parser.parse_args(argv)


def jobs(quick: bool) -> list[Job]:
    """Return every training; with `quick` the first setting of a few."""
    from frontier_ours import our_jobs
    from frontier_rivals import rival_jobs
    from frontier_trees import trees_job

    every = [*our_jobs(), trees_job(), *rival_jobs()]
    first = {job.name: job for job in reversed(every)}
    return [first[name] for name in QUICK_JOBS] if quick else every


def collect(wanted: Sequence[Job], options: argparse.Namespace) -> list[Finished]:
    """Return all runs, seed by seed, from the folder or by running them."""
    options.out.mkdir(parents=True, exist_ok=True)
    paths = {
        (job.title, seed): options.out / f"{_slug(job.title)}-{seed}.json"
        for seed in range(options.seeds)
        for job in wanted
        if job.most_seeds is None or seed < job.most_seeds
    }
    missing = [key for key, path in paths.items() if not path.exists()]
    work = partial(run_one, data=options.data, synthetic=options.synthetic)
    for number, (key, state) in enumerate(_results(work, missing, options.processes), start=1):
        _write(paths[key], state)
        print(f"run {number} of {len(missing)}: {key[0]}, seed {key[1]}", file=sys.stderr, flush=True)
    return [_read(path) for path in paths.values()]


Key = tuple[str, int]
State = dict[str, Any]


def _results(work: Callable[[Key], State], keys: Sequence[Key], processes: int) -> Iterator[tuple[Key, State]]:
    if processes == 1:
        yield from ((key, work(key)) for key in keys)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(work, key): key for key in keys}
        yield from ((futures[future], future.result()) for future in as_completed(futures))


def run_one(key: Key, *, data: Path | None, synthetic: bool) -> State:
    """Train one job with one seed; return what the cache keeps."""
    import torch

    torch.set_num_threads(1)
    name, seed = key
    job = next(job for job in jobs(quick=False) if job.title == name)
    splits, protocol = set_up(seed, data, synthetic)
    outcome = job.run(splits, seed, protocol)
    points = [point.to_dict() for point in outcome.points]
    return {"job": name, "seed": seed, "seconds": outcome.seconds, "points": points}


@lru_cache(maxsize=1)
def set_up(seed: int, data: Path | None, synthetic: bool) -> tuple[Splits, Protocol]:
    """Return rows and protocol."""
    from frontier_data import adult
    from frontier_data import synthetic as generated
    from frontier_training import Protocol

    if synthetic:
        return generated(seed), Protocol(widths=(32, 16, 8), steps=30, decay_every=10, batch=256)
    return adult(seed, data), Protocol()


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in ".+" else "_" for c in name)


def _write(path: Path, state: State) -> None:
    """Write whole or not at all: a benchmark that is killed leaves no half file."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(state) + "\n")
    beside.replace(path)


def _read(path: Path) -> Finished:
    from frontier_numbers import Point
    from frontier_table import Finished

    state = json.loads(path.read_text())
    points = tuple(Point.from_dict(point) for point in state["points"])
    return Finished(state["seed"], state["seconds"], points)


if __name__ == "__main__":
    sys.exit(main())
