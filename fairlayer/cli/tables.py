"""Results as tables that fit an 80-column terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlayer.errors import require
from fairlayer.report import DecidedStream, StreamSection, words
from fairlayer.training import Comparison, ConstraintResult, Observed, Run, aggregate, measure
from fairlayer.training.run import Prediction

__all__ = ["show_aggregate", "show_comparison", "show_prediction", "show_stream"]


def show_comparison(comparison: Comparison) -> None:
    """Print the before/after table, the groups, and what to know about them."""
    console = _console()
    console.print(_models(comparison))
    if comparison.groups:
        console.print(_groups(comparison))
    console.print(words.cost_sentence(comparison))
    console.print(
        f"Largest violation of the test rows in {_batches(comparison.batches)}: "
        f"{words.violation_text(comparison.violation)} "
        f"(duality gap {comparison.duality_gap:.1e})."
    )
    for note in comparison.notes:
        console.print(f"Note: {note}")


def _batches(number: int) -> str:
    return "one batch" if number == 1 else f"{number} batches"


def show_prediction(run: Run, prediction: Prediction) -> None:
    """Print what each label-free constraint reads before and after the layer."""
    title = f"{len(prediction.sample)} rows as one batch; route: {prediction.route.name}"
    table = _table(title, "raw", "score", *(() if prediction.decisions is None else ("decision",)))
    shown: list[Any] = [prediction.emission.raw, prediction.scores]
    shown += [] if prediction.decisions is None else [prediction.decisions]
    observed = Observed(prediction.sample.sensitive, None, prediction.emission.raw)
    for constraint in run.recipe.config.parsed():
        if constraint.needs_labels:
            table.add_row(f"{constraint.name}: on label estimates", *[""] * len(shown))
            continue
        gaps = [measure(constraint, observed, each) for each in shown]
        table.add_row(f"{constraint.name}, {words.limit_text(gaps[1])}", *map(words.gap_text, gaps))
    console = _console()
    console.print(table)
    if prediction.decisions is not None:
        share = prediction.decisions.mean()
        console.print(f"Decided yes: {share:.1%} of the rows, by {prediction.decided_by}.")
    if prediction.route.step == "projected":
        console.print(f"Largest violation of the scores: {words.violation_text(prediction.emission.violation)}.")
    else:
        console.print(f"The route '{prediction.route.name}' emits raw scores, whose gap nothing bounds.")


def show_aggregate(runs: Mapping[int, Comparison]) -> None:
    """Print mean and deviation over the seeds."""
    numbers = aggregate(runs)["numbers"]
    table = _table(f"{len(runs)} seeds: {', '.join(map(str, runs))}", "unconstrained", "constrained")
    for name, beside in numbers.items():
        shown = words.QUALITY_NAMES.get(name, name)
        table.add_row(shown, *(_mean_text(beside[which]) for which in ("unconstrained", "constrained")))
    table.caption = "mean (standard deviation over seeds)"
    _console().print(table)


def _mean_text(summary: Mapping[str, Any]) -> str:
    deviation = "" if summary["deviation"] is None else f" ({words.number(summary['deviation'])})"
    return words.number(summary["mean"]) + deviation


def show_stream(section: StreamSection) -> None:
    """Print the gaps and the cost of a stream beside doing nothing and beside the offline projection."""
    table = _table(section.title, "nothing", "offline", "stream")
    for block in section.blocks:
        table.add_section()
        for row in block:
            table.add_row(*row)
    table.caption = section.caption
    console = _console()
    console.print(table)
    for sentence in section.sentences:
        console.print(sentence)


def show_decided(decided: DecidedStream) -> None:
    """Print what was decided about each group, and the gap of all decisions beside its limit."""
    table = _table("decisions by the rule of the run", "requests", "yes", "share")
    for cell in decided.cells:
        share = f"{cell.selected / cell.requests:.1%}" if cell.requests else "-"
        table.add_row(cell.name, f"{cell.requests:,}", f"{cell.selected:,}", share)
    console = _console()
    console.print(table)
    for name, gap in decided.gaps.items():
        limit = words.number(decided.limits[name], 4)
        console.print(f"{name} of all decisions: {words.number(gap, 4)}, held to {limit} and half a person per cell.")


def _console() -> Any:
    console = require("rich.console", "train").Console(highlight=False)
    return console if console.is_terminal else require("rich.console", "train").Console(highlight=False, width=80)


def _table(title: str, *columns: str) -> Any:
    table = require("rich.table", "train").Table(title=title, title_justify="left", expand=False)
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _models(comparison: Comparison) -> Any:
    rows = comparison.rows["test"]
    title = f"The network alone and trained through the layer, on {rows} test rows in {_batches(comparison.batches)}"
    table = _table(title, "unconstrained", "constrained")
    for name, beside in comparison.quality.items():
        table.add_row(words.QUALITY_NAMES[name], words.number(beside.unconstrained), words.number(beside.constrained))
    for result in comparison.constraints:
        _add_constraint(table, result)
    decided = f"; decisions at {comparison.threshold}" if comparison.task == "classification" else ""
    table.caption = f"Intervals and verdicts are in the run's page, report.html{decided}"
    return table


def _add_constraint(table: Any, result: ConstraintResult) -> None:
    table.add_section()
    table.add_row(result.name, "", "")
    limit = words.limit_text(result.scores.constrained)
    measured = words.what_is_measured(result)
    _add_gaps(table, f"  score {measured} ({limit})", result.scores)
    if result.decisions is not None:
        _add_gaps(table, f"  decision {measured} (not bounded)", result.decisions)
    table.add_row(f"  score {measured}, worst batch", "", words.number(result.worst_batch, 4))
    table.add_row("  multiplier", "", words.number(result.multiplier, 4))


def _add_gaps(table: Any, name: str, beside: Any) -> None:
    table.add_row(name, words.gap_text(beside.unconstrained), words.gap_text(beside.constrained))


def _groups(comparison: Comparison) -> Any:
    decided = comparison.task == "classification"
    columns = ("rows", "label", "score", "-> after", *(("decided", "-> after") if decided else ()))
    table = _table("Means per group, unconstrained -> constrained", *columns)
    for group in comparison.groups:
        shown = [group.mean_label, group.mean_score.unconstrained, group.mean_score.constrained]
        if group.decision_rate is not None:
            shown += [group.decision_rate.unconstrained, group.decision_rate.constrained]
        table.add_row(group.name, str(group.count), *map(words.number, shown))
    return table
