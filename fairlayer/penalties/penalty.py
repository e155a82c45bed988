"""Each constraint as a loss: the differentiable function and the module."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fairlayer._numbers import is_number
from fairlayer._typing import called_like
from fairlayer.constraints import Constraint, Statement
from fairlayer.constraints.statements import as_float
from fairlayer.edge import OnceWarner, Stated, as_constraints, check_choice
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.groups import Vocabulary
from fairlayer.penalties.corrected import corrected_squares
from fairlayer.penalties.means import members_of
from fairlayer.penalties.norms import NORMS, one_sided
from fairlayer.penalties.reading import (
    ColumnStatements,
    StatementReader,
    outside_graphs,
    read_statements,
    result_dtype,
    widened,
)
from fairlayer.penalties.running import RunningMeans
from fairlayer.penalties.term import LossTerm

__all__ = ["Penalty", "penalise", "soft_decisions"]


@outside_graphs
def penalise(
    scores: Tensor,
    constraints: Stated,
    *,
    norm: str = "squared",
    sensitive_features: Any = None,
    y: Any = None,
    label_probabilities: Any = None,
    threshold: float | None = None,
    temperature: float = 0.1,
    smoothing: float = 0.01,
    vocabulary: Vocabulary | None = None,
) -> Tensor:
    """Return how far the mean scores of a batch are from the constraints, as a differentiable 0-d tensor.

    With m the means of a statement, `v = matrix @ m` (see `fairlayer.constraints.statements`), tol its tolerance,
    and `[x]_+ = max(x, 0)`:

        gap d      spread: scale * max(v) - min(v);  row: its distance from [lower, upper], tol left out where the
                   row has both limits (where it has one, a floor or a cap, the tolerance is the limit itself)
        excess e   the same, beyond the tolerance; faces f are the single limits, and the ordered pairs of a spread

        "squared"    sum [d]_+^2                                   pulls to parity, whatever the tolerance
        "corrected"  the same less what the noise of small groups adds, see `fairlayer.penalties.corrected`
        "variance"   sum 4 / groups * sum_g (v_g - mean v)^2       the same for two groups; pulls on all of many
        "abs"        sum [d]_+                                     pulls to parity, whatever the tolerance
        "hinge"      sum [e]_+                                     0 exactly where the constraint holds
        "logsumexp"  smoothing * log(1 + sum_f exp(e_f/smoothing)) smooth; between [max e]_+ and
                                                                   [max e]_+ + smoothing * log(1 + faces)

    A sum runs over statements, constraints and columns of scores. What a batch says nothing about (an absent group,
    no positives) adds 0 with gradient 0.

    It remembers nothing, so the square of a gap measured on a dozen rows is mostly noise: use "corrected", or
    `Penalty`.

    Args:
        scores: (n,), (n, 1), or (n, k) for k independent scores.
        constraints: one constraint, or several.
        norm: "squared", "corrected", "variance", "abs", "hinge" or "logsumexp".
        sensitive_features: as for `project`.
        y: labels (n,), for constraints that look at labels.
        label_probabilities: estimates of the labels in [0, 1], used where y is None.
        threshold: None penalises mean scores. A number penalises soft decisions instead, the means of
            `sigmoid((scores - threshold) / temperature)`: near the gap of decisions at that threshold, not equal.
        temperature: the temperature of the soft decisions, in score units; smaller is nearer to decisions, with less
            gradient.
        smoothing: the smoothing of "logsumexp", in prediction units.
        vocabulary: known categories; without one, those of this batch.

    Raises:
        FairlayerError: a named subclass; see `fairlayer.errors`.

    Example:
        >>> import torch, fairlayer as fl
        >>> scores = torch.tensor([0.9, 0.7, 0.2, 0.4])
        >>> round(penalise(scores, fl.DemographicParity("sex", 0.1), norm="hinge",
        ...                sensitive_features={"sex": [0, 0, 1, 1]}).item(), 6)
        0.4
    """
    settings = _Settings(norm, threshold, temperature, smoothing)
    stated = as_constraints(constraints)
    read, _ = read_statements(scores, stated, sensitive_features, y, label_probabilities, vocabulary, OnceWarner())
    return settings.total(scores, read)


class Penalty(LossTerm):
    """The constraints as a loss for training; arguments as for `penalise`.

        penalty = f(M),    gradient = sum_i f'_i(M) dv_i        M: running means of the v_i of earlier batches

    In training mode the size of the gap comes from running means and its gradient from the batch, so that the noise of
    small cells does not pull: see `fairlayer.penalties.running`. In evaluation mode it is `penalise` of the batch.

    Args:
        constraints: as for `penalise`.
        norm: as for `penalise`; "corrected" needs no running means and has none.
        threshold: as for `penalise`.
        temperature: as for `penalise`.
        smoothing: as for `penalise`.
        decay: the decay of the running means, in [0, 1): 1 / (1 - decay) is about the largest number of batches that
            they look back. Of a group with many samples they look back less, and of 128 in a batch not at all.

    Bounds nothing: how far the gap falls depends on the weight that the loss gives to it. Absent groups add 0.
    The categories of the sensitive features are learnt as by `FairProjection`, and travel in the `state_dict`.

    Source: Calders, Kamiran, Pechenizkiy (2009) for the gap; Kamishima et al. (2012) for regularisation by it.

    Example:
        >>> import torch, fairlayer as fl
        >>> penalty = Penalty(fl.DemographicParity("sex", tolerance=0.0), norm="squared")
        >>> scores = torch.tensor([0.5, 1.0], requires_grad=True)
        >>> loss = penalty(scores, sensitive_features={"sex": ["F", "M"]})
        >>> loss.backward()
        >>> loss.item(), scores.grad.tolist()
        (0.25, [-1.0, 1.0])
    """

    def __init__(
        self,
        constraints: Stated,
        norm: str = "squared",
        *,
        threshold: float | None = None,
        temperature: float = 0.1,
        smoothing: float = 0.01,
        decay: float = 0.95,
    ) -> None:
        super().__init__()
        self.reader = StatementReader(constraints)
        self._settings = _Settings(norm, threshold, temperature, smoothing)
        if not 0.0 <= _number("decay", decay) < 1.0:
            raise ConstraintDefinitionError(f"decay must be in [0, 1), but is {decay!r}.")
        self.running = RunningMeans(decay)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What is penalised."""
        return self.reader.constraints

    def fit_categories(self, sensitive_features: Any) -> None:
        """Learn the categories of the features, and close the vocabulary: an unseen category is an error."""
        self.reader.fit_categories(sensitive_features)

    @outside_graphs
    def forward(
        self, scores: Tensor, *, sensitive_features: Any = None, y: Any = None, label_probabilities: Any = None
    ) -> Tensor:
        """Return the penalty of a batch, 0-d, of the dtype of the scores (float32 for half precision)."""
        read = self.reader(scores, sensitive_features, y, label_probabilities)
        return self._settings.total(scores, read, self.running if self.training else None)

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def extra_repr(self) -> str:
        """Show the norm."""
        return repr(self._settings)


