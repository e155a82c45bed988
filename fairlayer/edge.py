"""The edge: what a caller gives, checked once and made plain."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import host_float64, is_followed, without_derivatives
from fairlayer._typing import FloatArray
from fairlayer.collective import Ranks, RanksDifferError
from fairlayer.constraints import Constraint
from fairlayer.errors import (
    ConstraintDefinitionError,
    EmptyBatchError,
    InvalidBoundsError,
    LabelValueError,
    NonFiniteScoresError,
    ParameterError,
    ShapeError,
)
from fairlayer.groups import Groups, Vocabulary, read_sensitive_features

__all__ = [
    "Bound",
    "Bounds",
    "Box",
    "as_columns",
    "as_constraints",
    "check_alike",
    "check_choice",
    "feature_names",
    "pick",
    "read_groups",
    "read_per_sample",
    "read_sample_weight",
]

Bound = float | Tensor | None
Bounds = tuple[Bound, Bound] | None


class Box(NamedTuple):
    """Bounds on every prediction: what the solver reads, and the tensors that take a gradient."""

    lower: Any = None  # None, float, or float64 tensor (n,)
    upper: Any = None
    lower_tensor: Tensor | None = None
    upper_tensor: Tensor | None = None

    @staticmethod
    def read(bounds: Bounds, margin: float, scores: Tensor) -> Box:
        """Check bounds and margin, and move the bounds inwards by the margin."""
        if not (isinstance(margin, int | float) and math.isfinite(margin) and margin >= 0):
            raise InvalidBoundsError(f"margin must be a number >= 0, but is {margin!r}.")
        if bounds is None:
            if margin:
                raise InvalidBoundsError(f"margin={margin:g} needs bounds; give bounds=(lower, upper) or margin=0.")
            return Box()
        if not isinstance(bounds, tuple | list) or len(bounds) != 2:
            raise InvalidBoundsError(f"bounds must be (lower, upper), each None or a number, but is {bounds!r}.")
        for side, bound in zip(("lower", "upper"), bounds, strict=True):
            if not isinstance(bound, int | float | Tensor | np.ndarray | None):
                raise InvalidBoundsError(f"the {side} bound must be None, a number or a tensor, but is {bound!r}.")
        inner = (_moved(bounds[0], margin), _moved(bounds[1], -margin))
        lower, upper = _bound("lower", inner[0], scores), _bound("upper", inner[1], scores)
        if lower is not None and upper is not None and _any_above(lower, upper):
            raise InvalidBoundsError(
                f"bounds must have lower <= upper, but they are {bounds} with margin={margin:g}. "
                "Swap them, or give a smaller margin."
            )
        if isinstance(lower, Tensor) or isinstance(upper, Tensor):
            lower, upper = _as_vector(lower, scores), _as_vector(upper, scores)
        return Box(lower, upper, *(_differentiable(bound, scores) for bound in inner))


def plain_bounds(bounds: Bounds, margin: float) -> tuple[float | None, float | None]:
    """Return common bounds as numbers.

    Raises:
        InvalidBoundsError: they differ from sample to sample.
    """
    if bounds is None:
        return None, None
    for bound in bounds:
        if isinstance(bound, Tensor | np.ndarray) and bound.ndim:
            raise InvalidBoundsError(
                "a stream, or a table in chunks, needs bounds that are the same for all samples, but they are arrays."
            )
    low, high = (None if bound is None else float(bound) for bound in bounds)
    return None if low is None else low + margin, None if high is None else high - margin


def _moved(bound: Bound, by: float) -> Bound:
    return bound if bound is None or by == 0 else bound + by


def _bound(side: str, bound: Bound, scores: Tensor) -> Any:
    if bound is None:
        return None
    if isinstance(bound, int | float) and math.isfinite(bound):
        return float(bound)
    tensor = without_derivatives(torch.as_tensor(bound, dtype=torch.float64))
    if tensor.ndim > 1 or (tensor.ndim == 1 and len(tensor) != len(scores)):
        raise InvalidBoundsError(
            f"the {side} bound must be a number or have shape (n,) = ({len(scores)},), but has shape "
            f"{tuple(tensor.shape)}."
        )
    if is_followed(tensor):
        return tensor  # the values are read where the transform hands them over
    if not torch.isfinite(tensor).all():
        raise InvalidBoundsError(f"the {side} bound must be finite; use None for no bound.")
    return float(tensor) if tensor.ndim == 0 else tensor.to(scores.device)


def _any_above(lower: Any, upper: Any) -> bool:
    if any(isinstance(bound, Tensor) and is_followed(bound) for bound in (lower, upper)):
        return False
    above = lower > upper
    return above if isinstance(above, bool) else bool(above.any())


def _as_vector(bound: Any, scores: Tensor) -> Tensor | None:
    if bound is None or isinstance(bound, Tensor):
        return bound
    return torch.full((len(scores),), bound, dtype=torch.float64, device=scores.device)


def _differentiable(bound: Bound, scores: Tensor) -> Tensor | None:
    if isinstance(bound, Tensor):  # it may take a gradient, or carry a tangent that no flag shows
        return bound.to(device=scores.device, dtype=torch.float64)
    return None


def as_columns(scores: Tensor, *, empty: bool = False) -> tuple[Tensor, ...]:
    """Return the columns of scores (n,), (n, 1) or (n, k), each (n,).

    Raises:
        ShapeError: not a floating tensor of such a shape.
        EmptyBatchError: no samples, and `empty` is False.
    """
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        found = f"a tensor of {scores.dtype}" if isinstance(scores, Tensor) else type(scores).__name__
        raise ShapeError(f"scores must be a floating tensor (n,), (n, 1) or (n, k), but found {found}.")
    if scores.ndim not in (1, 2):
        raise ShapeError(f"scores must have shape (n,), (n, 1) or (n, k), but have {tuple(scores.shape)}.")
    if scores.numel() == 0 and not (empty and scores.shape[1:].numel()):
        raise EmptyBatchError(f"the batch is empty: scores have shape {tuple(scores.shape)}.")
    return (scores,) if scores.ndim == 1 else scores.unbind(1)


def read_groups(
    features: Any,
    constraints: Sequence[Constraint],
    n: int,
    vocabulary: Vocabulary | None,
    ranks: Ranks | None = None,
) -> Groups:
    """Read the sensitive features of n samples.

    Raises:
        ShapeError: lengths differ.
    """
    if features is None:
        return Groups({}, n, vocabulary, ranks)
    names = () if isinstance(features, Mapping) else feature_names(constraints)
    groups = read_sensitive_features(features, names, vocabulary, ranks)
    if groups.names and groups.n != n:
        raise ShapeError(f"there are {n} scores, but the sensitive features have {groups.n} entries.")
    return groups


def as_constraints(constraints: Sequence[Constraint]) -> tuple[Constraint, ...]:
    """Return the constraints as a tuple.

    Raises:
        ConstraintDefinitionError: not a sequence of constraints.
    """
    if isinstance(constraints, Sequence) and all(isinstance(c, Constraint) for c in constraints):
        return tuple(constraints)
    raise ConstraintDefinitionError(f"constraints must be a list of constraints, but found {constraints!r}.")


def feature_names(constraints: Sequence[Constraint]) -> tuple[str, ...]:
    """Return the sensitive features that the constraints read, in the order in which they name them."""
    return tuple(dict.fromkeys(name for constraint in constraints for name in constraint.features))


def read_per_sample(name: str, values: Any, shape: tuple[int, ...]) -> FloatArray | None:
    """Return labels or their estimates as (n, 1) or (n, k)."""
    if values is None:
        return None
    try:
        array = host_float64(values) if isinstance(values, Tensor) else np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise LabelValueError(
            f"{name} must be numbers, but is not ({error}). Recode it, for example (column == positive)."
        ) from error
    if array.shape not in {shape[:1], shape}:
        raise ShapeError(
            f"{name} must have shape {shape[:1]} or that of the scores, {shape}, but has shape {array.shape}. "
            "Use .squeeze(-1) or .unsqueeze(-1) to match."
        )
    if not np.isfinite(array).all():
        raise NonFiniteScoresError(f"{name} holds NaN or infinite values; drop or impute those samples.")
    return array if array.ndim == 2 else array[:, None]


def check_alike(
    ranks: Ranks, constraints: Sequence[str], columns: Sequence[Tensor], box: Box, groups: Groups, **given: Any
) -> None:
    """Check what all processes must have in common, before any of them relies on it.

    Raises:
        RanksDifferError: they differ.
        EmptyBatchError: no process has any samples.
    """
    words = groups.vocabulary
    mine: dict[str, Any] = {
        "columns of scores": len(columns),
        "precision of the scores": "float64" if columns[0].dtype == torch.float64 else "float32 or less",
        "constraints": tuple(constraints),
        "bounds": tuple("per sample" if isinstance(b, Tensor) else b for b in (box.lower, box.upper)),
        "known categories": {name: words.categories[name] for name in sorted(words.categories)},
        "categories may be added": words.open,
        **{name: "given" if value is not None else "not given" for name, value in given.items()},
    }
    found = ranks.gather(np.array([len(columns[0]), zlib.crc32(repr(mine).encode())], dtype=np.float64), "settings")
    if (found[:, 1] != found[0, 1]).any():
        _raise_different(mine, ranks)
    if not found[:, 0].any():
        raise EmptyBatchError(f"the batch is empty: none of the {len(found)} processes has any scores.")


def _raise_different(mine: dict[str, Any], ranks: Ranks) -> NoReturn:
    everywhere = ranks.objects(mine, "different settings")
    for what in mine:
        values = [their[what] for their in everywhere]
        if any(value != values[0] for value in values):
            raise RanksDifferError(
                f"all processes of a process_group must agree on the {what}, but have, in the order of their ranks: "
                f"{'; '.join(map(str, values))}. Give the same on every rank, or use process_group=None."
            )
    raise RanksDifferError("the processes of a process_group were given different settings.")


def pick(values: FloatArray | None, column: int) -> FloatArray | None:
    """Return one column of what `read_per_sample` returned; a single column serves all."""
    return None if values is None else values[:, min(column, values.shape[1] - 1)]


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return the value if it is one of the choices.

    Raises:
        ParameterError: it is not.
    """
    if value not in choices:
        raise ParameterError(f"{name} must be one of {', '.join(map(repr, choices))}, but is {value!r}.")
    return value


def read_sample_weight(values: Any, n: int) -> FloatArray | None:
    """Return sample weights as (n,) float64.

    Raises:
        ShapeError: they are not of shape (n,).
        ParameterError: one is negative or not finite, or none is positive.
    """
    if values is None:
        return None
    array = host_float64(values) if isinstance(values, Tensor) else np.asarray(values, dtype=np.float64)
    if array.shape != (n,):
        raise ShapeError(f"sample_weight must have shape ({n},), one number per sample, but has shape {array.shape}.")
    if not np.isfinite(array).all() or array.min(initial=0.0) < 0 or (n and array.max() <= 0):
        raise ParameterError("sample_weight must be finite and >= 0, and above 0 for at least one sample.")
    return array
