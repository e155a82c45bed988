"""A stream as one self-contained page: what came in, what was emitted, who was moved, bucket by bucket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fairlayer.constraints import Measured
from fairlayer.report import words
from fairlayer.report.figures import DASH, count, named, number, percent
from fairlayer.report.page import environment
from fairlayer.report.pictures import report_picture
from fairlayer.report.stream import StreamSection
from fairlayer.streaming import InferenceState, StreamReport
from fairlayer.streaming.reporting.report import BucketReport
from fairlayer.training import Gap

__all__ = ["DecidedCell", "DecidedStream", "StreamPage", "render_stream_page", "write_stream_page"]


class DecidedCell(NamedTuple):
    """What was decided about one combination of groups.

    Args:
        name: the name of the cell.
        requests: how many were decided.
        selected: how many of them got a yes.

    Example:
        >>> cell = DecidedCell("sex=F", requests=400, selected=90)
        >>> cell.selected / cell.requests
        0.225
    """

    name: str
    requests: int
    selected: int


class DecidedStream(NamedTuple):
    """Decisions that were taken about the same requests.

    Args:
        cells: what was decided, per cell.
        gaps: the number that each constraint bounds, of all decisions.
        limits: what it is held to.

    Example:
        >>> women, men = DecidedCell("sex=F", 400, 90), DecidedCell("sex=M", 400, 98)
        >>> found = DecidedStream([women, men], gaps={"parity": 0.02}, limits={"parity": 0.05})
        >>> found.gaps["parity"] <= found.limits["parity"]
        True
    """

    cells: Sequence[DecidedCell]
    gaps: Mapping[str, float | None]
    limits: Mapping[str, float | None]


@dataclass(frozen=True)
class StreamPage:
    """What the page of a stream shows.

    Args:
        title: its heading.
        state: the stream, at its end.
        section: its gaps and its cost beside doing nothing and beside the offline projection.
        decided: decisions about the same requests; None where none were taken.

    Example:
        >>> import torch, fairlayer as fl
        >>> state = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.1)], bounds=(0.0, 1.0), window=100)
        >>> _ = state.emit(torch.tensor([0.2, 0.8] * 100), {"sex": ["F", "M"] * 100})
        >>> page = StreamPage("A stream", state, StreamSection("200 rows", [], "nothing beside it", [], ""))
        >>> page.title in render_stream_page(page)
        True
    """

    title: str
    state: InferenceState
    section: StreamSection
    decided: DecidedStream | None = None


def render_stream_page(page: StreamPage) -> str:
    """Return the page as text: no script, and nothing from elsewhere.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.

    Example:
        >>> import torch, fairlayer as fl
        >>> state = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.1)], bounds=(0.0, 1.0), window=100)
        >>> _ = state.emit(torch.rand(200), {"sex": ["F", "M"] * 100})
        >>> section = StreamSection("200 rows", [], "nothing beside it", [], "")
        >>> text = render_stream_page(StreamPage("A stream", state, section))
        >>> "<script" in text, "pooled" in text
        (False, True)
    """
    report = page.state.report()
    text = (
        environment()
        .get_template("stream_page.html")
        .render(
            document={"title": page.title},
            page=page,
            report=report,
            lead=_lead(page.state, report),
            picture=report_picture(report),
            constraints=[_constraint(page.state, report, name) for name in report.limits],
            count=count,
            named=named,
            percent=percent,
            number=number,
        )
    )
    return str(text)


def write_stream_page(path: str | Path, page: StreamPage) -> Path:
    """Write the page; return its path. See `render_stream_page`.

    Example:
        >>> import torch, fairlayer as fl
        >>> state = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.1)], bounds=(0.0, 1.0), window=100)
        >>> _ = state.emit(torch.tensor([0.2, 0.8] * 100), {"sex": ["F", "M"] * 100})
        >>> section = StreamSection("200 rows", [], "nothing beside it", [], "")
        >>> write_stream_page("stream.html", StreamPage("A stream", state, section)).name
        'stream.html'
    """
    path = Path(path)
    path.write_text(render_stream_page(page), encoding="utf-8")
    return path


class _Line(NamedTuple):
    start: int
    samples: int
    raw: str
    emitted: str
    lower: str
    moved: float
    at_bound: float
    flips: float
    phase: str
    worst: bool


class _Shown(NamedTuple):
    name: str
    limit: str
    window: str
    pooled: str
    split: str
    lines: list[_Line]


def _lead(state: InferenceState, report: StreamReport) -> str:
    bounds = (
        "the gap of everything since the stream began"
        if state.policy.holds_pooled
        else "the gap of recent predictions, up to stated noise; the gap of everything is reported and not bounded"
    )
    return (
        f"{report.samples:,} predictions were emitted one after the other. The policy {state.policy.name!r} bounds "
        f"{bounds}. These are scores, not decisions. The stream ended in the phase {report.phase.value}."
    )


def _constraint(state: InferenceState, report: StreamReport, name: str) -> _Shown:
    worst = report.worst(name)
    everything, window = report.everything.get(name), None if report.window is None else report.window.gaps.get(name)
    split = report.splits.get(name)
    told = (
        "The pooled gap of this constraint is not split."
        if split is None
        else f"Its pooled gap, {split.gap:+.4f} between the two groups that make it, is the sum of {split.within:+.4f} "
        f"from gaps within buckets and {split.mix:+.4f} from the groups' coming at different times. No policy repays "
        "the second part."
    )
    limit = DASH if everything is None else words.limit_text(Gap.of(everything))
    if not state.policy.holds_pooled:
        limit = f"{limit}, of recent predictions"
    return _Shown(
        name=name,
        limit=limit,
        window=DASH if window is None else _value(window.emitted),
        pooled=_value(everything),
        split=told,
        lines=[_line(bucket, name, bucket is worst) for bucket in report.buckets],
    )


def _line(bucket: BucketReport, name: str, worst: bool) -> _Line:
    found = bucket.gaps[name]
    phase = DASH if bucket.phase is None else bucket.phase.value
    return _Line(
        bucket.start,
        bucket.samples,
        _value(found.raw),
        _value(found.emitted),
        DASH if found.emitted is None or len(found.emitted.worst) != 2 else named(found.emitted.worst[1]),
        bucket.moved,
        bucket.at_bound,
        bucket.flips,
        phase,
        worst,
    )


def _value(found: Measured | None) -> str:
    return number(None if found is None else found.value, 4)
