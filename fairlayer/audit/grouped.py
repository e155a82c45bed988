"""The cells of a table, added up into groups: what a metric reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.audit.ranks import Area, RankedRows, areas_of_histograms, areas_of_ranks
from fairlayer.audit.slots import CLASSES, DECISIONS, LABELS

__all__ = ["ALL", "UNKNOWN", "Grouped"]

ALL = "all"
UNKNOWN = "unknown"

_EVERY_LABEL = tuple(range(LABELS))
_EVERY_DECISION = tuple(range(DECISIONS))


@dataclass(frozen=True)
class Grouped:
    """Sums per group.

    Args:
        by: the features whose categories make the groups; () for everybody together.
        names: (groups,) such as "sex=F & race=Black"; the last may be "unknown".
        sums: name -> (cells, labels, decisions).
        groups: (cells,) the group of each cell, -1 for a cell in none.
        histogram: (cells, labels, bins, 2) weights and weighted scores, or None.
        ranks: the rows in the order of their scores, or None.
    """

    by: tuple[str, ...]
    names: tuple[str, ...]
    sums: Mapping[str, FloatArray]
    groups: IntArray
    histogram: FloatArray | None
    ranks: RankedRows | None

    @property
    def known(self) -> IntArray:
        """The positions of the groups that have a name, so of all but the unknown row."""
        return np.array([i for i, name in enumerate(self.names) if name != UNKNOWN], dtype=np.int64)

    def total(
        self,
        name: str,
        labels: int | tuple[int, ...] = _EVERY_LABEL,
        decisions: int | tuple[int, ...] = _EVERY_DECISION,
    ) -> FloatArray:
        """Return a sum per group (groups,), over the rows with these labels and these decisions."""
        label = (labels,) if isinstance(labels, int) else labels
        decision = (decisions,) if isinstance(decisions, int) else decisions
        return self._added(self.sums[name][:, label][:, :, decision].sum(axis=(1, 2)))

    def bins(self, labels: tuple[int, ...] = CLASSES) -> FloatArray:
        """Return the histograms (groups, labels, bins, 2) of the labels named, of a table that has them."""
        assert self.histogram is not None, "a metric that reads the histogram must need 'probabilities'"
        return self._added(self.histogram[:, labels])

    def areas(self) -> list[Area]:
        """Return the area under the curve of each group: exact from ranks, else from the histogram."""
        rows = np.stack([effective(self.total("weight", c), self.total("weight_squares", c)) for c in CLASSES], axis=1)
        if self.ranks is not None:
            return areas_of_ranks(self.ranks, self.groups, len(self.names), rows)
        return areas_of_histograms(self.bins()[..., 0], rows)

    def _added(self, cells: FloatArray) -> FloatArray:
        inside = self.groups >= 0
        added = np.zeros((len(self.names), *cells.shape[1:]))
        np.add.at(added, self.groups[inside], cells[inside])
        return added


def effective(weight: FloatArray, squares: FloatArray) -> FloatArray:
    """Return Kish's effective number of rows, (sum w)^2 / sum w^2; the number of rows itself where all weigh the same.

    Example:
        >>> import numpy as np
        >>> effective(np.array([4.0]), np.array([8.0]))
        array([2.])
    """
    return np.divide(weight**2, squares, out=np.zeros_like(weight), where=squares > 0)
