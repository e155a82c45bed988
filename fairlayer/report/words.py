"""The words and number formats that the page and the command line share."""

from __future__ import annotations

from fairlayer.training import Comparison, ConstraintResult, Gap

__all__ = ["cost_sentence", "gap_text", "limit_text", "number", "violation_text", "what_is_measured"]

QUALITY_NAMES = {"accuracy": "accuracy", "f1": "F1", "auc": "AUC", "r2": "R2", "mae": "mean absolute error"}
MULTIPLIER_UNIT = "half the squared move per prediction that one more unit of tolerance would save"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number to `digits` places; a dash where there is nothing to show.

    Example:
        >>> number(0.12345), number(None)
        ('0.123', '-')
    """
    return "-" if value is None else f"{value:.{digits}f}"


def gap_text(gap: Gap | None) -> str:
    """Return what was measured; a dash where nothing was compared.

    Example:
        >>> gap_text(Gap(0.021, 0.02))
        '0.021'
    """
    return "-" if gap is None else number(gap.value)


def limit_text(gap: Gap) -> str:
    """Return which side of which limit.

    Example:
        >>> limit_text(Gap(0.9, 0.8, at_least=True))
        'at least 0.8'
    """
    return f"at {'least' if gap.at_least else 'most'} {gap.limit:g}"


def violation_text(violation: float) -> str:
    """Return a violation; a negative one is slack, so nothing is violated.

    Example:
        >>> violation_text(2.1e-8), violation_text(-0.01)
        ('2.1e-08', 'none')
    """
    return f"{violation:.1e}" if violation > 0 else "none"


def what_is_measured(result: ConstraintResult) -> str:
    """Return what to call the measured number: a gap, or a plain value where it is bounded from below."""
    return "value" if result.scores.constrained.at_least else "gap"


def cost_sentence(comparison: Comparison) -> str:
    """Return what the constraints cost, in points (percent), or what they gained."""
    what = "accuracy" if comparison.task == "classification" else "R2"
    way = "cost" if comparison.cost >= 0 else "gained"
    return f"On these test rows, the constraints {way} {abs(comparison.cost):.2f} points of {what}."
