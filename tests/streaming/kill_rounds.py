"""Run by test_store.py: a client and a stream that is killed, again and again. Prints one JSON object.

A child process streams requests and writes each answer to a pipe, as a server would to its client. The parent kills it
with SIGKILL after a random time, and then compares the store with the answers that came through the pipe.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

import torch

import fairlayer as fl
from fairlayer.streaming.durable import DurableStream
from fairlayer.streaming.store import StreamStore

SEXES = ("F", "M")


def request(number: int) -> tuple[float, str]:
    draw = random.Random(number)
    sex = SEXES[draw.random() < 0.7]
    return min(max(draw.gauss(0.4 + 0.15 * (sex == "M"), 0.2), 0.0), 1.0), sex


def open_stream(path: str) -> DurableStream:
    state = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0))
    return DurableStream(state, StreamStore(path, every=7))


def child(path: str, first: int, pipe: int) -> None:
    scratch = open_stream(":memory:")
    for number in range(3):  # what is loaded at the first step is loaded before the clock starts
        scratch.emit(torch.tensor([0.5], dtype=torch.float64), {"sex": ["F"]}, ids=[number])
    stream = open_stream(path)
    os.write(pipe, b"ready\n")
    for number in range(first, first + 1_000_000):
        score, sex = request(number)
        value = stream.emit(torch.tensor([score], dtype=torch.float64), {"sex": [sex]}, ids=[number]).item()
        os.write(pipe, f"{number} {value!r}\n".encode())


def kill_once(path: str, first: int, wait: float) -> dict[int, float]:
    """Stream until killed; return the answers that reached the client."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        child(path, first, writer)
    os.close(writer)
    with os.fdopen(reader) as lines:
        assert lines.readline() == "ready\n"
        time.sleep(wait)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        whole = [line.split() for line in lines.readlines() if line.endswith("\n")]
    return {int(number): float(value) for number, value in whole}


def sums_of(state: fl.InferenceState) -> dict[str, list[float]]:
    """Count and sum of emitted predictions of each cell, as the state has them."""
    history = state.state_dict()["machine"]["history"]
    words = state.state_dict()["machine"]["vocabulary"]["categories"].get("sex", [])
    return {
        words[code]: [float(history["sums"][0][i]), float(history["sums"][1][i])]
        for i, (code,) in enumerate(history["cells"].tolist())
    }


def recounted(answers: dict[int, float]) -> dict[str, list[float]]:
    totals: dict[str, list[float]] = {}
    for number in sorted(answers):
        total = totals.setdefault(request(number)[1], [0.0, 0.0])
        total[0] += 1.0
        total[1] += answers[number]
    return totals


def equal(found: dict[str, list[float]], expected: dict[str, list[float]]) -> bool:
    """Same cells, same counts, same sums up to the order of addition."""
    return found.keys() == expected.keys() and all(
        found[cell][0] == count and abs(found[cell][1] - total) < 1e-9 for cell, (count, total) in expected.items()
    )


def main(path: str, rounds: int, seed: int) -> None:
    draw = random.Random(seed)
    seen: dict[int, float] = {}
    in_flight, wrong = 0, []
    for _ in range(rounds):
        # The client asks again for what it has no answer to, under the same id.
        seen.update(kill_once(path, len(seen), draw.uniform(0.0, 0.08)))
        stream = open_stream(path)
        lost = stream.store.answers([len(seen)])
        in_flight += len(lost)
        everything = {**seen, **{number: answer.emitted for number, answer in lost.items()}}
        if not equal(sums_of(stream.state), recounted(everything)) or stream.store.answers([len(seen) + 1]):
            wrong.append([len(seen), sums_of(stream.state), recounted(everything)])
        stream.store.close()  # without a snapshot: the next round resumes from the log too
    gap = open_stream(path).state.pooled_gap()["DemographicParity('sex')"]
    print(json.dumps({"answers": len(seen), "in_flight": in_flight, "wrong": wrong, "gap": gap}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
