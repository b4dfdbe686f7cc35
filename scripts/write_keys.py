"""Write the table of keys in docs/keys.md from `napari_histogan/widgets/shortcuts.py`.

``python scripts/write_keys.py`` rewrites it, ``--check`` only says whether it is current.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from napari_histogan.widgets.shortcuts import PLACES, SHORTCUTS, Shortcut  # noqa: E402 - the path comes first

PAGE = ROOT / "docs" / "keys.md"
BEGIN, END = "<!-- keys: begin -->", "<!-- keys: end -->"


def table() -> str:
    """Return the keys, place by place."""
    lines = []
    for place, title in PLACES.items():
        lines += [f"## {title}", "", "| key | what it does | |", "|---|---|---|"]
        lines += [_row(each) for each in SHORTCUTS if each.where == place] + [""]
    return "\n".join(lines)


def _row(shortcut: Shortcut) -> str:
    key = shortcut.key.replace("Return", "Enter").replace("Escape", "Esc")
    return f"| **{key}** | {shortcut.words} | {'fixed' if shortcut.fixed else ''} |"


def main() -> int:
    """Write or check the page; returns 1 if a check fails."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    wanted = f"{head}{BEGIN}\n\n{table()}\n{END}{rest.partition(END)[2]}"
    if "--check" in sys.argv[1:]:
        if wanted != text:
            print("docs/keys.md is not current: python scripts/write_keys.py")
        return int(wanted != text)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
