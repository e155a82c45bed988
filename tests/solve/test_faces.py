"""The faces that put prices on rows, and which rows they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairlayer.passes import Point
from fairlayer.solve import HeldRows, RowSlabs, SlabSystem, SpreadSlabs
from fairlayer.solve.newton import optimality_error
from fairlayer.solve.slabs import Faces
from fairlayer.solve.solution import Solution
from fairlayer.solve.table import RowTable, faces_of_prices


def _prices(rng: np.random.Generator, rows: int) -> tuple[Any, Any]:
    """Prices of the upper and of the lower limits of a spread, which add up to the same."""
    signs = rng.permutation(np.append([1.0, -1.0], rng.choice([-1.0, 0.0, 1.0], rows - 2)))
    amounts = np.round(rng.exponential(1.0, rows), 1) + 0.1  # rounded, so that ends fall together
    high, low = np.where(signs > 0, amounts, 0.0), np.where(signs < 0, amounts, 0.0)
    return high / high.sum(), low / low.sum()


@pytest.mark.parametrize("members", [4, 200])
def test_faces_of_prices_bear_those_prices(members: int) -> None:
    rng = np.random.default_rng(0)
    offset = rng.normal(size=members)
    blocks = [RowSlabs(np.eye(3, members), -np.ones(3), np.ones(3)), SpreadSlabs(np.eye(members), offset, 0.8, 0.5)]
    slabs = SlabSystem(blocks).accurate_to(1e-12, np.ones(members))
    table = RowTable.of(slabs)
    spread_high, spread_low = _prices(rng, members)
    high, low = np.append([0.3, 0.0, 0.0], spread_high), np.append([0.0, 0.0, 0.2], spread_low)
    faces, multipliers = faces_of_prices(slabs, table, high, low)
    nu = sum(price * np.asarray(face.normal) for face, price in zip(faces, multipliers, strict=True))
    factor = np.append(np.ones(3), np.full(members, 0.8))
    np.testing.assert_allclose(nu, (factor * high - low) @ np.asarray(table.matrix), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(faces.limits, [face.limit for face in faces])
    np.testing.assert_array_equal(faces.accuracies(), [face.atol for face in faces])
    assert [faces[k].key for k in range(len(faces))] == [face.key for face in faces]
    assert [face.key for face in faces[1:]] == [face.key for face in faces][1:]

    statistics = rng.normal(size=members)
    lazy = Solution.at(Point(None, None, statistics), nu, faces, multipliers, passes=1)
    plain = lazy._replace(faces=tuple(faces))
    assert optimality_error(lazy, slabs) == pytest.approx(optimality_error(plain, slabs), rel=1e-9)
    held, other = HeldRows(lazy, slabs), HeldRows(plain, slabs)
    np.testing.assert_array_equal(np.asarray(held.matrix), np.asarray(other.matrix))
    np.testing.assert_array_equal(held.price, other.price)
    signed = high - low
    np.testing.assert_allclose(np.sort(held.price), np.sort(signed[signed != 0]), rtol=1e-12)


def test_rows_without_slack_hold_without_a_price() -> None:
    blocks = [
        RowSlabs(np.eye(3), np.array([0.0, -1.0, 0.5]), np.array([0.0, 1.0, 0.5])),
        SpreadSlabs(np.eye(3), None, 1.0, 0.0),
    ]
    slabs = SlabSystem(blocks)
    none = Solution.at(
        Point(None, None, np.zeros(3)), np.zeros(3), Faces(slabs, np.zeros((0, 3), int)), np.zeros(0), passes=1
    )
    held = HeldRows(none, slabs)
    assert held.block.tolist() == [0, 0, 1, 1, 1]
    assert held.price.tolist() == [0.0] * 5
    nothing = SlabSystem([])
    assert len(HeldRows(none._replace(faces=()), nothing)) == 0
