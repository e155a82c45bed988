"""Run by test_writers.py: writers that are killed, again and again. Prints one JSON object.

A child process appends decisions, and tells each row that it was given through a pipe once `append` has returned. The
parent kills it with SIGKILL after a random time. What was told must be in the trail.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import tests.trail.light  # noqa: F401
from fairlayer.trail import AuditTrail, rows_between, verify
from tests.trail.forging import KEY, decision

SEGMENT_ROWS = 50


def write(path: Path, pipe: int, start: int) -> None:
    with AuditTrail(path, key=KEY, segment_rows=SEGMENT_ROWS) as trail:
        for number in range(start, start + 100_000):
            size = 1 + number % 5
            rows = trail.append([decision(number * 10 + part) for part in range(size)])
            os.write(pipe, f"{rows.start} {size} {number}\n".encode())


def round_of(path: Path, number: int, seconds: float) -> list[tuple[int, int, int]]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        write(path, writing, number * 100_000)
        os._exit(0)
    os.close(writing)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told = b"".join(iter(lambda: os.read(reading, 65536), b"")).decode()
    os.close(reading)
    return [tuple(map(int, line.split())) for line in told.splitlines(keepends=True) if line.endswith("\n")]  # type: ignore[misc]


def main(path: Path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    AuditTrail(path, key=KEY, segment_rows=SEGMENT_ROWS).close()
    told = [line for number in range(rounds) for line in round_of(path, number, 0.05 + 0.15 * chance.random())]
    times = {row.row: row.time for row in rows_between(path)}
    lost = [
        start + part
        for start, size, number in told
        for part in range(size)
        if times.get(start + part) != decision(number * 10 + part).time
    ]
    found = verify(path, key=KEY)
    untold = found.rows - sum(size for _, size, _ in told)
    answer = {"told": len(told), "lost": len(lost), "untold": untold, "rows": found.rows, "found": str(found)}
    print(json.dumps({**answer, "ok": found.ok, "torn": torn(times)}))


def torn(times: dict[int, float]) -> int:
    """Return how many appends are there in part: each has 1 + number % 5 rows."""
    parts: dict[int, int] = {}
    for moment in times.values():
        number = int(moment - 1000.0) // 10
        parts[number] = parts.get(number, 0) + 1
    return sum(count != 1 + number % 5 for number, count in parts.items())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
