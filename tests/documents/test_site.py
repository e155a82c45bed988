"""The site: its pages, its generated parts, how it is built, and how it looks to a browser."""

from __future__ import annotations

import datetime
import importlib
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

import fairlayer
from fairlayer.errors import FairlayerError
from tests.documents.pages import Browser, browser
from tests.report.browser import chromium

website = pytest.importorskip("website", reason="the site's sources are not here")
from website import gallery, reference  # noqa: E402
from website.__main__ import generated  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
MOST_BYTES = 400_000
INVENTORY = (ROOT / "website" / "inventory.txt").read_text(encoding="utf-8").split()
WIDTHS = (1280, 390)
SAMPLE = ("index.md", "quick-start.md", "constraints.md", "streaming.md", "reference/command-line.md", "errors.md")


# What needs no build.


def test_generated_pages_are_in_step() -> None:
    behind = [name for name, text in generated().items() if (DOCS / name).read_text(encoding="utf-8") != text]
    assert not behind, f"these pages of docs are behind: {behind}. Run `make docs`, which writes them anew."


def test_the_inventory_names_every_page_and_the_nav_as_well() -> None:
    pages = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    assert pages == INVENTORY, "write the pages into website/inventory.txt"
    nav = re.findall(r"[\w/.-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2])
    assert sorted(nav) == INVENTORY


def test_every_public_name_is_on_one_page_of_the_reference() -> None:
    entries = [line[4:] for text in reference.pages().values() for line in text.splitlines() if line.startswith(":::")]
    assert len(entries) == len(set(entries))
    assert {f"fairlayer.{name}" for name in fairlayer.__all__ if name != "errors"} <= set(entries)
    rooms = {module for room in reference.ROOMS for module in room.modules}
    public = {
        id(getattr(importlib.import_module(module), name))
        for module in rooms
        for name in importlib.import_module(module).__all__
    }
    documented = {id(_value(entry)) for entry in entries}
    assert public - documented <= {id(fairlayer.errors)}


def _value(entry: str) -> object:
    module, _, name = entry.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_no_submodule_hides_a_public_name() -> None:
    griffe = pytest.importorskip("griffe")
    static = griffe.load("fairlayer", search_paths=[ROOT], resolve_aliases=True)
    for name in fairlayer.__all__:
        found, value = static[name], getattr(fairlayer, name)
        found = found.final_target if found.is_alias else found
        assert (found.is_module, found.is_class) == (name == "errors", isinstance(value, type)), name


def test_every_error_is_explained() -> None:
    for module in pkgutil.walk_packages(fairlayer.__path__, "fairlayer."):
        try:
            importlib.import_module(module.name)
        except ImportError:
            continue
    names = {error.__name__ for error in _below(FairlayerError) if error.__module__.startswith("fairlayer.")}
    public = {name for name in names if not name.startswith("_")}
    headings = re.findall(r"^### (\w+)$", (DOCS / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert public == set(headings), f"missing {public - set(headings)}, too many {set(headings) - public}"


def _below(kind: type) -> Iterator[type]:
    for below in kind.__subclasses__():
        yield below
        yield from _below(below)


@pytest.mark.parametrize("path", gallery.EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_short_and_in_the_gallery(path: Path) -> None:
    text = (DOCS / "gallery.md").read_text(encoding="utf-8")
    assert f"## {path.stem} " in text, "run `make docs`"
    shown = (gallery.OUTPUTS / f"{path.stem}.txt").exists() or path.stem in gallery.PICTURES
    assert shown, f"run `make gallery ARGS={path.stem}`, which keeps what the example prints"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60


def test_pages_begin_with_what_they_are_for() -> None:
    for name in (page for page in INVENTORY if not page.startswith("decisions/")):
        text = (DOCS / name).read_text(encoding="utf-8")
        title, _, rest = text.partition("\n")
        assert title.startswith("# "), name
        first = rest.lstrip()
        assert re.match(r"[A-Z`*\[(]", first), f"{name} begins with {first[:40]!r}, not with a sentence"


# A small site in a second, opened in a browser.


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a few pages without the reference; links to other pages are left as they are."""
    folder = tmp_path_factory.mktemp("small")
    for name in (*SAMPLE, "stylesheets/extra.css", "javascripts/iframe-worker.js"):
        (folder / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DOCS / name, folder / "docs" / name)
    shutil.copytree(DOCS / "pictures", folder / "docs" / "pictures")
    for picture in DOCS.glob("*.svg"):
        shutil.copy(picture, folder / "docs")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[0]
    settings = re.sub(r"  - mkdocstrings:\n(?: {6,}.*\n)+", "", settings)
    (folder / "mkdocs.yml").write_text(settings, encoding="utf-8")
    build(folder, "zensical", folder / "site", strict=False)
    return folder / "site"


def build(folder: Path, builder: str, target: Path, *, strict: bool = True) -> None:
    """Build the site of a folder, and put it to the target."""
    pytest.importorskip(builder)
    command = [sys.executable, "-m", builder, "build", "--clean", *(["--strict"] if strict else [])]
    if builder == "mkdocs":
        command += ["--site-dir", str(target)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(folder)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (target / "index.html").is_file()


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(chromium(), tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def seen(tab: Browser, pages: list[Path]) -> dict[str, list[str]]:
    """Open pages at both widths; return what is wrong with any of them."""
    opened = {f"{page.name} at {width}": tab.open(page.as_uri(), width).faults for page in pages for width in WIDTHS}
    return {where: faults for where, faults in opened.items() if faults}


def test_main_pages_in_a_browser(small: Path, tab: Browser) -> None:
    pages = [small / name.replace(".md", ".html") for name in SAMPLE]
    assert seen(tab, pages) == {}


def test_the_browser_sees_what_is_wrong(tmp_path: Path, tab: Browser) -> None:
    page = tmp_path / "wrong.html"
    page.write_text(
        "<article><div style='width:2000px'>wide</div></article><img src='missing.png'>"
        "<script src='https://example.invalid/x.js'></script><script>console.error('said')</script>",
        encoding="utf-8",
    )
    [faults] = [tab.open(page.as_uri(), 390).faults]
    for word in ("content", "sticks out", "log:", "console:", "asks https://example.invalid"):
        assert any(word in fault for fault in faults), (word, faults)


def test_search_works_from_a_file(small: Path, tab: Browser) -> None:
    tab.goto((small / "index.html").as_uri(), 1280)
    tab.evaluate("document.querySelector('.md-search__button').click()")
    inside = "[...document.querySelectorAll('*')].map(e => e.shadowRoot?.textContent || '').join(' ')"
    found = f"({inside}.match(/([0-9]+) results?/) || [0, 0])[1]"
    tab.evaluate("new Promise(done => setTimeout(done, 500))")
    tab.call("Input.insertText", text="tolerance")
    for _ in range(100):
        if int(tab.evaluate(f"new Promise(done => setTimeout(() => done({found}), 100))")):
            return
    raise AssertionError("The search found nothing.")


# The whole site.


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build everything with Zensical, strictly, in a folder of its own."""
    folder = tmp_path_factory.mktemp("whole")
    for name in ("docs", "website", "fairlayer"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", folder)
    build(folder, "zensical", folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_the_build_has_every_page_and_no_large_one(whole: Path) -> None:
    pages = {path.relative_to(whole).as_posix(): path.stat().st_size for path in whole.rglob("*.html")}
    assert sorted(pages.keys() - {"404.html"}) == sorted(name.replace(".md", ".html") for name in INVENTORY)
    assert {name: size for name, size in pages.items() if size > MOST_BYTES} == {}


@pytest.mark.slow
def test_both_builders_make_the_same_pages(whole: Path, tmp_path: Path) -> None:
    build(ROOT, "mkdocs", tmp_path / "site")
    lists = [
        sorted(p.relative_to(site).as_posix() for p in site.rglob("*.html")) for site in (whole, tmp_path / "site")
    ]
    assert lists[0] == lists[1]


class Anchors(HTMLParser):
    """The ids of a page, and what it links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [found[name] for name in ("href", "src") if found.get(name)]  # type: ignore[misc]


@pytest.mark.slow
def test_links_and_anchors_are_there(whole: Path) -> None:
    pages = {path.resolve(): Anchors(path.read_text(encoding="utf-8")) for path in whole.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in page.links:
            if link.startswith(("http:", "https:", "data:", "mailto:")):
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            if not target.exists():
                broken.append(f"{path.name}: {link}")
            elif anchor and target in pages and anchor not in pages[target].ids:
                broken.append(f"{path.name}: {link} (no such anchor)")
    assert not broken, "\n".join(broken[:20])


@pytest.mark.slow
def test_every_public_name_has_one_anchor(whole: Path) -> None:
    ids = [name for path in (whole / "reference").glob("*.html") for name in Anchors(path.read_text()).ids]
    for name in fairlayer.__all__:
        if name != "errors":
            assert ids.count(f"fairlayer.{name}") == 1, name
    entries = [line[4:] for text in reference.pages().values() for line in text.splitlines() if line.startswith(":::")]
    assert {entry: ids.count(entry) for entry in entries if ids.count(entry) != 1} == {}


@pytest.mark.slow
def test_every_page_in_a_browser(whole: Path, tab: Browser) -> None:
    faults = seen(tab, sorted(path for path in whole.rglob("*.html") if path.name != "404.html"))
    assert faults == {}, json.dumps(faults, indent=1)[:4000]


def test_the_second_builder_is_taken_out_when_it_ends() -> None:
    """Material for MkDocs ends on 5 May 2027; from then on Zensical alone builds the site."""
    pinned = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'"zensical==[\d.]+"', pinned), "the young builder is pinned exactly"
    ended = datetime.date.today() > datetime.date(2027, 5, 5)
    assert not ended or "mkdocs-material" not in pinned, "Material has ended: take it out (docs/decisions/0027)"
