"""What each command does."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fairlayer.cli.progress import training_progress
from fairlayer.cli.streaming import run_serve, run_stream
from fairlayer.cli.tables import show_comparison, show_prediction
from fairlayer.data import Table, parse_cut, read_data_set, read_frame
from fairlayer.data.columns import column_of
from fairlayer.data.table import usual_positive
from fairlayer.errors import DataError, require
from fairlayer.report import write_html
from fairlayer.training import FitOptions, Trained, load_run, parse_constraint, prepare, save_run, train
from fairlayer.training.session import Parts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COMMANDS"]

DEMO_CONSTRAINTS = {
    "lending (generated)": ("demographic_parity(sex, 0.02)", "demographic_parity(region, 0.02)"),
    "adult": ("demographic_parity(sex, 0.02)", "demographic_parity(race, 0.05)"),
    "german": ("demographic_parity(age_group, 0.02)",),
    "bank": ("demographic_parity(age_group, 0.02)",),
    "communities_crime": ("demographic_parity(racepctblack_group, 0.05)",),
    "acsincome": ("demographic_parity(SEX, 0.02)",),
}
STREAM_BATCH = 256


def run_train(arguments: argparse.Namespace) -> None:
    """Train on the user's table, print the comparison, write the run folder."""
    table = _table(arguments)
    parts = prepare(
        table,
        arguments.constraint,
        hidden=_whole_numbers("--hidden", arguments.hidden),
        bounds=_bounds(arguments),
        margin=arguments.margin,
        b_tau=arguments.b_tau,
        on_infeasible=arguments.on_infeasible,
        drop_sensitive=arguments.drop_sensitive,
        seed=arguments.seed,
    )
    trained = _train(parts, arguments)
    folder = save_run(arguments.out, trained)
    show_comparison(trained.comparison)
    print(f"Run folder: {folder} (checkpoint.pt, config.json, metrics.json, history.json)")


def run_predict(arguments: argparse.Namespace) -> None:
    """Score a table as one batch."""
    run = load_run(arguments.run)
    run.model.b_tau = arguments.b_tau or run.model.b_tau
    prediction = run.predict(read_frame(arguments.table))
    pandas = require("pandas", "train")
    columns = {"score": prediction.emission.raw, "projected_score": prediction.emission.scores}
    pandas.DataFrame(columns).to_csv(arguments.out, index=False)
    show_prediction(run, prediction)
    print(f"Scores: {arguments.out}")


def run_demo(arguments: argparse.Namespace) -> None:
    """Train on a known data set, apply it in batches, print and report."""
    table = read_data_set(arguments.data)
    print(table.description)
    regression = table.positive is None
    parts = prepare(
        table,
        arguments.constraint or DEMO_CONSTRAINTS[table.name],
        hidden=_whole_numbers("--hidden", arguments.hidden),
        bounds=(0.0, 1.0),
        margin=0.0 if regression else 1e-4,
        b_tau=min(STREAM_BATCH, arguments.batch_size),
        seed=arguments.seed,
    )
    trained = _train(parts, arguments, batch_size=STREAM_BATCH)
    show_comparison(trained.comparison)
    folder = save_run(arguments.out, trained)
    page = write_html(folder / "report.html", trained.comparison, title=f"fairlayer demo: {table.name}")
    print(f"Report: {page} (numbers in metrics.json beside it)")


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": run_train,
    "predict": run_predict,
    "stream": run_stream,
    "serve": run_serve,
    "demo": run_demo,
}


def _train(parts: Parts, arguments: argparse.Namespace, batch_size: int | None = None) -> Trained:
    options = FitOptions(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        weight_decay=arguments.weight_decay,
        patience=arguments.patience,
        seed=arguments.seed,
    )
    with _threads(arguments.threads), training_progress(options.epochs) as on_epoch:
        return train(parts, options, batch_size=batch_size, inference=batch_size is not None, on_epoch=on_epoch)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """More threads than a small network needs cost up to ten times its time where the cores are shared."""
    if number < 1:
        raise DataError(f"--threads {number} was asked for; at least one is needed.")
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _table(arguments: argparse.Namespace) -> Table:
    frame = read_frame(arguments.table)
    cuts = tuple(parse_cut(text) for text in arguments.cut)
    named = [name for text in arguments.constraint for name in parse_constraint(text).on]
    return Table(
        Path(arguments.table).name,
        frame,
        target=arguments.target,
        positive=_positive(arguments, frame),
        sensitive=tuple(dict.fromkeys([*arguments.sensitive, *named])),
        cuts=cuts,
        split=arguments.split_column or ("split" if "split" in frame.columns else None),
        not_features=tuple(arguments.drop),
        categorical=tuple(arguments.categorical),
        description=f"Table {Path(arguments.table).name}, {len(frame)} rows, target {arguments.target}.",
    )


def _positive(arguments: argparse.Namespace, frame: pd.DataFrame) -> str | None:
    if arguments.task == "regression":
        return None
    target = column_of(frame, arguments.target, "target")
    return usual_positive(target) if arguments.positive is None else str(arguments.positive)


def _bounds(arguments: argparse.Namespace) -> tuple[float, float] | None:
    if arguments.bounds is None:
        return (0.0, 1.0) if arguments.task == "classification" else None
    try:
        low, high = (float(part) for part in arguments.bounds.split(","))
    except ValueError as error:
        raise DataError(f"--bounds is written LOW,HIGH, for example 0,1; got '{arguments.bounds}'.") from error
    return low, high


def _whole_numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise DataError(
            f"{option} is written as whole numbers with commas, for example 64,32; got '{text}'."
        ) from error
