"""What of a row the constraints can tell: rows that no constraint tells apart share a signature.

A signature is (code of each sensitive feature, kind of label, bin of the raw score). However large the table, it has
few; and the constraints state the same about one row per signature, with the number of its rows as weight, as about
the table itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from fairlayer._rows import compress
from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Batch, Constraint
from fairlayer.edge import feature_names, read_features
from fairlayer.errors import BackendError, DataError, MissingLabelsError, ShapeError
from fairlayer.groups import Groups, Vocabulary
from fairlayer.scoring.chunk import Chunk

__all__ = ["Signatures", "View", "bins_of", "united", "view_of"]

_FIRST = 1000  # rows that show what the constraints look at
_OTHER = 2  # the kind of a label that is neither 0 nor 1

Signature = tuple[int, ...]


class View(NamedTuple):
    """What the constraints look at."""

    names: tuple[str, ...]  # sensitive features, read as groups
    all_names: tuple[str, ...]  # in the order of a bare tensor's columns
    labelled: bool
    edges: tuple[FloatArray, ...]  # of the bins of the raw score
    single: bool  # whether scores are float32 or less


def view_of(constraints: Sequence[Constraint], chunk: Chunk, words: Vocabulary) -> View:
    """Find out from the first rows of a table what the constraints look at.

    Raises:
        BackendError: one of them looks at more than groups, labels and bins, or weighs each row by itself.
    """
    names = feature_names(constraints)
    first = chunk.head(_FIRST, names)
    read = read_features(first.features, names, len(first.scores), words)
    probe = _Probe(read.raw, read.n, read.vocabulary)
    batch = Batch(probe, len(first.scores), first.labels, None, lambda: first.scores)
    for constraint in constraints:
        if _by_row(constraint, batch) or probe.numbers:
            raise BackendError(
                f"{constraint.name} weighs each row by itself (soft groups, label estimates, a covariance, rows of "
                "one's own), so a table cannot be summed up by group. Project it in memory, or over processes with "
                "process_group=."
            )
    labelled = any(constraint.needs_labels for constraint in constraints)
    return View(tuple(probe.unknown_counts()), names, labelled, batch.score_edges, chunk.single)


def _by_row(constraint: Constraint, batch: Batch) -> bool:
    try:
        return any(statement.means.codes is None for statement in constraint.statements(batch))
    except ShapeError:  # rows that fit the groups of the whole table, or its rows
        return not constraint.on


class _Probe(Groups):
    """The groups of a few rows; notes which features are read as numbers."""

    def __init__(self, raw: Any, n: int, vocabulary: Vocabulary) -> None:
        super().__init__(raw, n, vocabulary)
        self.numbers: list[str] = []

    def values(self, name: str) -> FloatArray:
        self.numbers.append(name)
        return super().values(name)


class Signatures:
    """The signatures met so far, in the order in which they were met.

    Args:
        view: what makes a signature.
        words: known categories; an open vocabulary learns.
        known: all the signatures there are; without them, signatures are learnt.
    """

    def __init__(self, view: View, words: Vocabulary, known: Sequence[Signature] | None = None) -> None:
        self.view, self.words, self.closed = view, words, known is not None
        self.table: list[Signature] = list(known or ())
        self.index = {signature: j for j, signature in enumerate(self.table)}

    def __len__(self) -> int:
        return len(self.table)

    def place(self, chunk: Chunk) -> IntArray:
        """Return the number of the signature of each row; new ones are appended."""
        digits = [self._codes(chunk, name) + 1 for name in self.view.names]
        if self.view.labelled:
            digits.append(_kinds(chunk.labels))
        digits += [bins_of(chunk.scores, edges) for edges in self.view.edges]
        keys, sizes = np.zeros(len(chunk.scores), dtype=np.int64), [1 + int(d.max(initial=0)) for d in digits]
        for digit, size in zip(digits, sizes, strict=True):
            keys = keys * size + digit
        present, position = compress(keys, prod(sizes))
        return np.array([self._number(s) for s in _split(present, sizes)], dtype=np.int64)[position]

    def codes(self) -> dict[str, IntArray]:
        """Return the code of each feature, by signature."""
        columns = np.array(self.table, dtype=np.int64).reshape(len(self), -1)
        return {name: columns[:, j] - 1 for j, name in enumerate(self.view.names)}

    def labels(self, means: FloatArray) -> FloatArray | None:
        """Return the label of each signature, where its rows have different ones their mean."""
        if not self.view.labelled:
            return None
        kinds = np.array([s[len(self.view.names)] for s in self.table], dtype=np.int64)
        others = np.where((means == 0.0) | (means == 1.0), np.nextafter(means, 2.0), means)  # 0.5 and 1.5 are no 1
        return np.where(kinds < _OTHER, kinds.astype(np.float64), others)

    def translated(self, words: Vocabulary) -> list[Signature]:
        """Return the signatures in the codes of another vocabulary that knows all the categories."""
        maps = []
        for name in self.view.names:
            position = {category: code for code, category in enumerate(words.categories[name])}
            maps.append([0, *(position[category] + 1 for category in self.words.categories.get(name, ()))])
        k = len(maps)
        return [(*(maps[j][code] for j, code in enumerate(s[:k])), *s[k:]) for s in self.table]

    def _codes(self, chunk: Chunk, name: str) -> IntArray:
        column, self.words = chunk.column(name, self.view.all_names, self.words)
        if column.codes is None:
            raise BackendError(
                f"sensitive feature {name!r} is soft in some chunks; give one category per row, or project in memory."
            )
        return column.codes

    def _number(self, signature: Signature) -> int:
        if signature not in self.index:
            if self.closed:
                raise DataError(
                    "a chunk holds groups, labels or scores that no chunk held in the first sweep. A table must not "
                    "change between sweeps: give the same chunks each time, and fixed scores."
                )
            self.index[signature] = len(self.table)
            self.table.append(signature)
        return self.index[signature]


def united(words: Vocabulary, all_signatures: Sequence[Signatures]) -> Vocabulary:
    """Return the vocabulary of all signatures: `words`, then new categories in the order of one big batch."""
    for name in all_signatures[0].view.names:
        words = words.united(name, [s.words.categories.get(name, ()) for s in all_signatures])
    return words.closed()


def bins_of(scores: FloatArray, edges: FloatArray) -> IntArray:
    """Return the bin of each score, as `Batch.means_by_bin` has it."""
    return np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, len(edges) - 2)


def _kinds(labels: FloatArray | None) -> IntArray:
    """Return which labels are 0, which are 1, and which are any other number."""
    if labels is None:
        raise MissingLabelsError("a constraint looks at labels, but some chunks have none; give y with every chunk.")
    return np.where(labels == 0.0, 0, np.where(labels == 1.0, 1, _OTHER))


def _split(keys: IntArray, sizes: Sequence[int]) -> list[Signature]:
    digits = []
    for size in reversed(sizes):
        keys, digit = np.divmod(keys, size)
        digits.append(digit)
    return [tuple(row) for row in np.array(digits[::-1], dtype=np.int64).reshape(len(sizes), -1).T.tolist()]
