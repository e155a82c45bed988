"""What an adversary is asked to read -> categories and heads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fairlayer.adversarial.errors import AdversaryDefinitionError
from fairlayer.adversarial.heads import CategoryHead, Head, NumberHead, Target
from fairlayer.constraints import Batch
from fairlayer.errors import CategoryError
from fairlayer.groups import Groups, Vocabulary, read_sensitive_features

__all__ = ["On", "as_targets", "feature_names", "learn", "make_head"]

On = str | Sequence[str | tuple[str, ...]]


def as_targets(on: On) -> tuple[tuple[str, ...], ...]:
    entries = [on] if isinstance(on, str) else list(on)
    targets = tuple((each,) if isinstance(each, str) else tuple(each) for each in entries)
    sound = all(names and all(isinstance(name, str) and name for name in names) for names in targets)
    if not targets or not sound or len(set(targets)) < len(targets):
        raise AdversaryDefinitionError(
            f"an adversary was asked for on={on!r}; on= is the name of a sensitive feature or a list of distinct "
            "ones, one head each (a tuple inside the list: one head on their intersections)."
        )
    return targets


def feature_names(targets: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in targets for name in names))


def learn(
    targets: tuple[tuple[str, ...], ...], sensitive_features: Any, continuous: tuple[str, ...]
) -> tuple[Vocabulary, Groups]:
    """Return the categories of the features to read, closed, and the columns they come from."""
    for name in continuous:
        if (name,) not in targets:
            raise AdversaryDefinitionError(
                f"continuous={list(continuous)} was given, but {name!r} is not an entry of its own in on=. Add it, "
                "or leave it out of continuous=."
            )
    names = feature_names(targets)
    groups = read_sensitive_features(sensitive_features, names)
    vocabulary = Vocabulary()
    for name in names:
        if (name,) not in targets or name not in continuous:
            vocabulary = vocabulary.with_categories(name, _categories(groups, name))
    return vocabulary.closed(), groups


def _categories(groups: Groups, name: str) -> tuple[Any, ...]:
    try:
        categories = groups.column(name).categories
    except CategoryError as error:
        raise AdversaryDefinitionError(f"{error} Or name it in continuous= to read it as numbers.") from error
    if len(categories) < 2:
        raise AdversaryDefinitionError(
            f"sensitive feature '{name}' holds {list(categories)}; an adversary needs at least two categories to tell "
            "apart. Give the column of the training data, not of one batch."
        )
    return categories


def make_head(
    names: tuple[str, ...], groups: Groups, width: int, hidden: Sequence[int], continuous: tuple[str, ...]
) -> Head:
    if names[0] in continuous and len(names) == 1:
        target = Target(names)
        return NumberHead(target, width, hidden, target.numbers(groups))
    return CategoryHead(Target(names, Batch(groups, groups.n).means(names).groups), width, hidden)
