"""A stream in words, numbers and a picture: what the terminal and the page show of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fairlayer.streaming import BucketReport, StreamReport

__all__ = ["StreamSection", "periods_of"]


class StreamSection(NamedTuple):
    """What to show of a stream.

    `blocks` are rows of (name, nothing, offline, stream), none where nothing was compared; `picture` is inline SVG, ""
    for none; `periods` are what `periods_of` makes of a stream's report.

    Example:
        >>> section = StreamSection("200 rows", [], "nothing beside it", ["The gap stayed within its limit."], "")
        >>> section.to_dict()["title"]
        '200 rows'
    """

    title: str
    blocks: Sequence[Sequence[tuple[str, str, str, str]]]
    caption: str
    sentences: Sequence[str]
    picture: str
    periods: Sequence[Mapping[str, Any]] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for the document."""
        return {
            "title": self.title,
            "blocks": [[list(row) for row in block] for block in self.blocks],
            "caption": self.caption,
            "sentences": list(self.sentences),
            "picture": self.picture,
            "periods": [dict(one) for one in self.periods],
        }


def periods_of(report: StreamReport) -> list[dict[str, Any]]:
    """Return, for each constraint of a report, every bucket with its raw and its emitted number, oldest first.

    Example:
        >>> import torch, fairlayer as fl
        >>> state = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.1)], bounds=(0.0, 1.0), window=100)
        >>> _ = state.emit(torch.tensor([0.2, 0.8] * 100), {"sex": ["F", "M"] * 100})
        >>> [period] = periods_of(state.report())
        >>> period["constraint"], period["limit"], len(period["buckets"])
        ("DemographicParity('sex')", 0.1, 20)
    """
    return [
        {
            "constraint": name,
            "limit": limit,
            "at_least": _at_least(report, name),
            "buckets": [_bucket(bucket, name) for bucket in report.buckets],
            "sentences": _sentences(report, name),
        }
        for name, limit in report.limits.items()
    ]


def _bucket(bucket: BucketReport, name: str) -> dict[str, Any]:
    gap = bucket.gaps.get(name)
    raw, emitted = (None, None) if gap is None else gap
    return {
        "first": bucket.start + 1,
        "predictions": bucket.samples,
        "since": bucket.since,
        "until": bucket.until,
        "raw": None if raw is None else raw.value,
        "emitted": None if emitted is None else emitted.value,
        "moved": bucket.moved,
        "flips": bucket.flips,
        "at_bound": bucket.at_bound,
        "phase": None if bucket.phase is None else bucket.phase.value,
        "counts": dict(bucket.counts),
    }


def _at_least(report: StreamReport, name: str) -> bool:
    known = [gap.emitted for bucket in report.buckets if (gap := bucket.gaps.get(name)) is not None]
    return any(one is not None and one.at_least for one in known)


def _sentences(report: StreamReport, name: str) -> list[str]:
    told, worst = [], report.worst(name)
    if worst is not None and (emitted := worst.gaps[name].emitted) is not None and emitted.value is not None:
        raw = worst.gaps[name].raw
        before = "" if raw is None or raw.value is None else f"; the raw scores have {raw.value:.4f}"
        told.append(
            f"The period furthest from the limit begins with prediction {worst.start + 1:,}, where the emitted scores "
            f"have {emitted.value:.4f}{before}."
        )
    split = report.splits.get(name)
    if split is not None:
        told.append(
            f"The gap of all predictions together is {split.gap:+.4f}: {split.within:+.4f} lies within the periods, "
            f"and {split.mix:+.4f} comes from the groups' arriving in different shares at different times."
        )
    if report.waiting or report.lost:
        told.append(f"{report.waiting:,} predictions wait for their label; {report.lost:,} had to make room.")
    return told
