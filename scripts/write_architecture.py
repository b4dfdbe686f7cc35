"""Write the list of files in ARCHITECTURE.md from the first line of each module's docstring.

``python scripts/write_architecture.py`` rewrites it, ``--check`` only says whether it is current.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "napari_histogan"
PAGE = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- files: begin -->", "<!-- files: end -->"
FOLDERS = "widgets jobs project training inference evaluation slides labels models config"


def summary(path: Path) -> str:
    """Return the first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0] if text else ""


def table() -> str:
    """Return the files, folder by folder, one line each."""
    lines = ["**Top level**", "", "| file | what it holds |", "|---|---|"]
    lines += [f"| `{p.name}` | {summary(p)} |" for p in sorted(PACKAGE.glob("*.py"))]
    for folder in FOLDERS.split():
        files = [p for p in sorted((PACKAGE / folder).glob("*.py")) if p.name != "__init__.py"]
        lines += ["", f"**`{folder}/`** {summary(PACKAGE / folder / '__init__.py')}", ""]
        lines += ["| file | what it holds |", "|---|---|"]
        lines += [f"| `{p.name}` | {summary(p)} |" for p in files]
    return "\n".join(lines)


def page(text: str) -> str:
    """Return the page with the present list between its marks."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def main() -> int:
    """Rewrite or check the page; 1 if a check finds it out of date."""
    old = PAGE.read_text(encoding="utf-8")
    new = page(old)
    if "--check" in sys.argv:
        if new != old:
            sys.stderr.write("ARCHITECTURE.md is out of date: python scripts/write_architecture.py\n")
        return int(new != old)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
