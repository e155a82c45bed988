"""A batch over two processes in each geometry: what one process gives, or a refusal that says what to do."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import fairlayer as fl
from fairlayer.errors import BackendError
from tests.distributed.conftest import FoundBy
from tests.distributed.processes import Found
from tests.geometry.test_entrances import GROUPS, KNOWN, RULE, SEX, Place, known

CUT = 33  # of 80 rows, the first share


def project_share(place: Place, rank: int, processes: int) -> Found:
    share = slice(0, CUT) if rank == 0 else slice(CUT, None)
    given: Any = {"sensitive_features": {"sex": SEX[share]}, "process_group": "world", **place.options}
    try:
        result = fl.project(place.scores[share], [RULE], **given)
    except BackendError as error:
        return {"refused": str(error)}
    prices = {name: float(price) for name, price in result.multipliers.items()}
    return {"value": result.value.numpy(), "holds": result.certificate.holds, "prices": prices}


JOBS = {2: {str(place): partial(project_share, place) for place in KNOWN}}


@known
def test_two_processes_project_as_one(place: Place, found_by: FoundBy) -> None:
    shares = [found[str(place)] for found in found_by(__name__, 2)]
    if place.simplex:
        assert all("use process_group=None" in share["refused"] for share in shares)
        return
    alone = fl.project(place.scores, [RULE], sensitive_features=GROUPS, **place.options)
    np.testing.assert_allclose(np.concatenate([share["value"] for share in shares]), alone.value.numpy(), atol=1e-9)
    for share in shares:
        assert share["holds"]
        assert share["prices"] == pytest.approx({RULE.name: float(alone.multipliers[RULE.name])}, rel=1e-6)
