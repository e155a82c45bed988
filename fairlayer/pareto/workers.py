"""Runs in other processes, or here."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from fairlayer.pareto.errors import SweepDefinitionError, SweepFailedError
from fairlayer.pareto.runs import SweepRun, as_measures

__all__ = ["available_cores", "run_all"]

Train = Callable[[Any, int], Any]


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(train: Train, jobs: Sequence[tuple[Any, int]], workers: int) -> Iterator[SweepRun]:
    """Yield each run as it ends.

    Raises:
        SweepDefinitionError: train cannot be sent to another process, or the number of workers is negative.
        SweepFailedError: a process died.
    """
    if workers < 0:
        raise SweepDefinitionError(f"workers={workers} was asked for; it is a number of processes, 0 for this one.")
    if workers == 0:
        yield from (_run(train, value, seed) for value, seed in jobs)
        return
    packed = _pack(train)
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    pool = ProcessPoolExecutor(min(workers, max(1, len(jobs))), mp_context=context, initializer=_begin)
    try:
        for done in as_completed([pool.submit(_unpack_and_run, packed, value, seed) for value, seed in jobs]):
            yield done.result()
    except BrokenProcessPool as error:
        raise SweepFailedError(
            "a process of the sweep died. It was killed (out of memory?), or the script that called pareto_sweep has "
            'no `if __name__ == "__main__":` around the call, which other processes need. Finished runs are kept if '
            "the sweep has a folder: call it again; with workers=0 it runs in this process."
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _pack(train: Train) -> bytes:
    try:
        return pickle.dumps(train)
    except Exception as error:
        raise SweepDefinitionError(
            f"train must be a function at the top level of a module, or a functools.partial of one, so that other "
            f"processes can import it, but {train!r} cannot be pickled ({error}). With workers=0 anything may be given."
        ) from error


def _begin() -> None:
    torch.set_num_threads(1)  # the processes share the cores
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent tells nobody, and its workers would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _unpack_and_run(packed: bytes, value: Any, seed: int) -> SweepRun:
    try:
        train = pickle.loads(packed)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}. Put train into a module that other processes can import, or use"
        return SweepRun(value, seed, {}, error=f"{reason} workers=0.")
    return _run(train, value, seed)


def _run(train: Train, value: Any, seed: int) -> SweepRun:
    start = time.perf_counter()
    try:
        measures = as_measures(train(value, seed))
    except Exception:
        return SweepRun(value, seed, {}, time.perf_counter() - start, traceback.format_exc().strip())
    return SweepRun(value, seed, measures, time.perf_counter() - start)
