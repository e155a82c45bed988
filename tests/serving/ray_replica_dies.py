"""Run by test_ray_serve.py: the recipe, one of whose replicas is killed while it is asked. Prints one JSON object."""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

RECIPE = Path(__file__).resolve().parents[2] / "examples" / "ray_serve.py"


def replicas() -> list[int]:
    """The replicas of this very test, by the mark in their environment."""
    mark = f"FAIRLAYER_TEST_MARK={os.environ['FAIRLAYER_TEST_MARK']}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = mark in (folder / "environ").read_bytes().split(b"\0")
            if ours and (folder / "cmdline").read_bytes().startswith(b"ray::ServeReplica"):
                found.append(int(folder.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found


def answer(handle: Any, record: dict[str, Any], key: str) -> float:
    """Ask until there is an answer, under the same id."""
    while True:
        try:
            return float(handle.score.remote([record], [key]).result(timeout_s=60)["scores"][0])
        except Exception as error:  # of Ray's: the replica died under the request
            print(type(error).__name__, file=sys.stderr)
            time.sleep(0.2)


def main(run: str, address: str) -> None:
    import psycopg
    from ray import serve

    from fairlayer.data import LendingPopulation

    table = pd.DataFrame(LendingPopulation().sample(120, seed=5)).drop(columns=["label", "repays"])
    records = json.loads(table.to_json(orient="records"))
    handle = serve.run(runpy.run_path(str(RECIPE))["application"](run, address), route_prefix=None)
    answers: dict[str, float] = {}
    killed = 0
    for number, record in enumerate(records):
        if number == 40:
            os.kill(replicas()[0], signal.SIGKILL)
            killed = 1
        answers[f"request {number}"] = answer(handle, record, f"request {number}")
    samples: set[int] = set()
    for _ in range(60):  # the new replica has to come up, and all have to hear of each other
        samples = {handle.state.remote().result(timeout_s=60)["samples"] for _ in range(6)}
        if samples == {len(records)} and len(replicas()) == 2:
            break
        time.sleep(1.0)
    with psycopg.connect(address) as connection:
        stored = dict(connection.execute("SELECT id, emitted FROM fairlayer_answers").fetchall())
        slots = [slot for (slot,) in connection.execute("SELECT slot FROM fairlayer_slots ORDER BY slot").fetchall()]
    same = {json.loads(key): value for key, value in stored.items()} == answers
    print(json.dumps({"killed": killed, "same": same, "samples": sorted(samples), "slots": slots}))
    serve.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
