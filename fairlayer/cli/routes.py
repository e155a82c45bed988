"""Routes on the command line: their options, their table, what `predict` writes of the one that was kept."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill
from typing import Any

from fairlayer.decisions.inputs import ACCURACY
from fairlayer.errors import DataError, require
from fairlayer.report import words
from fairlayer.routes import Criterion, Route, Routes, TrainedRoutes, parse_criterion, save_routes
from fairlayer.routes.numbers import furthest
from fairlayer.routes.training import BOTH, TREES

__all__ = [
    "add_predict_routes",
    "add_train_routes",
    "check_decided",
    "criterion_of",
    "keep_best",
    "show_routes",
    "utility_of",
]

_HEADS = ("acc.", "AUC", "log loss", "calib.", "score", "dec.", "flips", "s")
_AMOUNT_HEADS = ("R2", "MAE", "MSE", "score", "s")


def add_train_routes(command: Any) -> None:
    """Add the options of `train` and `demo`."""
    command.add_argument(
        "--geometry",
        choices=("entropic", "euclidean", "likelihood"),
        help=(
            "The geometry, which says what nearest means. The loss follows it: squared error for euclidean, "
            "cross-entropy for the others (default: entropic, and euclidean for a regression)."
        ),
    )
    command.add_argument(
        "--decisions", action="store_true", help="Choose the route for its decisions instead of for its scores."
    )
    command.add_argument(
        "--choose",
        metavar="TEXT",
        help=(
            "The criterion on the validation rows, such as 'brier at score_gap' or 'accuracy at "
            "decision_gap <= 0.05' (default: log_loss at score_gap; with --decisions accuracy at "
            "decision_gap; for a regression mse at score_gap)."
        ),
    )
    command.add_argument("--no-trees", action="store_true", help="Compare without boosted trees.")
    command.add_argument(
        "--utility",
        metavar="A,B,C,D",
        help="What the decision rules gain by a no and a yes for label 0, then for label 1 (default: 1,0,0,1).",
    )


def add_predict_routes(predict: Any) -> None:
    """Add the options of `predict`."""
    predict.add_argument(
        "--decisions",
        nargs="?",
        const="rule",
        choices=("rule", "batch"),
        help=(
            'How to decide. "rule" takes the thresholds per group that were fitted in training; the option without a '
            'value means it too. "batch" takes the best decisions for this very file. Without the option the route '
            "that was kept decides: its rule, the file as one batch, or the threshold 0.5."
        ),
    )
    predict.add_argument("--capacity", type=int, help="With --decisions batch: the largest number of rows to select.")
    predict.add_argument(
        "--utility", metavar="A,B,C,D", help="With --decisions batch: another utility than that of the training."
    )


def check_decided(arguments: argparse.Namespace, *, regression: bool) -> None:
    """Refuse what speaks of decisions where amounts are predicted.

    Raises:
        DataError: it names the options to leave out.
    """
    told = [f"--{name}" for name in ("decisions", "utility", "positive") if vars(arguments).get(name)]
    if regression and told:
        raise DataError(
            f"{', '.join(told)} was given, but a regression predicts amounts and decides nothing. Leave it out, or say "
            "which value of the target counts as 1 (--positive, without --task regression)."
        )


def criterion_of(arguments: argparse.Namespace) -> Criterion | None:
    """Return the criterion that was stated, or None."""
    return None if arguments.choose is None else parse_criterion(arguments.choose)


def utility_of(arguments: argparse.Namespace, otherwise: Any = ACCURACY) -> Any:
    """Return the table of utilities that was stated, or another.

    Raises:
        DataError: it is not written as four numbers.
    """
    if arguments.utility is None:
        return otherwise
    try:
        a, b, c, d = (float(part) for part in arguments.utility.split(","))
    except ValueError as error:
        raise DataError(
            f"--utility is written as four numbers with commas, for example 0,-5,0,1 (a no and a yes for label 0, then "
            f"for label 1); got '{arguments.utility}'."
        ) from error
    return ((a, b), (c, d))


def keep_best(folder: str | Path, found: TrainedRoutes) -> Route:
    """Write the run folder of the best route that can be kept, and say which one it is, and why."""
    routes, best = found.routes, found.routes.best
    kept = best
    if best.candidate in (TREES, BOTH) and find_spec("skops") is None:
        kept = routes.among([route.name for route in routes.routes if route.candidate not in (TREES, BOTH)]).best
    save_routes(folder, found, kept.name)
    print(best_sentence(routes))
    for said in _decision_sentences(found, kept):
        print(fill(said, 80, break_long_words=False, break_on_hyphens=False))
    if kept is not best:
        print(
            f"Kept in the run folder: {kept.name}. Trees are kept by the library skops, which is not installed; "
            "install it with: pip install 'fairlayer[trees]'"
        )
    return kept


def _decision_sentences(found: TrainedRoutes, kept: Route) -> Iterator[str]:
    """Yield what holds for the decisions of the route that is kept, and which rows its thresholds were fitted to."""
    if kept.step == "batch decisions":
        yield f"{kept.name} keeps the gap of decisions in each batch."
        yield "For one person at a time: predict --decisions rule."
    if kept.rule is not None:
        yield f"Its thresholds were fitted to {found.kept(kept).fitted}."
    if kept.expected is not None:
        yield f"Decision gap of {kept.name}, {kept.expected}."


def best_sentence(routes: Routes) -> str:
    """Return which route is the best, by what, and whether it keeps the gap."""
    best = routes.best
    said = f"Best by {routes.criterion}, on {routes.rows['valid']} validation rows: {best.name}."
    if not routes.kept:
        said += " No route keeps the gap there; this one is the nearest to it."
    return said


def show_routes(routes: Routes) -> None:
    """Print every route on the test rows; the best one, chosen on validation rows, is marked."""
    console = require("rich.console", "train").Console(highlight=False)
    if not console.is_terminal:
        console = require("rich.console", "train").Console(highlight=False, width=80)
    decided = any(route.test.decision_gaps for route in routes.routes)
    table = require("rich.table", "train").Table(
        title=f"Routes on {routes.rows['test']} test rows",
        title_justify="left",
        box=require("rich.box", "train").SIMPLE,
        padding=(0, 1, 0, 0),
        caption="*: best on the validation rows. Gaps: the worst of the constraints, in points; calib.: the largest "
        "calibration error of a group, in points; flips: share decided otherwise than by the same scores at 0.5."
        if decided
        else "*: best on the validation rows. score: the worst gap of the constraints.",
        caption_justify="left",
    )
    table.add_column("", overflow="fold", min_width=17)
    for head in _HEADS if decided else _AMOUNT_HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    for route in routes.routes:
        mark = "*" if route.name == routes.best.name else " "
        table.add_row(f"{mark} {route.name}", *(_cells(route) if decided else _amount_cells(route)))
    console.print(table)
    constant = [route.name for route in routes.routes if route.test.constant]
    if constant:
        console.print(f"Decide the same for everybody: {', '.join(map(repr, constant))}.")
    for name, reason in routes.left_out:
        console.print(f"Left out: {name}. {reason}")


def _cells(route: Route) -> list[str]:
    measures, test = route.test.measures, route.test
    return [
        _points(measures["accuracy"]),
        _points(measures["auc"]),
        words.number(measures["log_loss"]),
        _points(measures["calibration"]),
        _gap(test.score_gaps),
        _gap(test.decision_gaps),
        _points(test.flips.get("all")),
        f"{route.seconds:.0f}",
    ]


def _amount_cells(route: Route) -> list[str]:
    measures = route.test.measures
    return [
        *(words.number(measures[name]) for name in ("r2", "mae", "mse")),
        words.number(furthest(route.test.score_gaps)),
        f"{route.seconds:.0f}",
    ]


def _gap(gaps: Mapping[str, Any]) -> str:
    return _points(furthest(gaps))


def _points(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
