"""A stream that outlives its process: a worker is killed five times, and nothing is lost or counted twice."""

import multiprocessing
import os
import random
import signal
import sys
import time
from multiprocessing.connection import Connection

import numpy as np
import torch

import fairlayer as fl
from fairlayer.streaming.durable import DurableStream
from fairlayer.streaming.store import StreamStore

FILE, REQUESTS, KILLS = "stream.sqlite", 4_000, 5


def open_stream() -> DurableStream:
    state = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0), policy="anytime")
    return DurableStream(state, StreamStore(FILE, every=500))


def request(number: int) -> tuple[torch.Tensor, dict[str, list[str]]]:
    draw = np.random.default_rng(number)
    sex = "F" if draw.random() < 0.3 else "M"
    score = float(np.clip(draw.normal(0.55 if sex == "M" else 0.4, 0.2), 0, 1))
    return torch.tensor([score], dtype=torch.float64), {"sex": [sex]}


def worker(answers: Connection, first: int) -> None:
    """Answer requests in order; the client, at the other end, has seen the answers before `first`."""
    stream = open_stream()
    for number in range(first, REQUESTS):
        score, sex = request(number)
        answers.send((number, stream.emit(score, sex, ids=[number]).item()))
    answers.close()


def run_until(seen: dict[int, float], seconds: float | None) -> None:
    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=worker, args=(send, len(seen)))
    process.start()
    send.close()
    end = None
    try:
        while True:
            number, answer = receive.recv()
            seen[number] = answer
            end = end or (time.monotonic() + seconds if seconds else float("inf"))
            if time.monotonic() > end:
                os.kill(process.pid, signal.SIGKILL)
                end = float("inf")
    except (EOFError, OSError):
        process.join()


def main() -> None:
    random.seed(0)
    seen: dict[int, float] = {}
    for _ in range(KILLS):
        run_until(seen, random.uniform(0.01, 0.1))
        print(f"killed after {len(seen)} answers")
    run_until(seen, None)
    stream = open_stream()
    sums = {"F": 0.0, "M": 0.0}
    counts = {"F": 0, "M": 0}
    for number, answer in seen.items():
        sex = request(number)[1]["sex"][0]
        sums[sex] += answer
        counts[sex] += 1
    gap = abs(sums["F"] / counts["F"] - sums["M"] / counts["M"])
    print(f"the client has {len(seen)} answers, the stream counted {stream.state.samples}")
    [kept] = stream.state.pooled_gap().values()
    print(f"pooled gap of the answers {gap:.6f}, of the stream {kept:.6f}")
    assert stream.state.samples == len(seen) == REQUESTS
    stream.close()


if __name__ == "__main__" and hasattr(signal, "SIGKILL"):
    multiprocessing.set_start_method("fork" if sys.platform == "linux" else "spawn")
    main()
