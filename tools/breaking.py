"""Fail if the public interface broke since the last tag and CHANGELOG.md does not name what broke.

python -m tools.breaking [TAG]
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parent.parent
INNER = {"cli", "edge", "fused", "groups", "passes", "solve"}  # rooms that promise nothing to callers


def latest_tag() -> str | None:
    command = ["git", "describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^"]
    found = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    return found.stdout.strip() or None


def public_paths(package: griffe.Object | griffe.Alias) -> set[str]:
    """Return where the objects live that a package or its subpackages export, the inner rooms left out."""
    found = set()
    for name in package.exports or ():
        member = package.members.get(str(name))
        if member is not None:
            found.add(member.final_target.path if member.is_alias else member.path)
    for name, below in package.modules.items():
        if not below.is_alias and below.is_init_module and name not in INNER:
            found |= public_paths(below)
    return found


def breakages(old: griffe.Object | griffe.Alias, new: griffe.Object | griffe.Alias) -> list[tuple[str, str]]:
    """Return the path of each public object that broke, and in what way."""
    public = public_paths(old)
    return [
        (broken.obj.path, f"{broken.obj.path}: {broken.kind.value}")
        for broken in griffe.find_breaking_changes(old, new)
        if any(broken.obj.path == known or broken.obj.path.startswith(known + ".") for known in public)
    ]


def newest_section(changelog: str) -> str:
    """Return the text of the first section that has a heading `## [...]`."""
    return changelog.partition("\n## [")[2].partition("\n## [")[0]


def unexplained(found: Iterable[tuple[str, str]], changelog: str) -> list[str]:
    """Return the breakages whose object the newest section of the changelog does not name."""
    section = newest_section(changelog)

    def is_named(path: str) -> bool:
        return any(re.search(rf"[`.]{re.escape(name)}\b", section) for name in path.split(".")[-2:])

    return [words for path, words in found if not is_named(path)]


def main() -> None:
    tag = sys.argv[1] if len(sys.argv) > 1 else latest_tag()
    if tag is None:
        print("There is no earlier tag, so there is nothing that could have broken.")
        return
    old = griffe.load_git("fairlayer", ref=tag, repo=ROOT)
    new = griffe.load("fairlayer", search_paths=[ROOT], try_relative_path=False)
    missing = unexplained(breakages(old, new), (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    if missing:
        sys.exit(
            f"These changes since {tag} break callers, and CHANGELOG.md does not name them:\n" + "\n".join(missing)
        )
    print(f"Every breaking change since {tag} is named in CHANGELOG.md.")


if __name__ == "__main__":
    main()
