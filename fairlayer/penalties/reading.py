"""From what a caller gives to the statements of a batch; learns the categories as the projection does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fairlayer._arrays import host_float64, is_followed
from fairlayer.constraints import Batch, Constraint, Statement
from fairlayer.edge import (
    OnceWarner,
    Stated,
    as_columns,
    as_constraints,
    feature_names,
    pick,
    read_groups,
    read_per_sample,
    warn_if_nothing_to_compare,
)
from fairlayer.errors import NonFiniteScoresError
from fairlayer.groups import Groups, Vocabulary
from fairlayer.tensor_state import ROOM_OF_WORDS, read_tensor, refuse_foreign, to_tensor
from fairlayer.tracing import outside_graphs

__all__ = [
    "ColumnStatements",
    "StatementReader",
    "finite",
    "outside_graphs",
    "read_statements",
    "result_dtype",
    "widened",
]


class ColumnStatements(NamedTuple):
    """One column of scores, and what each constraint says about it."""

    scores: Tensor  # (n,)
    statements: tuple[tuple[int, Statement], ...]  # with the index of the constraint


def read_statements(  # noqa: PLR0917 - the order of `Plan.run`
    scores: Tensor,
    constraints: Sequence[Constraint],
    sensitive_features: Any,
    y: Any,
    label_probabilities: Any,
    vocabulary: Vocabulary | None,
    once: OnceWarner | None = None,
) -> tuple[list[ColumnStatements], Groups]:
    """Return the statements of each column of scores, and the groups of the batch.

    A constraint that has nothing to compare is told by `once`, where one is given.

    Raises:
        FairlayerError: a named subclass; see `fairlayer.errors`.
    """
    columns = as_columns(finite(scores))
    n, shape = len(columns[0]), tuple(scores.shape)
    groups = read_groups(sensitive_features, constraints, n, vocabulary)
    labels = read_per_sample("y", y, shape)
    estimates = read_per_sample("label_probabilities", label_probabilities, shape)
    read = []
    for j, column in enumerate(columns):
        batch = Batch(groups, n, pick(labels, j), pick(estimates, j), partial(host_float64, column))
        speaking = [(i, c) for i, c in enumerate(constraints) if len(columns) == 1 or c.applies_to(j)]
        stated = [(i, statement) for i, c in speaking for statement in c.statements(batch)]
        for i, statement in stated if once is not None else ():
            warn_if_nothing_to_compare(constraints[i], statement, once)  # type: ignore[arg-type]
        read.append(ColumnStatements(column, tuple(stated)))
    return read, groups


class StatementReader(nn.Module):
    """`read_statements` for the batches of a training run, with the categories seen so far.

    The categories are learnt by `fit_categories`, or from the batches seen in training mode (in evaluation mode,
    from the first batch); they travel in the `state_dict`.
    """

    def __init__(self, constraints: Stated) -> None:
        super().__init__()
        self.constraints = as_constraints(constraints)
        self._once = OnceWarner()
        self.vocabulary = Vocabulary()

    def fit_categories(self, sensitive_features: Any) -> None:
        """Learn the categories of the features, and close the vocabulary: an unseen category is an error."""
        self.vocabulary = self.vocabulary.learn(sensitive_features, feature_names(self.constraints))

    def forward(
        self, scores: Tensor, sensitive_features: Any, y: Any, label_probabilities: Any
    ) -> list[ColumnStatements]:
        """Return the statements of each column of scores."""
        words = self.vocabulary
        closed = bool(words.categories) and not self.training
        known = words.closed() if closed else words
        read, groups = read_statements(
            scores, self.constraints, sensitive_features, y, label_probabilities, known, self._once
        )
        self.vocabulary = Vocabulary(groups.vocabulary.categories, words.open)
        return read

    def get_extra_state(self) -> Tensor:
        """Return the vocabulary as one tensor; see `fairlayer.tensor_state`."""
        return to_tensor("vocabulary", self.vocabulary.to_state(), room=ROOM_OF_WORDS)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the vocabulary.

        Raises:
            CheckpointError: it is no such tensor, was changed, or is of other features; the vocabulary is as before.
        """
        self.vocabulary = self._read_state(state)

    def _read_state(self, state: Tensor) -> Vocabulary:
        words = read_tensor("vocabulary", state, Vocabulary.from_state)
        refuse_foreign("vocabulary", words.categories, feature_names(self.constraints))
        return words

    def extra_repr(self) -> str:
        """Show the constraints."""
        return ", ".join(map(repr, self.constraints))


def finite(scores: Tensor) -> Tensor:
    """Return the scores if all are finite.

    Raises:
        NonFiniteScoresError: NaN or infinity among them.
    """
    if not isinstance(scores, Tensor) or is_followed(scores) or bool(torch.isfinite(scores).all()):
        return scores
    count = int((~torch.isfinite(scores)).sum())
    raise NonFiniteScoresError(
        f"{count} of {scores.numel()} scores are NaN or infinite. Look at the model's output (learning rate, inputs)."
    )


def widened(scores: Tensor) -> Tensor:
    """Return the scores in the precision in which means are summed: float64 where the device has it."""
    return scores.to(torch.float32 if scores.device.type == "mps" else torch.float64)


def result_dtype(scores: Tensor) -> torch.dtype:
    """Return the dtype of a loss: that of the scores, float32 for half precision."""
    return torch.float32 if scores.dtype in (torch.float16, torch.bfloat16) else scores.dtype
