"""Write the generated pages of the site: `python -m website`."""

from __future__ import annotations

from pathlib import Path

from website import commands, copied, gallery, reference

__all__ = ["DOCS", "generated"]

DOCS = Path(__file__).resolve().parent.parent / "docs"


def generated() -> dict[str, str]:
    """Return every generated page: the path below `docs` and the text."""
    return {
        **reference.pages(),
        **copied.pages(),
        "reference/command-line.md": commands.page(),
        "reference/configuration.md": commands.configuration(),
        "gallery.md": gallery.page(),
    }


def main() -> None:
    """Write each page that differs from the one on disk."""
    for name, text in generated().items():
        path = DOCS / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
