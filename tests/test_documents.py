"""What the documents show is run: README, docs, examples, and every docstring example."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
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
SKIP = re.compile(r"<!-- no-run: .{10,} -->")
OUTPUT = 'text title="Output"'  # compared with what the block before it prints
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<ticks>`{3,})(?P<info>[^`\n]*)$")
MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:work|root|home|Users|opt|mnt|srv)/[\w.-]+")
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")


class Block(NamedTuple):
    line: int  # of the first line of code, from 1
    code: str


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


class Fence(NamedTuple):
    line: int  # of the first line inside, from 1
    info: str  # what stands behind the ticks
    code: str
    skipped: bool  # a skip comment precedes it


def fenced(text: str) -> Iterator[Fence]:
    """Yield every fenced block of a document."""
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
        code = "".join(line.removeprefix(opening["indent"]) + "\n" for line in lines[number + 1 : end])
        yield Fence(number + 2, opening["info"].strip(), code, bool(SKIP.fullmatch(previous)))
        previous, number = "", end + 1


def python_blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks marked `python` that no skip comment precedes."""
    for fence in fenced(text):
        if fence.info.partition(" ")[0] == "python" and not fence.skipped:
            yield Block(fence.line, fence.code)


def run_python(source: str, name: str, namespace: dict[str, object]) -> str:
    """Run one block and return what it prints."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, name, "exec"), namespace)
    print(printed.getvalue(), end="")
    return printed.getvalue()


def run_console(code: str) -> Iterator[tuple[str, str]]:
    """Run each command of a console block; yield what it prints and what the document shows."""
    environment = {**os.environ, "COLUMNS": "110", "NO_COLOR": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for part in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        command, _, shown = re.sub(r"\\\n\s*", "", part).partition("\n")
        done = subprocess.run(
            command, shell=True, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        yield done.stdout + done.stderr, shown


def run_blocks(path: Path, namespace: dict[str, object]) -> int:
    """Run the blocks of one document in one namespace and compare shown outputs; return how many blocks were run."""
    count, printed = 0, ""
    for fence in fenced(path.read_text(encoding="utf-8")):
        if fence.skipped:
            continue
        where = f"{relative(path)}[{fence.line}]"
        if fence.info.partition(" ")[0] == "python":
            # The blank lines make tracebacks show the line of the document.
            printed = run_python("\n" * (fence.line - 1) + fence.code, where, namespace)
            count += 1
        elif fence.info == OUTPUT:
            assert not difference(printed, fence.code), f"{where}: {difference(printed, fence.code)}"
        elif fence.info == "console":
            for found, shown in run_console(fence.code):
                assert not difference(found, shown), f"{where}: {difference(found, shown)}"
            count += 1
    return count


def difference(found: str, shown: str) -> str:
    """Say where an output is not the one shown; "" where it is.

    Words must be equal, and a line of three dots stands for any lines. Numbers may differ by 0.03 and a tenth, since
    training is not the same to the last digit on every machine.
    """
    lines = [line for line in found.splitlines() if line.strip()]
    for part in re.split(r"^\s*\.\.\.\s*$", shown, flags=re.MULTILINE):
        wanted = [line for line in part.splitlines() if line.strip()]
        places = (k for k in range(len(lines) - len(wanted) + 1) if all(map(alike, lines[k:], wanted)))
        start = next(places, None)
        if start is None:
            return f"expected\n{part}\nin\n{found}"
        lines = lines[start + len(wanted) :]
    return ""


def alike(found: str, shown: str) -> bool:
    """Return whether two lines have the same words, and numbers that are near each other."""
    words = [" ".join(" ".join(NUMBER.split(line)).split()) for line in (found, shown)]
    numbers = [[float(number) for number in NUMBER.findall(line)] for line in (found, shown)]
    return words[0] == words[1] and all(abs(a - b) <= 0.03 + 0.1 * abs(b) for a, b in zip(*numbers, strict=True))


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


def test_no_machine_paths() -> None:
    found = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in READ_BY_PEOPLE
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not found, "\n".join(found)


def test_links_to_files_resolve() -> None:
    broken = [
        f"{relative(path)} links to {target}"
        for path in [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
        for target in LINK.findall(path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert not broken, "\n".join(broken)


# The reader of documents itself.

SAMPLE = """
```python
one = 1
```

<!-- no-run: it raises an error -->

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


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    texts = [path.read_text(encoding="utf-8") for path in DOCUMENTS]
    assert sum(fence.skipped for text in texts for fence in fenced(text)) <= 5
    assert sum(text.count("no-run") - len(SKIP.findall(text)) for text in texts) <= 1  # the one that explains it


def test_blocks_are_found_and_skipped() -> None:
    assert list(python_blocks(SAMPLE)) == [Block(3, "one = 1\n"), Block(19, "two = one + 1\n")]


@pytest.mark.parametrize(
    ("found", "same"),
    [
        ("gap 0.021 of 2,000\n", True),
        ("gap  0.045 of 2,000", True),
        ("gap 0.3 of 2,000", False),
        ("gap of 2,000", False),
        ("a gap 0.02 of 2,000", False),
    ],
)
def test_shown_outputs_are_compared(found: str, same: bool) -> None:
    assert (difference(found, "gap 0.02 of 2,000\n") == "") is same


def test_three_dots_stand_for_lines() -> None:
    assert not difference("a\nb\nc\nd\n", "a\n...\nd\n")
    assert difference("a\nb\n", "...\nc\n")


def test_console_blocks_are_run() -> None:
    [(found, shown)] = run_console("$ echo one \\\n  two\none two\n")
    assert found == shown == "one two\n"


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
