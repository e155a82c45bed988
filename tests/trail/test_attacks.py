"""Each kind of edit is found at the level claimed, and not below it; an independent verifier says the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fairlayer.trail import Verification, verify
from fairlayer.trail.verification import LEVELS, Level
from tests.trail.attacks import ATTACKS, Attack, mark, table
from tests.trail.forging import KEY, PUBLIC, make_trail, prune_trail
from tests.trail.independent import accepts

ROOT = Path(__file__).resolve().parents[2]


class Made(NamedTuple):
    path: Path
    dropped: Path
    copies: Path
    held: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("trail")
    held = make_trail(folder / "whole.sqlite", folder)
    shutil.copy(folder / "whole.sqlite", folder / "dropped.sqlite")
    prune_trail(folder / "dropped.sqlite")
    return Made(folder / "whole.sqlite", folder / "dropped.sqlite", folder, held)


def verified(path: Path, level: Level, held: str) -> Verification:
    arguments: dict[str, Any] = {}
    for name, value in (("key", KEY), ("public_key", PUBLIC), ("checkpoint", held))[: LEVELS.index(level)]:
        arguments[name] = value
    return verify(path, **arguments)


def test_there_are_a_hundred_kinds() -> None:
    assert len({(attack.family, attack.name) for attack in ATTACKS}) == len(ATTACKS) >= 100


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dropped", [False, True])
def test_nothing_is_found_in_an_untouched_trail(made: Made, level: Level, dropped: bool) -> None:
    path = made.dropped if dropped else made.path
    found = verified(path, level, made.held)
    assert found.ok, str(found)
    assert accepts(path)
    assert accepts(path, KEY, made.held)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.family}: {attack.name}")
def test_it_is_found_at_the_level_claimed(attack: Attack, made: Made, tmp_path: Path) -> None:
    path = tmp_path / "attacked.sqlite"
    shutil.copy(made.dropped if attack.dropped else made.path, path)
    attack.act(path, made.copies)
    for level in LEVELS:
        found = verified(path, level, made.held)
        assert found.ok is not mark(attack, level), f"{level}: {found}"
        if found.found:
            assert not found.reach
            assert str(found).startswith("TAMPERED OR DAMAGED")
    if attack.short:
        assert accepts(path) is not mark(attack, "chain")
        assert accepts(path, KEY) is not mark(attack, "sealed")
        if attack.found != "signed":  # it knows no Ed25519
            assert accepts(path, KEY, made.held) is not mark(attack, "anchored")


def test_the_documents_show_this_table() -> None:
    assert table() in (ROOT / "docs" / "trail.md").read_text(encoding="utf-8")


def test_the_independent_verifier_shares_nothing() -> None:
    assert "fairlayer." not in Path(accepts.__code__.co_filename).read_text(encoding="utf-8")
