"""What a metric is, and the register in which each has its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from fairlayer.audit.errors import MetricError
from fairlayer.audit.grouped import Grouped
from fairlayer.audit.means import Means, mean_of_sum

if TYPE_CHECKING:
    from fairlayer.audit.table import AuditTable

__all__ = ["Metric", "Worse", "mean_of", "measure", "metric", "metric_names", "register"]

# lower, higher: the group with the lower (higher) number is worse off, whatever a decision means.
# less_favour, more_favour: the same where a positive decision is good for a person, the reverse where it is a burden.
Worse: TypeAlias = Literal["lower", "higher", "less_favour", "more_favour"]

_WORDS = {
    "probabilities": "scores in [0, 1]",
    "classes": "labels of 0 and 1",
    "order": "the order of the scores (keep_ranks=True, or scores in [0, 1])",
}

_REGISTER: dict[str, Metric] = {}


@dataclass(frozen=True)
class Metric:
    """A number per group, computed from the sums of a table.

    Args:
        name: such as "selection_rate".
        words: what it is, for a reader without statistics.
        unit: "share", "score", "label", "nats", ...
        needs: what a table must hold, see `AuditTable.holds`, or names of own values.
        worse: which group is worse off.
        measure: the sums of the groups -> the number of each.

    Example:
        >>> found = metric("true_positive_rate")
        >>> found.unit, found.needs, found.words
        ('share', ('decisions', 'classes'), 'share of the people with label 1 who have a positive decision')
    """

    name: str
    words: str
    unit: str
    needs: tuple[str, ...]
    worse: Worse
    measure: Callable[[Grouped], Means]

    def lower_is_worse(self, favourable: int) -> bool:
        """Return whether the group with the lower number is worse off, where this decision is the good one."""
        if self.worse in ("lower", "higher"):
            return self.worse == "lower"
        return (self.worse == "less_favour") == (favourable == 1)


def register(metric: Metric, *, replace: bool = False) -> Metric:
    """Give a metric its name; tables, limits and reports then know it.

    Args:
        metric: the metric.
        replace: take the place of a metric that has the name already.

    Raises:
        MetricError: the name is taken.

    Example:
        >>> from fairlayer.audit import AuditTable
        >>> _ = register(mean_of("waiting_days", words="days until an answer", unit="days", worse="higher"))
        >>> table = AuditTable.of(values={"waiting_days": [3, 5, 9]}, sensitive_features={"sex": ["F", "F", "M"]})
        >>> table.values("waiting_days", "sex")
        {'sex=F': 4.0, 'sex=M': 9.0}
        >>> del _REGISTER["waiting_days"]
    """
    if metric.name in _REGISTER and not replace:
        raise MetricError(
            f"there is a metric '{metric.name}' already ({_REGISTER[metric.name].words}). Choose another name, or use "
            "replace=True."
        )
    _REGISTER[metric.name] = metric
    return metric


def mean_of(name: str, *, words: str, unit: str, worse: Worse) -> Metric:
    """Return the metric that is the mean of a number given per row as `AuditTable.of(values={name: ...})`.

    Args:
        words: what the number is, for people.
        unit: the unit in which it is measured.
        worse: whether a group is worse off by a high or by a low mean.

    Example:
        >>> days = mean_of("waiting_days", words="days until an answer", unit="days", worse="higher")
        >>> days.name, days.needs
        ('waiting_days', ('waiting_days',))
    """
    return Metric(name, words, unit, (name,), worse, lambda grouped: mean_of_sum(grouped, name))


def metric(name: str) -> Metric:
    """Return the metric of a name.

    Raises:
        MetricError: no metric has it.

    Example:
        >>> metric("selection_rate").words
        'share of people with a positive decision'
    """
    if name not in _REGISTER:
        raise MetricError(
            f"there is no metric '{name}', only {', '.join(sorted(_REGISTER))}. Add your own by register()."
        )
    return _REGISTER[name]


def metric_names(table: AuditTable | None = None) -> tuple[str, ...]:
    """Return the names of all metrics, or of those that a table can answer.

    Example:
        >>> from fairlayer.audit import AuditTable
        >>> table = AuditTable.of(decisions=[1, 0], sensitive_features={"sex": ["F", "M"]})
        >>> metric_names(table), "auc" in metric_names()
        (('selection_rate',), True)
    """
    return tuple(name for name, known in _REGISTER.items() if table is None or not _missing(table, known))


def measure(table: AuditTable, name: str, grouped: Grouped) -> Means:
    """Return a metric of the groups of a table.

    Args:
        grouped: the sums of the groups.

    Raises:
        MetricError: no metric has the name, or the table does not hold what it needs.

    Example:
        >>> from fairlayer.audit import AuditTable
        >>> table = AuditTable.of(decisions=[1, 0, 1, 1], sensitive_features={"sex": ["F", "F", "M", "M"]})
        >>> measure(table, "selection_rate", table.by("sex")).value.tolist()
        [0.5, 1.0]
    """
    found = metric(name)
    missing = _missing(table, found)
    if missing:
        needed = " and ".join(_WORDS.get(need, need) for need in missing)
        instead = (
            " Of scores alone, mean_score says which group gets the higher ones." if "decisions" in missing else ""
        )
        raise MetricError(f"'{name}' ({found.words}) needs {needed}; what was given is: {table.given}.{instead}")
    return found.measure(grouped)


def _missing(table: AuditTable, wanted: Metric) -> list[str]:
    return [need for need in wanted.needs if need not in table.holds and need not in table.sums]
