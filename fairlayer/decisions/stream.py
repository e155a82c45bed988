"""Decisions about a stream of requests, whose pooled decision gap stays bounded.

A fitted rule gives each request a wish z, 1 well above the cell's threshold, 0 well below, and linear in between. A
streaming policy emits e in [0, 1] near z. Under the hard policy "anytime" the pooled means of everything emitted meet
every constraint after every call; under "present" those of recent requests do, up to stated noise. Then e is rounded
with what earlier roundings in this cell left over (`fairlayer.decisions.rounding`), so that the decisions of a cell
never differ from what was emitted by more than half a person:

    |C (mean decisions) - C (mean emitted)| <= sum over cells of |C_cell| / (2 N_cell)

So for parity between groups of one cell each: abs(gap) <= tolerance + 1/(2 N_0) + 1/(2 N_1), for any sequence. A
request with e = 1 is always granted and one with e = 0 never is; lots, so to speak, are drawn in between only.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import host_float64
from fairlayer._numbers import is_number
from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Batch, Constraint
from fairlayer.constraints.measure import measure
from fairlayer.decisions.inputs import as_scores, like, read_scores
from fairlayer.decisions.rounding import Rounding
from fairlayer.decisions.rule import CellRule, DecisionRule
from fairlayer.edge import Stated, as_constraints, feature_names
from fairlayer.errors import CheckpointError, ConstraintDefinitionError
from fairlayer.groups import read_sensitive_features
from fairlayer.streaming import InferenceState, Policy, StreamReport
from fairlayer.tensor_state import PAGE, read_tensor, to_tensor

__all__ = ["DecisionStream", "wishes_of"]

_STATE, _KIND, _ROOM = "decision_stream", "decision stream", 16 * PAGE
_HALF = 0.5 + 1e-9  # a person, at most, is left over from rounding, but for the error of the sums
_REACH = 5.0  # how far beyond 0 and 1 a wish may lie, so that those near the threshold give way first


class _Saved(NamedTuple):
    """What a saved state holds, once it is read."""

    left: dict[str, float]
    decided: FloatArray
    granted: FloatArray
    stream: Mapping[str, Any]


class DecisionStream:
    """Decides requests, one by one or in batches, by a fitted rule, and keeps the pooled decisions within tolerance.

    After every call, for constraints that compare groups of one cell each,

        gap of all decisions so far <= tolerance + 1/(2 N_0) + 1/(2 N_1)

    under the policy "anytime", and in general within the tolerance plus half a person per cell. Where the rule alone
    would do that, few decisions differ from its own; where the population drifts away from it, those near the
    thresholds change first.

    Args:
        rule: the fitted thresholds.
        constraints: what must hold for the pooled decisions; they read features of the rule, and no labels.
        width: the width of the band around a threshold in which wishes go from 0 to 1, in units of the score.
        policy: see `InferenceState`; by default "anytime", which bounds all decisions so far.
        **options: the options of the `InferenceState`: memory, window, hold, transition.

    Raises:
        ConstraintDefinitionError: a constraint reads labels or features that the rule does not know, or the width is
            not above 0.

    Many threads may use one object: each call is one step of some serial order. A call that raises changes nothing.
    A copy, and a pickle, go on from where the stream stands.

    Example:
        >>> import torch, fairlayer as fl
        >>> from fairlayer.decisions import DecisionRule, DecisionStream
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> sex = {"sex": ["F", "F", "F", "M", "M", "M"]}
        >>> rule = DecisionRule.fit(torch.tensor([0.9, 0.6, 0.4, 0.7, 0.3, 0.1]), [parity], sensitive_features=sex)
        >>> stream = DecisionStream(rule, [parity])
        >>> [int(stream.decide(torch.tensor([s]), {"sex": [g]})) for s, g in [(0.9, "F"), (0.8, "M"), (0.2, "F")]]
        [1, 1, 1]
        >>> stream.gaps()
        {"DemographicParity('sex')": 0.0}
    """

    def __init__(
        self,
        rule: DecisionRule,
        constraints: Stated,
        *,
        width: float = 0.05,
        policy: str | Policy = "anytime",
        **options: Any,
    ) -> None:
        held = as_constraints(constraints)
        _check(rule, held)
        if not (is_number(width) and width > 0):
            raise ConstraintDefinitionError(f"width must be a number > 0, in units of the score, but is {width!r}.")
        self.rule, self.constraints, self.width = rule, held, float(width)
        self._features = feature_names(held)
        self._options = {"policy": policy, **options}
        self._lock = threading.Lock()
        self.reset()

    def __repr__(self) -> str:
        decided, held = sum(self.counts().values()), ", ".join(map(repr, self.constraints))
        gaps = ", ".join(f"{name} {'-' if gap is None else f'{gap:.4g}'}" for name, gap in self.gaps().items())
        return f"DecisionStream({held}; policy {self._options['policy']!r}), {decided:g} decided, gaps so far: {gaps}"

    def decide(self, scores: Any, sensitive_features: Any = None, *, at: float | None = None) -> Tensor:
        """Return decisions 0 or 1 (n,) or (n, 1), and count them.

        Args:
            scores: raw scores.
            sensitive_features: see `project`.
            at: seconds on the caller's clock, never less than before; needed where the window is a time.

        Raises:
            UnseenCellError, NonFiniteScoresError, ShapeError, ...: bad input; the state is unchanged.
        """
        tensor = as_scores(scores)
        values = read_scores(tensor)
        cell_of = self.rule.locate(sensitive_features, len(values))
        wishes = torch.from_numpy(wishes_of(self.rule, values, cell_of, self.width))
        with self._lock:
            columns = self._columns(cell_of)
            emitted = self._stream.emit(wishes, columns, at=at) if self._features else wishes.clamp(0.0, 1.0)
            decisions = self._round(cell_of, host_float64(emitted))
        return like(tensor, decisions, torch.int64)

    def reset(self) -> None:
        """Forget everything."""
        self._stream = InferenceState(self.constraints, bounds=(0.0, 1.0), **self._options)
        self._rounding = Rounding()
        self._count, self._selected = np.zeros(len(self.rule.cells)), np.zeros(len(self.rule.cells))

    def counts(self) -> dict[str, int]:
        """Return requests decided per cell."""
        return dict(zip(self.rule.names, self._count.astype(int).tolist(), strict=True))

    def selected(self) -> dict[str, int]:
        """Return requests granted per cell."""
        return dict(zip(self.rule.names, self._selected.astype(int).tolist(), strict=True))

    def gaps(self) -> dict[str, float | None]:
        """Return the number that each constraint bounds, of all decisions so far; None where nothing is compared."""
        with self._lock:
            seen = np.flatnonzero(self._count > 0)
            counts, rates = self._count[seen], self._selected[seen] / self._count[seen]
        groups = read_sensitive_features(self._columns(seen))
        batch = Batch(groups, len(seen), weights=counts)
        return {c.name: measure(c, batch, rates).value for c in self.constraints}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the whole state as one tensor under the name "decision_stream"; see `fairlayer.tensor_state`."""
        with self._lock:
            state = {
                "cells": list(self.rule.names),
                "constraints": [constraint.name for constraint in self.constraints],
                "count": self._count,
                "selected": self._selected,
                "left": self._rounding.to_state(),
                "stream": self._stream.state_dict(),
            }
            return {_STATE: to_tensor(_KIND, state, room=_ROOM)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: it is no such state, was changed, or another version wrote it; nothing has changed.
            ConstraintDefinitionError: it belongs to a rule with other cells, or to other constraints; nothing has
                changed.
        """
        if _STATE not in state:
            raise CheckpointError(
                f"this is not the state of a DecisionStream: it holds {sorted(map(str, state))}, and not '{_STATE}'. "
                "Pass what state_dict() returned; a state that an earlier version wrote loads with that version alone."
            )
        found = read_tensor(_KIND, state[_STATE], self._read_state)
        with self._lock:
            self._stream.load_state_dict(found.stream)  # raises before it changes anything
            self._rounding.load_state(found.left)
            self._count, self._selected = found.decided, found.granted

    def _read_state(self, saved: Mapping[str, Any]) -> _Saved:
        for what, own in (("cells", self.rule.names), ("constraints", [each.name for each in self.constraints])):
            if list(saved[what]) != list(own):
                raise ConstraintDefinitionError(
                    f"the saved stream has the {what} {list(saved[what])}, but this one has {list(own)}. Load it with "
                    "the rule and the constraints it was made with, or with a rule over the same cells."
                )
        left = {str(cell): float(value) for cell, value in saved["left"].items()}
        count, selected = (np.array(saved[name], dtype=np.float64) for name in ("count", "selected"))
        if count.shape != (len(self.rule.cells),) or selected.shape != count.shape:
            raise ValueError(f"counts of shapes {count.shape} and {selected.shape}")
        if not (np.isfinite(count).all() and np.isfinite(selected).all()):
            raise ValueError("counts that are not numbers")
        if not all(abs(rest) <= _HALF for rest in left.values()):
            raise ValueError("rests beyond half a person")
        return _Saved(left, count, selected, saved["stream"])

    def __getstate__(self) -> dict[str, Any]:
        made = {"rule": self.rule, "constraints": self.constraints, "width": self.width, "options": self._options}
        return {**made, "state": self.state_dict()}

    def __setstate__(self, saved: Mapping[str, Any]) -> None:
        self.__init__(  # type: ignore[misc]
            saved["rule"], saved["constraints"], width=saved["width"], **saved["options"]
        )
        self.load_state_dict(saved["state"])

    def report(self) -> StreamReport:
        """Return what was emitted bucket by bucket, before it was rounded; see `InferenceState.report`."""
        return self._stream.report()

    def _columns(self, cell_of: IntArray) -> dict[str, list[Any]]:
        positions = [self.rule.features.index(name) for name in self._features]
        words = [self.rule.cells[number].categories for number in cell_of.tolist()]
        return {name: [word[i] for word in words] for name, i in zip(self._features, positions, strict=True)}

    def _round(self, cell_of: IntArray, emitted: FloatArray) -> IntArray:
        decisions = np.array(self._rounding.answers({"cell": cell_of.tolist()}, emitted.tolist()), dtype=np.int64)
        self._count += np.bincount(cell_of, minlength=len(self._count))
        self._selected += np.bincount(cell_of, weights=decisions, minlength=len(self._count))
        return decisions


def wishes_of(rule: DecisionRule, scores: FloatArray, cell_of: IntArray, width: float = 0.05) -> FloatArray:
    """Return the wish of each score: 1 well above the threshold of its cell, 0 well below, beyond both further away."""
    wishes = np.zeros(len(scores))
    for number in np.unique(cell_of).tolist():
        inside = np.flatnonzero(cell_of == number)
        wishes[inside] = _ramp(rule.cells[number], scores[inside], width)
    return wishes


def _ramp(cell: CellRule, scores: FloatArray, width: float) -> FloatArray:
    """Return the probability of being selected, with slopes for steps; the outer ones go on beyond 0 and 1."""
    wishes = np.zeros(len(scores))
    for threshold, weight in zip(cell.thresholds, cell.weights, strict=True):
        wishes += weight * np.clip(0.5 + (scores - threshold) / width, 0.0, 1.0)
    if not cell.thresholds:
        return wishes
    highest, lowest = cell.thresholds[0], cell.thresholds[-1]
    above = np.clip((scores - highest) / width - 0.5, 0.0, _REACH) if sum(cell.weights) > 1.0 - 1e-9 else 0.0
    below = np.clip((lowest - scores) / width - 0.5, 0.0, _REACH)
    return np.asarray(wishes + above - below)


def _check(rule: DecisionRule, constraints: Sequence[Constraint]) -> None:
    labelled = [constraint.name for constraint in constraints if constraint.needs_labels]
    if labelled:
        raise ConstraintDefinitionError(
            f"{', '.join(labelled)} reads labels, which are not known when a request is decided. Fit the rule with it, "
            "and give the stream constraints on selection rates."
        )
    unknown = [name for name in feature_names(constraints) if name not in rule.features]
    if unknown:
        raise ConstraintDefinitionError(
            f"the constraints read {unknown}, but the rule was fitted on {list(rule.features)}. "
            "Fit the rule with these constraints."
        )
