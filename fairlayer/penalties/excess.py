"""The constraints as one vector of named numbers, each to be <= 0: what Lagrangian methods take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fairlayer._typing import BoolArray, called_like
from fairlayer.constraints import Constraint
from fairlayer.edge import Stated, feature_names
from fairlayer.errors import ShapeError
from fairlayer.groups import read_sensitive_features
from fairlayer.penalties.faces import face_names, faces, present_faces
from fairlayer.penalties.means import members_of
from fairlayer.penalties.reading import ColumnStatements, StatementReader, outside_graphs, result_dtype, widened
from fairlayer.tensor_state import ROOM_OF_WORDS, check_states, read_tensor, refuse_foreign, to_tensor

__all__ = ["Excess", "FaceValues", "face_values"]


class FaceValues(NamedTuple):
    """The faces of all constraints on one batch; names are the same in every batch with the same categories."""

    names: tuple[str, ...]
    excess: Tensor  # (faces,), 0 with gradient 0 where not present
    present: BoolArray  # (faces,)


def face_values(scores: Tensor, constraints: Sequence[Constraint], read: Sequence[ColumnStatements]) -> FaceValues:
    """Return the faces of what `StatementReader` read."""
    owners = _numbered(tuple(constraint.name for constraint in constraints))
    names: list[str] = []
    parts, present = [(widened(scores).reshape(-1)[:1] * 0.0)[:0]], []
    for j, column in enumerate(read):
        suffix = f", column {j}" if len(read) > 1 else ""
        measured = members_of(widened(column.scores), [statement for _, statement in column.statements])
        for (owner, statement), m in zip(column.statements, measured, strict=True):
            names += _prefixed(owners[owner], face_names(statement), suffix)
            here = present_faces(m)
            parts.append(faces(m, statement.tolerance) * torch.as_tensor(here, device=scores.device))
            present.append(here)
    there: BoolArray = np.concatenate(present) if present else np.zeros(0, dtype=bool)
    return FaceValues(_numbered(tuple(names)), torch.cat(parts).to(result_dtype(scores)), there)


class Excess(nn.Module):
    """The signed excess of every face of the constraints: the constraints hold exactly where no entry is above 0.

        a spread, each ordered pair i != j     scale * v_i - v_j - tolerance
        a row, each finite limit               v_i - (upper + tolerance)      (lower - tolerance) - v_i

    with v the mean scores that the statement speaks of. A face about a group that the batch lacks is 0 with gradient
    0. The number of entries follows the categories, so call `fit_categories` before anything reads `size`.

    Example:
        >>> import fairlayer as fl
        >>> excess = Excess(fl.DemographicParity("sex", tolerance=0.1)).fit_categories({"sex": ["F", "M"]})
        >>> excess.names
        ("DemographicParity('sex'): mean[sex=F] - mean[sex=M]", "DemographicParity('sex'): mean[sex=M] - mean[sex=F]")
        >>> excess(torch.tensor([0.9, 0.4]), sensitive_features={"sex": ["F", "M"]})
        tensor([ 0.4000, -0.6000])
    """

    def __init__(self, constraints: Stated) -> None:
        super().__init__()
        self.reader = StatementReader(constraints)
        self._names: tuple[str, ...] | None = None

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What must hold."""
        return self.reader.constraints

    @property
    def names(self) -> tuple[str, ...]:
        """One name per entry.

        Raises:
            ShapeError: no batch was seen yet.
        """
        if self._names is None:
            raise ShapeError(
                "the faces of the constraints are not known before their categories are. Call "
                "fit_categories(sensitive_features) first, with y= if a constraint looks at labels."
            )
        return self._names

    @property
    def size(self) -> int:
        """Number of entries."""
        return len(self.names)

    def fit_categories(self, sensitive_features: Any, *, y: Any = None, label_probabilities: Any = None) -> Excess:
        """Learn the categories, and with them the faces; an unseen category is an error from then on.

        Args:
            sensitive_features: a column per feature that holds every category.
            y: labels of the same samples, if a constraint looks at labels.
            label_probabilities: their estimates, where y is None.
        """
        self.reader.fit_categories(sensitive_features)
        n = read_sensitive_features(sensitive_features, feature_names(self.constraints)).n
        self.named(torch.zeros(n), sensitive_features=sensitive_features, y=y, label_probabilities=label_probabilities)
        return self

    @outside_graphs
    def named(
        self, scores: Tensor, *, sensitive_features: Any = None, y: Any = None, label_probabilities: Any = None
    ) -> FaceValues:
        """Return the excess with the names, and which entries this batch speaks of."""
        read = self.reader(scores, sensitive_features, y, label_probabilities)
        values = face_values(scores, self.constraints, read)
        self._names = values.names
        return values

    def forward(
        self, scores: Tensor, *, sensitive_features: Any = None, y: Any = None, label_probabilities: Any = None
    ) -> Tensor:
        """Return the excess (size,)."""
        return self.named(
            scores, sensitive_features=sensitive_features, y=y, label_probabilities=label_probabilities
        ).excess

    def get_extra_state(self) -> Tensor:
        """Return the names of the entries as one tensor; see `fairlayer.tensor_state`."""
        return to_tensor("faces", {"names": self._names}, room=ROOM_OF_WORDS)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the names of the entries.

        Raises:
            CheckpointError: it is no such tensor, was changed, or is of other constraints; nothing has changed.
        """
        self._names = self._read_state(state)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        check_states(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _read_state(self, state: Tensor) -> tuple[str, ...] | None:
        names = read_tensor("faces", state, lambda saved: saved["names"])
        own = tuple(constraint.name for constraint in self.constraints)
        if names and not any(name.startswith(own) for name in names):
            refuse_foreign("faces", names, own)
        return None if names is None else tuple(names)

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

        __getattr__: None  # type: ignore[assignment, misc]  # an attribute that nobody defines is an error


@lru_cache(maxsize=256)
def _prefixed(owner: str, names: tuple[str, ...], suffix: str) -> tuple[str, ...]:
    return tuple(f"{owner}: {name}{suffix}" for name in names)


def _numbered(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names, numbered from the second of the same name on."""
    if len(set(names)) == len(names):
        return names
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return tuple(numbered)
