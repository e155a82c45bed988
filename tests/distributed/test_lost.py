"""A process that ends, or never comes, is an error of those that wait for it, by name and in the time they allow."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import fairlayer as fl
from fairlayer.collective import LostProcessError, RemoteError
from tests.distributed.processes import start_processes

ALLOWED = 5.0  # seconds


def wait_for_the_other(rank: int, folder: str, where: str, how: str) -> None:
    """Rank 1 leaves before its forward or its backward; rank 0 writes down what it meets."""
    init = {"init_method": f"file://{folder}/rendezvous", "rank": rank, "world_size": 2}
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", **init, timeout=datetime.timedelta(minutes=10))
    group = dist.new_group(timeout=datetime.timedelta(seconds=ALLOWED if how == "stays away" else 600))
    scores = torch.tensor([0.1, 0.5], requires_grad=True)

    def forward() -> torch.Tensor:
        features = {"sex": ["F", "M"]}
        rules = [fl.DemographicParity("sex", tolerance=0.0)]
        return fl.project(scores, rules, sensitive_features=features, process_group=group).value

    dist.barrier()
    value = forward() if where == "backward" else None
    if rank == 1:
        while how == "stays away" and not (Path(folder) / "met").exists():
            time.sleep(0.05)
        os._exit(0)  # as a process that is killed: nothing is said to the others
    try:
        forward() if value is None else (value**2).sum().backward()
    except Exception as error:
        Path(folder, "met").write_text(f"{type(error).__name__}: {error}")
    os._exit(0)


@pytest.mark.parametrize(("where", "how"), [("forward", "ends"), ("backward", "ends"), ("backward", "stays away")])
def test_who_waits_for_a_lost_process_is_told(where: str, how: str, tmp_path: Path) -> None:
    start_processes(2, wait_for_the_other, str(tmp_path), where, how)
    met = (tmp_path / "met").read_text()
    assert met.startswith("LostProcessError: rank 0 of 2 got no answer from the other processes")
    assert "the timeout of init_process_group" in met
    assert issubclass(LostProcessError, RemoteError)
