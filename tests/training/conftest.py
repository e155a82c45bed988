"""A small trained pair of models, shared by the tests of what is made from it."""

from __future__ import annotations

import pytest

from fairlayer.data import Table
from fairlayer.data.readers import read_lending
from fairlayer.training import FitOptions, Trained, prepare, train
from fairlayer.training.session import Parts

CONSTRAINTS = ("demographic_parity(sex, 0.02)", "demographic_parity(sex+region, 0.05)")


@pytest.fixture(scope="session")
def lending() -> Table:
    return read_lending(n=3000, seed=1)


@pytest.fixture(scope="session")
def parts(lending: Table) -> Parts:
    return prepare(lending, CONSTRAINTS, hidden=(16,), seed=0)


@pytest.fixture(scope="session")
def trained(parts: Parts) -> Trained:
    return train(parts, FitOptions(epochs=4, batch_size=256))
