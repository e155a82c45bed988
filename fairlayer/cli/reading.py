"""Tables as the options of a command say that they are written, and what the user should know of them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fairlayer.cli.config import kept_option
from fairlayer.cli.notes import tell
from fairlayer.data import Cut, Encoder, ReadFile, Table, inspect_table, parse_cut, read_file
from fairlayer.data.columns import check_cuts, column_of
from fairlayer.data.errors import ColumnError, SeveralFaultsError, all_faults
from fairlayer.data.table import usual_positive
from fairlayer.errors import DataError
from fairlayer.training import parse_constraint

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["cut_names", "raise_all", "read_beside", "read_table", "read_told"]


def read_told(
    arguments: argparse.Namespace, run: str | Path | None = None, path: str | Path | None = None
) -> pd.DataFrame:
    """Read a command's table, or another file; words for missing values are those of its run where none are given."""
    missing = arguments.na or _missing_of(run)
    written = {"separator": arguments.separator, "encoding": arguments.encoding}
    return _told(read_file(arguments.table if path is None else path, missing=missing, **written))


def read_beside(path: str | Path, run: str | Path) -> pd.DataFrame:
    """Read a further table of a run, such as one to begin a stream from, with the run's words for missing values."""
    return _told(read_file(path, missing=_missing_of(run)))


def _told(read: ReadFile) -> pd.DataFrame:
    tell(read.notes)
    return read.frame


def _missing_of(run: str | Path | None) -> list[str]:
    return (kept_option(run, "na") if run is not None else None) or []


def cut_names(names: Iterable[str], cuts: Sequence[Cut]) -> list[str]:
    """Return groupings in which a number that is cut stands for its groups: age, cut at 25, is age_group."""
    made = {cut.source: cut.column for cut in cuts}
    return ["+".join(made.get(part.strip(), part.strip()) for part in name.split("+")) for name in names]


def read_table(arguments: argparse.Namespace) -> Table:
    """Read the table of `train` with the roles of its columns, and say what was found out about them.

    Raises:
        DataError: columns are missing, or no value of the target is known to count as 1.
    """
    frame = read_told(arguments)
    cuts = tuple(parse_cut(text) for text in arguments.cut)
    named = [name for text in arguments.constraint for name in parse_constraint(text).on]

    def made(positive: str | None) -> Table:
        return Table(
            Path(arguments.table).name,
            frame,
            target=arguments.target,
            positive=positive,
            sensitive=tuple(dict.fromkeys([*cut_names(arguments.sensitive, cuts), *named])),
            cuts=cuts,
            split=arguments.split_column or ("split" if "split" in frame.columns else None),
            not_features=tuple(arguments.drop),
            categorical=tuple(arguments.categorical),
            description=f"Table {Path(arguments.table).name}, {len(frame)} rows, target {arguments.target}.",
        )

    all_faults(
        lambda: made(None),
        lambda: check_cuts(frame, cuts),
        lambda: _positive(arguments, frame),
        *(lambda name=name: column_of(frame, name, "used") for name in arguments.use),
    )
    table = made(_positive(arguments, frame))
    if arguments.missing == "drop":
        table = _without_missing(table)
    found = inspect_table(table, kept=arguments.use)
    tell(found.notes(table))
    return found.applied(table)


def raise_all(table: Table, error: DataError, *, drop_sensitive: bool) -> None:
    """Raise everything that is wrong with the columns of a table, of which one fault has come up.

    Raises:
        DataError: the fault, or all of them in one message.
    """
    names = table.features(drop_sensitive=drop_sensitive)

    def again() -> None:  # those of columns come up again below, as all rows show them
        faults = error.faults if isinstance(error, SeveralFaultsError) else (error,)
        others = [fault for fault in faults if not isinstance(fault, ColumnError)]
        if others:
            raise SeveralFaultsError(others)

    all_faults(
        again,
        table.labels,
        *(lambda name=name: table.sensitive_features([name]) for name in table.sensitive),
        lambda: Encoder.fit(table.frame, names, categorical=table.categorical),
    )
    raise error


def _without_missing(table: Table) -> Table:
    left = table.with_target()
    gone = len(table.frame) - len(left.frame)
    if gone:
        tell([f"{gone} of {len(table.frame)} rows have no '{table.target}' and are left out (--missing drop)."])
    return left


def _positive(arguments: argparse.Namespace, frame: pd.DataFrame) -> str | None:
    if arguments.task == "regression":
        return None
    target = column_of(frame, arguments.target, "target")
    return usual_positive(target) if arguments.positive is None else str(arguments.positive)
