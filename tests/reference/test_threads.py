"""Programs are cached; threads that share one do not disturb each other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import fairlayer as fl


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_switches")
def test_threads_get_what_one_gets() -> None:
    features = {"sex": np.arange(30) % 2}
    parity = fl.DemographicParity("sex", tolerance=0.02)
    batches = [torch.rand(30, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(40)]

    def project(scores: torch.Tensor) -> torch.Tensor:
        return fl.project(scores, [parity], sensitive_features=features, bounds=(0.0, 1.0), backend="cvxpylayers").value

    alone = [project(scores) for scores in batches]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            for expected, found in zip(alone, threads.map(project, batches), strict=True):
                assert torch.equal(expected, found)
