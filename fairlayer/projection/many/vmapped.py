"""`project` under torch.vmap over the scores: the hidden dimension is that of several problems.

The problems are solved from the plain scores, all at once. Then the solution is put together in torch on the tensors as
they came, so that transforms of torch.func around the call, in whatever order, follow it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from fairlayer._arrays import hidden_batch, hide_batch, outside_transforms
from fairlayer.errors import BackendError, ShapeError
from fairlayer.projection.exact import result_dtype
from fairlayer.projection.many.following import Terms, followed
from fairlayer.projection.many.projecting import _check_options, _Problem
from fairlayer.projection.options import Options

__all__ = ["VmappedProjection", "project_hidden"]


class VmappedProjection:
    """What `project` returns under torch.vmap: the value alone.

    Args:
        value: predictions of the problem that is in sight.
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise BackendError(
            f"{name!r} was asked of a projection under torch.vmap, which hides that there are several; only .value is "
            "known there. Use fl.project_many, whose result has the certificate and the prices of every problem."
        )


def project_hidden(  # noqa: PLR0917 - as `project`
    scores: Tensor, constraints: Any, options: Options, features: Any, y: Any, sample_weight: Any, vocabulary: Any
) -> VmappedProjection:
    """Project scores (n,) or (n, 1) of which torch.vmap hides a dimension."""
    if scores.ndim > 2 or (scores.ndim == 2 and scores.shape[1] != 1):
        raise ShapeError(f"under torch.vmap scores must be (n,) or (n, 1), but they are {tuple(scores.shape)}.")
    _check_options(options, constraints)
    column = scores.reshape(-1)
    whole, level = hidden_batch(column)
    assert level is not None
    size = whole.shape
    given = {
        "y": _whole(y, level, size),
        "weight": _whole(sample_weight, level, size),
    }
    if isinstance(features, Mapping):
        columns: Any = {name: _whole(each, level, size) for name, each in features.items()}
    else:
        columns = _whole(features, level, size)
    with outside_transforms():
        problem = _Problem.read(whole, constraints, columns, None, given["y"], given["weight"], options)
        problem.vocabulary = vocabulary
        terms = problem.terms()
    rule, box = options.rule, options.box(whole.reshape(-1))
    x = rule.coordinates(column, from_logits=options.from_logits, margin=options.margin).double()
    here = Terms(*(None if term is None else hide_batch(term, level) for term in terms))  # type: ignore[arg-type]
    value = rule.inside(followed(x, here, rule, box.lower, box.upper).to(result_dtype(whole)))
    return VmappedProjection(value.reshape(scores.shape))


def _whole(given: Any, level: int, size: torch.Size) -> Any:
    """Return what was given for every problem: (b, n), or (n,) where all share it."""
    if not isinstance(given, Tensor):
        return given
    plain, found = hidden_batch(given.reshape(-1) if given.ndim == 2 and given.shape[-1] == 1 else given)
    if found is not None and found != level:
        raise BackendError("scores and groups are hidden by different levels of torch.vmap; project_many has no such.")
    return plain.expand(size) if plain.ndim == 1 else plain
