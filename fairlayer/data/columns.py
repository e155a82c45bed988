"""One column at a time: category names, numbers, and groups cut from a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fairlayer.data.errors import ColumnError, MissingColumnError, listed, near, spelt_alike
from fairlayer.groups.categories import DISGUISED

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Cut", "as_numbers", "as_text", "check_cuts", "column_of", "is_numeric", "parse_cut", "sensitive_columns"]

EXACT = 2**53  # from here on, floating numbers stand for several whole ones
_OF_A_CUT = "_group"
MOST_GROUPS = 200  # more distinct names than this are identifiers, not groups
MOST_NUMBERED_GROUPS = 30  # more distinct numbers than this are amounts, not codes of groups


def column_of(frame: pd.DataFrame, name: str, why: str) -> pd.Series:
    """Return the column `name`, or an error that says what it was wanted for and what there is."""
    if name not in frame.columns:
        raise MissingColumnError(
            f"the {why} column '{name}' was asked for, but the table has no such column{_meant(name, frame)}",
            f"It has: {listed(frame.columns, 40)}. Check the spelling, or name another column.",
        )
    return frame[name]


def _meant(name: str, frame: pd.DataFrame) -> str:
    source = name.removesuffix(_OF_A_CUT)
    if source != name and source in frame.columns:
        return f"; groups of '{source}' are made by a cut, such as --cut {source}=25,59."
    return near(name, frame.columns)


def is_numeric(column: pd.Series) -> bool:
    """Return whether the values are numbers (a column of booleans is a category)."""
    return column.dtype.kind in "iuf"


def as_text(column: pd.Series) -> NDArray[np.object_]:
    """Return category names, the same in every file: 1, 1.0 and "1" are all "1"; a missing value is None."""
    missing = column.isna().to_numpy()
    names = np.array([_name(value) for value in column.tolist()], dtype=object)
    names[missing] = None
    return names


def _name(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def as_numbers(column: pd.Series) -> NDArray[np.float64]:
    """Return the values as float64, missing as NaN.

    Raises:
        ColumnError: a value is not a number, or is infinite.
    """
    import pandas as pd

    numbers: NDArray[np.float64] = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    unreadable = np.isnan(numbers) & ~column.isna().to_numpy()
    if unreadable.any():
        raise ColumnError(
            f"column '{column.name}' was read as numbers, but {int(unreadable.sum())} of {len(numbers)} "
            f"values are not: {listed(column[unreadable].unique(), 5)}. Mend them, or leave the cells empty."
        )
    if np.isinf(numbers).any():
        raise ColumnError(
            f"column '{column.name}' holds {int(np.isinf(numbers).sum())} infinite values. "
            "Replace them, or leave the cells empty (missing)."
        )
    return numbers


@dataclass(frozen=True)
class Cut:
    """Groups cut from a numeric column: `edges` e1 < e2 give (-inf, e1], (e1, e2], (e2, inf).

    Two intervals with the same label are one group.

    Example:
        >>> cut = Cut("age_group", "age", (24, 59), ("other", "25-59", "other"))
        >>> list(cut.groups(np.array([24.0, 25.0, 60.0, np.nan])))
        ['other', '25-59', 'other', None]
    """

    column: str
    source: str
    edges: tuple[float, ...]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.edges) + 1 or any(np.diff(self.edges) <= 0):
            raise ColumnError(
                f"'{self.source}' was to be cut at {self.edges} into {self.labels}, but edges must rise, and there "
                "must be one label more than edges."
            )

    def groups(self, numbers: NDArray[np.float64]) -> NDArray[np.object_]:
        names = np.array(self.labels, dtype=object)[np.digitize(numbers, self.edges, right=True)]
        names[np.isnan(numbers)] = None
        return names

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Cut:
        return cls(state["column"], state["source"], tuple(state["edges"]), tuple(state["labels"]))


def parse_cut(text: str) -> Cut:
    """Read `age=25,59`: groups "age<=25", "25<age<=59" and "age>59" in the column `age_group`.

    Args:
        text: such as "age=25,59".

    Example:
        >>> parse_cut("age=25").labels
        ('age<=25', 'age>25')
    """
    source, equals, edges_text = text.partition("=")
    try:
        edges = tuple(float(edge) for edge in edges_text.split(","))
    except ValueError:
        edges = ()
    if not (source and equals and edges):
        raise ColumnError(f"a cut is written COLUMN=EDGE or COLUMN=EDGE,EDGE,..., for example age=25,59; got '{text}'.")
    return Cut(source + _OF_A_CUT, source, edges, _interval_names(source, edges))


def check_cuts(frame: pd.DataFrame, cuts: Sequence[Cut]) -> None:
    """Refuse a cut whose groups would hide a column of the table.

    Raises:
        ColumnError: the table has a column of that name already.
    """
    for cut in cuts:
        if cut.column in frame.columns:
            raise ColumnError(
                f"the cut of '{cut.source}' makes the column '{cut.column}', but the table has a column of that name "
                "already. Leave the cut out to take that column, or rename it in the table."
            )


def _interval_names(source: str, edges: Sequence[float]) -> tuple[str, ...]:
    shown = [f"{edge:g}" for edge in edges]
    inner = [f"{low}<{source}<={high}" for low, high in pairwise(shown)]
    return (f"{source}<={shown[0]}", *inner, f"{source}>{shown[-1]}")


def sensitive_columns(
    frame: pd.DataFrame, names: Sequence[str], *, cuts: Sequence[Cut] = (), continuous: Sequence[str] = ()
) -> dict[str, NDArray[Any]]:
    """Return the sensitive features `names`: group names (None where unknown), or numbers for `continuous` ones.

    Raises:
        MissingColumnError: the table lacks one of them.
        ColumnError: one has so many values that it cannot be meant as groups.
    """
    by_column = {cut.column: cut for cut in cuts}
    return {name: _sensitive(frame, name, by_column, name in continuous) for name in names}


def _sensitive(frame: pd.DataFrame, name: str, cuts: Mapping[str, Cut], continuous: bool) -> NDArray[Any]:
    cut = cuts.get(name)
    if cut is not None:
        return cut.groups(as_numbers(column_of(frame, cut.source, "sensitive")))
    if name not in frame.columns and "+" in name:
        return _crossed(frame, name.split("+"), cuts)
    column = column_of(frame, name, "sensitive")
    if continuous:
        return as_numbers(column)
    _check_groups(column, made=[cut.column for cut in cuts.values() if cut.source == name])
    return as_text(column)


def _crossed(frame: pd.DataFrame, names: Sequence[str], cuts: Mapping[str, Cut]) -> NDArray[np.object_]:
    """Return the intersections of several columns, unknown where one of them is."""
    parts = [_sensitive(frame, name.strip(), cuts, continuous=False) for name in names]
    rows = [None if None in row else " & ".join(map(str, row)) for row in zip(*parts, strict=True)]
    return np.array(rows, dtype=object)


def _check_groups(column: pd.Series, *, made: Sequence[str] = ()) -> None:
    _check_values(column)
    distinct = int(column.nunique())
    most = MOST_NUMBERED_GROUPS if is_numeric(column) else MOST_GROUPS
    if distinct > most:
        cut = (
            f"Name '{made[0]}', the groups that were cut from it"
            if made
            else f"Cut a number into groups first (--cut {column.name}=EDGE,EDGE makes '{column.name}_group')"
        )
        raise ColumnError(
            f"sensitive column '{column.name}' has {distinct} distinct values, more than {most} groups. {cut}, "
            "or bound a covariance instead (covariance_bound)."
        )
    for alike in spelt_alike([] if is_numeric(column) else column.dropna().unique()):
        raise ColumnError(
            f"sensitive column '{column.name}' holds {listed(alike)}, which would be different groups. Write each "
            "group in one way."
        )


def _check_values(column: pd.Series) -> None:
    """Refuse what names no group, or would make one group of several."""
    name, present = column.name, column.dropna()
    if column.dtype.kind == "f" and np.isinf(present).any():
        raise ColumnError(f"sensitive column '{name}' holds infinite values. Leave the cells empty where unknown.")
    if column.dtype.kind == "f" and (present.abs() >= EXACT).any():
        raise ColumnError(
            f"sensitive column '{name}' holds {present.abs().max():.0f}, and was read as floating numbers, which do "
            "not tell whole numbers of that size apart, so that groups may have become one. Write them as text, or "
            "leave no cell empty."
        )
    if is_numeric(column):
        return
    odd = [value for value in present if isinstance(value, bytes | Mapping | list | tuple | set | np.ndarray)]
    if odd:
        raise ColumnError(
            f"sensitive column '{name}' holds values of type {type(odd[0]).__name__} in {len(odd)} of {len(column)} "
            f"rows, such as {str(odd[0])[:40]}. Give each row one name, as text, a whole number or a truth value."
        )
    hidden = sorted({value for value in present if isinstance(value, str) and value in DISGUISED})
    if hidden:
        raise ColumnError(
            f"sensitive column '{name}' holds the text {listed(hidden)}, which is what a missing value becomes when a "
            "column is turned into text, or an empty cell. In a file, leave the cell empty where the group is unknown, "
            "or in training name the word (--na WORD); in a request, write null. If it names a group, give that group "
            "another name."
        )
