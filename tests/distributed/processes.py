"""Start a gloo group of real processes once, let each of them do a list of things, and collect what each found."""

from __future__ import annotations

import datetime
import multiprocessing
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

Found = dict[str, Any]
Job = Callable[[int, int], Found]  # (rank, processes) -> what it found

# Longer than it ever takes on a machine that is busy with other work, where importing torch alone may take minutes.
PATIENCE = datetime.timedelta(seconds=600)

# Processes are forked from a server that has these loaded, so that a group of them loads each once.
multiprocessing.set_forkserver_preload(["fairlayer", "fairlayer.fused.cells", "fairlayer.integrations.lightning"])


def start_processes(processes: int, function: Callable[..., None], *given: object) -> None:
    """Call a function in so many new processes, with its rank before all that is given, and wait for them."""
    mp.start_processes(function, args=given, nprocs=processes, start_method="forkserver")


def run(processes: int, folder: Path, jobs: Mapping[str, Job]) -> list[Found]:
    """Run every job in every process of one group; return for each rank what its jobs found, by name."""
    (folder / "rendezvous").unlink(missing_ok=True)  # of a group that failed, which nobody would answer
    start_processes(processes, _process, processes, str(folder), dict(jobs))
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(processes)]


def _process(rank: int, processes: int, folder: str, jobs: dict[str, Job]) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=processes, timeout=PATIENCE)
    try:
        found = {}
        for name, job in jobs.items():
            torch.manual_seed(0)
            found[name] = job(rank, processes)
        torch.save(found, f"{folder}/rank{rank}.pt")
    finally:
        dist.destroy_process_group()
