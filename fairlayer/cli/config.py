"""config.yaml of a run: everything that `fairlayer train` was told, and what it was computed from."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairlayer.errors import DataError, require
from fairlayer.training import check_data, other_versions, record_of

__all__ = [
    "CONFIG",
    "INTERRUPTED",
    "check_record",
    "check_unused",
    "kept_option",
    "resumable",
    "with_resumed_config",
    "write_config",
]

CONFIG = "config.yaml"
INTERRUPTED = 130
HEADER = "# Repeat this run: fairlayer train --config THIS_FILE --out FOLDER\n"
# what a run is, not where it goes or how it was asked for
NOT_KEPT = {"config", "out", "resume", "record", "accept_changed_data", "print_config", "force"}


def with_resumed_config(words: list[str]) -> list[str]:
    """Return the arguments of `train --resume RUN`, which takes everything else from the run's own configuration.

    Example:
        >>> with_resumed_config(["train", "--epochs", "3"])
        ['train', '--epochs', '3']
    """
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    reader.add_argument("--resume")
    if not words or words[0] != "train" or (run := reader.parse_known_args(words)[0].resume) is None:
        return words
    path = Path(run) / CONFIG
    if not path.is_file():
        raise DataError(f"no run to resume at '{run}': it has no {CONFIG}. Give the folder of a run that was started.")
    return ["train", "--config", str(path), "--out", run, *words[1:]]


def write_config(folder: Path, arguments: Mapping[str, Any]) -> None:
    """Write what the run is."""
    told = {name: value for name, value in arguments.items() if name not in NOT_KEPT}
    told["table"] = str(Path(told["table"]).resolve())
    content = {**told, "record": record_of(told["table"])}
    folder.mkdir(parents=True, exist_ok=True)
    text = require("yaml", "train").safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / CONFIG).write_text(HEADER + text, encoding="utf-8")


def check_unused(folder: str | Path, *, force: bool) -> None:
    """Refuse to write into a folder that holds something, unless that is wanted.

    Raises:
        DataError: the folder is not empty, or is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"'{folder}' is a file, but a folder is to be written there. Name another one (--out).")
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if held and not force:
        more = f" and {len(held) - 3} more" if len(held) > 3 else ""
        raise DataError(
            f"'{folder}' is not empty: it holds {', '.join(held[:3])}{more}. Name another folder (--out), write over "
            f"it (--force), or go on with a run that was cut off (fairlayer train --resume {folder})."
        )


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Say how to go on where Ctrl-C ends the training of a run."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:  # Lightning turns the first into the second
        if not isinstance(error, KeyboardInterrupt) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        say = f"Go on after the last whole epoch with: fairlayer train --resume {folder}"
        print(f"\nfairlayer: training was interrupted. {say}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


def kept_option(run: str | Path, name: str) -> Any:
    """Return an option of the configuration that a run folder holds; None where there is none."""
    path = Path(run) / CONFIG
    if not path.is_file():
        return None
    return (require("yaml", "train").safe_load(path.read_text(encoding="utf-8")) or {}).get(name)


def check_record(arguments: Any) -> None:
    """Refuse a table that is not the configuration's; say where versions differ.

    Raises:
        ChangedDataError: the table's content is another one, and nobody said that it may be.
    """
    if arguments.record is None:
        return
    if not arguments.accept_changed_data:
        check_data(arguments.table, arguments.record)
    for name, (then, here) in other_versions(arguments.record).items():
        print(
            f"fairlayer: the configuration was written with {name} {then}, but {here} is in use here, so that numbers "
            "may differ.",
            file=sys.stderr,
        )
