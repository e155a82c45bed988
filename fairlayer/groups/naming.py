"""Names of groups and cells, in which different things never look alike.

A group is written `name=category`, an intersection `a=x & b=y`, a stratum `a=x, y=1`. A category or a feature name that
would read as one of those signs, or as another category of its feature, is written in quotes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from fairlayer._typing import Category

__all__ = ["category_texts", "cell_name", "feature_text", "group_labels", "unknown_label"]

_SIGNS = re.compile(r" & |, |; |^['\"]|^unknown$")


@lru_cache(maxsize=1024)
def group_labels(name: str, categories: tuple[Category, ...]) -> tuple[str, ...]:
    """Return `name=category` for each category.

    Example:
        >>> group_labels("g", (1, "1", "a & b"))
        ('g=1', "g='1'", "g='a & b'")
    """
    return tuple(f"{feature_text(name)}={text}" for text in category_texts(categories))


def category_texts(categories: Sequence[Category]) -> tuple[str, ...]:
    """Return each category as text, text in quotes where it would look like something else."""
    plain = Counter(map(str, categories))
    return tuple(
        repr(category)
        if isinstance(category, str) and (plain[category] > 1 or _SIGNS.search(category))
        else str(category)
        for category in categories
    )


def feature_text(name: str) -> str:
    """Return the name of a feature, in quotes where it holds a sign of the cell names."""
    return repr(name) if "=" in name or _SIGNS.search(name) else name


def unknown_label(name: str) -> str:
    """Return how a cell says that a feature is unknown; no category is written so."""
    return f"{feature_text(name)}=unknown"


def cell_name(features: Sequence[str], tables: Sequence[tuple[Category, ...]], codes: Sequence[int]) -> str:
    """Return the name of a cell, given the code of each feature (-1 unknown); `everyone` without features.

    Example:
        >>> cell_name(("sex", "race"), (("F", "M"), ("x",)), (1, -1))
        'sex=M & race=unknown'
    """
    parts = [
        unknown_label(name) if code < 0 else group_labels(name, table)[code]
        for name, table, code in zip(features, tables, codes, strict=True)
    ]
    return " & ".join(parts) or "everyone"
