"""The categories of each sensitive feature, remembered from batch to batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlayer._typing import Category
from fairlayer.errors import MissingSensitiveFeatureError
from fairlayer.groups.categories import extend, in_order
from fairlayer.groups.encoding import encode, is_continuous
from fairlayer.groups.reading import read_columns

__all__ = ["Vocabulary"]


@dataclass(frozen=True)
class Vocabulary:
    """The categories of each sensitive feature, in code order.

    While `open`, a category that was never seen is appended; once closed, it is an error. A category that the
    vocabulary holds is a group, whatever it would mean otherwise: `Vocabulary({"g": (-1, 1)}, open=False)` reads -1 as
    a group, and a vocabulary with "None" reads that text as a group.

    Example:
        >>> vocabulary = Vocabulary().learn({"sex": ["F", "M", None]})
        >>> vocabulary.categories["sex"], vocabulary.open
        (('F', 'M'), False)
    """

    categories: Mapping[str, tuple[Category, ...]] = field(default_factory=dict)
    open: bool = True

    def learn(self, sensitive_features: Any, names: Sequence[str] = ()) -> Vocabulary:
        """Return a closed vocabulary that also knows every category in `sensitive_features`.

        Args:
            sensitive_features: as for `read_sensitive_features`.
            names: the features to learn; without names, all that are given.

        Raises:
            MissingSensitiveFeatureError: names are given, and none of them is among the features.
        """
        raw = read_columns(sensitive_features, names)
        vocabulary = Vocabulary(self.categories)
        known = [name for name in names if name in raw]
        if names and not known:
            raise MissingSensitiveFeatureError(
                f"categories of {list(names)} were to be learnt, but the features given are: "
                f"{', '.join(map(repr, raw)) or 'none'}. Pass sensitive_features={{{names[0]!r}: ...}}."
            )
        for name in known or raw:
            column = raw[name]
            if not is_continuous(column):
                vocabulary = vocabulary.with_categories(
                    name, encode(name, column, vocabulary.categories.get(name), signs="refuse").categories
                )
        return vocabulary.closed()

    def closed(self) -> Vocabulary:
        """Return the same categories, to be extended no more."""
        return Vocabulary(self.categories, open=False)

    def with_categories(self, name: str, categories: tuple[Category, ...]) -> Vocabulary:
        """Return the vocabulary with the categories of one feature replaced."""
        return Vocabulary({**self.categories, name: categories}, self.open)

    def united(self, name: str, found: Iterable[Iterable[Category]]) -> Vocabulary:
        """Return the vocabulary with the categories of one feature that were found in several places.

        The order is that in which one place with all the samples would have met them.
        """
        new = {category for categories in found for category in categories}
        return self.with_categories(name, extend(self.categories.get(name), in_order(new)))

    def to_state(self) -> dict[str, Any]:
        """Return plain containers, loadable with `weights_only=True`."""
        return {"categories": {k: list(v) for k, v in self.categories.items()}, "open": self.open}

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> Vocabulary:
        """Rebuild what `to_state` wrote."""
        return Vocabulary({k: tuple(v) for k, v in state["categories"].items()}, bool(state["open"]))
