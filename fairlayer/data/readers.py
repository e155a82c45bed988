"""Public data sets by name, with the column choices that their documentation asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fairlayer.data import public
from fairlayer.data.columns import Cut
from fairlayer.data.errors import MissingDataError, listed, near
from fairlayer.data.lending import LendingPopulation
from fairlayer.data.sources import find_or_fetch
from fairlayer.data.table import Table
from fairlayer.errors import require

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "READERS",
    "read_acsincome",
    "read_adult",
    "read_bank",
    "read_communities_crime",
    "read_data_set",
    "read_german",
    "read_lending",
]


def read_data_set(name: str, source: str | Path | None = None) -> Table:
    """Return a table by its name in `READERS`, or by the path of a file with such a name.

    Args:
        source: the name of a data set, or the path of its file.

    Raises:
        MissingDataError: the name is not known, or the data cannot be had.

    Example:
        >>> read_data_set("lending").target
        'label'
    """
    if name in READERS:
        return READERS[name](source)
    stem = Path(name).name.partition(".")[0].removesuffix("_ne")
    if Path(name).is_file() and stem in READERS:
        return READERS[stem](name)
    raise MissingDataError(
        f"no data set is called '{name}'{near(name, READERS)} Known: {listed(READERS)}, or the path of a file with "
        "such a name (adult.csv.gz). For a table of your own use: fairlayer train FILE --target COLUMN."
    )


def read_lending(source: str | Path | None = None, *, n: int = 20_000, seed: int = 0) -> Table:
    """Return the generated lending population (no file, no network): see `fairlayer.data.lending`."""
    if source is not None:
        raise MissingDataError(f"the lending data are generated, there is no file to read; got '{source}'.")
    pandas = require("pandas", "train")
    population = LendingPopulation()
    return Table(
        "lending (generated)",
        pandas.DataFrame(population.sample(n, seed=seed)),
        target="label",
        positive="1",
        sensitive=("sex", "region", "age_band"),
        not_features=("repays",),  # the truth that a lender never sees
        description=f"{population.describe()} {n} applicants, seed {seed}.",
    )


def read_adult(source: str | Path | None = None) -> Table:
    """UCI Adult: income above 50,000. The official split is used where the file has it (column `split`)."""
    frame = find_or_fetch("adult.csv.gz", source, public.fetch_adult)
    return Table(
        "adult",
        frame,
        target="income",
        positive=">50K",
        sensitive=("sex", "race"),
        split="split" if "split" in frame.columns else None,
        not_features=_present(frame, ("fnlwgt", "education_num")),  # a survey weight; a repeat of `education`
        description="UCI Adult (1994 census), CC BY 4.0. Label 1: income above 50,000 dollars.",
    )


def read_german(source: str | Path | None = None) -> Table:
    """UCI Statlog German credit; groups by age (25 and under, over 25). Attribute 9 does not identify sex."""
    frame = find_or_fetch("german.csv.gz", source, public.fetch_german)
    return Table(
        "german",
        frame,
        target="credit_risk",
        positive="1",
        sensitive=("age_group",),
        cuts=(Cut("age_group", "age", (25.0,), ("25 and under", "over 25")),),
        description="UCI Statlog German credit, CC BY 4.0. Label 1: good credit risk.",
    )


def read_bank(source: str | Path | None = None) -> Table:
    """UCI Bank Marketing without `duration`, which leaks the target; groups by age (25-59, the rest)."""
    frame = find_or_fetch("bank.csv.gz", source, public.fetch_bank)
    return Table(
        "bank",
        frame,
        target="y",
        positive="yes",
        sensitive=("age_group",),
        cuts=(Cut("age_group", "age", (24.0, 59.0), ("under 25 or over 59", "25-59", "under 25 or over 59")),),
        not_features=_present(frame, ("duration",)),
        description="UCI Bank Marketing, CC BY 4.0. Label 1: the client subscribed.",
    )


def read_communities_crime(source: str | Path | None = None) -> Table:
    """UCI Communities and Crime (regression); groups by racepctblack, normalised (above 0.06 or not)."""
    frame = find_or_fetch("communities_crime.csv.gz", source, public.fetch_communities_crime)
    identifiers = ("state", "county", "community", "communityname", "fold")
    mostly_empty = tuple(frame.columns[frame.isna().mean() > 0.5])  # the 22 police columns
    dropped = tuple(dict.fromkeys((*identifiers, *mostly_empty)))
    return Table(
        "communities_crime",
        frame,
        target="ViolentCrimesPerPop",
        positive=None,
        sensitive=("racepctblack_group",),
        cuts=(Cut("racepctblack_group", "racepctblack", (0.06,), ("racepctblack<=0.06", "racepctblack>0.06")),),
        not_features=_present(frame, dropped),
        description="UCI Communities and Crime, normalised, CC BY 4.0. Target: violent crimes per person.",
    )


def read_acsincome(source: str | Path | None = None) -> Table:
    """Return the folktables ACSIncome task, Nebraska 2018; AGEP, SCHL and WKHP are amounts, the rest codes."""
    frame = find_or_fetch("acsincome_ne.csv.gz", source, public.fetch_acsincome)
    return Table(
        "acsincome",
        frame,
        target="income_over_50k",
        positive="1",
        sensitive=("SEX", "RAC1P"),
        categorical=("COW", "MAR", "OCCP", "POBP", "RELP", "SEX", "RAC1P"),
        description="ACS public-use microdata 2018, Nebraska. Label 1: income above 50,000 dollars.",
    )


def _present(frame: pd.DataFrame, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name in frame.columns)


READERS: dict[str, Callable[..., Table]] = {
    "lending": read_lending,
    "adult": read_adult,
    "german": read_german,
    "bank": read_bank,
    "communities_crime": read_communities_crime,
    "acsincome": read_acsincome,
}
