"""What runs in a child process: one library on one problem, in turns with fairlayer."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from problems import Batch, Problem, accuracy, make_problem
from rivals import OURS, RIVALS, Fairlayer, FairlayerForward, Floor, Rival
from timing import PeakMemory, interleave, median


@dataclass(frozen=True)
class Job:
    """One library on one size."""

    rival: str
    n: int
    slabs: int
    dtype: str
    threads: int
    seconds: float
    seed: int = 0


def measure(connection: Connection, job: Job) -> None:
    """Send the stages reached, then the result or what went wrong."""
    try:
        connection.send(("result", _measure(connection, job)))
    except Exception as error:
        connection.send(("error", f"{type(error).__name__}: {str(error).strip()[:200]}"))


def _measure(connection: Connection, job: Job) -> dict[str, Any]:
    torch.set_num_threads(job.threads)
    dtype = getattr(torch, job.dtype)
    rival = Fairlayer() if job.rival == OURS else RIVALS[job.rival]
    _warm_up(rival, make_problem(16, job.slabs, dtype))
    problem = make_problem(job.n, job.slabs, dtype, job.seed)
    memory = PeakMemory()
    connection.send(("stage", "build"))
    rival.prepare(problem)
    connection.send(("stage", "call"))
    value, gradient = rival.run(problem.batches[0])
    peak = memory.megabytes()
    connection.send(("stage", "measure"))
    found = accuracy(problem, problem.batches[0], value, gradient)
    timed = {rival.name: rival, **_companions(rival, problem)}
    times = interleave({name: partial(_call, each, problem) for name, each in timed.items()}, job.seconds)
    return {
        "peak_mb": peak,
        "dtype_out": str(value.dtype).removeprefix("torch."),
        **asdict(found),
        "median_ms": {name: median(each) for name, each in times.items()},
        "quartiles_ms": {name: statistics.quantiles(each, n=4) for name, each in times.items()},
        "calls": {name: len(each) for name, each in times.items()},
    }


def _warm_up(rival: Rival, problem: Problem) -> None:
    """Load what loads late, so that neither time nor memory of the first call counts it."""
    rival.prepare(problem)
    rival.run(problem.batches[0])


def _companions(rival: Rival, problem: Problem) -> dict[str, Rival]:
    others: list[Rival] = [FairlayerForward(), Floor()] if rival.name == OURS else [Fairlayer()]
    for other in others:
        other.prepare(problem)
        other.run(problem.batches[0])
    return {other.name: other for other in others}


def _call(rival: Rival, problem: Problem, number: int) -> None:
    rival.run(_batch_for(rival, problem, number))


def _batch_for(rival: Rival, problem: Problem, number: int) -> Batch:
    """Return another batch on each call; with the first one's groups for a program that is built for them."""
    batch = problem.batches[number % len(problem.batches)]
    if not rival.fixed_groups:
        return batch
    return Batch(batch.scores, problem.batches[0].groups, batch.upstream)
