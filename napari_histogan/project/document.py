"""``project.toml``: what a project says of itself; keys that nobody here knows are kept."""

from __future__ import annotations

import tomllib
from pathlib import Path

import tomli_w

from napari_histogan import __version__
from napari_histogan.errors import LabelError, ProjectDamaged, ProjectNotFound
from napari_histogan.labels.classes import ClassTable
from napari_histogan.project.atomic import read_bytes, write_bytes
from napari_histogan.project.locks import now
from napari_histogan.project.upgrades import SCHEMA, Document, schema_of, upgraded

FILE = "project.toml"


def new_document(name: str, classes: ClassTable) -> Document:
    """Return the document of a new project."""
    return {
        "schema": SCHEMA,
        "name": name,
        "created": now(),
        "program_version": __version__,
        "classes": classes.to_dicts(),
    }


def read_document(root: Path) -> tuple[Document, bool]:
    """Read the document of a project, upgraded in memory.

    Returns
    -------
    document, is_old
        In the present layout; and whether the file has an older one.

    Raises
    ------
    ProjectNotFound
        If the folder holds no project.
    ProjectTooNew
        If a newer version wrote it.
    ProjectDamaged
        If it is not TOML, or its schema makes no sense.
    """
    try:
        document = tomllib.loads(read_bytes(root / FILE).decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ProjectNotFound(
            f"{root} holds no project", f"a folder with a {FILE}", "make one: histogan new FOLDER"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ProjectDamaged(
            f"{root / FILE} is not valid TOML: {error}", "the file as it was", "correct or restore it"
        ) from error
    return upgraded(document, root), schema_of(document, root) < SCHEMA


def write_document(root: Path, document: Document) -> None:
    """Replace the document in one rename.  Raises ``StorageError``."""
    write_bytes(root / FILE, tomli_w.dumps(document).encode())


def keep_old_document(root: Path) -> None:
    """Keep the file of an older layout beside the new one, as ``project.toml.schema-0``."""
    old = read_bytes(root / FILE)
    schema = schema_of(tomllib.loads(old.decode()), root)
    write_bytes(root / f"{FILE}.schema-{schema}", old)


def classes_of(document: Document, root: Path) -> ClassTable:
    """Return the classes that a document lists.

    Raises
    ------
    ProjectDamaged
        If they make no sense.
    """
    try:
        return ClassTable.from_dicts(document.get("classes", []))
    except LabelError as error:
        raise ProjectDamaged(
            f"the classes in {root / FILE} are wrong: {error}", "classes numbered 1 to K", "correct the file"
        ) from error
