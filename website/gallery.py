"""Run the examples, keep what they print, draw it, and write the gallery: `python -m website.gallery [NAME ...]`.

Each example is run once, with few rows and epochs. What it prints is kept in `website/outputs/`, and the pictures are
drawn from that text and from nothing else, so a picture shows what the example prints.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["EXAMPLES", "OUTPUTS", "PICTURES", "page", "rows_of"]

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
OUTPUTS = ROOT / "website" / "outputs"
FOLDER = ROOT / "docs" / "pictures" / "gallery"
NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?%?"


class Picture(NamedTuple):
    """What to draw of an example's table: which columns of numbers (from 0), under which names."""

    title: str
    columns: dict[int, str]
    unit: str = ""
    line: bool = False  # the first column of numbers is the horizontal axis
    rows: slice = slice(None)


# An example that is not named here is shown by its output alone.
PICTURES = {
    "any_model_trees": Picture("Gaps on new applicants", {0: "scores", 1: "decisions"}, "gap"),
    "decide_lending": Picture("Share of yes among women and men", {1: "women", 2: "men"}, "percent", rows=slice(0, 5)),
    "entropic_training": Picture("Gaps on new applicants", {1: "scores", 2: "decisions"}, "gap"),
    "huggingface_trainer": Picture("Gaps by tolerance", {1: "scores", 2: "decisions"}, "gap"),
    "inside_a_module": Picture("How far each group was moved", {1: "moved by"}, "score", rows=slice(0, 4)),
    "many_classes": Picture(
        "Gap of mean probabilities, by class", {0: "craft", 1: "office", 2: "laboratory"}, "gap", rows=slice(0, 3)
    ),
    "penalty_training": Picture("Gaps on new applicants", {1: "scores", 2: "decisions"}, "gap"),
    "price_of_parity": Picture(
        "How far people are moved, by tolerance",
        {1: "root mean square", 3: "women", 4: "men"},
        "tolerance",
        True,
        rows=slice(0, 6),
    ),
    "regression": Picture(
        "Mean residual of each region", {0: "region 0", 1: "region 1", 2: "region 2"}, "residual", rows=slice(0, 3)
    ),
    "train_adult_like": Picture("Gaps on new applicants", {1: "scores", 2: "decisions"}, "gap"),
    "without_layer": Picture("Gaps without the layer", {0: "scores", 1: "decisions"}, "gap", rows=slice(0, 3)),
}

HEAD = """# Gallery of examples

Look here for a script that is near to your case. Each example stands in `examples/`, runs on a CPU without a download,
and is shown with what it prints; pictures are drawn from that output. The runs are short ones
(`FAIRLAYER_EXAMPLE_FAST=1`, few rows and epochs), made by `make gallery`; without that variable a script takes more
rows, and its numbers are steadier.

"""


def page() -> str:
    """Return the gallery in Markdown: every file of `examples/`.

    Example:
        >>> all(f"## {path.stem}" in page() for path in EXAMPLES)
        True
    """
    lines = ["| example | what it shows |", "|---|---|"]
    lines += [f"| [`{path.stem}`](#{path.stem}) | {purpose(path)} |" for path in EXAMPLES]
    return HEAD + "\n".join(lines) + "\n" + "".join(entry(path) for path in EXAMPLES)


def purpose(path: Path) -> str:
    """Return the first sentence of an example's docstring."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())
    return re.split(r"(?<=[.:]) (?=[A-Z])", text)[0].rstrip(":")


def entry(path: Path) -> str:
    """Return one example: what it is for, its picture, what it prints, its code."""
    name = path.stem
    parts = [f"\n## {name} {{ #{name} }}\n", purpose(path) + "\n"]
    if name in PICTURES:
        parts.append(f"![{PICTURES[name].title}](pictures/gallery/{name}.svg)\n")
    output = OUTPUTS / f"{name}.txt"
    if output.exists():
        parts.append(f"```text\n{output.read_text(encoding='utf-8').strip()}\n```\n")
    code = path.read_text(encoding="utf-8").strip()
    inside = "\n".join(f"    {line}".rstrip() for line in ["```text", *code.splitlines(), "```"])
    parts.append(f'??? example "examples/{path.name}"\n\n{inside}\n')
    return "\n".join(parts)


def rows_of(text: str) -> Iterator[tuple[str, list[float]]]:
    """Yield the rows of a printed table: a name, and the numbers behind it.

    Example:
        >>> list(rows_of("           gap   n\\nno layer  0.25  1,000\\n"))
        [('no layer', [0.25, 1000.0])]
    """
    for line in text.splitlines():
        cells = re.split(r"\s{2,}", line.strip())
        numbers = [float(cell.replace(",", "").rstrip("%")) for cell in cells if re.fullmatch(NUMBER, cell)]
        if numbers and len(cells) > 1:
            yield "" if re.fullmatch(NUMBER, cells[0]) else cells[0], numbers


def run(path: Path) -> str:
    """Return what an example prints in a short run in an empty folder."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "FAIRLAYER_DATA"},  # generated data only
        "FAIRLAYER_EXAMPLE_FAST": "1",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
    }
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(path)], check=True, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        )
        return done.stdout.replace(folder, "FOLDER")


def draw(name: str, picture: Picture) -> None:
    """Draw the table of one example as bars, or as lines over its first column of numbers."""
    from website.pictures import bars, lines, save

    rows = list(rows_of((OUTPUTS / f"{name}.txt").read_text(encoding="utf-8")))[picture.rows]
    series = {label: [numbers[column] for _, numbers in rows] for column, label in picture.columns.items()}
    if picture.line:
        figure = lines([numbers[0] for _, numbers in rows], series, picture.title, picture.unit)
    else:
        figure = bars([row for row, _ in rows], series, picture.title, picture.unit)
    save(figure, FOLDER / f"{name}.svg")


def main(names: list[str]) -> None:
    """Run the examples named, or all; draw all pictures."""
    OUTPUTS.mkdir(exist_ok=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in EXAMPLES:
        if not names or path.stem in names:
            print(f"running {path.name}", flush=True)
            (OUTPUTS / f"{path.stem}.txt").write_text(run(path), encoding="utf-8")
    for name, picture in PICTURES.items():
        if (OUTPUTS / f"{name}.txt").exists():
            draw(name, picture)


if __name__ == "__main__":
    main(sys.argv[1:])
