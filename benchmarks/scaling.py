"""What a batch over processes and a table larger than memory cost: bytes, passes, rows per second, memory.

python benchmarks/scaling.py                       # all the figures of docs/scaling.md
python benchmarks/scaling.py --table 20000000      # write, score and compare one table
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fairlayer as fl
from fairlayer.collective import Ranks
from fairlayer.scoring import project_chunks, score_table

CHUNK = 262_144
MIB = 2**20
PARITY = [fl.DemographicParity("sex", tolerance=0.01), fl.DemographicParity("age", tolerance=0.02)]


def chunk_of(number: int, rows: int) -> dict[str, np.ndarray]:
    """Rows of a table: scores that both bounds cut once they are shifted, two features."""
    rng = np.random.default_rng(number)
    sex, age = rng.integers(0, 2, rows), rng.integers(0, 4, rows)
    scores = np.clip(rng.beta(0.8, 1.2, rows) + 0.1 * sex - 0.02 * age, 0.0, 1.0)
    return {"sex": sex, "age": age, "score": scores.astype(np.float32)}


def chunks(n: int) -> Iterator[dict[str, np.ndarray]]:
    for number, start in enumerate(range(0, n, CHUNK)):
        yield chunk_of(number, min(CHUNK, n - start))


# --- a table in files


def write(path: Path, n: int) -> None:
    """Write the table to a Parquet file, chunk by chunk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = {"sex": np.array(["F", "M"]), "age": np.array(["<30", "30-45", "45-60", ">60"])}
    writer = None
    for chunk in chunks(n):
        batch = pa.record_batch(
            {
                "sex": pa.array(words["sex"][chunk["sex"]]).dictionary_encode(),
                "age": pa.array(words["age"][chunk["age"]]).dictionary_encode(),
                "score": chunk["score"],
            }
        )
        writer = writer or pq.ParquetWriter(path, batch.schema)
        writer.write_batch(batch)
    assert writer is not None
    writer.close()


def score(path: Path, out: Path) -> None:
    """Score the table from its file, and say what it took."""
    start = time.perf_counter()
    table = score_table(path, PARITY, out=out, bounds=(0.0, 1.0), rows=CHUNK)
    seconds = time.perf_counter() - start
    print(f"rows: {table.samples}")
    print(f"sweeps before the last: {table.sweeps}")
    print(f"seconds: {seconds:.1f}")
    print(f"rows per second and sweep: {table.samples * (table.sweeps + 1) / seconds:.3g}")
    print(f"accuracy: {table.accuracy:.3g}")
    print(f"violation: {table.violation:.3g}")
    print(f"peak memory of scoring, MiB: {peak():.0f}")


def compare(path: Path, out: Path) -> None:
    """Project the table in memory, and compare row by row."""
    import pyarrow.parquet as pq

    given = pq.read_table(path)
    features = {name: given[name].combine_chunks().indices.to_numpy() for name in ("sex", "age")}
    scores = torch.tensor(given["score"].to_numpy()).double()
    start = time.perf_counter()
    result = fl.project(scores, PARITY, sensitive_features=features, bounds=(0.0, 1.0))
    print(f"seconds in memory: {time.perf_counter() - start:.1f}")
    off = np.abs(result.value.numpy() - pq.read_table(out)["value"].to_numpy()).max()
    print(f"largest difference from memory: {off:.3g}")
    print(f"peak memory in memory, MiB: {peak():.0f}")


