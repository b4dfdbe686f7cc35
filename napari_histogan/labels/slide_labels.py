"""Labels of whole slides: benign, malign, or unknown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from napari_histogan.errors import LabelError
from napari_histogan.labels.annotation import read_file

BENIGN, MALIGN, UNKNOWN = "benign", "malign", "unknown"
LABELS = (BENIGN, MALIGN, UNKNOWN)


def read_slide_labels(path: Path, slides: Iterable[str]) -> dict[str, str]:
    """Read a CSV with the columns ``slide`` and ``label``.

    Parameters
    ----------
    path
        The file; slides that it does not name are unknown.
    slides
        Names of the slides that there are.

    Returns
    -------
    dict[str, str]
        One of :data:`LABELS` for each of the slides.

    Raises
    ------
    LabelError
        If the file cannot be read, lacks a column, names another slide or label, or names a slide twice.
    """
    text = read_file(path).decode("utf-8-sig", errors="replace")
    try:
        table = csv.DictReader(io.StringIO(text, newline=""))
        columns, rows = list(table.fieldnames or []), list(table)
    except csv.Error as error:
        raise LabelError(f"{path.name} cannot be read ({error})", "a CSV file", "save it again") from error
    if not {"slide", "label"} <= set(columns):
        raise LabelError(
            f"{path.name} has the columns {', '.join(columns or ['none'])}",
            "a header with slide and label",
            "name the columns in the first row",
        )
    found: dict[str, str] = {}
    known = list(slides)
    for number, row in enumerate(rows, start=2):
        name, label = (row["slide"] or "").strip(), (row["label"] or "").strip().lower()
        if name not in known:
            raise LabelError(
                f"row {number} of {path.name} names the slide {name!r}",
                f"one of {', '.join(known) or 'no slides'}",
                "add the slide first, or correct its name",
            )
        if label not in LABELS:
            raise LabelError(
                f"row {number} of {path.name} gives {name} the label {label!r}", f"one of {', '.join(LABELS)}"
            )
        if name in found:
            raise LabelError(f"{path.name} names the slide {name} twice", "one row for each slide")
        found[name] = label
    return {name: found.get(name, UNKNOWN) for name in known}


def require_both(labels: Mapping[str, str]) -> None:
    """Refuse labels without a benign or without a malign slide.

    Raises
    ------
    LabelError
        Saying how many there are of each.
    """
    counts = {label: sum(each == label for each in labels.values()) for label in LABELS}
    if not counts[BENIGN] or not counts[MALIGN]:
        said = ", ".join(f"{count} {label}" for label, count in counts.items())
        raise LabelError(
            f"the slides are labeled {said}",
            "at least one benign and one malign slide",
            "label more slides, or add slides of the missing kind",
        )
