"""The version of the folder's layout, and how older layouts become the present one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_histogan.errors import ProjectDamaged, ProjectTooNew
from napari_histogan.labels.classes import PALETTE

SCHEMA = 1
"""The layout that this version reads and writes."""

Document = dict[str, Any]


def upgrade_0_to_1(document: Document) -> Document:
    """Give the classes numbers, colors, and keys.

    Before schema 1 a project listed only the names of its classes, in the order of
    their numbers, called its version ``version``, and its resolution ``mpp``.
    """
    new = dict(document)
    new["classes"] = [
        {
            "index": number,
            "name": str(name),
            "color": PALETTE[(number - 1) % len(PALETTE)],
            "key": str(number) if number <= 9 else "",
        }
        for number, name in enumerate(document.get("classes", []), 1)
    ]
    if "version" in new:
        new["program_version"] = new.pop("version")
    if "mpp" in new:
        new["default_mpp"] = new.pop("mpp")
    new["schema"] = 1
    return new


UPGRADES: dict[int, Callable[[Document], Document]] = {0: upgrade_0_to_1}
"""From each older schema, the step to the next one."""


def schema_of(document: Document, root: Path) -> int:
    """Return the schema of a project document; without one it is 0.

    Raises
    ------
    ProjectTooNew
        If a newer version of the program wrote it.
    ProjectDamaged
        If the number makes no sense.
    """
    schema = document.get("schema", 0)
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 0:
        raise ProjectDamaged(f"the project {root} has the schema {schema!r}", f"a number up to {SCHEMA}")
    if schema > SCHEMA:
        writer = document.get("program_version", "a newer version")
        raise ProjectTooNew(
            f"the project {root} has schema {schema}, written by napari-histogan {writer}",
            f"schema {SCHEMA} or older, which this version reads",
            "update this program (pip install --upgrade napari-histogan); the project was not touched",
        )
    return schema


def upgraded(document: Document, root: Path) -> Document:
    """Return the document in the present layout; keys that no upgrade knows are kept."""
    schema = schema_of(document, root)
    while schema < SCHEMA:
        document = UPGRADES[schema](document)
        schema = schema_of(document, root)
    return document
