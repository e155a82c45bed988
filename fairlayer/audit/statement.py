"""What is said about one limit, as the document holds it: by an interval, by a certificate, or by a clock."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from fairlayer.audit.intervals import Interval
from fairlayer.audit.outcome import EXIT_CODES, Outcome

__all__ = ["Statement"]


@dataclass(frozen=True)
class Statement:
    """A limit with its outcome, in words.

    Args:
        limit: what was asked, in short.
        outcome: PASS, FAIL, INCONCLUSIVE or NOT EVALUATED.
        question: what was asked, in a sentence.
        answer: whether it holds, in a sentence.
        reason: what the outcome stands on.
        by: the features whose categories make the groups; () where it speaks of everybody.
        interval: what it was judged on; NaN where it was not an interval.
        rows_needed: about how many people per group could tell, where there are too few.
        beyond: groups too small for the headline that are certainly beyond the limit.
    """

    limit: str
    outcome: Outcome
    question: str
    answer: str
    reason: str
    by: tuple[str, ...] = ()
    interval: Interval = field(default_factory=lambda: Interval(math.nan, math.nan, math.nan, math.nan))
    rows_needed: int | None = None
    beyond: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON, with the keys of a verdict."""
        numbers = {name: getattr(self.interval, name) for name in ("low", "estimate", "measured", "high")}
        return {
            "limit": self.limit,
            "by": list(self.by),
            "outcome": str(self.outcome),
            "exit_code": EXIT_CODES[self.outcome],
            **{name: None if math.isnan(value) else value for name, value in numbers.items()},
            "reason": self.reason,
            "rows_needed": self.rows_needed,
            "beyond": list(self.beyond),
            "question": self.question,
            "answer": self.answer,
        }
