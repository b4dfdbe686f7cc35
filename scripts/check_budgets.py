"""Check the house's budgets: sizes of modules, classes, and functions (docstrings aside), and file names.

A reason may break a budget; it is then written beside the name in ``REASONS``.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "napari_histogan"
MODULE, CLASS, FUNCTION, LOOP = 400, 300, 60, 180
BANNED = {"utils", "util", "common", "helpers", "misc", "tools"}
LOOPS = {"train_gan", "fit_pixel_classifier", "train_segmenter"}
REASONS: dict[str, str] = {}


def code_lines(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return a definition's lines without its own docstring, which the style asks to be long."""
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is None:
        return length
    docstring = node.body[0]
    return length - ((docstring.end_lineno or docstring.lineno) - docstring.lineno + 1)


def check(path: Path) -> list[str]:
    """Return the broken budgets of one module."""
    name = path.relative_to(PACKAGE.parent).as_posix()
    text = path.read_text(encoding="utf-8")
    found = []
    if path.stem in BANNED:
        found.append(f"{name}: a file is named after what it holds, not {path.stem!r}")
    if (lines := text.count("\n")) > MODULE and name not in REASONS:
        found.append(f"{name}: {lines} lines, at most {MODULE}")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            length = code_lines(node)
            limit = CLASS if isinstance(node, ast.ClassDef) else LOOP if node.name in LOOPS else FUNCTION
            if length > limit and f"{name}:{node.name}" not in REASONS:
                found.append(f"{name}:{node.lineno} {node.name}: {length} lines, at most {limit}")
    return found


def main() -> int:
    """Check every module; return the number of broken budgets."""
    problems = [problem for path in sorted(PACKAGE.rglob("*.py")) for problem in check(path)]
    if problems:
        sys.stderr.write("\n".join(problems) + "\n")
    return len(problems)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