def _width(statement: Statement) -> Any:
    width = one_sided(statement)
    return as_float(width) if isinstance(width, float | Tensor) else width


class _Settings:
    """What turns values into a loss, checked once."""

    def __init__(self, norm: str, threshold: float | None, temperature: float, smoothing: float) -> None:
        self.norm = check_choice("norm", norm, ("squared", "corrected", *list(NORMS)[1:]))
        self.threshold = None if threshold is None else _number("threshold", threshold)
        self.temperature = _number("temperature", temperature, above=0.0)
        self.smoothing = _number("smoothing", smoothing, above=0.0)

    def total(self, scores: Tensor, read: Sequence[ColumnStatements], running: RunningMeans | None = None) -> Tensor:
        """Return the sum over the columns; from running means, where there are some."""
        total = (widened(scores) * 0.0).sum()  # in the graph, whatever the batch lacks
        for j, column in enumerate(read):
            wide = widened(column.scores)
            if self.threshold is not None:
                wide = soft_decisions(wide, self.threshold, self.temperature)
            measured = members_of(wide, [statement for _, statement in column.statements])
            if self.norm == "corrected":
                parts = corrected_squares(wide, measured, _width)
            elif running is not None:
                keys = [f"{j}, {owner}, {k}" for k, (owner, _) in enumerate(column.statements)]
                parts = running.loss(keys, measured, lambda m: NORMS[self.norm](m, self.smoothing))
            else:
                parts = NORMS[self.norm](measured, self.smoothing)
            for part in parts:
                total = total + part
        return total.to(result_dtype(scores))

    def __repr__(self) -> str:
        decisions = "" if self.threshold is None else f", threshold={self.threshold}, temperature={self.temperature}"
        return f"norm={self.norm!r}{decisions}"


def soft_decisions(scores: Tensor, threshold: float, temperature: float) -> Tensor:
    """Return `sigmoid((scores - threshold) / temperature)`, which tends to `scores > threshold` as temperature -> 0.

    Example:
        >>> soft_decisions(torch.tensor([0.5, 0.9]), 0.5, 0.1)
        tensor([0.5000, 0.9820])
    """
    return torch.sigmoid((scores - threshold) / temperature)


def _number(name: str, value: float, above: float = -math.inf) -> float:
    if not (is_number(value) and value > above):
        limit = "" if math.isinf(above) else f" > {above:g}"
        raise ConstraintDefinitionError(f"{name} must be a finite number{limit}, but is {value!r}.")
    return float(value)
