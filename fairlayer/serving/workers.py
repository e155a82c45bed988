"""Several processes that serve one address: started together, ended together, and replaced where one dies."""

from __future__ import annotations

import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from fairlayer.errors import FairlayerError

__all__ = ["WorkerError", "run_workers"]

_PAUSE = 1.0  # seconds before a worker that died is replaced
Work = Callable[[socket.socket, Callable[[], None]], None]


class WorkerError(FairlayerError, RuntimeError):
    """No worker could be started."""


def run_workers(work: Work, count: int, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Run `work(listening, ready)` in processes until SIGINT or SIGTERM.

    Args:
        work: can be sent to another process; calls its second argument once it answers requests.
        count: processes.
        listening: the socket that they share.
        ready: a function that is called once all of them answer.

    Raises:
        WorkerError: one ended before it was ready for the first time.
    """
    context = multiprocessing.get_context("spawn")
    end = threading.Event()
    before = {each: signal.signal(each, _setting(end)) for each in (signal.SIGINT, signal.SIGTERM)}
    workers = [_Worker(context, work, listening) for _ in range(count)]
    try:
        _wait_until_ready(workers, end)
        if not end.is_set():
            ready()
        while not end.wait(0.1):
            for worker in workers:
                worker.replace_if_dead(end)
    finally:
        for worker in workers:
            worker.process.terminate()  # SIGTERM: what is under way is answered
        for worker in workers:
            worker.process.join(30.0)
            if worker.process.is_alive():
                worker.process.kill()
        for each, handler in before.items():
            signal.signal(each, handler)


class _Worker:
    def __init__(self, context: Any, work: Work, listening: socket.socket) -> None:
        self._context, self._work, self._listening = context, work, listening
        self._begin()

    def replace_if_dead(self, end: threading.Event) -> None:
        if not self.process.is_alive() and not end.wait(_PAUSE):
            self._begin()

    def _begin(self) -> None:
        self.ready = self._context.Event()
        self.process = self._context.Process(target=_run, args=(self._work, self._listening, self.ready), daemon=True)
        self.process.start()


def _run(work: Work, listening: socket.socket, ready: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent says when to end
    work(listening, ready.set)


def _wait_until_ready(workers: list[_Worker], end: threading.Event) -> None:
    while not end.is_set() and not all(worker.ready.is_set() for worker in workers):
        dead = [worker for worker in workers if not worker.process.is_alive() and not worker.ready.is_set()]
        if dead:
            raise WorkerError(
                f"a worker ended with status {dead[0].process.exitcode} before it answered; what it said stands above."
            )
        time.sleep(0.05)


def _setting(end: threading.Event) -> Callable[[int, FrameType | None], None]:
    def stop(_: int, __: FrameType | None) -> None:
        end.set()

    return stop
