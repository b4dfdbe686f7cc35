"""Files outside of the project that a result was made from, such as outlines: told by path and content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from napari_histogan.project.artifacts import Parent

PREFIX = "file:"
"""Before the path in a parent's id."""


def file_parent(path: Path) -> Parent:
    """Return what an artifact made from a file records.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    return Parent(f"{PREFIX}{path}", _content_hash(path))


def present_hash(identity: str) -> str | None:
    """Return the present hash of a parent that is a file; None if it is gone, or cannot be read."""
    try:
        return _content_hash(Path(identity.removeprefix(PREFIX)))
    except OSError:
        return None


def _content_hash(path: Path) -> str:
    """Return sha256 in hex of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
