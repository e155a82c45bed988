"""Which groups can be shown, so that no group of fewer than k people can be found or computed.

Counts of groups are sums of counts of cells. A small group that is left out can be computed where its count is a sum of
published ones with signs (all people less the other groups). So groups are left out, the smallest first, until no small
group lies in the linear span of the published ones:

    hidden(g)   unless   1_g = sum_p a_p 1_p   for the indicators 1_p (over cells) of the published groups p

The same argument serves sums of decisions, since they are sums over the same cells. Several small groups together may
still be fewer than k: what is left of a published group, or of everybody, when the published groups of a grouping are
taken from it, is nobody, or k people and more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.audit.grouped import UNKNOWN
from fairlayer.errors import ParameterError

__all__ = ["key_of", "published"]

_MOST_CELLS = 20_000


def published(document: Mapping[str, Any], smallest: int) -> dict[str, set[str]]:
    """Return the groups of every grouping that can be shown."""
    indicators, sizes = _indicators(document)
    shown = {key for key, size in sizes.items() if size >= smallest}
    hidden = [key for key, size in sizes.items() if 0 < size < smallest]
    everybody = np.ones(len(next(iter(indicators.values()), np.zeros(0))))
    people = float(document["rows"]["counted"])
    while shown:
        spanned = any(_spanned(indicators[key], [everybody, *(indicators[s] for s in sorted(shown))]) for key in hidden)
        among = shown if spanned else _short_of_few(indicators, sizes, shown, (everybody, people), smallest)
        if not among:
            break
        shown.remove(min(among, key=lambda key: (-len(key[0].split("+")), sizes[key], key)))
    found: dict[str, set[str]] = {key_of(one): set() for one in document["groupings"]}
    for grouping, name in shown:
        found[grouping].add(name)
    return found


def _short_of_few(
    indicators: Mapping[tuple[str, str], FloatArray],
    sizes: Mapping[tuple[str, str], float],
    shown: set[tuple[str, str]],
    everybody: tuple[FloatArray, float],
    smallest: int,
) -> set[tuple[str, str]]:
    """Return the published groups of a grouping that leave fewer than k people of another published group, if any."""
    wholes = [everybody, *((indicators[key], sizes[key]) for key in sorted(shown))]
    for grouping in sorted({key[0] for key in sizes}):
        for cells, size in wholes:
            parts = {key for key in shown if key[0] == grouping and (indicators[key] <= cells).all()}
            rest = size - sum(sizes[key] for key in parts)
            if parts and 1e-6 < rest < smallest:
                return parts
    return set()


def _indicators(document: Mapping[str, Any]) -> tuple[dict[tuple[str, str], FloatArray], dict[tuple[str, str], float]]:
    """Return, for every group of every grouping, which cells of the finest grouping it is made of, and its size.

    Where no grouping crosses all features, the cells are all combinations that the groups could have.
    """
    sizes = {
        (key_of(one), group["name"]): float(group["rows"]) for one in document["groupings"] for group in one["groups"]
    }
    features = list(dict.fromkeys(name for one in document["groupings"] for name in one["by"]))
    values: dict[str, list[str]] = {name: [] for name in features}
    for one in document["groupings"]:
        for group in one["groups"]:
            for feature, value in _parts(group["name"], one["by"]).items():
                if value not in values[feature]:
                    values[feature].append(value)
    size = math.prod(len(known) + 1 for known in values.values())
    if size > _MOST_CELLS:
        raise ParameterError(
            f"the groups of {', '.join(features)} make {size:,} combinations, of which it would have to be checked "
            f"what can be computed from what; at most {_MOST_CELLS:,} are. Audit fewer features, or coarser groups."
        )
    cells: list[dict[str, str]] = [{}]
    for name in features:
        cells = [{**cell, name: value} for cell in cells for value in (*values[name], UNKNOWN)]
    cells = _occupied(cells, document)
    found = {}
    for one in document["groupings"]:
        for group in one["groups"]:
            wanted = _parts(group["name"], one["by"])
            inside = [
                all(cell[name] == value for name, value in wanted.items())
                if wanted
                else any(cell[name] == UNKNOWN for name in one["by"])
                for cell in cells
            ]
            found[key_of(one), group["name"]] = np.array(inside, dtype=np.float64)
    return found, sizes


def _occupied(cells: list[dict[str, str]], document: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the cells that somebody may be in: a grouping that lists its groups says which known ones are empty."""
    kept = cells
    for one in document["groupings"]:
        names = [group["name"] for group in one["groups"]]
        there = [_parts(name, one["by"]) for name in names]
        unknown = UNKNOWN in names
        kept = [
            cell
            for cell in kept
            if {name: cell[name] for name in one["by"]} in there
            or (unknown and any(cell[name] == UNKNOWN for name in one["by"]))
        ]
    return kept


def _spanned(target: FloatArray, published: list[FloatArray]) -> bool:
    matrix = np.stack(published, axis=1)
    solution, *_ = np.linalg.lstsq(matrix, target, rcond=None)
    return bool(np.abs(matrix @ solution - target).max(initial=0.0) < 1e-8)


def _parts(name: str, by: list[str]) -> dict[str, str]:
    """Return feature -> category of a group's name; {} for the unknown group."""
    if name == UNKNOWN:
        return {}
    if any(name.count(f" & {feature}=") > 1 for feature in by[1:]):
        raise ParameterError(
            f"the group '{name}' cannot be taken apart into {', '.join(by)}, since a category holds ' & ' and the name "
            "of a column. Rename the category, and make the document again."
        )
    found, rest = {}, name
    for place, feature in enumerate(by):
        rest = rest.removeprefix(f"{feature}=")
        following = f" & {by[place + 1]}=" if place + 1 < len(by) else None
        value, rest = (rest, "") if following is None else (rest.split(following, 1)[0], rest.split(following, 1)[-1])
        found[feature] = value
    return found


def key_of(grouping: Mapping[str, Any]) -> str:
    """Return what a grouping is called: its features, joined by a plus."""
    return "+".join(grouping["by"])
