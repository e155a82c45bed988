"""Which predictions count as near: one small file per geometry."""

from __future__ import annotations

from fairlayer._keywords import explain_public
from fairlayer.errors import ParameterError
from fairlayer.geometry.base import Geometry
from fairlayer.geometry.entropic import Entropic
from fairlayer.geometry.euclidean import Euclidean
from fairlayer.geometry.likelihood import Likelihood
from fairlayer.geometry.simplex_entropic import EntropicSimplex
from fairlayer.geometry.simplex_euclidean import EuclideanSimplex

__all__ = [
    "EUCLIDEAN",
    "Entropic",
    "EntropicSimplex",
    "Euclidean",
    "EuclideanSimplex",
    "Geometry",
    "Likelihood",
    "geometry_of",
]

EUCLIDEAN = Euclidean()
_ON_BOX: dict[str, Geometry] = {g.name: g for g in (EUCLIDEAN, Entropic(), Likelihood())}
_ON_SIMPLEX: dict[str, Geometry] = {g.name: g for g in (EuclideanSimplex(), EntropicSimplex())}


def geometry_of(name: str | Geometry, *, on_simplex: bool = False) -> Geometry:
    """Return a geometry by its name.

    Args:
        name: "euclidean", "entropic" or "likelihood"; or an object of one's own.
        on_simplex: whether rows of class probabilities are moved, instead of single numbers.

    Raises:
        ParameterError: there is no such geometry on that domain.

    Example:
        >>> geometry_of("entropic").unit
        'log-odds'
    """
    known = _ON_SIMPLEX if on_simplex else _ON_BOX
    if isinstance(name, Geometry):
        if name.on_simplex != on_simplex:
            where = "the simplex" if name.on_simplex else "a box"
            raise ParameterError(
                f"geometry={name!r} lives on {where}, but bounds= says otherwise. Give the other bounds, or a geometry "
                "that lives where they are."
            )
        return name
    if name not in known:
        where = ' with bounds="simplex"' if on_simplex else ""
        raise ParameterError(f"geometry must be one of {', '.join(map(repr, known))}{where}, but is {name!r}.")
    return known[name]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(
    __name__, inner=("Entropic", "EntropicSimplex", "Euclidean", "EuclideanSimplex", "Geometry", "Likelihood")
)
