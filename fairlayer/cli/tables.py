"""Results as tables that fit an 80-column terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlayer.constraints import Constraint
from fairlayer.errors import require
from fairlayer.report import words
from fairlayer.serving import StreamedTable
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
        f"Largest violation over {comparison.batches} test batches: "
        f"{words.violation_text(comparison.violation)} "
        f"(duality gap {comparison.duality_gap:.1e})."
    )
    for note in comparison.notes:
        console.print(f"Note: {note}")


def show_prediction(run: Run, prediction: Prediction) -> None:
    """Print what each label-free constraint reads before and after the layer."""
    table = _table(f"{len(prediction.sample)} rows, projected as one batch", "raw", "projected")
    observed = Observed(prediction.sample.sensitive, None, prediction.emission.raw)
    for constraint in run.recipe.config.parsed():
        if constraint.needs_labels:
            table.add_row(f"{constraint.name}: on label estimates", "", "")
            continue
        before, after = (
            measure(constraint, observed, s) for s in (prediction.emission.raw, prediction.emission.scores)
        )
        table.add_row(f"{constraint.name}, {words.limit_text(after)}", words.gap_text(before), words.gap_text(after))
    console = _console()
    console.print(table)
    console.print(f"Largest violation: {words.violation_text(prediction.emission.violation)}.")


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


def show_stream(streamed: StreamedTable) -> None:
    """Print the gaps and the cost of a stream beside doing nothing and beside the offline projection."""
    rows, size = len(streamed.raw), streamed.batch_size
    arrival = "one at a time" if size == 1 else f"in batches of {size}"
    table = _table(f"{rows} rows, {arrival}", "nothing", "offline", "stream")
    for constraint in streamed.measurable():
        _add_pooled(table, streamed, constraint)
    table.add_section()
    squares = [streamed.distortion(scores) for scores in streamed.columns.values()]
    table.add_row("mean squared change", *(f"{square:.6f}" for square in squares))
    table.add_row("  beside offline", "", "", f"{squares[2] / squares[1]:.3f} x" if squares[1] > 0 else "-")
    quality = [streamed.quality(scores) for scores in streamed.columns.values()]
    for name in quality[0]:
        table.add_row(words.QUALITY_NAMES[name], *(words.number(each[name]) for each in quality))
    table.caption = "offline: the whole table projected at once, seen before the first prediction"
    console = _console()
    console.print(table)
    for sentence in _stream_sentences(streamed):
        console.print(sentence)


def _add_pooled(table: Any, streamed: StreamedTable, constraint: Constraint) -> None:
    columns = streamed.columns.values()
    limit = words.limit_text(measure(constraint, streamed.observed, streamed.raw))
    table.add_row(constraint.name, "", "", "")
    table.add_row(f"  pooled ({limit})", *(words.number(streamed.pooled(constraint, s), 4) for s in columns))
    worst = [streamed.worst_pooled(constraint, scores) for scores in columns]
    table.add_row("  pooled, worst after first tenth", *(words.number(value, 4) for value in worst))
    within = [streamed.per_batch(constraint, scores) for scores in columns]
    table.add_row("  within batches, average", *(words.number(value, 4) for value in within))


def _stream_sentences(streamed: StreamedTable) -> list[str]:
    shares = [f"{phase} {count}" for phase, count in streamed.phases.items()]
    found = [f"Policy {streamed.state.policy}. Rows by phase: {', '.join(shares)}."]
    if streamed.batch_size == 1:
        found.append("Within a batch of one row nothing compares; the published average counts that as a gap of 0.")
    left_out = [c.name for c in streamed.run.model.constraints if c not in streamed.measurable()]
    if left_out:
        target = streamed.run.recipe.target
        found.append(f"Not measured and not held, for want of the column '{target}': {', '.join(left_out)}.")
    return found


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
    table = _table(f"{rows} test rows in {comparison.batches} batches", "unconstrained", "constrained")
    for name, beside in comparison.quality.items():
        table.add_row(words.QUALITY_NAMES[name], words.number(beside.unconstrained), words.number(beside.constrained))
    for result in comparison.constraints:
        _add_constraint(table, result)
    decided = f"; decisions at {comparison.threshold}" if comparison.task == "classification" else ""
    table.caption = f"[95 % bootstrap interval]{decided}"
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
