"""What stays the same from batch to batch, as one checked value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from fairlayer._keywords import refuse_foreign_keywords
from fairlayer._numbers import is_number
from fairlayer.collective import Ranks
from fairlayer.edge import Bounds, Box, check_choice
from fairlayer.errors import BackendError, InvalidBoundsError, ParameterError
from fairlayer.geometry import Geometry, geometry_of
from fairlayer.geometry.probabilities import inner_margin

__all__ = ["Options", "ProjectionOptions", "options_of"]

SIMPLEX = "simplex"


class ProjectionOptions(TypedDict, total=False):
    """The keywords that `project`, `FairProjection` and `FairModel` share; `project` says what they mean."""

    bounds: Bounds | str
    margin: float
    geometry: str | Geometry
    from_logits: bool
    on_empty: str
    on_infeasible: str
    backend: str
    process_group: Any


@dataclass(frozen=True)
class Options:
    """The checked keywords; arguments as for `project`.

    Raises:
        ParameterError, InvalidBoundsError, BackendError: values that do not go together.
    """

    bounds: Bounds | str = None
    margin: float = 0.0
    geometry: str | Geometry = "euclidean"
    from_logits: bool = False
    on_empty: str = "skip"
    on_infeasible: str = "raise"
    backend: str = "exact"
    process_group: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_choice("on_empty", self.on_empty, ("skip", "raise"))
        check_choice("on_infeasible", self.on_infeasible, ("raise", "relax"))
        check_choice("backend", self.backend, ("exact", "cvxpylayers"))
        if isinstance(self.bounds, str) and self.bounds != SIMPLEX:
            raise InvalidBoundsError(
                f'bounds must be a pair (lower, upper), None, or "simplex", but is {self.bounds!r}.'
            )
        self._check_geometry()
        if self.ranks is not None and self.backend != "exact":
            raise BackendError(
                f'backend="{self.backend}" sees one process only; use backend="exact" with a process_group.'
            )
        if self.ranks is not None and self.on_simplex:
            raise BackendError('bounds="simplex" sees one process only; use process_group=None.')
        _ = self.fixed_box

    def _check_geometry(self) -> None:
        rule, name = self.rule, self.rule.name
        if self.from_logits and not rule.takes_logits:
            others = "geometry='entropic'" + ("" if self.on_simplex else " (or 'likelihood')")
            raise ParameterError(
                f"geometry={name!r} moves the scores themselves, so from_logits=True has no meaning there. Use "
                f"{others}, or pass probabilities."
            )
        if self.backend != "exact" and (name != "euclidean" or self.on_simplex):
            where = ' and bounds="simplex"' if self.on_simplex else ""
            raise BackendError(
                f'backend="{self.backend}" knows the euclidean geometry on a box only, but geometry={name!r}{where} '
                'was asked. Use backend="exact".'
            )
        if rule.bounded and not self.on_simplex and not _are_unit(self.bounds):
            raise InvalidBoundsError(
                f"geometry={name!r} moves probabilities, whose bounds are (0, 1), but bounds={self.bounds!r} was "
                "asked. Leave bounds out, or use geometry='euclidean'."
            )

    @property
    def on_simplex(self) -> bool:
        """Whether rows of class probabilities are projected as a whole."""
        return isinstance(self.bounds, str)

    @property
    def relax(self) -> bool:
        """Whether limits may be widened where nothing meets them."""
        return self.on_infeasible == "relax"

    @cached_property
    def rule(self) -> Geometry:
        """The geometry."""
        return geometry_of(self.geometry, on_simplex=self.on_simplex)

    @cached_property
    def ranks(self) -> Ranks | None:
        """The processes that hold a batch together, or None."""
        return Ranks.of(self.process_group)

    @property
    def numeric_bounds(self) -> Bounds:
        """The bounds of each single prediction."""
        if self.on_simplex or self.rule.bounded:
            return (0.0, 1.0)
        assert not isinstance(self.bounds, str)
        return self.bounds

    @cached_property
    def fixed_box(self) -> Box | None:
        """The box where it depends on no batch; tensors may change between batches, or take a gradient."""
        bounds = self.numeric_bounds
        if isinstance(bounds, tuple | list) and any(isinstance(bound, Tensor | np.ndarray) for bound in bounds):
            return None
        return Box.read(bounds, 0.0 if self.on_simplex else self.margin, torch.empty(0))

    def box(self, column: Tensor) -> Box:
        """Return the bounds of one column of scores; an open domain ends a resolution of the dtype before them."""
        if self.rule.bounded and not self.on_simplex:
            inner = inner_margin(column.dtype, self.margin)
            return Box(inner, 1.0 - inner)
        return self.fixed_box or Box.read(self.numeric_bounds, self.margin, column)


def _are_unit(bounds: Any) -> bool:
    if bounds is None:
        return True
    return (
        isinstance(bounds, tuple | list)
        and len(bounds) == 2
        and all(is_number(bound) and float(bound) == end for bound, end in zip(bounds, (0.0, 1.0), strict=True))
    )


def options_of(where: str, given: Mapping[str, Any], own: Sequence[str] = ()) -> Options:
    """Return the options among the keywords of a call.

    Args:
        where: the name of what was called.
        given: the keywords.
        own: further keywords that it has, for the message.

    Raises:
        KeywordError: it has no such keyword.
    """
    refuse_foreign_keywords(where, given, (*own, *ProjectionOptions.__annotations__))
    return Options(**given)
