"""A headless Chromium, where there is one: how wide a page is, and what is printed of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
MEASURE = (
    "<script>addEventListener('load', () => {"
    "const over = [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
    " && getComputedStyle(e).position !== 'absolute' && !e.closest('thead') && !e.closest('svg'));"
    "document.title = 'w' + document.documentElement.scrollWidth + ' of ' + innerWidth + ' over ' + over.length"
    " + ' ' + (over[0] ? over[0].outerHTML.slice(0, 80) : ''); });</script>"
)


class Width(NamedTuple):
    """How wide the content of a page is in a window, and how many elements stick out of it."""

    content: int
    window: int
    outside: int
    first: str


def chromium() -> str:
    """Return the browser, or skip the test."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    return found


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([chromium(), *FLAGS, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done


def measured(page: Path, width: int, folder: Path) -> Width:
    """Return how wide the page is in a window."""
    title = titled(page, width, MEASURE, folder)
    found = re.fullmatch(r"w(\d+) of (\d+) over (\d+) ?(.*)", title, re.DOTALL)
    assert found, title
    return Width(int(found[1]), int(found[2]), int(found[3]), found[4])


def titled(page: Path, width: int, script: str, folder: Path) -> str:
    """Return the title that a script gives the page in a window of a width.

    Headless windows have a smallest width, so a frame is used.
    """
    inner = folder / f"inner-{width}.html"
    inner.write_text(page.read_text(encoding="utf-8").replace("</head>", script + "</head>"), encoding="utf-8")
    outer = folder / f"outer-{width}.html"
    outer.write_text(
        f"<!doctype html><iframe id=f src='{inner.name}' style='width:{width}px;height:900px;border:0'></iframe>"
        "<script>addEventListener('load', () => {"
        "document.title = document.getElementById('f').contentDocument.title;});</script>",
        encoding="utf-8",
    )
    done = _run("--allow-file-access-from-files", "--virtual-time-budget=3000", "--dump-dom", outer.as_uri())
    found = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert found, done.stdout[-500:]
    return found[1]


def printed(page: Path, paper: str, folder: Path) -> tuple[str, float]:
    """Return the text of the printed page, and how many points the rightmost word is inside the paper."""
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed: apt-get install poppler-utils")
    sized = folder / f"{paper}.html"
    style = f"<style>@page {{ size: {paper}; }}</style></head>"
    sized.write_text(page.read_text(encoding="utf-8").replace("</head>", style), encoding="utf-8")
    out = folder / f"{paper}.pdf"
    _run("--no-pdf-header-footer", f"--print-to-pdf={out}", sized.as_uri())
    text = subprocess.run(["pdftotext", str(out), "-"], capture_output=True, text=True, check=True).stdout
    boxes = subprocess.run(["pdftotext", "-bbox", str(out), "-"], capture_output=True, text=True, check=True).stdout
    width = float(re.search(r'<page width="([\d.]+)"', boxes)[1])  # type: ignore[index]
    return text, width - max(float(right) for right in re.findall(r'xMax="([\d.]+)"', boxes))
