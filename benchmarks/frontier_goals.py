"""The figures to be reached, each by one method that is named beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from frontier_table import QUESTIONS, Row


@dataclass(frozen=True)
class Goal:
    """A figure for the answer of one method to one question; its mean gap on test rows must keep the budget too."""

    question: str
    method: str
    figure: float

    def verdict(self, answers: Mapping[str, Sequence[Row]]) -> str:
        """Return what was found, and whether the goal is met."""
        question = next(each for each in QUESTIONS if each.title == self.question)
        row = next((each for each in answers[self.question] if each.method == self.method), None)
        if row is None:
            return self._line("no setting kept the budget on validation rows", met=False)
        found, gap = row.means[question.column], row.means[question.gap]
        met = found is not None and gap is not None and found >= self.figure and gap <= question.budget
        return self._line(f"{found:.2f} at {gap:.2f}", met=met)

    def _line(self, found: str, *, met: bool) -> str:
        what = f"{self.question}: {self.method}"
        return f"  {what:<66} {self.figure:>5.1f}   {found:<14} {'met' if met else 'NOT MET'}"


DECISIONS, ODDS = "Penalty on soft decisions", "Penalty on soft odds"
GOALS = (
    Goal("decision gap <= 2", DECISIONS, 83.5),
    Goal("decision gap <= 5", DECISIONS, 84.0),
    Goal("decision gap <= 2", "plain + DecisionRule", 83.4),
    Goal("decision gap <= 5", "plain + DecisionRule", 83.9),
    Goal("score gap <= 1", f"{DECISIONS}, sharp scores", 89.6),
    Goal("equalized odds gap <= 3", ODDS, 83.0),
    Goal("equalized odds gap <= 3", "plain + DecisionRule", 83.4),
    Goal("decision gap <= 2", "trees + DecisionRule", 84.8),
    Goal("decision gap <= 5", "trees + DecisionRule", 85.3),
)


def goals_text(answers: Mapping[str, Sequence[Row]]) -> str:
    """Return a line for each goal."""
    head = "Goals, on test rows (accuracy; AUC where the score gap is bounded): figure, found at which gap"
    return "\n".join([head, "", *(goal.verdict(answers) for goal in GOALS)])
