"""An outline with a class, as people draw it on a slide."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from napari_histogan.errors import LabelError, StorageError

_COLOR = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True)
class Annotation:
    """One outline on one slide.

    Parameters
    ----------
    class_name
        Name of the class; empty if nobody gave one.
    geometry
        In pixels of the slide's level 0, ``x`` before ``y``; pixel ``i`` spans ``i`` to ``i + 1``.
        Mostly a polygon (holes allowed) or multipolygon; lines and points are kept but cover nothing.
    color
        ``#rrggbb`` in lower case, or None.
    name
        What this one outline is called; may be empty.
    properties
        Anything else that its file says; values that JSON can hold.

    Raises
    ------
    LabelError
        If the color is not ``#rrggbb``.
    """

    class_name: str
    geometry: BaseGeometry
    color: str | None = None
    name: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a color of another form."""
        if self.color is not None and not _COLOR.fullmatch(self.color):
            raise LabelError(f"an outline has the color {self.color!r}", "#rrggbb in lower case, or None")


def hex_color(red: int, green: int, blue: int) -> str:
    """Return ``#rrggbb``.

    Raises
    ------
    ValueError
        If a part is not within 0 to 255.
    """
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"a color has parts 0 to 255, got {(red, green, blue)}")
    return f"#{red:02x}{green:02x}{blue:02x}"


def rgb_color(color: str) -> tuple[int, int, int]:
    """Return red, green, and blue, 0 to 255, of ``#rrggbb``."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def repaired(geometries: Sequence[BaseGeometry]) -> list[BaseGeometry]:
    """Return the geometries with outlines that cross themselves split at the crossings.

    Hand-drawn outlines often cross themselves.  Which points are covered follows the
    even-odd rule, as on the screen that they were drawn on.
    """
    found: NDArray[np.object_] = np.empty(len(geometries), object)
    found[:] = geometries
    for i in np.flatnonzero(~shapely.is_valid(found)):
        found[i] = _of_same_dimension(shapely.make_valid(found[i]), shapely.get_dimensions(found[i]))
    return list(found)


def _of_same_dimension(geometry: BaseGeometry, dimension: int) -> BaseGeometry:
    """Drop the lines and points that a repair leaves beside areas."""
    parts = shapely.get_parts(geometry)
    kept = [part for part in parts if shapely.get_dimensions(part) == dimension]
    return geometry if len(kept) == len(parts) else shapely.union_all(kept)


def read_file(path: Path) -> bytes:
    """Return the content of a file.

    Raises
    ------
    LabelError
        If there is no such file.
    StorageError
        If it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise LabelError(f"there is no file {path}", "a file of outlines", "check the path") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; an earlier one is replaced by one rename.

    Raises
    ------
    StorageError
        If the disk is full, read-only, or the folder is missing.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            f"{path} cannot be written: {error.strerror}", "", "free space or choose another folder"
        ) from error
