"""Labels of a project's slides: human work in one CSV, replaced whole at each change.

``labels/slides.csv`` has the columns ``slide,label``, as :func:`.labels.slide_labels.read_slide_labels` reads
them; a slide that it does not name is unknown.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

from napari_histogan.errors import LabelError
from napari_histogan.labels.slide_labels import BENIGN, LABELS, MALIGN, UNKNOWN, read_slide_labels
from napari_histogan.project.artifacts import Parent
from napari_histogan.project.atomic import storage_errors, write_bytes
from napari_histogan.project.store import Project

SLIDE_LABELS = "labels/slides.csv"


def slide_labels_path(project: Project) -> Path:
    """Return where the labels are kept; there may be no file yet."""
    return project.root / SLIDE_LABELS


def slide_labels(project: Project) -> dict[str, str]:
    """Return the label of each slide, one of :data:`.labels.slide_labels.LABELS`.

    Raises
    ------
    LabelError
        If the file is damaged, or names a slide that the project does not have.
    """
    names = [entry.name for entry in project.slides()]
    path = slide_labels_path(project)
    return read_slide_labels(path, names) if path.is_file() else dict.fromkeys(names, UNKNOWN)


def set_slide_labels(project: Project, changed: Mapping[str, str]) -> None:
    """Keep new labels of some slides, in one rename.

    Raises
    ------
    LabelError
        If there is no such slide or label; nothing is changed then.
    ProjectLocked
        If the project is open read-only.
    StorageError
        If the disk is full; what was kept before is untouched.
    """
    project.require_writable()
    with project.write_lock():
        labels = slide_labels(project)
        for name, label in changed.items():
            if name not in labels:
                raise LabelError(f"there is no slide {name!r}", f"one of {', '.join(labels) or 'no slides'}")
            if label not in LABELS:
                raise LabelError(f"{name} was given the label {label!r}", f"one of {', '.join(LABELS)}")
            labels[name] = label
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["slide", "label"])
        rows.writerows((name, label) for name, label in labels.items() if label != UNKNOWN)
        path = slide_labels_path(project)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, text.getvalue().encode())


def has_both(labels: Mapping[str, str]) -> bool:
    """Whether there is a benign and a malign slide, as training needs."""
    return {BENIGN, MALIGN} <= set(labels.values())


def slide_labels_parent(project: Project) -> Parent:
    """Return what an artifact made from the kept labels records."""
    return Parent(SLIDE_LABELS, slide_labels_hash(project) or "")


def slide_labels_hash(project: Project) -> str | None:
    """Return sha256 in hex over the kept labels; None if there are none."""
    path = slide_labels_path(project)
    if not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()