def peak() -> float:
    """Highest resident memory of this process in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


def table(n: int, folder: Path) -> None:
    """Each step in a process of its own, so that its memory is its own."""
    path, out = folder / "table.parquet", folder / "scored.parquet"
    for step in ("write", "score", "compare"):
        command = [sys.executable, __file__, "--step", step, "--table", str(n), "--folder", str(folder)]
        subprocess.run(command, check=True)
    for file in (path, out):
        file.unlink()


# --- sweeps over chunks that cost nothing to read


def sweeps() -> None:
    """Rows per second of summing up and of shifting, without any file."""
    made = list(chunks(4 * CHUNK))
    for dtype in (np.float32, np.float64):

        def again(dtype: Any = dtype) -> Iterator[Any]:
            for chunk in made:
                yield chunk["score"].astype(dtype), {"sex": chunk["sex"], "age": chunk["age"]}

        start = time.perf_counter()
        found = project_chunks(again, PARITY, bounds=(0.0, 1.0))
        middle = time.perf_counter()
        for _ in found.values():
            pass
        end = time.perf_counter()
        n = found.samples
        print(f"{np.dtype(dtype).name}: {found.sweeps} sweeps before the last, accuracy {found.accuracy:.2g}")
        up, down = n * found.sweeps / (middle - start), n / (end - middle)
        print(f"  rows per second: summing up {up:.3g}, shifting {down:.3g}")


# --- a batch over processes


class Counting(Ranks):
    """Counts exchanges and the numbers in them."""

    calls, numbers = 0, 0

    def _exchange(self, vector: Any, length: int) -> Any:
        Counting.calls += 1
        Counting.numbers += length
        return super()._exchange(vector, length)


def batches(rank: int, processes: int, folder: str, rows: int, repeats: int) -> None:
    torch.set_num_threads(1)
    patience = datetime.timedelta(seconds=120)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/at", rank=rank, world_size=processes, timeout=patience
    )
    given = chunk_of(rank, rows)
    features = {"sex": given["sex"], "age": given["age"]}
    scores = torch.tensor(given["score"]).double().requires_grad_()
    layer = fl.FairProjection(PARITY, bounds=(0.0, 1.0), process_group="world")
    layer.fit_categories(features)
    layer.eval()
    layer.plan.ranks = Counting("world")
    times = []
    for _ in range(repeats):
        Counting.calls = Counting.numbers = 0
        dist.barrier()
        start = time.perf_counter()
        layer(scores, sensitive_features=features).sum().backward()
        times.append(time.perf_counter() - start)
    if rank == 0:
        assert layer.last is not None
        found = {
            "processes": processes,
            "rows each": rows,
            "ms": round(1e3 * float(np.median(times)), 2),
            "passes": layer.last.passes,
            "exchanges": Counting.calls,
            "bytes sent": 8 * Counting.numbers,
        }
        print(json.dumps(found))
    dist.destroy_process_group()


def over_processes() -> None:
    """Forward and backward of one batch over processes on this machine."""
    for processes in (1, 2, 4):
        for rows in (256, 65_536):
            with tempfile.TemporaryDirectory() as folder:
                mp.spawn(batches, args=(processes, folder, rows, 30), nprocs=processes)
    for rows in (256, 65_536):
        alone(rows)


def alone(rows: int) -> None:
    given = chunk_of(0, rows)
    scores = torch.tensor(given["score"]).double().requires_grad_()
    layer = fl.FairProjection(PARITY, bounds=(0.0, 1.0))
    times = []
    for _ in range(30):
        start = time.perf_counter()
        layer(scores, sensitive_features={"sex": given["sex"], "age": given["age"]}).sum().backward()
        times.append(time.perf_counter() - start)
    print(json.dumps({"processes": "no group", "rows each": rows, "ms": round(1e3 * float(np.median(times)), 2)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=int, help="rows of a table to write, score and compare")
    parser.add_argument("--folder", type=Path, help="where the table is written")
    parser.add_argument("--step", choices=("write", "score", "compare"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.step:
        path, out = arguments.folder / "table.parquet", arguments.folder / "scored.parquet"
        {"write": lambda: write(path, arguments.table), "score": lambda: score(path, out)}.get(
            arguments.step, lambda: compare(path, out)
        )()
        return
    if arguments.table is None:
        sweeps()
        over_processes()
    with tempfile.TemporaryDirectory() as folder:
        table(arguments.table or 20_000_000, arguments.folder or Path(folder))


if __name__ == "__main__":
    main()
