"""How numbers are written, and the small pictures beside them: what every format of an audit shares."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from fairlayer.audit import MetricError, metric

__all__ = ["bar", "count", "figure", "moment", "named", "number", "p_value", "percent", "periods", "scatter", "unit_of"]

DASH = "–"
SPACE = "\u00a0"  # one at which no line breaks
# The column of groups that were cut from a number, before a group that names the number itself: age_group=age<=25.
CUT = re.compile(r"\b(\w+)_group=(?=[^\s&]*\b\1\b)")
_WIDTH = 100  # of a bar, in units of its own
_EARLIEST, _LATEST = 631_152_000.0, 4_102_444_800.0  # 1990 and 2100: what is taken for seconds since 1970


def number(value: float | None, digits: int = 3) -> str:
    """Return a number to `digits` places, a dash where there is none.

    Example:
        >>> number(0.12345), number(None)
        ('0.123', '–')
    """
    return DASH if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # no negative zero


def percent(value: float | None, digits: int = 1) -> str:
    r"""Return a share in percent.

    Example:
        >>> percent(0.1234)
        '12.3\xa0%'
    """
    return DASH if value is None else f"{100 * value:.{digits}f}{SPACE}%"


def count(value: float | None) -> str:
    """Return a number of people; a weighted or shared one keeps one decimal.

    Example:
        >>> count(12345.0), count(2.5)
        ('12,345', '2.5')
    """
    if value is None:
        return DASH
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def p_value(value: float | None) -> str:
    """Return a p-value, small ones as a bound.

    Example:
        >>> p_value(0.0312), p_value(1e-20)
        ('0.031', 'below 0.001')
    """
    if value is None:
        return DASH
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def unit_of(name: str) -> str:
    """Return the unit of a metric; "" for one that is not registered here."""
    try:
        return metric(name).unit
    except MetricError:
        return ""


def figure(value: float | None, name: str, digits: int = 1) -> str:
    r"""Return a metric's value in its own unit: percent for shares that people speak of so, else a number.

    Example:
        >>> figure(0.5, "selection_rate"), figure(0.5, "auc")
        ('50.0\xa0%', '0.500')
    """
    shares = unit_of(name) == "share" and name not in ("auc", "brier_score")
    return percent(value, digits) if shares else number(value, digits + 2)


def named(name: str) -> str:
    """Return a group's name for reading: "sex=F & race=Black" becomes "sex F, race Black".

    Example:
        >>> named("sex=F & race=Black"), named("age_group=age<=25")
        ('sex F, race Black', 'age<=25')
    """
    parts = name.split(" & ")
    return ", ".join(CUT.sub("", part) if CUT.match(part) else part.replace("=", " ", 1) for part in parts)


def bar(
    value: float | None, low: float | None, high: float | None, before: float | None = None, top: float = 1.0
) -> str:
    """Return a share with its limits as a line from 0 to `top`, the value before as a hollow mark.

    The numbers stand beside it, so that it needs no text of its own.

    Example:
        >>> bar(0.5, 0.4, 0.6).startswith("<svg")
        True
        >>> bar(None, None, None)
        ''
    """
    if value is None:
        return ""
    shown = ['<line x1="0" y1="7" x2="100" y2="7" class="axis"/>']
    if low is not None and high is not None:
        left, right = (_WIDTH * min(max(end / top, 0.0), 1.0) for end in (low, high))
        shown.append(f'<line x1="{left:.1f}" y1="7" x2="{right:.1f}" y2="7" class="span"/>')
    if before is not None:
        shown.append(f'<circle cx="{_WIDTH * min(before / top, 1.0):.1f}" cy="7" r="3.2" class="old"/>')
    shown.append(f'<circle cx="{_WIDTH * min(value / top, 1.0):.1f}" cy="7" r="3.2" class="now"/>')
    return f'<svg class="bar" viewBox="-4 0 108 14" aria-hidden="true">{"".join(shown)}</svg>'


def moment(seconds: float) -> str:
    """Return a time of the caller's clock: a date in UTC where it can be seconds since 1970, else the number.

    Example:
        >>> moment(1790812800.0), moment(12.5)
        ('2026-10-01 00:00', '12.5 s')
    """
    if not _EARLIEST <= seconds < _LATEST:
        return f"{seconds:g} s"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def periods(one: Mapping[str, Any]) -> str:
    """Return the raw and the emitted numbers of a constraint over the periods of a stream; "" for fewer than two.

    Hollow marks are raw, filled ones emitted, the dashed line is the limit.
    """
    drawn = [bucket for bucket in one["buckets"] if None not in (bucket["raw"], bucket["emitted"])]
    if len(drawn) < 2:
        return ""
    limit = one["limit"]
    top = max(*(abs(bucket[name]) for bucket in drawn for name in ("raw", "emitted")), limit or 0.0) or 1.0
    xs = _placed([float(place) for place in range(len(drawn))], 56, 634)

    def height(value: float) -> float:
        return 150.0 - 125.0 * min(abs(value) / top, 1.0)

    marks = [
        f'<circle cx="{x:.1f}" cy="{height(bucket[name]):.1f}" r="4" class="{kind}"/>'
        for x, bucket in zip(xs, drawn, strict=True)
        for name, kind in (("raw", "old"), ("emitted", "now"))
    ]
    lines = [
        '<line x1="48" y1="150" x2="642" y2="150" class="axis"/><line x1="48" y1="20" x2="48" y2="150" class="axis"/>'
    ]
    texts: list[tuple[float, float, str, str]] = [
        (42, 29, "end", number(top)),
        (42, 154, "end", "0"),
        (56, 170, "start", "first period"),
    ]
    texts += [(634, 170, "end", "last period"), (345, 170, "middle", "hollow: raw scores, filled: emitted")]
    if limit is not None:
        y = height(limit)
        lines.append(f'<line x1="48" y1="{y:.1f}" x2="642" y2="{y:.1f}" class="limit"/>')
        texts.append((642, y - 4, "end", f"limit {limit:g}"))
    written = "".join(f'<text x="{x}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>' for x, y, anchor, text in texts)
    label = f"{escape(str(one['constraint']))} in {len(drawn)} periods; the table below has the same numbers."
    return (
        f'<svg class="scatter wide" viewBox="0 0 650 176" role="img" aria-label="{label}">{"".join(lines)}'
        f"{''.join(marks)}{written}</svg>"
    )


def scatter(points: Sequence[Mapping[str, Any]], across: str, up: str) -> str:
    """Return candidates as points, `across` the gap and `up` the quality; "" where fewer than two can be drawn."""
    drawn = [one for one in points if None not in (one["measures"].get(across), one["measures"].get(up))]
    if len(drawn) < 2:
        return ""
    xs, ys = ([float(one["measures"][name]) for one in drawn] for name in (across, up))
    places = zip(_placed(xs, 50, 430), _placed(ys, 180, 30), strict=True)
    marks = "".join(
        f'<circle cx="{left:.1f}" cy="{top:.1f}" r="5" class="{"now" if one["chosen"] else "old"}">'
        f"<title>{escape(str(one['name']))}</title></circle>"
        for one, (left, top) in zip(drawn, places, strict=True)
    )
    axes = "".join(f'<line x1="50" y1="{y}" x2="{x}" y2="190" class="axis"/>' for x, y in ((50, 20), (440, 190)))
    texts = "".join(
        f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
        for x, y, anchor, text in (
            (50, 205, "start", number(min(xs))),
            (430, 205, "end", number(max(xs))),
            (44, 184, "end", number(min(ys))),
            (44, 34, "end", number(max(ys))),
            (240, 222, "middle", _spoken(across)),
            (50, 14, "start", _spoken(up)),
        )
    )
    label = f"{len(drawn)} candidates, {_spoken(up)} against {_spoken(across)}; the table below has the same numbers."
    return (
        f'<svg class="scatter" viewBox="0 0 450 230" role="img" aria-label="{escape(label)}">{axes}{marks}{texts}</svg>'
    )


def _placed(values: Sequence[float], first: float, last: float) -> list[float]:
    low, wide = min(values), (max(values) - min(values)) or 1.0
    return [first + (last - first) * (value - low) / wide for value in values]


def _spoken(name: str) -> str:
    return name.replace("_", " ")
