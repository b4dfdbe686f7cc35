"""Projects that were opened lately; a small file in the user's configuration folder."""

from __future__ import annotations

import json
from pathlib import Path

from qtpy.QtCore import QStandardPaths

_KEPT = 8


def recent_file() -> Path:
    """Return the file that holds the list."""
    folder = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.GenericConfigLocation)
    return Path(folder) / "napari-histogan" / "recent.json"


def recent_projects() -> list[Path]:
    """Return project folders that still exist, newest first."""
    try:
        rows = json.loads(recent_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(rows, list):
        return []
    return [path for path in map(Path, map(str, rows)) if (path / "project.toml").is_file()]


def remember_project(root: Path) -> None:
    """Put a project at the head of the list; a list that cannot be written is no failure."""
    rows = [root, *(path for path in recent_projects() if path != root)][:_KEPT]
    try:
        recent_file().parent.mkdir(parents=True, exist_ok=True)
        recent_file().write_text(json.dumps([str(path) for path in rows], indent=1), encoding="utf-8")
    except OSError:
        return
