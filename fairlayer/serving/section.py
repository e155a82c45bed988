"""A streamed table as a section of a report."""

from __future__ import annotations

from pathlib import Path

from fairlayer.constraints import Constraint
from fairlayer.report import StreamSection, periods_of, words
from fairlayer.report.pictures import stream_picture
from fairlayer.serving.scorer import new_stream
from fairlayer.serving.table import StreamedTable
from fairlayer.streaming import Policy
from fairlayer.streaming.durable import read_state
from fairlayer.training import Run, measure

__all__ = ["stored_section", "stream_section"]

_CAPTION = "offline: the whole table projected at once, seen before the first prediction"
Row = tuple[str, str, str, str]


def stream_section(streamed: StreamedTable) -> StreamSection:
    """Return the gaps and the cost of a stream beside doing nothing and beside the offline projection.

    Args:
        streamed: what `stream_table` returned.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, load_run, prepare, save_run, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> from fairlayer.serving import stream_table
        >>> run = load_run(save_run("run-section", trained))
        >>> section = stream_section(stream_table(run, read_lending(n=100, seed=1).frame, batch_size=10))
        >>> len(section.blocks) > 0
        True
    """
    rows, size = len(streamed.raw), streamed.batch_size
    arrival = "one at a time" if size == 1 else f"in batches of {size}"
    pooled = [row for constraint in streamed.measurable() for row in _pooled(streamed, constraint)]
    return StreamSection(
        title=f"{rows} rows, {arrival}",
        blocks=[pooled, _cost(streamed)],
        caption=_CAPTION,
        sentences=_sentences(streamed),
        picture=stream_picture(streamed.state),
        periods=periods_of(streamed.state.report()),
    )


def stored_section(run: Run, store: str | Path, *, policy: str | Policy = "present") -> StreamSection:
    """Return the periods of a stream that a service keeps in a file, while it goes on.

    Args:
        run: the run of the service.
        store: its SQLite file.
        policy: the policy by which the service holds the stream.

    Raises:
        StoreError: there is no such store, or it holds the stream of other constraints.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.serving import Scorer
        >>> from fairlayer.streaming.store import StreamStore
        >>> from fairlayer.training import FitOptions, load_run, prepare, save_run, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> run = load_run(save_run("run-stored", train(parts, FitOptions(epochs=1))))
        >>> with StreamStore("stream.sqlite") as store:
        ...     scorer = Scorer(run, store=store)
        ...     people = read_lending(n=40, seed=1).frame[list(scorer.inputs.columns)].dropna()
        ...     answer = scorer.score(people.to_dict("records"))
        >>> stored_section(run, "stream.sqlite").periods[0]["constraint"]
        "DemographicParity('sex')"
    """
    state = read_state(store, new_stream(run.model, policy=policy), run.model.projection.vocabulary)
    report = state.report()
    events = [f"After {event.samples:,.0f} predictions: {event.text}" for event in report.events]
    return StreamSection(
        title=f"{report.samples:,} predictions of the service that keeps '{Path(store).name}'",
        blocks=[],
        caption=f"Policy {report.policy}; the phase is {report.phase.value}",
        sentences=events,
        picture="",
        periods=periods_of(report),
    )


def _pooled(streamed: StreamedTable, constraint: Constraint) -> list[Row]:
    columns = streamed.columns.values()
    limit = words.limit_text(measure(constraint, streamed.observed, streamed.raw))
    whole = limit if streamed.state.policy.holds_pooled else "not bounded"
    present = "not bounded" if streamed.state.policy.holds_pooled else f"{limit} + noise"
    return [
        (constraint.name, "", "", ""),
        _row(f"  any 1,000 ({present})", [streamed.worst_window(constraint, scores) for scores in columns], 4),
        _row(f"  pooled ({whole})", [streamed.pooled(constraint, scores) for scores in columns], 4),
        _row("  pooled, worst after first tenth", [streamed.worst_pooled(constraint, scores) for scores in columns], 4),
        _row("  within batches, average", [streamed.per_batch(constraint, scores) for scores in columns], 4),
    ]


def _cost(streamed: StreamedTable) -> list[Row]:
    nothing, offline, stream = (streamed.distortion(scores) for scores in streamed.columns.values())
    beside = f"{stream / offline:.3f} x" if offline > 0 else "-"
    quality = [streamed.quality(scores) for scores in streamed.columns.values()]
    return [
        ("mean squared change", f"{nothing:.6f}", f"{offline:.6f}", f"{stream:.6f}"),
        ("  beside offline", "", "", beside),
        *(_row(words.QUALITY_NAMES[name], [each[name] for each in quality], 3) for name in quality[0]),
    ]


def _row(name: str, values: list[float | None], digits: int) -> Row:
    nothing, offline, stream = (words.number(value, digits) for value in values)
    return name, nothing, offline, stream


def _sentences(streamed: StreamedTable) -> list[str]:
    shares = [f"{phase} {count}" for phase, count in streamed.phases.items()]
    found = [f"Policy {streamed.state.policy}. Rows by phase: {', '.join(shares)}."]
    if streamed.batch_size == 1:
        found.append("Within a batch of one row nothing compares; the published average counts that as a gap of 0.")
    left_out = [c.name for c in streamed.run.model.constraints if c not in streamed.measurable()]
    if left_out:
        target = streamed.run.recipe.target
        found.append(f"Not measured and not held, for want of the column '{target}': {', '.join(left_out)}.")
    return found
