"""What the documents show is run: README, docs, examples, and every docstring example."""

from __future__ import annotations

import doctest
import importlib
import linecache
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from fairlayer.audit.metrics import base

ROOT = Path(__file__).resolve().parent.parent

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MODULES = [path for path in sorted((ROOT / "fairlayer").rglob("*.py")) if path.name != "__main__.py"]
READ_BY_PEOPLE = [
    *DOCUMENTS,
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "Makefile",
    ROOT / "constraints.txt",
    ROOT / "mkdocs.yml",
    ROOT / "pyproject.toml",
    *EXAMPLES,
    *sorted((ROOT / "benchmarks").rglob("*.py")),
    *sorted((ROOT / "benchmarks").rglob("*.md")),
    *sorted((ROOT / "fairlayer").rglob("*.py")),
]

OTHERS = {"catboost", "keras", "lightgbm", "skorch", "xgboost"}  # libraries that an example may be about
SKIP = "<!-- no-run -->"
FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<ticks>`{3,})(?P<info>[^`\n]*)$")
MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:work|root|home|Users|opt|mnt|srv)/[\w.-]+")
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")


class Block(NamedTuple):
    line: int  # of the first line of code, from 1
    code: str


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks marked `python` that no skip comment precedes."""
    lines = text.splitlines()
    previous, number = "", 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        if not opening:
            previous = lines[number].strip() or previous
            number += 1
            continue
        end = number + 1
        while end < len(lines) and lines[end].strip() != opening["ticks"]:
            end += 1
        language = opening["info"].strip().partition(" ")[0]
        if language == "python" and previous != SKIP:
            code = [line.removeprefix(opening["indent"]) for line in lines[number + 1 : end]]
            yield Block(number + 2, "\n".join(code) + "\n")
        previous, number = "", end + 1


def run_blocks(path: Path, namespace: dict[str, object]) -> int:
    """Run the blocks of one document in one namespace; return how many there were."""
    count = 0
    for count, block in enumerate(python_blocks(path.read_text(encoding="utf-8")), 1):  # noqa: B007
        # The blank lines make tracebacks show the line of the document.
        source = "\n" * (block.line - 1) + block.code
        name = f"{relative(path)}[{block.line}]"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec"), namespace)
    return count


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the code of documents an empty working folder; put torch's settings and the metrics known back after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(base, "_REGISTER", base._REGISTER.copy())
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_python_blocks_run(path: Path, fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("document")  # a real module, so that what a block defines can be pickled
    monkeypatch.setitem(sys.modules, "document", module)
    run_blocks(path, module.__dict__)


def test_the_readme_shows_code() -> None:
    assert list(python_blocks((ROOT / "README.md").read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", EXAMPLES, ids=relative)
def test_examples_run(path: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "FAIRLAYER_EXAMPLE_FAST": "1",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, str(path)],
        check=False,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    lacking = re.search(r"^ModuleNotFoundError: No module named '(\w+)", done.stderr, re.M)
    if lacking is not None and lacking[1] in OTHERS:
        pytest.skip(f"{relative(path)} needs {lacking[1]}, which is not installed")
    assert done.returncode == 0, f"{relative(path)} failed:\n{done.stdout}\n{done.stderr}"


def load(path: Path) -> types.ModuleType:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name and error.name.partition(".")[0] == "fairlayer":
            raise
        pytest.skip(f"{name} needs a library that is not installed: {error}")


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_docstring_examples_run(path: Path, fresh: None) -> None:
    module = load(path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__):
        torch.manual_seed(0)
        runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)


@pytest.mark.parametrize("path", READ_BY_PEOPLE, ids=relative)
def test_no_machine_paths(path: Path) -> None:
    found = [
        f"{relative(path)}:{number}: {line.strip()}"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"], ids=relative)
def test_links_to_files_resolve(path: Path) -> None:
    broken = [
        target for target in LINK.findall(path.read_text(encoding="utf-8")) if not (path.parent / target).exists()
    ]
    assert not broken, f"{relative(path)} links to {broken}"


# The reader of documents itself.

SAMPLE = """
```python
one = 1
```

<!-- no-run -->

```python
raise RuntimeError
```

```text
not python
```

- in a list

    ```python title="two"
    two = one + 1
    ```

````markdown
```python
shown_only = True
```
````
"""


def test_blocks_are_found_and_skipped() -> None:
    assert list(python_blocks(SAMPLE)) == [Block(3, "one = 1\n"), Block(19, "two = one + 1\n")]


def test_blocks_share_a_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    document = tmp_path / "sample.md"
    document.write_text(SAMPLE, encoding="utf-8")
    namespace: dict[str, object] = {}
    assert run_blocks(document, namespace) == 2
    assert namespace["two"] == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cd /home/me/project", True),
        ("see (/root/x)", True),
        ("./work/x", False),
        ("https://a.org/work/x", False),
    ],
)
def test_machine_paths_are_recognised(text: str, found: bool) -> None:
    assert bool(MACHINE_PATH.search(text)) is found
