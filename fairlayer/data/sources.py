"""Where a data set comes from: a given path, FAIRLAYER_DATA, the local cache, or the public original."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fairlayer.data.errors import MissingDataError
from fairlayer.data.files import read_frame

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["cache_folder", "find_or_fetch"]


def cache_folder() -> Path:
    """Return FAIRLAYER_CACHE, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fairlayer"
    return Path(os.environ.get("FAIRLAYER_CACHE") or default)


def find_or_fetch(file: str, source: str | Path | None, fetch: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Return the frame of data set file `file`.

    `source` (a file, or a folder that holds `file`) is binding when given; otherwise the first of
    FAIRLAYER_DATA, the cache, and `fetch` that has it. What was fetched is kept in the cache.

    Raises:
        MissingDataError: none of them has it; the text says where was looked and what to do.
    """
    if source is not None:
        return read_frame(_given(file, Path(source)))
    folders = [Path(os.environ["FAIRLAYER_DATA"])] if os.environ.get("FAIRLAYER_DATA") else []
    for folder in (*folders, cache_folder()):
        if (folder / file).is_file():
            return read_frame(folder / file)
    return _fetched(file, fetch)


def _given(file: str, source: Path) -> Path:
    path = source / file if source.is_dir() else source
    if not path.is_file():
        raise MissingDataError(
            f"'{file}' was asked for at '{source}', but there is no such file. Give the path of the file, "
            f"or of a folder that holds '{file}'; without a path the public original is fetched."
        )
    return path


def _fetched(file: str, fetch: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():  # about the network; the error below says it
            warnings.simplefilter("ignore")
            frame = fetch()
    except (OSError, ValueError, KeyError, ImportError) as error:  # no network, or the public record changed
        asked = os.environ.get("FAIRLAYER_DATA") or "not set"
        raise MissingDataError(
            f"'{file}' was not found in FAIRLAYER_DATA ({asked}) nor in the cache ({cache_folder()}), and "
            f"the public original could not be fetched ({type(error).__name__}: {error}). Do one of: set "
            f"FAIRLAYER_DATA to a folder that holds '{file}'; give its path (--data PATH); install the readers "
            "(pip install 'fairlayer[train]') and try again with a network connection; or use the generated "
            "data (no --data)."
        ) from error
    cache_folder().mkdir(parents=True, exist_ok=True)
    partial = cache_folder() / f"partial-{os.getpid()}-{file}"  # the suffix stays: it names the compression
    frame.to_csv(partial, index=False)
    partial.replace(cache_folder() / file)
    return frame
