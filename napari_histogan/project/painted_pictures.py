"""Pictures from anywhere with what people painted on them: kept in the project, every change of paint too.

::

    labels/pictures/NAME/
        images/NAME.png         the picture, RGB
        masks/NAME.png          one gray value a pixel: 0 unlabeled, 1 to K
        history/0001.png        the masks before this one

It is a folder of images and masks as the training of patch classifiers reads it.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_histogan.errors import DAMAGE, LabelError
from napari_histogan.project.atomic import storage_errors, write_bytes
from napari_histogan.project.store import Project

PICTURES = "labels/pictures"
MAX_PX = 64_000_000
"""Larger pictures are no pictures but slides."""


def keep_picture(
    project: Project, name: str, pixels: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None
) -> Path:
    """Keep a picture, and its paint if there is any; an earlier mask of the same picture goes to the history.

    Parameters
    ----------
    project
        Where to.
    name
        Of the picture; what no file name may hold is left out.  Another picture of the same name gets a
        number.
    pixels
        ``(H, W, 3) uint8``.
    mask
        ``(H, W) uint8``: 0 unlabeled, 1 to K; None leaves what was painted before.

    Returns
    -------
    Path
        The folder with ``images/`` and ``masks/``; its name is the picture's.

    Raises
    ------
    LabelError
        If the sizes differ, the picture is too large, or the mask holds other classes than the project's.
    ProjectLocked
        If the project is open read-only.
    StorageError
        If the disk is full; what was kept before is untouched.
    """
    project.require_writable()
    _require_fitting(pixels, mask)
    if mask is not None:
        project.classes.check_mask(mask)
    with project.write_lock():
        folder = _folder_of(project, name, pixels)
        if not picture_in(folder).exists():
            _write(picture_in(folder), _png(pixels))
        if mask is not None:
            _replace_paint(folder, mask)
    return folder


def picture_in(folder: Path) -> Path:
    """Return the picture's file in the folder that :func:`keep_picture` returned."""
    return folder / "images" / f"{folder.name}.png"


def _replace_paint(folder: Path, mask: NDArray[np.uint8]) -> None:
    """Write the mask; one that differs from it goes to the history first."""
    paint = folder / "masks" / f"{folder.name}.png"
    if paint.exists():
        if _holds(paint, "L", mask):
            return
        history = folder / "history"
        _write(history / f"{len(list(history.glob('*.png'))) + 1:04d}.png", paint.read_bytes())
    _write(paint, _png(mask))


def _write(path: Path, data: bytes) -> None:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)


def _require_fitting(pixels: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> None:
    height, width = pixels.shape[:2]
    if mask is not None and mask.shape != (height, width):
        raise LabelError(
            f"the picture has {height} x {width} pixels, its paint {mask.shape[0]} x {mask.shape[1]}",
            "the same size",
            "paint on a layer of the picture's size",
        )
    if height * width > MAX_PX:
        raise LabelError(
            f"the picture has {height:,} x {width:,} pixels",
            f"at most {MAX_PX:,}",
            "crop it around what is painted, or take a coarser resolution",
        )


def _folder_of(project: Project, name: str, pixels: NDArray[np.uint8]) -> Path:
    """Return the folder that holds these very pixels, or a new one."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "picture"
    number, found = 1, plain
    while True:
        folder = project.root / PICTURES / found
        picture = picture_in(folder)
        if not picture.exists() or _holds(picture, "RGB", pixels):
            return folder
        number += 1
        found = f"{plain}-{number}"


def _holds(path: Path, mode: str, pixels: NDArray[np.uint8]) -> bool:
    """Whether a picture is whole and has these pixels; a damaged one stays beside the new one."""
    try:
        with Image.open(path) as picture:
            return np.array_equal(np.asarray(picture.convert(mode)), pixels)
    except (Image.DecompressionBombError, *DAMAGE):
        return False


def _png(pixels: NDArray[np.uint8]) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "PNG", compress_level=3)
    return stored.getvalue()
