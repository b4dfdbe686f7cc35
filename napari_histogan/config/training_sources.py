"""How a source of training pairs is named, on the command line and in the dock alike.

::

    datasets/0003                            a result of the project: a data set or merged corrections
    datasets/0003@2                          the same; its pairs are drawn twice as often
    outlines:biopsy-1=outlines.geojson@0.5   outlines on a slide of the project
    folder:photos@mpp=0.5,weight=2           a folder with pictures and a folder "masks" beside
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SourceKind = Literal["artifact", "outlines", "folder"]


@dataclass(frozen=True, slots=True)
class SourceName:
    """A source as it was named.

    Attributes
    ----------
    kind
        What it is.
    name
        Of the project's result, or of the slide; empty for a folder.
    path
        File of outlines, or folder; empty for a result of the project.
    weight
        How often a pair is drawn, relative to others; None takes the kind's default.
    mpp
        Microns per pixel of a folder's pictures; None for others.
    """

    kind: SourceKind
    name: str = ""
    path: Path = Path()
    weight: float | None = None
    mpp: float | None = None


def parse_source(text: str) -> SourceName:
    """Read one entry of ``sources``.

    Raises
    ------
    ValueError
        If it has none of the forms above.
    """
    what, weight, mpp = _with_numbers(text.strip())
    kind, colon, rest = what.partition(":")
    if colon and kind == "outlines":
        slide, equals, path = rest.partition("=")
        if not (slide and equals and path) or mpp is not None:
            raise ValueError(f"{text!r}: name outlines as outlines:SLIDE=FILE or outlines:SLIDE=FILE@2")
        return SourceName("outlines", slide, Path(path), weight)
    if colon and kind == "folder":
        if not rest or mpp is None:
            raise ValueError(f"{text!r}: a folder is named folder:PATH@mpp=0.5, with its microns per pixel")
        return SourceName("folder", path=Path(rest), weight=weight, mpp=mpp)
    if not what or mpp is not None:
        raise ValueError(f"{text!r}: a result of the project is named datasets/0003 or datasets/0003@WEIGHT")
    return SourceName("artifact", what, weight=weight)


def absolute_source(text: str) -> str:
    """Return the same source with the path of its file or folder made absolute, from the current folder."""
    source = parse_source(text)
    if source.kind == "artifact":
        return text
    what = _with_numbers(text.strip())[0]
    numbers = text.strip()[len(what) :]
    head = f"outlines:{source.name}=" if source.kind == "outlines" else "folder:"
    return f"{head}{os.path.abspath(source.path.expanduser())}{numbers}"


def _with_numbers(text: str) -> tuple[str, float | None, float | None]:
    """Return what stands before the last ``@``, and weight and mpp behind it; folders may have an ``@``."""
    what, at, numbers = text.rpartition("@")
    if not at or "/" in numbers or "\\" in numbers:
        return text, None, None
    found: dict[str, float] = {}
    for part in numbers.split(","):
        key, equals, value = part.partition("=")
        key, value = (key.strip(), value) if equals else ("weight", key)
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        least = 0.0 if key == "weight" else 1e-9
        if key not in ("weight", "mpp") or key in found or not least <= number < math.inf:
            raise ValueError(f"{text!r}: behind @ there are numbers, such as @2 or @mpp=0.5,weight=2")
        found[key] = number
    return what, found.get("weight"), found.get("mpp")
