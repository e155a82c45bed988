"""What the templates ask of a document: which tables a grouping has, and how an entry is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fairlayer.report import figures

__all__ = ["Reader"]

# caption, then (metric, heading) of its columns; five at most, so that nothing is cut on paper
_TABLES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Errors",
        (
            ("base_rate", "Outcome 1"),
            ("true_positive_rate", "True positive rate"),
            ("false_positive_rate", "False positive rate"),
            ("positive_predictive_value", "Positive predictive value"),
            ("accuracy", "Accuracy"),
        ),
    ),
    (
        "Scores and calibration",
        (
            ("mean_score", "Mean score"),
            ("mean_residual", "Mean residual"),
            ("calibration_error", "Calibration error"),
            ("auc", "AUC"),
            ("log_loss", "Log loss"),
        ),
    ),
    (
        "Errors of numbers",
        (("mean_absolute_error", "Mean absolute error"), ("root_mean_squared_error", "Root mean squared error")),
    ),
)
# An equals sign between a column and its category, and not that of "age<=25".
_EQUALS = re.compile(r"(?<=\w)=(?=\w)")
_SHOWN = {name for _, columns in _TABLES for name, _ in columns} | {
    "selection_rate",
    "false_negative_rate",
    "true_negative_rate",
    "negative_predictive_value",
    "brier_score",
    "calibration_error_debiased",
    "mean_squared_error",
}
# measures of which the document holds the distance, and the page does not show it
_DOCUMENT_ONLY = {
    "false_negative_rate",
    "true_negative_rate",
    "negative_predictive_value",
    "brier_score",
    "calibration_error_debiased",
    "mean_squared_error",
    "mean_absolute_error",
    "root_mean_squared_error",
    "base_rate",
}
_NUMBERS_ONLY = ("Errors of numbers",)


class Reader:
    """What templates call; it computes nothing that the document does not hold."""

    ENTRIES = (
        ("purpose", "Intended purpose"),
        ("system", "The system"),
        ("affected", "The people affected"),
        ("harm", "The harm that is feared"),
        ("metric_reason", "Why this metric"),
        ("technique", "The technique of the correction"),
        ("technique_reason", "Why this technique"),
        ("data_source", "Source of the data"),
        ("limits_of_use", "Uses that were not intended"),
        ("human_review", "Review by people"),
        ("monitoring", "Monitoring"),
        ("changes", "Changes determined beforehand"),
        ("sensitive_data", "Sensitive data: why they are needed, who may see them, when they are deleted"),
    )
    LISTS = (
        ("pathways", "Pathways, with who judged them and why"),
        ("queries", "Counterfactual queries"),
        ("rejected_criteria", "Criteria that were rejected"),
        ("assumptions", "Assumptions"),
        ("recommendations", "Recommendations"),
    )

    number = staticmethod(figures.number)
    percent = staticmethod(figures.percent)
    count = staticmethod(figures.count)
    p_value = staticmethod(figures.p_value)
    named = staticmethod(figures.named)
    bar = staticmethod(figures.bar)

    @staticmethod
    def everybody_counted(document: Mapping[str, Any]) -> bool:
        """Whether no row was left out, and everybody is in a group of enough people of every grouping asked for."""
        groups = [group for one in document["groupings"] if one["asked"] for group in one["groups"]]
        return not document["rows"]["left_out"] and all(group["standing"] == "counted" for group in groups)

    @staticmethod
    def readable(sentence: str) -> str:
        """Return a sentence with the names of groups as people read them."""
        return _EQUALS.sub(" ", figures.CUT.sub("", sentence)).replace(" & ", ", ")

    @staticmethod
    def names(groups: Sequence[str]) -> str:
        """Return the names of groups, joined."""
        return "; ".join(figures.named(name) for name in groups)

    @staticmethod
    def has(grouping: Mapping[str, Any], metric: str) -> bool:
        """Return whether a grouping has a metric."""
        return metric in grouping["overall"]

    @staticmethod
    def value(numbers: Mapping[str, Any], metric: str) -> float | None:
        """Return a metric of one group, None where it has none."""
        held = numbers.get(metric)
        return None if held is None else held["value"]

    @staticmethod
    def span(held: Mapping[str, Any] | None) -> str:
        """Return the limits of a share."""
        if held is None or held["low"] is None:
            return figures.DASH
        return f"{figures.percent(held['low'])} to {figures.percent(held['high'])}"

    @staticmethod
    def top(grouping: Mapping[str, Any]) -> float:
        """Return the right end of the bars of a grouping: its highest upper limit."""
        rates = [one["numbers"].get("selection_rate") for one in grouping["groups"]]
        return max((one["high"] for one in rates if one and one["high"]), default=1.0)

    @staticmethod
    def distances(grouping: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the distances that are shown: criteria, and metrics that people speak of; the document has all."""
        return [one for one in grouping["disparities"] if one["name"] not in _DOCUMENT_ONLY]

    def tables(self, grouping: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
        """Return the tables that a grouping can fill, further metrics last."""
        regression = not self.has(grouping, "base_rate") and self.has(grouping, "mean_absolute_error")
        found = []
        for caption, columns in _TABLES:
            there = [(name, short) for name, short in columns if self.has(grouping, name)]
            if there and (caption not in _NUMBERS_ONLY or regression):
                found.append((caption, there))
        own = [(name, name.replace("_", " ")) for name in grouping["overall"] if name not in _SHOWN]
        own = [one for one in own if one[0] not in ("mean_absolute_error", "root_mean_squared_error")]
        return [*found, *(("Further numbers", own[start : start + 5]) for start in range(0, len(own), 5))]

    def then_now(self, group: Mapping[str, Any], metric: str, compared: bool) -> str:
        """Return a metric of a group, with the one before it where there is one and it differs."""
        return self._beside(self.value(group["before"], metric), self.value(group["numbers"], metric), metric, compared)

    def then_now_all(self, grouping: Mapping[str, Any], metric: str, compared: bool) -> str:
        """Return the same of everybody together."""
        return self._beside(grouping["overall_before"].get(metric), grouping["overall"].get(metric), metric, compared)

    @staticmethod
    def _beside(old: float | None, now: float | None, metric: str, compared: bool) -> str:
        shown = figures.figure(now, metric)
        if not compared or old is None:
            return shown
        first = figures.figure(old, metric)
        return shown if first == shown else f"{first} → {shown}"

    @staticmethod
    def significant(one: Mapping[str, Any]) -> str:
        """Return which kinds of significance a comparison has."""
        kinds = [
            kind for kind, held in (("statistically", one["statistical"]), ("practically", one["practical"])) if held
        ]
        return " and ".join(kinds) or "neither"

    @staticmethod
    def limits(held: Mapping[str, Any]) -> str:
        """Return the limits of an interval, or that there is none."""
        if held["low"] is None or held["high"] is None:
            return "none"
        return f"{figures.number(held['low'])} to {figures.number(held['high'])}"

    @staticmethod
    def limit(gap: Mapping[str, Any]) -> str:
        """Return which side of which limit."""
        return f"at {'least' if gap['at_least'] else 'most'} {gap['limit']:g}"

    @staticmethod
    def violation(number: float) -> str:
        """Return a violation; a negative one is slack, so nothing is violated."""
        return f"{number:.1e}" if number > 0 else "none"

    @staticmethod
    def entry(one: Any) -> str:
        """Return an entry that people gave: a text, or a mapping as "key: value" pairs."""
        return "; ".join(f"{key}: {value}" for key, value in one.items()) if isinstance(one, Mapping) else str(one)

    def told(self, supplied: Mapping[str, Any]) -> tuple[list[tuple[str, list[str]]], list[str]]:
        """Return the entries that people gave, each with its name, and the names of those that nobody gave."""
        names = (*self.ENTRIES, *self.LISTS)
        given = {name: supplied[key] for key, name in names}
        texts = {name: value if isinstance(value, list) else [value] for name, value in given.items() if value}
        return (
            [(name, [self.entry(one) for one in entries]) for name, entries in texts.items()],
            [name for name, value in given.items() if not value],
        )

    def entries(self, told: Any) -> str:
        """Return several entries as one text."""
        return told if isinstance(told, str) else "; ".join(self.entry(one) for one in told)

    moment = staticmethod(figures.moment)
    periods = staticmethod(figures.periods)

    @staticmethod
    def thresholds(cell: Mapping[str, Any]) -> str:
        """Return from which scores on people of a cell get a yes, and which share of them where lots are drawn."""
        told = []
        for threshold, share in zip(cell["thresholds"], cell["shares"], strict=True):
            score = "any score" if threshold is None else figures.number(threshold)
            told.append(score if share >= 1.0 else f"{score} for {figures.percent(share, 0)}")
        return "; ".join(told) or "never"

    @staticmethod
    def measures(alternatives: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the names of what was measured of the candidates; five at most."""
        return list(dict.fromkeys(name for one in alternatives for name in one["measures"]))[:5]

    def scatter_of(self, alternatives: Sequence[Mapping[str, Any]]) -> str:
        """Return the candidates as a picture: the first measure upwards, the second across."""
        names = self.measures(alternatives)
        return figures.scatter(alternatives, names[1], names[0]) if len(names) > 1 else ""

    @staticmethod
    def diagram(roles: Mapping[str, str]) -> str:
        """Return which kinds of columns lead to the outcome, as a picture with the same words as the table."""
        columns = [
            (role, [name for name, given in roles.items() if given == role])
            for role in ("sensitive", "proxy", "mediator", "feature", "outcome")
        ]
        drawn = [(role, names) for role, names in columns if names]
        if len(drawn) < 2:
            return ""
        parts = []
        for place, (role, names) in enumerate(drawn):
            x = 10 + 150 * place
            lines = "".join(
                f'<text x="{x + 8}" y="{46 + 16 * k}">{escape(name[:18])}</text>' for k, name in enumerate(names[:6])
            )
            more = f'<text x="{x + 8}" y="{46 + 16 * 6}">and {len(names) - 6} more</text>' if len(names) > 6 else ""
            parts.append(
                f'<rect x="{x}" y="8" width="130" height="{44 + 16 * min(len(names), 7)}" rx="6" class="box"/>'
                f'<text x="{x + 8}" y="27" font-weight="bold">{role}</text>{lines}{more}'
            )
            if place:
                parts.append(f'<path d="M{x - 18} 24 h14 m-5 -4 l5 4 l-5 4" class="arrow"/>')
        height = 62 + 16 * min(max(len(names) for _, names in drawn), 7)
        return (
            f'<svg class="scatter" viewBox="0 0 {10 + 150 * len(drawn)} {height}" role="img" '
            f'aria-label="The roles of the columns, from the sensitive ones to the outcome">{"".join(parts)}</svg>'
        )
