"""What each command does."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fairlayer.audit import Audit
from fairlayer.cli.arguments import build_parser
from fairlayer.cli.audit import run_audit
from fairlayer.cli.config import CONFIG, check_record, check_unused, resumable, write_config
from fairlayer.cli.loggers import Loggers
from fairlayer.cli.notes import tell
from fairlayer.cli.predictions import predictions
from fairlayer.cli.progress import training_progress
from fairlayer.cli.reading import raise_all, read_table, read_told
from fairlayer.cli.recommend import run_check, run_recommend
from fairlayer.cli.report import AUDIT, PAGE, run_report, write_report
from fairlayer.cli.routes import check_decided, criterion_of, keep_best, show_routes, utility_of
from fairlayer.cli.serving import run_serve
from fairlayer.cli.streaming import rows_progress, run_stream
from fairlayer.cli.tables import show_aggregate, show_comparison, show_prediction, show_stream
from fairlayer.cli.trail import run_trail
from fairlayer.cli.verdicts import show_verdicts
from fairlayer.data import read_data_set
from fairlayer.data.columns import column_of
from fairlayer.data.errors import all_faults
from fairlayer.errors import DataError
from fairlayer.report import StreamSection
from fairlayer.routes import train_routes
from fairlayer.routes.training import THROUGH
from fairlayer.serving import stream_sample, stream_section
from fairlayer.training import (
    Comparison,
    FitOptions,
    Run,
    aggregate,
    audit_trained,
    load_run,
    prepare,
    train,
)
from fairlayer.training.run import around, write_json
from fairlayer.training.session import Parts

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
_GRAVITY = ("PASS", "INCONCLUSIVE", "NOT EVALUATED", "FAIL")


def run_train(arguments: argparse.Namespace) -> int:
    """Train on the user's table, print the comparison, write the run folder; once per seed, if several are given.

    Returns the exit code of the verdict where limits were asked for, else 0.
    """
    _check_given(
        "train", arguments, table="TABLE", target="--target COLUMN", out="--out FOLDER", constraint="--constraint TEXT"
    )
    check_decided(arguments, regression=arguments.task == "regression")
    check_unused(arguments.out, force=arguments.force or arguments.resume is not None)
    if not arguments.seeds:
        comparison, document = _run_one(arguments, Path(arguments.out))
        show_comparison(comparison)
        show_verdicts(document)
        return int(document["exit_code"]) if arguments.fail_on else 0
    out = Path(arguments.out)
    check_record(arguments)
    write_config(out, vars(arguments))  # before the first of them, so that a run cut short can be resumed
    runs = {
        seed: _run_one(_seeded(arguments, seed), out / f"seed_{seed}", out) for seed in dict.fromkeys(arguments.seeds)
    }
    each = {seed: comparison for seed, (comparison, _) in runs.items()}
    write_json(out / "aggregate.json", aggregate(each))
    show_aggregate(each)
    print(f"Seeds: {out} (aggregate.json, a run folder for each seed)")
    worst = max((document for _, document in runs.values()), key=lambda one: _GRAVITY.index(one["outcome"]))
    return int(worst["exit_code"]) if arguments.fail_on else 0


def _run_one(
    arguments: argparse.Namespace, folder: Path, resumed: Path | None = None
) -> tuple[Comparison, dict[str, Any]]:
    check_record(arguments)
    criterion, utility = criterion_of(arguments), utility_of(arguments)
    parts = _parts(arguments)
    options, loggers = _options(arguments), Loggers(arguments.logger, folder / "logs")
    write_config(folder, vars(arguments))
    begun = time.perf_counter()
    watching = training_progress(options.epochs, parts.recipe.config.parsed())
    with _threads(arguments.threads), resumable(resumed or folder), watching as on_epoch:
        found = train_routes(
            parts,
            options,
            trees=not arguments.no_trees,
            decisions=arguments.decisions,
            criterion=criterion,
            utility=utility,
            on_epoch=on_epoch,
            checkpoints=folder / "checkpoints",
            resume=arguments.resume is not None,
            logger=loggers,
        )
    seconds = time.perf_counter() - begun
    loggers.end()
    show_routes(found.routes)
    kept = keep_best(folder, found)
    document = write_report(
        folder, found, kept, table=arguments.table, limits=arguments.fail_on, seconds=round(seconds, 1)
    )
    print(f"Run folder: {folder} ({', '.join(sorted(path.name for path in folder.iterdir() if path.is_file()))})")
    write_json(folder / "time.json", {"training_seconds": round(seconds, 3)})
    print(f"Time: {seconds:.1f} s for all routes.")
    return found.trained.comparison, document


def _parts(arguments: argparse.Namespace) -> Parts:
    table = read_table(arguments)
    try:
        return prepare(
            table,
            arguments.constraint,
            hidden=_whole_numbers("--hidden", arguments.hidden),
            bounds=_bounds(arguments),
            margin=arguments.margin,
            b_tau=arguments.b_tau,
            on_infeasible=arguments.on_infeasible,
            geometry=arguments.geometry,
            drop_sensitive=arguments.drop_sensitive,
            seed=arguments.seed,
        )
    except DataError as error:
        raise_all(table, error, drop_sensitive=arguments.drop_sensitive)
        raise


def _check_given(command: str, arguments: argparse.Namespace, **names: str) -> None:
    """Refuse a command that lacks something it needs, all in one message."""
    missing = [option for name, option in names.items() if not getattr(arguments, name)]
    if missing:
        raise DataError(f"the command lacks {', '.join(missing)}. See `fairlayer {command} --help`.")


def _seeded(arguments: argparse.Namespace, seed: int) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(arguments), "seed": seed, "seeds": None})


def run_predict(arguments: argparse.Namespace) -> None:
    """Score a table as one batch."""
    _check_given("predict", arguments, out="--out FILE")
    if not Path(arguments.out).absolute().parent.is_dir():
        raise DataError(f"the folder of '{arguments.out}' does not exist. Make it, or name another file (--out).")
    run = load_run(arguments.run)
    run.layered.b_tau = arguments.b_tau or run.layered.b_tau
    frame = read_told(arguments, arguments.run)
    ids = [arguments.id] if arguments.id else []
    kept = list(dict.fromkeys(ids + arguments.keep))
    all_faults(*(lambda name=name: column_of(frame, name, "id" if name in ids else "kept") for name in kept))
    prediction = run.predict(
        frame, decisions=arguments.decisions, capacity=arguments.capacity, utility=utility_of(arguments, None)
    )
    tell(run.recipe.encoder.unfamiliar(frame))
    predictions(run, prediction, frame[kept]).to_csv(arguments.out, index=False)
    show_prediction(run, prediction)
    print(f"Scores: {arguments.out}")


def run_demo(arguments: argparse.Namespace) -> None:
    """Train on a known data set, apply it in batches and to single requests, print and report."""
    check_unused(arguments.out, force=arguments.force)
    table = read_data_set(arguments.data)
    print(table.description)
    regression = table.positive is None
    check_decided(arguments, regression=regression)
    parts = prepare(
        table,
        arguments.constraint or DEMO_CONSTRAINTS[table.name],
        hidden=_whole_numbers("--hidden", arguments.hidden),
        bounds=(0.0, 1.0),
        margin=0.0 if regression else 1e-4,
        b_tau=min(STREAM_BATCH, arguments.batch_size),
        geometry=arguments.geometry,
        seed=arguments.seed,
    )
    options = _options(arguments)
    with _threads(arguments.threads), training_progress(options.epochs, parts.recipe.config.parsed()) as on_epoch:
        found = train_routes(
            parts,
            options,
            trees=not arguments.no_trees,
            decisions=arguments.decisions,
            criterion=criterion_of(arguments),
            utility=utility_of(arguments),
            batch_size=STREAM_BATCH,
            inference=True,
            on_epoch=on_epoch,
        )
    trained = found.trained
    show_comparison(trained.comparison)
    show_routes(found.routes)
    kept = keep_best(arguments.out, found)
    folder = Path(arguments.out)
    section = _demo_stream(found.run(THROUGH), trained.plain, parts)
    show_stream(section)
    write_report(folder, found, kept, table=None, stream=section, inference=True)
    print(f"Report: {folder / PAGE} (the same as {AUDIT} beside it)")


def _demo_stream(run: Run, unconstrained: torch.nn.Module, parts: Parts) -> StreamSection:
    """Stream the test rows through the layer behind the unconstrained network, which leaves the stream most to do."""
    print("\nThe scores of the unconstrained model, one test row at a time through a stream:")
    run = Run(around(run.model, unconstrained).eval(), run.recipe, unconstrained)
    with rows_progress(len(parts.test)) as on_rows:
        labels = parts.test.y.double().numpy()
        streamed = stream_sample(run, parts.test, labels, warm_start=parts.valid, on_rows=on_rows)
    return stream_section(streamed)


def _check(arguments: argparse.Namespace) -> int:
    """Check a run; other seeds are trained as the run's own configuration says."""

    def train_again(folder: Path, seed: int) -> Audit:
        if not (folder / CONFIG).is_file():
            raise DataError(f"'{folder}' has no {CONFIG}, so that it cannot be trained with other seeds. Train again.")
        words = ["train", "--config", str(folder / CONFIG), "--out", str(folder), "--seed", str(seed)]
        told = build_parser().parse_args(words).train
        check_record(told)
        parts, options = _parts(told), _options(told)
        with _threads(told.threads):
            return audit_trained(parts, train(parts, options), limits=arguments.fail_on)

    return run_check(arguments, train_again)


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "train": run_train,
    "predict": run_predict,
    "stream": run_stream,
    "serve": run_serve,
    "audit": run_audit,
    "report": run_report,
    "check": _check,
    "recommend": run_recommend,
    "trail": run_trail,
    "demo": run_demo,
}


def _options(arguments: argparse.Namespace) -> FitOptions:
    return FitOptions(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        weight_decay=arguments.weight_decay,
        patience=arguments.patience,
        seed=arguments.seed,
    )


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Set the threads: more than a small network needs cost up to ten times its time where the cores are shared."""
    if number < 1:
        raise DataError(f"--threads {number} was asked for; at least one is needed.")
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
