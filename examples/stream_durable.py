"""A stream that outlives its process: a worker is killed four times, and nothing is lost or counted twice."""

import multiprocessing
import sys

import numpy as np
import torch

import fairlayer as fl
from fairlayer.streaming.durable import DurableStream
from fairlayer.streaming.store import StreamStore

FILE, REQUESTS = "stream.sqlite", 4_000


def open_stream() -> DurableStream:
    state = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0), policy="anytime")
    return DurableStream(state, StreamStore(FILE, every=500))


def request(number: int) -> tuple[torch.Tensor, dict[str, list[str]]]:
    draw = np.random.default_rng(number)
    sex = "F" if draw.random() < 0.3 else "M"
    score = float(np.clip(draw.normal(0.55 if sex == "M" else 0.4, 0.2), 0, 1))
    return torch.tensor([score], dtype=torch.float64), {"sex": [sex]}


def worker(answers: "multiprocessing.connection.Connection", first: int) -> None:
    """Answer requests in order; the client, at the other end, has seen the answers before `first`."""
    stream = open_stream()
    for number in range(first, REQUESTS):
        score, sex = request(number)
        answers.send(stream.emit(score, sex, ids=[number]).item())


def main() -> None:
    seen: list[float] = []
    for until in (300, 900, 1_700, 2_600, REQUESTS):
        receive, send = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(target=worker, args=(send, len(seen)))
        process.start()
        send.close()
        while len(seen) < until:
            seen.append(receive.recv())
        process.kill()  # in the middle of its work; what it answered meanwhile, nobody has seen
        process.join()
        print(f"killed after {len(seen)} answers")
    stream = open_stream()
    women = np.array([request(number)[1]["sex"] == ["F"] for number in range(REQUESTS)])
    gap = abs(np.mean(np.array(seen)[women]) - np.mean(np.array(seen)[~women]))
    [kept] = stream.state.pooled_gap().values()
    print(f"the client has {len(seen)} answers, the stream counted {stream.state.samples}")
    print(f"pooled gap of the answers {gap:.6f}, of the stream {kept:.6f}")
    assert (stream.state.samples, round(kept, 9)) == (len(seen), round(gap, 9))
    stream.close()


if __name__ == "__main__":
    multiprocessing.set_start_method("fork" if sys.platform == "linux" else "spawn")
    main()
