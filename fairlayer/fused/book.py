"""Where the numbers of a stream stand, for its plain steps and its compiled ones alike. It needs no numba.

The book of a stream has one column per cell. Its sums are those of recent predictions, in units of its first sample.
"""

from __future__ import annotations

__all__: list[str] = []

BASE, SLOPE = 0, 1
"""The pull of a cell: base + slope times the estimate of the label."""

COUNT, EMITTED, RAW, COUNT1, EMITTED1, RAW1 = 2, 3, 4, 5, 6, 7
"""Present counts, predictions and raw scores, of all samples, then of those of label 1 as far as estimated."""

SUMS = slice(COUNT, RAW1 + 1)

SEEN, FIRST, SECOND = 8, 9, 10
"""Samples of a cell, and its means over the latest few and the latest many."""

LONG, NEAR, FAR = 11, 12, 13
"""The mean that both are compared with, and how far from it each may lie."""

NEXT_LONG, NEXT_NEAR, NEXT_FAR = 14, 15, 16
"""The same of now, which comes into force later."""

SOLVED_MEAN, SOLVED_SIZE, SOLVED_SPREAD = 17, 18, 19
"""What the last solution knew: the mean of a cell's recent raw scores, their number, and the spread of all scores."""

SOLVED_COUNT, SOLVED_AWAY = 20, 21
"""Its present count then, and by how much its raw scores exceeded that mean; what has come since is more than these."""

FADED = 22
"""In which direction a cell has strayed since the long means were renewed, -1 or 1; 0 for not at all."""

ROWS = 23

GEOMETRY, LOW, HIGH, NOISE, GUARDED, LABELLED, SCALE_LOW, SCALE_WIDTH, LOGITS = 0, 1, 2, 3, 4, 5, 6, 7, 8
"""The terms of a step: geometry, bounds, what noise may add to a gap of two single samples, whether answers are
guarded, whether labels are estimated, the range of the scores that the estimates are over (width 0: the line), and
whether scores are log-odds."""

TERMS = 9

AT_BOOK, AT_CURVE, AT_MEMBER, AT_KIND, AT_START, AT_ROOM, AT_TERMS, AT_CELLS, AT_RAW, AT_EMITTED = range(10)
"""Addresses of what a call reads and writes: the arrays of a step, then the three columns of the journal."""

OF_CELLS, OF_BINS, OF_GUARDS = range(10, 13)
"""Sizes: cells, bins of the curve of labels, and guards."""

PLACES = 13

OF_FEATURES, AT_JOINT, COLUMNS = 0, 1, 2
"""How a call finds the cells of its samples: the number of features (0: the one column holds cells), the table from
joint codes to cells, and from here on four numbers for each feature."""

AT_COLUMN, AT_TABLE, OF_TABLE, STRIDE, PER_COLUMN = 0, 1, 2, 3, 4
"""For each feature: the numbers that were given, the table from numbers to codes and its size, and what a code counts
in a joint code."""

SHORT = (16.0, 80.0)
"""Samples of a cell itself, over which its short means run."""

SURE = 8.0
"""Samples up to which a short mean says nothing."""

STRAYS, SURELY_STRAYS = 0.25, 2.5
"""By how many errors of its mean, and of what has come since, a cell may leave the last solution; then one is due."""

LEAST_SHARE = 0.02
"""Of a label, below which a prediction is not guarded for it."""

LABEL_BINS = 32
"""Bins of an estimate of labels, over the range of the scores."""
