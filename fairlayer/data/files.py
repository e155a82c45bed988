"""A table's file -> a frame, whatever separates its cells and however its letters are coded; and how it was read."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import lzma
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlayer.errors import DataError, require

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ReadFile", "read_file", "read_frame"]

SEPARATORS = (",", ";", "\t", "|")
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
LOOKED_AT = 100  # records from which the separator is told
_WORDS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "bar": "|", "space": " "}
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)*")
_COMMA_NUMBER = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+")
_SIGN = r"[€$£¥%]|EUR|USD|GBP|CHF|JPY|kr|"  # none of them, too
_UNIT = r"[^\W\d_]{1,12}"  # such as years or kg
_POINT_NUMBER = re.compile(r"[+-]?\d*\.\d+")


@dataclass(frozen=True)
class ReadFile:
    """A frame, and what had to be found out about its file.

    Args:
        frame: the table.
        notes: sentences on what is not as in a plain CSV file, for whoever ran the command.

    Example:
        >>> _ = Path("people.csv").write_text("age;income\\n40;1,5\\n25;2,25\\n")
        >>> found = read_file("people.csv")
        >>> found.frame["income"].tolist(), len(found.notes)
        ([1.5, 2.25], 2)
    """

    frame: pd.DataFrame
    notes: tuple[str, ...] = ()


def read_frame(path: str | Path) -> pd.DataFrame:
    """Read a CSV (plain or compressed) or parquet file; see `read_file`.

    Args:
        path: the path of a CSV or parquet file.

    Example:
        >>> _ = Path("people.csv").write_text("sex,age\\nF,40\\nM,25\\n")
        >>> read_frame("people.csv").shape
        (2, 2)
    """
    return read_file(path).frame


def read_file(
    path: str | Path, *, separator: str | None = None, encoding: str | None = None, missing: Sequence[str] = ()
) -> ReadFile:
    """Read a text table (plain or compressed) or a parquet file; only an empty cell is a missing value.

    Args:
        path: a .csv, .tsv or .txt file, also .gz, .bz2, .xz or .zip; or .parquet.
        separator: what stands between cells; by default the one of `,`, `;`, tab and `|` that gives the most columns.
            With another than a comma, numbers may have a decimal comma.
        encoding: the encoding of the letters; by default UTF-8 (or UTF-16 where the file says so), and where the file
            is neither, Windows-1252, which `notes` then says.
        missing: words that also stand for a missing value, such as "?".

    Raises:
        DataError: there is no such file, it cannot be read, or it has no rows.

    Example:
        >>> _ = Path("people.csv").write_text("sex,age\\nF,40\\nM,?\\n")
        >>> read_file("people.csv", missing=["?"]).frame["age"].tolist()
        [40.0, nan]
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no file at '{path}'. Give the path of a .csv, .csv.gz or .parquet file.")
    pandas = require("pandas", "train")
    try:
        if path.suffix in (".parquet", ".pq"):
            read = ReadFile(pandas.read_parquet(path))
        else:
            read = _read_text(path, separator, encoding, list(missing))
    except (ValueError, OSError, EOFError, ImportError, LookupError, zipfile.BadZipFile, lzma.LZMAError) as error:
        raise DataError(
            f"'{path}' could not be read as a table: {_in_words(error)}. A header row, and one row for each line, "
            "are expected; --separator and --encoding say how the file is written."
        ) from error
    if read.frame.empty:
        raise DataError(f"'{path}' has no rows ({len(read.frame.columns)} columns). At least one row is needed.")
    return read


def _in_words(error: Exception) -> str:
    uneven = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
    if uneven is not None:
        return f"line {uneven[2]} has {uneven[3]} cells, and the lines before it have {uneven[1]} at most"
    return str(error).strip().rstrip(".")


def _read_text(path: Path, separator: str | None, encoding: str | None, missing: list[str]) -> ReadFile:
    text, coded = _decoded(_content(path), encoding)
    between = _WORDS.get(separator, separator) if separator else _separator(text)
    if len(between) != 1:
        raise ValueError(f"the separator {separator!r} is not one character")
    comma = between != "," and _has_decimal_commas(text, between)
    # "NA" and "None" are answers in many files (no such account, none); only an empty cell is missing
    pandas = require("pandas", "train")
    frame = pandas.read_csv(
        StringIO(text),
        sep=between,
        dtype=str if comma else None,
        skipinitialspace=True,
        keep_default_na=False,
        na_values=["", *missing],
        low_memory=False,
    )
    numbered = [pandas.RangeIndex(first, first + len(frame)) for first in (0, 1)]  # as R writes them, without a name
    if not any(frame.index.equals(each) for each in numbered):
        raise ValueError("its rows have more cells than its header has names")
    frame = frame.rename(columns=lambda name: str(name).strip()).apply(_trimmed)
    if comma:
        frame = frame.apply(_with_decimal_commas)
    notes = [coded] if coded else []
    written = next(csv.reader(StringIO(text), delimiter=between, skipinitialspace=True))
    twice = sorted(set(_repeated(written)))
    if twice:
        stripped = [name.strip() for name in written]
        later = [new for new, name in zip(frame.columns, stripped, strict=False) if name in twice and new != name]
        notes.append(
            f"Several columns of FILE are called {', '.join(map(repr, twice))}; the later ones are read as "
            f"{', '.join(map(repr, later))}, each a column of its own, which is to be dropped by this name."
        )
    for name in frame.columns:
        numbers = numbers_with_signs(frame[name], comma=comma)
        if numbers is None and between != ",":
            numbers = numbers_with_signs(frame[name], comma=True)
        if numbers is not None:
            example = frame[name].dropna().iloc[0]
            notes.append(f"'{name}' is written as {example!r}, and is read as numbers.")
            frame[name] = numbers
    if between != "," and not separator:
        notes.append(f"The cells of '{path.name}' are separated by {NAMES[between]}.")
    if sum(_NUMBER.fullmatch(name) is not None for name in frame.columns) > len(frame.columns) / 4:
        notes.append(
            f"The first row of '{path.name}' looks like values, not like names of columns; put names above it."
        )
    if len(frame.columns) == 1 and " " in frame.columns[0]:
        notes.append(f"'{path.name}' has one column. If blanks stand between its cells, say so (--separator space).")
    if comma:
        notes.append(f"The numbers of '{path.name}' have a decimal comma.")
    return ReadFile(frame, tuple(note.replace("FILE", f"'{path.name}'") for note in notes))


