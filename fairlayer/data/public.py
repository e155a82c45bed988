"""The public originals from OpenML, with the column names that the readers expect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairlayer.errors import require

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["fetch_acsincome", "fetch_adult", "fetch_bank", "fetch_communities_crime", "fetch_german"]


def fetch_adult() -> pd.DataFrame:
    """Return all 48,842 rows; the public record does not say which belong to the official test part."""
    frame = require("fairlearn.datasets", "train").fetch_adult(as_frame=True).frame
    frame.columns = [name.replace("-", "_") for name in frame.columns]
    return frame.rename(columns={"class": "income"})


def fetch_bank() -> pd.DataFrame:
    """Return all rows; the public record numbers the classes: 1 is no, 2 is yes."""
    data = require("fairlearn.datasets", "train").fetch_bank_marketing(as_frame=True)
    return data.data.assign(y=data.target.astype(str).map({"1": "no", "2": "yes"}))


def fetch_german() -> pd.DataFrame:
    """Return OpenML's credit-g; the class good or bad becomes credit_risk 1 or 2."""
    data = require("sklearn.datasets", "train").fetch_openml(name="credit-g", version=1, as_frame=True)
    return data.data.assign(credit_risk=data.target.astype(str).map({"good": 1, "bad": 2}))


def fetch_communities_crime() -> pd.DataFrame:
    """Return OpenML's us_crime, version 1."""
    data = require("sklearn.datasets", "train").fetch_openml(name="us_crime", version=1, as_frame=True)
    return data.data.assign(ViolentCrimesPerPop=data.target.astype(float))


def fetch_acsincome() -> pd.DataFrame:
    """Return Nebraska, 2018; the personal income PINCP becomes income_over_50k."""
    data = require("fairlearn.datasets", "train").fetch_acs_income(states=["NE"], as_frame=True)
    return data.data.assign(income_over_50k=(data.target > 50_000).astype(int))
