"""Outlines and masks from and to other programs: one door for all formats.

========== ============================= ==========================
suffix     format                        module
========== ============================= ==========================
.geojson   GeoJSON of QuPath             :mod:`.labels.geojson`
.json      the same                      :mod:`.labels.geojson`
.xml       Aperio ImageScope             :mod:`.labels.aperio_xml`
.png       a mask, one value a pixel     here
========== ============================= ==========================
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_histogan.errors import DAMAGE, LabelError
from napari_histogan.labels.annotation import Annotation, read_file, write_file
from napari_histogan.labels.aperio_xml import read_aperio_xml, write_aperio_xml
from napari_histogan.labels.classes import UNLABELLED, ClassTable
from napari_histogan.labels.geojson import read_geojson, write_geojson
from napari_histogan.labels.outlines import IGNORED, polygonize, rasterize

__all__ = [
    "IGNORED",
    "Annotation",
    "polygonize",
    "rasterize",
    "read_annotations",
    "read_png_mask",
    "write_annotations",
    "write_png_mask",
]

_GEOJSON, _XML = (".geojson", ".json"), (".xml",)


def read_annotations(path: Path | str) -> list[Annotation]:
    """Read outlines from any known format; the file's suffix decides.

    Raises
    ------
    LabelError
        If the suffix is not known or the file is damaged; tells where.
    """
    suffix = Path(path).suffix.lower()
    if suffix in _GEOJSON:
        return read_geojson(path)
    if suffix in _XML:
        return read_aperio_xml(path)
    raise _unknown(path)


def write_annotations(path: Path | str, annotations: Iterable[Annotation]) -> None:
    """Write outlines in the format that the file's suffix names.

    Raises
    ------
    LabelError
        If the suffix is not known.
    """
    suffix = Path(path).suffix.lower()
    if suffix in _GEOJSON:
        write_geojson(path, annotations)
    elif suffix in _XML:
        write_aperio_xml(path, annotations)
    else:
        raise _unknown(path)


def read_png_mask(path: Path | str, classes: ClassTable) -> NDArray[np.uint8]:
    """Read a mask from a picture.

    Parameters
    ----------
    path
        A PNG: gray or indexed with class numbers, or RGB in the colors of the classes
        (black, white, or see-through = unlabeled unless a class has that color).
    classes
        Numbers and colors.

    Returns
    -------
    numpy.ndarray
        ``(H, W)`` uint8, 0 = unlabeled.

    Raises
    ------
    LabelError
        If it is no picture, or a pixel is of no class; tells its position.
    """
    path = Path(path)
    try:
        picture = Image.open(io.BytesIO(read_file(path)))
        picture.load()
    except LabelError:
        raise
    except DAMAGE as error:
        raise LabelError(f"{path} is no readable picture: {error}", "a PNG mask") from error
    if picture.mode in ("RGB", "RGBA"):
        return _from_colors(np.asarray(picture), classes, path)
    values = np.asarray(picture)
    wrong = (values < 0) | (values > classes.num_classes) if values.ndim == 2 else np.ones((1, 1), bool)
    if values.ndim != 2 or picture.mode == "F":
        raise LabelError(f"{path} is a picture of the kind {picture.mode}", "gray, indexed, or RGB")
    if wrong.any():
        y, x = np.argwhere(wrong)[0].tolist()
        raise LabelError(
            f"{path} has the value {values[y, x]} at row {y}, column {x}",
            f"0 (unlabeled) to {classes.num_classes}",
            "save class numbers, not brightness",
        )
    return values.astype(np.uint8)


def write_png_mask(path: Path | str, mask: NDArray[np.uint8], classes: ClassTable) -> None:
    """Write a mask as an indexed PNG: values are class numbers, viewers show the colors.

    Parameters
    ----------
    path
        Where to; an earlier file is replaced.
    mask
        ``(H, W)`` uint8.
    classes
        Colors by value.

    Raises
    ------
    LabelError
        If the mask is not one of these classes.
    """
    height, width = classes.check_mask(mask).shape
    picture = Image.frombytes("P", (width, height), mask.tobytes())
    picture.putpalette(classes.color_lut().tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    write_file(Path(path), buffer.getvalue())


def _from_colors(pixels: NDArray[np.uint8], classes: ClassTable, path: Path) -> NDArray[np.uint8]:
    """Turn class colors into class numbers."""
    packed = pixels[..., :3].astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    if pixels.shape[2] == 4:
        packed[pixels[..., 3] == 0] = 0
    values = {0: UNLABELLED, 0xFFFFFF: UNLABELLED}
    values |= {int(info.color[1:], 16): info.index for info in classes}
    found, where = np.unique(packed, return_inverse=True)
    strange = [color for color in found.tolist() if color not in values]
    if strange:
        y, x = np.argwhere(packed == strange[0])[0].tolist()
        raise LabelError(
            f"{path} has the color #{strange[0]:06x} at row {y}, column {x}",
            ", ".join(f"{info.color} ({info.name})" for info in classes),
            "give the class this color, or save class numbers",
        )
    lut = np.array([values[color] for color in found.tolist()], np.uint8)
    return lut[where].reshape(packed.shape)


def _unknown(path: Path | str) -> LabelError:
    """Return the error for a suffix that no format has."""
    return LabelError(
        f"{path} has the suffix {Path(path).suffix!r}",
        ", ".join(_GEOJSON + _XML),
        "export the outlines as GeoJSON or ImageScope XML",
    )
