"""Run the notebooks and write their pages, with what they show: `python -m website.notebooks`.

A page holds the text and the code of `examples/notebooks/NAME.ipynb`, and behind each cell what it showed when it was
run: tables as they are, pictures as files. The notebooks themselves are kept without output.
"""

from __future__ import annotations

import base64
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "NOTEBOOKS", "code_of", "page"]

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
FOLDER = ROOT / "docs" / "notebooks"
PICTURES = ROOT / "docs" / "pictures" / "notebooks"
CALLED = "*This page is the notebook `examples/notebooks/{}.ipynb` as it was run; open the file to change things.*"


def code_of(source: str) -> str:
    """Return the code of a cell without the lines that only a notebook understands.

    Example:
        >>> code_of("%matplotlib inline\\nimport numpy as np")
        'import numpy as np'
    """
    return "\n".join(line for line in source.splitlines() if not line.startswith("%")).strip()


def page(name: str, cells: list[Any]) -> tuple[str, dict[str, bytes]]:
    """Return a page in Markdown, and its pictures by their file names.

    Args:
        name: of the notebook.
        cells: its cells, after they were run.
    """
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        else:
            parts.append(f"```python\n{code_of(cell.source)}\n```")
            parts += shown(name, cell.outputs, pictures)
        if len(parts) == 1:
            parts.append(CALLED.format(name))
    return "\n\n".join(parts) + "\n", pictures


def shown(name: str, outputs: list[Any], pictures: dict[str, bytes]) -> Iterator[str]:
    """Yield the outputs of a cell in Markdown, and keep its pictures."""
    for output in outputs:
        data = output.get("data", {})
        if "image/png" in data:
            file = f"{name}-{len(pictures) + 1}.png"
            pictures[file] = base64.b64decode(data["image/png"])
            yield f"![What the cell above draws](../pictures/notebooks/{file})"
        elif "text/html" in data:
            yield "<div>" + re.sub(r"\s*\n\s*", " ", data["text/html"]) + "</div>"
        else:
            yield f"```text\n{(output.get('text') or data['text/plain']).strip()}\n```"


def run(path: Path) -> list[Any]:
    """Return the cells of a notebook after running it in an empty folder."""
    import nbclient
    import nbformat

    book = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(PYTHONPATH=str(ROOT), IPYTHONDIR=folder, PYTHONWARNINGS="ignore")
        place = {"metadata": {"path": folder}}
        nbclient.NotebookClient(book, timeout=300, kernel_name="python3", resources=place).execute()
    return list(book.cells)


def main() -> None:
    """Run every notebook, and write its page and its pictures."""
    FOLDER.mkdir(exist_ok=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for path in NOTEBOOKS:
        text, pictures = page(path.stem, run(path))
        (FOLDER / f"{path.stem}.md").write_text(text, encoding="utf-8")
        for name, picture in pictures.items():
            (PICTURES / name).write_bytes(picture)
        print(f"ran {path.name}")


if __name__ == "__main__":
    main()
