"""Run by test_trail.py: a stream with an audit trail in its file, killed again and again. Prints one JSON object.

A child process answers requests and writes each answer to a pipe, as a server would to its client. The parent kills it
with SIGKILL after a random time, and compares the rows of the trail with the answers, and with what the stream counted.
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
from fairlayer.streaming import Recorder
from fairlayer.streaming.durable import DurableStream
from fairlayer.streaming.store import StreamStore
from fairlayer.trail import AuditTrail, rows_between, verify
from tests.streaming.kill_rounds import request

KEY = bytes(range(32))


def open_stream(path: str) -> DurableStream:
    state = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0))
    store = StreamStore(path, every=7)
    recorder = Recorder(AuditTrail(path, key=KEY, segment_rows=50), model="m 1", threshold=0.5)
    return DurableStream(state, store, witness=recorder)


def child(path: str, first: int, pipe: int) -> None:
    stream = open_stream(path)
    os.write(pipe, b"ready\n")
    for number in range(first, first + 1_000_000):
        score, sex = request(number)
        raw = torch.tensor([score], dtype=torch.float64)
        found = stream.answer(raw, {"sex": [sex]}, ids=[number], at=float(number), inputs=[{"score": score}])
        os.write(pipe, f"{number} {found.emitted.item()!r}\n".encode())


def kill_once(path: str, first: int, count: int, wait: float) -> dict[int, float]:
    """Wait for some answers and a moment more, then kill; return the answers that reached the client."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        child(path, first, writer)
    os.close(writer)
    with os.fdopen(reader) as lines:
        assert lines.readline() == "ready\n"
        told = [lines.readline() for _ in range(count)]
        time.sleep(wait)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        whole = [line.split() for line in [*told, *lines.readlines()] if line.endswith("\n")]
    return {int(number): float(value) for number, value in whole}


def main(path: str, rounds: int, seed: int) -> None:
    draw = random.Random(seed)
    seen: dict[int, float] = {}
    in_flight, wrong = 0, list[object]()
    for _ in range(rounds):
        seen.update(kill_once(path, len(seen), draw.randrange(2, 12), draw.uniform(0.0, 0.02)))
        stream = open_stream(path)
        lost = stream.store.answers([len(seen)])
        in_flight += len(lost)
        answered = {**seen, **{number: answer.emitted for number, answer in lost.items() if isinstance(number, int)}}
        rows = {int(row.time): row.body["emitted"] for row in rows_between(path) if row.body and row.kind == "decision"}
        found = verify(path, key=KEY)
        if rows != answered or stream.state.samples != len(answered) or not found.ok:
            wrong.append([len(answered), len(rows), stream.state.samples, str(found)])
        stream.store.close()
    print(json.dumps({"answers": len(seen), "in_flight": in_flight, "wrong": wrong}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
