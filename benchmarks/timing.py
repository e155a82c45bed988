"""Medians of interleaved calls, peak memory, and a child process with limits on time and memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CALLS_PER_BLOCK = 32
SECONDS_PER_BLOCK = 0.03
LEAST_BLOCKS = 3
BYTES_PER_MB = 1e6


def interleave(calls: dict[str, Callable[[int], Any]], seconds: float) -> dict[str, list[float]]:
    """Time each call in short blocks that take turns, for about `seconds` in all.

    A call gets its running number, so that it can take another batch each time. Returns milliseconds. The
    garbage collector stays on: users have it on.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    start, blocks = time.perf_counter(), 0
    while blocks < LEAST_BLOCKS or time.perf_counter() - start < seconds:
        for name, call in calls.items():
            times[name] += _block(call, len(times[name]))
        blocks += 1
    return times


def _block(call: Callable[[int], Any], number: int) -> list[float]:
    times, end = [], time.perf_counter() + SECONDS_PER_BLOCK
    while not times or (len(times) < CALLS_PER_BLOCK and time.perf_counter() < end):
        start = time.perf_counter()
        call(number + len(times))
        times.append(1e3 * (time.perf_counter() - start))
    return times


def median(times: list[float]) -> float:
    """Return the median."""
    return statistics.median(times)


class PeakMemory:
    """How far the process grew, at its highest, since this object was made.

    On Linux the kernel's high-water mark is reset first; elsewhere growth below an earlier peak is not seen.
    """

    def __init__(self) -> None:
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # glibc: give freed memory back, or its reuse would not be seen
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._before = _highest()

    def megabytes(self) -> float:
        """Return the growth in MB."""
        return (_highest() - self._before) / BYTES_PER_MB


def _highest() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@dataclass(frozen=True)
class Limits:
    """What a child may use: seconds to build, seconds of one call, megabytes in all."""

    build: float
    call: float
    megabytes: float
    measure: float

    def seconds(self, stage: str) -> float:
        """Return the time allowed for a stage."""
        allowed = {"build": self.build, "call": self.call}
        return allowed.get(stage, 300.0 + self.measure + 10 * LEAST_BLOCKS * self.call)


class StoppedError(Exception):
    """The child was stopped, or failed; the text says why."""


class Children:
    """Child processes forked from a server that has imported the heavy packages once."""

    def __init__(self, preload: list[str]) -> None:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            self._context.set_forkserver_preload(preload)

    def run(self, target: Callable[..., None], argument: Any, limits: Limits, on_stage: Callable[[str], None]) -> Any:
        """Run `target(connection, argument)` in a child, which sends its stages and then its result.

        Raises:
            StoppedError: it exceeded a limit, failed, or died.
        """
        ours, theirs = self._context.Pipe(duplex=False)
        child = self._context.Process(target=target, args=(theirs, argument), daemon=True)
        child.start()
        theirs.close()
        try:
            return _watch(ours, child.pid, limits, on_stage)
        finally:
            child.kill()
            child.join()
            ours.close()


def _watch(connection: Connection, pid: int, limits: Limits, on_stage: Callable[[str], None]) -> Any:
    for stage, kind, content in _messages(connection, pid, limits):
        if kind == "stage":
            on_stage(content)
        elif kind == "error":
            raise StoppedError(f"{stage}: {content}")
        else:
            return content
    raise StoppedError("died")


def _messages(connection: Connection, pid: int, limits: Limits) -> Iterator[tuple[str, str, Any]]:
    """Yield (stage, kind, content) until the child ends; stop it at a limit."""
    stage, since = "load", time.monotonic()
    while True:
        if connection.poll(0.05):
            try:
                kind, content = connection.recv()
            except EOFError:
                raise StoppedError(f"died in {stage} (out of memory?)") from None
            yield stage, kind, content
            if kind == "stage":
                stage, since = content, time.monotonic()
        elif time.monotonic() - since > limits.seconds(stage):
            what = {"build": "building it", "call": "one call"}.get(stage, stage)
            raise StoppedError(f"{what} takes more than {limits.seconds(stage):.0f} s")
        elif _resident(pid) > limits.megabytes:
            raise StoppedError(f"{stage} needs more than {limits.megabytes / 1e3:.1f} GB")


def _resident(pid: int) -> float:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / BYTES_PER_MB
    return 0.0
