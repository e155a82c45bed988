"""Which cell a sample of a stream belongs to, and what its cells are called where categories come or change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fairlayer._typing import IntArray
from fairlayer.edge import read_groups
from fairlayer.errors import CategoryError, ConstraintDefinitionError
from fairlayer.groups import Groups, Vocabulary, cell_name

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

__all__ = ["adopt", "cells_of", "codes_of", "groups_of", "located", "names_of", "read", "recoded"]


def read(machine: Machine, features: Any, n: int, given: Vocabulary | None) -> Groups:
    """Read every feature of n samples before anything changes, so that a bad one changes nothing."""
    groups = read_groups(features, machine.constraints, n, _known(machine, given))
    for name in machine.features:
        groups.column(name)
    return groups


def cells_of(machine: Machine, groups: Groups) -> IntArray:
    """Return the cell of each sample, meeting new ones.

    Raises:
        ConstraintDefinitionError: a sensitive feature is a soft membership.
    """
    codes = [groups.column(name).codes for name in machine.features]
    if any(column is None for column in codes):
        raise ConstraintDefinitionError(
            "a stream needs a category per sample, but some sensitive feature is a soft membership. "
            "Take the most likely category, or project larger batches."
        )
    if groups.vocabulary.categories != machine.vocabulary.categories:
        adopt(machine, groups.vocabulary)
    return located(machine, codes_of(machine, groups))


def located(machine: Machine, codes: IntArray) -> IntArray:
    """Return the cell of each row of codes (n, features), meeting new ones."""
    known = len(machine.history.cells)
    cells = machine.history.locate(codes)
    if len(machine.history.cells) > known:
        machine.own = machine.policy.grow(machine.own, machine)
        machine.scratch.clear()
    return cells


def codes_of(machine: Machine, groups: Groups) -> IntArray:
    """Return the codes (n, features) of samples, each of which is of one category."""
    columns = [groups.column(name).codes for name in machine.features]
    if not columns:
        return np.zeros((groups.n, 0), dtype=np.int64)
    return np.stack([codes for codes in columns if codes is not None], axis=1)


def groups_of(machine: Machine, codes: IntArray) -> Groups:
    """Return the reverse of `codes_of`."""
    return Groups.from_codes({name: codes[:, j] for j, name in enumerate(machine.features)}, machine.vocabulary)


def names_of(machine: Machine) -> list[str]:
    """Return what each cell is called."""
    words = [machine.vocabulary.categories.get(name, ()) for name in machine.features]
    return [cell_name(machine.features, words, cell) for cell in machine.history.cells]


def adopt(machine: Machine, vocabulary: Vocabulary) -> None:
    """Take on categories; cells keep their meaning, under new codes where the order changed.

    Raises:
        CategoryError: a category that the stream has met is not among them.
    """
    old, new = machine.vocabulary.categories, vocabulary.categories
    if all(tuple(words) == tuple(new.get(name, ()))[: len(words)] for name, words in old.items()):
        machine.vocabulary = vocabulary.closed()
        machine.forget_frame()
        return
    machine.history.recode([recoded(machine.features, codes, old, new) for codes in machine.history.cells])
    machine.vocabulary = vocabulary.closed()
    machine.forget_derived()


def recoded(
    features: Sequence[str],
    codes: tuple[int, ...],
    old: Mapping[str, Sequence[Any]],
    new: Mapping[str, Sequence[Any]],
) -> tuple[int, ...]:
    """Return the codes under new categories of what the codes mean under old ones.

    Raises:
        CategoryError: a category is not among the new ones.
    """
    found = []
    for name, code in zip(features, codes, strict=True):
        category = None if code < 0 else old[name][code]
        if category is not None and category not in new.get(name, ()):
            raise CategoryError(
                f"the stream has met {name}={category!r}, which the new categories {list(new.get(name, ()))} lack. "
                "Call reset_inference_state(), or fit_categories(...) on data that has it."
            )
        found.append(-1 if category is None else list(new[name]).index(category))
    return tuple(found)


def _known(machine: Machine, given: Vocabulary | None) -> Vocabulary:
    """Return what a step knows: a closed vocabulary as it is; else what the stream has met comes first."""
    if given is not None and not given.open:
        return given
    words = dict(machine.vocabulary.categories)
    for name, categories in ({} if given is None else given.categories).items():
        old = words.get(name, ())
        words[name] = old + tuple(category for category in categories if category not in old)
    return Vocabulary(words, open=True)
