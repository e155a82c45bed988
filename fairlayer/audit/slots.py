"""Where a row stands in a cell: by its label and by its decision.

    sums[name][cell, label, decision]      label: 0, 1, a number, or none;      decision: 0, 1, or none

Every rate is a quotient of two sums over such slots: the true positive rate, for one, is the weight in
(POSITIVE, SELECTED) over the weight in POSITIVE.
"""

from __future__ import annotations

__all__ = [
    "CLASSES",
    "DECIDED",
    "DECISIONS",
    "LABELLED",
    "LABELS",
    "NEGATIVE",
    "POSITIVE",
    "REAL",
    "REJECTED",
    "SELECTED",
    "UNDECIDED",
    "UNLABELLED",
]

NEGATIVE, POSITIVE, REAL, UNLABELLED = range(4)
REJECTED, SELECTED, UNDECIDED = range(3)
LABELS, DECISIONS = 4, 3

CLASSES = (NEGATIVE, POSITIVE)
LABELLED = (NEGATIVE, POSITIVE, REAL)
DECIDED = (REJECTED, SELECTED)
