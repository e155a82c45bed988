"""Constraints written as text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fairlayer.constraints
from fairlayer.constraints import BoundedGroupLoss, Constraint, DemographicParity, GroupCalibration
from fairlayer.constraints.text import known_constraints, parse_constraint, write_constraint
from fairlayer.errors import ConstraintDefinitionError

LIMITS = ("tolerance", "ratio", "cap", "floor")


@pytest.mark.parametrize("name", known_constraints())
def test_every_known_constraint_can_be_written(name: str) -> None:
    given = ", given=job" if name == "conditional_parity" else ""
    constraint = parse_constraint(f"{name}(sex, 0.25{given})")
    assert type(constraint) is known_constraints()[name]
    assert constraint.on == ("sex",)
    assert [getattr(constraint, limit) for limit in (*LIMITS, "constant") if hasattr(constraint, limit)] == [0.25]


def test_only_constraints_with_rows_or_programs_of_their_own_cannot_be_written() -> None:
    classes = {getattr(fairlayer.constraints, name) for name in fairlayer.constraints.__all__}
    constraints = {c for c in classes if isinstance(c, type) and issubclass(c, Constraint)}
    left_out = {c.__name__ for c in constraints - set(known_constraints().values())}
    assert left_out <= {"Constraint", "Affine", "Convex"}


def test_intersections_quotes_and_named_arguments() -> None:
    assert parse_constraint(" demographic_parity(sex + race+'age band', 0.05) ").on == (
        "sex",
        "race",
        "age band",
    )
    assert parse_constraint("equalized_odds(on=race, tolerance=0.1)").on == ("race",)
    residual = parse_constraint("mean_residual_parity(race, 0.1, between_groups=True)")
    assert residual.between_groups is True  # type: ignore[attr-defined]
    conditional = parse_constraint("conditional_parity(sex, 0.1, given=job+region)")
    assert conditional.features == ("sex", "job", "region")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("demographic_parity", "something else than name"),
        ("demographic_parity(sex, 0.1", "cannot be read"),
        ("parity(sex, 0.1)", "unknown name 'parity'.*Known: .*demographic_parity"),
        ("demographic_parity(sex)", r"'tolerance'.*demographic_parity\(on=..., tolerance=...\)"),
        ("demographic_parity(sex, 0.1, 0.2)", "more than two"),
        ("demographic_parity(sex, 0.1, tolerance=0.2)", "'tolerance' twice"),
        ("demographic_parity(sex, tol=0.1)", "'tolerance'"),
        ("demographic_parity(0.1, sex)", "'0.1' where a feature name"),
        ("demographic_parity(sex+1, 0.1)", "'1' where a feature name"),
        ("demographic_parity(*names)", "neither a name"),
        ("demographic_parity(sex, **more)", "do not fit"),
        ("demographic_parity(sex, len(x))", "neither a name"),
        ("demographic_parity(sex, -0.1)", "tolerance=-0.1"),
        ("demographic_parity(sex, big)", "'big'"),
    ],
)
def test_wrong_text_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ConstraintDefinitionError, match=said):
        parse_constraint(text)


def test_text_is_never_run(tmp_path) -> None:  # type: ignore[no-untyped-def]
    target = tmp_path / "made"
    with pytest.raises(ConstraintDefinitionError):
        parse_constraint(f"demographic_parity(sex, open({str(target)!r}, 'w'))")
    assert not target.exists()


MORE = {"conditional_parity": ", given='job'+\"a 'quote'\"", "mean_residual_parity": ", between_groups=True"}


@pytest.mark.parametrize("name", known_constraints())
def test_what_is_written_is_read_as_the_same_constraint(name: str) -> None:
    more = MORE.get(name, ", bins=3" if name == "group_calibration" else "")
    constraint = parse_constraint(f"{name}(sex+'age band', 0.1{more})")
    again = parse_constraint(write_constraint(constraint))
    assert type(again) is type(constraint)
    np.testing.assert_equal(vars(again), vars(constraint))
    assert write_constraint(again) == write_constraint(constraint)


def test_numbers_are_written_in_full() -> None:
    constraint = DemographicParity("sex", np.float64(1) / 3e7)
    assert parse_constraint(write_constraint(constraint)).tolerance == constraint.tolerance  # type: ignore[attr-defined]


class OfMyOwn(DemographicParity):
    pass


@pytest.mark.parametrize(
    "constraint",
    [
        OfMyOwn("sex", 0.1),
        DemographicParity("sex", torch.tensor(0.1)),
        GroupCalibration("sex", 0.1, bins=(0.0, 0.2, 1.0)),
        BoundedGroupLoss("sex", 0.1, loss=lambda y: (y, y)),
    ],
)
def test_what_cannot_be_written_is_refused(constraint: Constraint) -> None:
    with pytest.raises(ConstraintDefinitionError, match="cannot be written as text"):
        write_constraint(constraint)
