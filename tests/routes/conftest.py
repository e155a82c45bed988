"""One comparison of a small generated population, shared by the tests of routes."""

from __future__ import annotations

import pytest

from fairlayer.data.readers import read_lending
from fairlayer.routes import TrainedRoutes, train_routes
from fairlayer.training import FitOptions, prepare


@pytest.fixture(scope="session")
def found() -> TrainedRoutes:
    pytest.importorskip("sklearn")
    parts = prepare(read_lending(n=4000, seed=1), ["demographic_parity(sex, 0.02)"], hidden=(8,), seed=0)
    return train_routes(parts, FitOptions(epochs=6, batch_size=128, learning_rate=1e-2))
