"""A table with its roles: which column is the target, which are sensitive, which are features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fairlayer.data.columns import Cut, as_numbers, as_text, column_of, is_numeric, sensitive_columns
from fairlayer.data.errors import TargetError, all_faults, listed, near, spelt_alike

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Table", "usual_positive"]


@dataclass(frozen=True)
class Table:
    """A frame and what its columns are for.

    Args:
        positive: the target's value that counts as label 1; None for regression.
        sensitive: names of columns (or of `cuts`) that constraints may speak of.
        cuts: groups cut from a number.
        split: name of the column that says train / valid / test, if any.
        not_features: columns that the model does not see (weights, leaks, repeats).
        categorical: columns of codes, not of amounts, although they look like numbers.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"age": [20, 40], "sex": ["F", "M"], "paid": ["yes", "no"]})
        >>> table = Table("people", frame, target="paid", positive="yes", sensitive=("sex",))
        >>> table.features(), table.labels().tolist()
        (('age', 'sex'), [1.0, 0.0])
    """

    name: str
    frame: pd.DataFrame
    target: str
    positive: str | None
    sensitive: tuple[str, ...]
    cuts: tuple[Cut, ...] = ()
    split: str | None = None
    not_features: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        wanted = [("target", self.target)]
        made = {cut.column for cut in self.cuts}
        sources = [cut.source for cut in self.cuts]
        for why, names in (
            ("sensitive", [p for name in self.sensitive for p in self._parts(name) if p not in made] + sources),
            ("dropped", self.not_features),
            ("categorical", self.categorical),
            ("split", [self.split] if self.split else []),
        ):
            wanted += [(why, name) for name in names]
        all_faults(*(partial(column_of, self.frame, name, why) for why, name in dict.fromkeys(wanted)))

    def features(self, *, drop_sensitive: bool = False) -> tuple[str, ...]:
        """Return the names of the columns that the model sees; a cut's source counts as sensitive."""
        hidden = {self.target, self.split, *self.not_features}
        if drop_sensitive:
            parts = [part for name in self.sensitive for part in self._parts(name)]
            hidden |= {*parts, *(cut.source for cut in self.cuts)}
        return tuple(name for name in self.frame.columns if name not in hidden)

    def _parts(self, name: str) -> list[str]:
        """Return the columns of a sensitive feature; `race+sex` is an intersection, unless a column is so called."""
        return [name] if name in self.frame.columns else [part.strip() for part in name.split("+")]

    def labels(self, *, of_run: bool = False) -> NDArray[np.float32]:
        """Return 0 and 1 for a classification table, and the numbers themselves for a regression one.

        Args:
            of_run: whether a trained run says which value counts as 1, and not the caller, for the text of an error.
        """
        column = column_of(self.frame, self.target, "target")
        read = (
            partial(_amounts, column.dropna())
            if self.positive is None
            else partial(_matches, column.dropna(), self.positive, of_run)
        )
        all_faults(partial(_check_there, column), read)
        return read()

    def sensitive_features(self, names: Sequence[str], *, continuous: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
        """Return the sensitive features called `names` (see `sensitive_columns`)."""
        return sensitive_columns(self.frame, names, cuts=self.cuts, continuous=continuous)

    def with_target(self) -> Table:
        """Return the table without the rows whose target is missing."""
        return replace(self, frame=self.frame[self.frame[self.target].notna()].reset_index(drop=True))


def _check_there(column: pd.Series) -> None:
    missing = int(column.isna().sum())
    if missing:
        raise TargetError(
            f"target '{column.name}' is missing in {missing} of {len(column)} rows. Leave these rows out "
            "(--missing drop), or fill them."
        )


def _amounts(column: pd.Series) -> NDArray[np.float32]:
    if not is_numeric(column):
        raise TargetError(
            f"target '{column.name}' holds {listed(column.unique(), 4)}, which are not numbers. "
            "A regression needs numbers; for two classes name the one that counts as 1 (--positive)."
        )
    return as_numbers(column).astype(np.float32)


def _matches(column: pd.Series, positive: str, of_run: bool) -> NDArray[np.float32]:
    names = as_text(column)
    found = sorted(set(names))
    if positive not in found:
        remedy = "Write the outcomes as the training table did." if of_run else "Name one of them (--positive)."
        raise TargetError(
            f"target '{column.name}' was to be 1 where it equals '{positive}', but its values are: "
            f"{listed(found)}{near(positive, found)} {remedy}"
        )
    for alike in spelt_alike(found):
        raise TargetError(
            f"target '{column.name}' was to be 1 where it equals '{positive}', but it holds {listed(found)}, of which "
            f"{listed(alike)} would be different answers. Write each answer in one way."
        )
    if len(found) == 1:
        raise TargetError(
            f"target '{column.name}' is '{positive}' in all {len(names)} rows; a classifier needs both classes."
        )
    return np.asarray(names == positive, dtype=np.float32)


def usual_positive(column: pd.Series) -> str:
    """Return the value of a target that counts as 1 when nobody says which: "1" beside "0", or "True" beside "False".

    Raises:
        TargetError: the target has other values, such as 1 and 2, of which either may be meant.
    """
    found = sorted({str(name) for name in as_text(column.dropna())})
    for usual, beside in (("1", "0"), ("True", "False")):
        if usual in found and set(found) <= {usual, beside}:
            return usual
    raise TargetError(
        f"target '{column.name}' holds {listed(found, 6)}; say which value counts as 1 (--positive VALUE), or use "
        "--task regression."
    )
