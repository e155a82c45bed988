"""Decisions per second into an audit trail, under each durability, and rows per second out of a verification.

    python benchmarks/trail.py                     # about a minute
    python benchmarks/trail.py --rows 200000 --folder /var/lib/trails
    python benchmarks/trail.py --memory-rows 2000000    # and the memory of a large one, some minutes

Each figure is the median of several turns of one process with one thread: by the wall clock, and in brackets by the
time of the processor, which is what one core does where others use the machine too (the load is printed). "power"
waits for the disk at every append: there the wall clock counts.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from machine import describe, header, limit_threads, load

limit_threads(1)

from fairlayer.trail import AuditTrail, Decision, verify  # noqa: E402

BATCHES = (1, 32, 1000)
KEY = b"a key of thirty-two secret bytes"
TURNS = 3


def decisions(rows: int) -> list[Decision]:
    """Return decisions with every field of a served one."""
    return [
        Decision(
            time=1.7e9 + number,
            subject=f"applicant {number % 5000}",
            input={"age": 18 + number % 60, "income": 1000 + 7 * number, "region": "north"},
            cells={"sex": "FM"[number % 2], "region": "north"},
            raw=0.1 + 0.8 * (number % 997) / 997,
            emitted=0.1 + 0.8 * (number % 991) / 991,
            decision=number % 3 == 0,
            shift=0.0123,
            phase="steady",
            policy="tracking",
            limit={"DemographicParity('sex')": 0.02},
            model="credit 7",
            package="0.1.0",
        )
        for number in range(rows)
    ]


def rates(path: Path, durability: str, records: Sequence[Decision], batch: int) -> tuple[float, float]:
    """Return decisions per second, appended `batch` at a time: by the wall clock, and of processor time."""
    with AuditTrail(path, key=KEY, durability=durability) as trail:  # type: ignore[arg-type]
        begun, used = time.perf_counter(), time.process_time()
        for start in range(0, len(records), batch):
            trail.append(records[start : start + batch])
        return len(records) / (time.perf_counter() - begun), len(records) / (time.process_time() - used)


def memory(path: Path, rows: int) -> list[tuple[str, float]]:
    """Return the largest resident memory, in MiB, of processes that write, verify and report so many rows."""
    steps = {
        "begins": "",
        "writes": "fill()",
        "verifies with the key": "verify(path, key=KEY)",
        "reports": "report(path)",
    }
    return [(name, float(_in_a_process(step, path, rows))) for name, step in steps.items()]


def _in_a_process(step: str, path: Path, rows: int) -> str:
    program = _PROGRAM.format(path=str(path), rows=rows, step=step)
    given = [sys.executable, "-c", program]
    return subprocess.run(given, check=True, capture_output=True, text=True, cwd=Path(__file__).parent).stdout


_PROGRAM = """
import resource
from trail import KEY, AuditTrail, decisions, verify
from fairlayer.trail import report
path, rows, part = {path!r}, {rows}, decisions(1000)
def fill():
    with AuditTrail(path, key=KEY) as trail:
        for start in range(0, rows, 1000):
            trail.append(part[: rows - start])
{step}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    """Print versions, then both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="per figure; a fiftieth where each append waits")
    parser.add_argument("--folder", help="where to write (default: the system's temporary folder)")
    parser.add_argument("--memory-rows", type=int, default=0, help="of a trail whose memory is measured")
    options = parser.parse_args()
    facts = describe(1, ["torch", "numpy", "cryptography"])
    facts["versions"]["sqlite"] = sqlite3.sqlite_version
    print(header("Audit trail: decisions per second", facts))
    print(f"\n{'durability':<12}{'outlives':<18}" + "".join(f"{f'batch {batch}':>18}" for batch in BATCHES))
    records = decisions(options.rows)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for durability, outlives in (("process", "SIGKILL"), ("power", "a power cut")):
            cells = []
            for batch in BATCHES:
                waits = durability == "power" and batch < 1000
                part = records[: max(batch, options.rows // 50 * min(batch, 8))] if waits else records
                turns = [rates(Path(folder) / f"{durability}{batch}{i}", durability, part, batch) for i in range(TURNS)]
                wall, processor = (statistics.median(column) for column in zip(*turns, strict=True))
                cells.append(f"{wall:,.0f} ({processor:,.0f})")
            print(f"{durability:<12}{outlives:<18}" + "".join(f"{cell:>18}" for cell in cells))
        path = Path(folder) / f"process{BATCHES[0]}0"
        begun, used = time.perf_counter(), time.process_time()
        found = verify(path, key=KEY)
        took, used = time.perf_counter() - begun, time.process_time() - used
        size = path.stat().st_size / found.rows
        print(
            f"\nverify with the key: {found.rows / took:,.0f} ({found.rows / used:,.0f}) rows/s; "
            f"file: {size:.0f} bytes per decision"
        )
        if options.memory_rows:
            print(f"\nlargest resident memory of a process with {options.memory_rows:,} rows:")
            for name, most in memory(Path(folder) / "large", options.memory_rows):
                print(f"{name:<24}{most:>8.0f} MiB")
    print(f"\nLoad average at the end: {load()} (1.0 and more is this benchmark itself)")


if __name__ == "__main__":
    main()