def _content(path: Path) -> bytes:
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(names) != 1:
                raise ValueError(f"the archive holds {len(names)} files, but one is expected")
            return archive.read(names[0])
    if path.suffix == ".zst":
        raise ValueError("files ending in .zst are not read; decompress it first")
    with openers.get(path.suffix, open)(path, "rb") as file:
        content: bytes = file.read()
    return content


def _decoded(content: bytes, encoding: str | None) -> tuple[str, str]:
    """Return the text, and a note where the encoding had to be guessed."""
    if encoding is not None:
        try:
            return content.decode(encoding).removeprefix("\ufeff"), ""
        except UnicodeDecodeError as error:
            raise ValueError(f"it is not written in {encoding} ({error.reason} at byte {error.start})") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16"), ""
    head = content[:2000]
    for zeros, name in ((head[1::2], "utf-16-le"), (head[::2], "utf-16-be")):
        if len(zeros) > 1 and zeros.count(0) > 0.8 * len(zeros):
            return content.decode(name), f"FILE was read as {name.upper()}."
    try:
        return content.decode("utf-8-sig"), ""
    except UnicodeDecodeError:
        for name in ("cp1252", "latin-1"):
            try:
                text = content.decode(name)
            except UnicodeDecodeError:
                continue
            known = "Windows-1252" if name == "cp1252" else "Latin-1"
            return text, (
                f"FILE is not written in UTF-8 and was read as {known}. Say what it is by --encoding if names look odd."
            )
        raise


def _separator(text: str) -> str:
    """Return the separator that gives the most columns, the same number in nearly all of the first records."""
    best, most = ",", 1
    head = "\n".join(text.splitlines()[:LOOKED_AT])
    for each in SEPARATORS:
        widths = [len(row) for row in csv.reader(StringIO(head), delimiter=each, skipinitialspace=True) if row]
        if widths and widths.count(widths[0]) >= 0.9 * len(widths) and widths[0] > most:
            best, most = each, widths[0]
    return best


def _repeated(names: list[str]) -> list[str]:
    plain = [name.strip() for name in names]
    return [name for k, name in enumerate(plain) if name and name in plain[:k]]


def _trimmed(column: pd.Series) -> pd.Series:
    """Return a column of text without blanks at the end of its cells; a cell of blanks is missing."""
    if column.dtype.kind in "biufc":
        return column
    trimmed: pd.Series = column.map(lambda cell: (cell.rstrip() or None) if isinstance(cell, str) else cell)
    return trimmed


def numbers_with_signs(column: pd.Series, *, comma: bool = False) -> pd.Series | None:
    """Return the numbers of a column of text that carries a unit or separates thousands; None for any other.

    Every cell has to be a number, with at most one sign before or after it, or a word after a blank, the same in all
    cells.

    Example:
        >>> import pandas as pd
        >>> numbers_with_signs(pd.Series(["12.5 %", "7 %"])).tolist()
        [12.5, 7.0]
        >>> numbers_with_signs(pd.Series(["$ 1,250.00", "$ 80.00"])).tolist()
        [1250.0, 80.0]
        >>> numbers_with_signs(pd.Series(["45 years", "30 years"])).tolist()
        [45, 30]
        >>> numbers_with_signs(pd.Series(["1,250", "A-7"])) is None
        True
    """
    known = column.dropna()
    if known.empty or not all(isinstance(cell, str) for cell in known):
        return None
    thousands, point = (".", ",") if comma else (",", ".")
    whole = rf"\d+|\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+"
    number = rf"[+-]?(?:{whole})(?:{re.escape(point)}\d+)?"
    parts = known.str.extract(rf"^(?P<a>{_SIGN})\s*(?P<n>{number})(?:\s*(?P<b>{_SIGN})|\s+(?P<c>{_UNIT}))$")
    if parts["n"].isna().any() or len(set(parts["a"] + parts["b"].fillna(parts["c"]))) > 1:
        return None
    pandas = require("pandas", "train")
    plain = parts["n"].str.replace(thousands, "", regex=False).str.replace(point, ".", regex=False)
    found: pd.Series = pandas.to_numeric(plain).reindex(column.index)
    return found


def _with_decimal_commas(column: pd.Series) -> pd.Series:
    """Return a column of text as numbers, where all of it is numbers with a decimal comma and points for thousands."""
    known = column.dropna()
    if known.empty or not known.str.strip().str.fullmatch(r"[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?").all():
        return column
    plain = column.str.strip().str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    numbers: pd.Series = require("pandas", "train").to_numeric(plain)
    return numbers


def _has_decimal_commas(text: str, separator: str) -> bool:
    head = "\n".join(text.splitlines()[1:LOOKED_AT])
    cells = [cell.strip() for row in csv.reader(StringIO(head), delimiter=separator) for cell in row]
    commas = any(_COMMA_NUMBER.fullmatch(cell) for cell in cells)
    return commas and not any(_POINT_NUMBER.fullmatch(cell) for cell in cells)
