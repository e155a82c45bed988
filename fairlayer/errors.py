"""Named errors: each says what was asked, what was found and what to do."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = [
    "BackendError",
    "CategoryError",
    "CheckpointError",
    "ConstraintDefinitionError",
    "DataError",
    "EmptyBatchError",
    "EmptyGroupError",
    "FairlayerError",
    "FairlayerWarning",
    "InfeasibleConstraintsError",
    "InvalidBoundsError",
    "KeywordError",
    "LabelValueError",
    "MissingExtraError",
    "MissingLabelsError",
    "MissingSensitiveFeatureError",
    "NonFiniteScoresError",
    "OutputError",
    "ParameterError",
    "ProbabilityError",
    "RowOrderError",
    "ShapeError",
    "SmallBatchError",
    "SolverError",
    "TracingError",
    "UnknownNameError",
]


class FairlayerError(Exception):
    """Base of every error that fairlayer raises on purpose: `except FairlayerError` catches them all.

    Example:
        >>> import torch, fairlayer as fl
        >>> try:
        ...     fl.project(torch.tensor([0.9, 0.1]), fl.DemographicParity("sex", 0.1))
        ... except FairlayerError as error:
        ...     print(type(error).__name__)
        MissingSensitiveFeatureError
    """


class FairlayerWarning(UserWarning):
    """Something that was asked for says nothing, or cannot be meant; the result is what was asked for."""


class ShapeError(FairlayerError, ValueError):
    """Lengths or shapes do not belong together."""


class RowOrderError(FairlayerError, ValueError):
    """Columns that belong to the same rows stand in different orders."""


class EmptyBatchError(FairlayerError, ValueError):
    """A batch without samples was given."""


class NonFiniteScoresError(FairlayerError, ValueError):
    """Scores, labels or weights hold NaN or infinity."""


class ProbabilityError(FairlayerError, ValueError):
    """Scores that should be probabilities are none."""


class ConstraintDefinitionError(FairlayerError, ValueError):
    """A constraint was written with values that cannot hold (negative tolerance, lower > upper, ...)."""


class InvalidBoundsError(FairlayerError, ValueError):
    """Bounds on the predictions are missing, crossed, or not what a constraint needs."""


class MissingSensitiveFeatureError(FairlayerError, KeyError):
    """A constraint speaks of an attribute that was not given."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


class CategoryError(FairlayerError, ValueError):
    """A sensitive feature holds a category that the vocabulary does not know, or cannot be read as groups."""


class CheckpointError(FairlayerError, ValueError, RuntimeError):
    """A checkpoint's state cannot be read: it was changed, is of an earlier version, or of something else."""


class EmptyGroupError(FairlayerError, ValueError):
    """A constraint compares groups of which one has no sample in the batch."""


class MissingLabelsError(FairlayerError, ValueError):
    """A label-based constraint met a batch without labels."""


class LabelValueError(FairlayerError, ValueError):
    """Labels are not of the kind that the constraint needs."""


class InfeasibleConstraintsError(FairlayerError, ValueError):
    """No prediction within the bounds meets all constraints."""


class SolverError(FairlayerError, RuntimeError):
    """The solver did not reach its accuracy; no value is returned.

    Where a projection ends so, `problem` holds what the solver saw: cell statistics, limits and the seed, with
    `.save(path)`. The message holds no score.
    """

    problem: Any = None


class SmallBatchError(FairlayerError, ValueError):
    """An inference batch is smaller than `b_tau`."""


class OutputError(FairlayerError, TypeError):
    """The backbone's output cannot be read as scores."""


class ParameterError(FairlayerError, ValueError):
    """A parameter was given a value that it cannot take."""


class KeywordError(ParameterError, TypeError):
    """A call names an argument that there is not."""


class UnknownNameError(FairlayerError, AttributeError):
    """A package has no such public name."""


class BackendError(FairlayerError, ValueError):
    """A backend cannot serve the constraints given."""


class DataError(FairlayerError, ValueError):
    """A table cannot be read as asked."""


class TracingError(FairlayerError, RuntimeError):
    """A layer was recorded by an example batch, whose groups would be replayed for every other."""


class ChangedBatchError(FairlayerError, RuntimeError):
    """Tensors of a batch were changed in place before its result was read."""


class MissingExtraError(FairlayerError, ImportError):
    """An optional library is not installed."""


def require(module: str, extra: str) -> Any:
    """Import an optional library, or name the extra that brings it.

    Raises:
        MissingExtraError: the library is not installed.

    Example:
        >>> require("math", "train").sqrt(4.0)
        2.0
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this needs the library '{module.partition('.')[0]}', which is not installed ({error}). "
            f"Install it with: pip install 'fairlayer[{extra}]'"
        ) from error
