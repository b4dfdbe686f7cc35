"""Pictures with masks, in the layouts in which they are published: DRIVE, CHASE_DB1, or any two folders.

::

    DRIVE/                                 CHASE_DB1/                  any/
        training/                              Image_01L.jpg               images/a.png
            images/21_training.tif             Image_01L_1stHO.png         masks/a.png
            1st_manual/21_manual1.gif          ...                         inside/a.png   (optional)
            mask/21_training_mask.gif
        test/ ...

Masks named ``inside`` (DRIVE: ``mask``) say where to look: a field of view, or tissue.  CHASE_DB1 has none;
there it is what is not black.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import LabelError
from napari_histogan.slides.channels import field_of_view
from napari_histogan.slides.picture import read_picture
from napari_histogan.training.picture_folders import open_mask, pairs_of_files

Layout = Literal["auto", "drive", "chase", "folder"]

_DRIVE = re.compile(r"(\d+)_(training|test)\.tiff?")
_CHASE = re.compile(r"(Image_(\d+)[LR])\.jpe?g", re.IGNORECASE)
_SPLITS = ("training", "test")


@dataclass(frozen=True, eq=False)
class LabelledPicture:
    """A picture, its mask, and where to look.

    Attributes
    ----------
    name
        Of its file, without the ending.
    group
        What must not be divided between learning and judging: the child whose eyes they are (CHASE_DB1),
        else the picture.
    pixels
        ``(H, W, 3) uint8``.
    mask
        ``(H, W) uint8``, as stored.
    inside
        ``(H, W) bool``.
    """

    name: str
    group: str
    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    inside: NDArray[np.bool_]


def read_labelled(folder: Path, layout: Layout = "auto", split: str = "training") -> list[LabelledPicture]:
    """Read all pictures of a folder with their masks.

    Parameters
    ----------
    folder
        In one of the layouts above; for DRIVE the whole, or one of its two parts.
    layout
        ``"auto"`` looks what is there.
    split
        Of DRIVE: ``"training"`` or ``"test"``.

    Raises
    ------
    LabelError
        If the folder has none of the layouts, a picture lacks its mask, or sizes differ.
    SlideUnreadable
        If a picture cannot be decoded.
    """
    kind = _layout_of(folder) if layout == "auto" else layout
    if kind == "drive":
        return _read_drive(folder / split if (folder / split).is_dir() else folder)
    if kind == "chase":
        return _read_chase(folder)
    inside = folder / "inside"
    named = {path.stem: path for path in inside.iterdir()} if inside.is_dir() else {}
    pairs = pairs_of_files(folder)
    return [_picture(i.stem, i.stem, i, m, named.get(i.stem)) for i, m in pairs]


def kept_back(pictures: Sequence[LabelledPicture], share: float, seed: int) -> set[str]:
    """Return the groups that are kept back to judge by: a share of all, but not all of them."""
    groups = sorted({picture.group for picture in pictures})
    count = min(round(share * len(groups)), len(groups) - 1)
    return set(np.random.default_rng(seed).permutation(groups)[:count].tolist())


def _layout_of(folder: Path) -> Layout:
    """Tell the layout by what lies in the folder."""
    if any((part / "1st_manual").is_dir() for part in (folder, *(folder / split for split in _SPLITS))):
        return "drive"
    if any(_CHASE.fullmatch(path.name) for path in folder.glob("*")):
        return "chase"
    return "folder"


def _read_drive(part: Path) -> list[LabelledPicture]:
    """Read one part of DRIVE."""
    images = sorted((part / "images").glob("*_t*.tif*"))
    _require(images, part, "images/21_training.tif, 1st_manual/21_manual1.gif, mask/21_training_mask.gif")
    found = []
    for image in images:
        match = _DRIVE.fullmatch(image.name)
        if match is None:
            raise LabelError(f"{image} is not named as in DRIVE", "a name such as 21_training.tif")
        mask = part / "1st_manual" / f"{match[1]}_manual1.gif"
        inside = part / "mask" / f"{image.stem}_mask.gif"
        found.append(_picture(image.stem, image.stem, image, mask, inside))
    return found


def _read_chase(folder: Path) -> list[LabelledPicture]:
    """Read CHASE_DB1; the first observer's masks count, and the two eyes of a child are one group."""
    matches = [(path, _CHASE.fullmatch(path.name)) for path in sorted(folder.glob("*"))]
    named = [(path, match) for path, match in matches if match is not None]
    _require(named, folder, "Image_01L.jpg and Image_01L_1stHO.png")
    return [_picture(m[1], m[2], path, folder / f"{m[1]}_1stHO.png", None) for path, m in named]


def _picture(name: str, group: str, image: Path, mask: Path, inside: Path | None) -> LabelledPicture:
    """Read one picture; without ``inside`` it is what is not black where that is a disk, else everything."""
    for path in (mask, *([inside] if inside else [])):
        if not path.is_file():
            raise LabelError(f"{image.name} has no mask at {path}", "a mask for each picture", "add the file")
    pixels = read_picture(image)
    label = open_mask(mask)
    view = open_mask(inside) > 0 if inside else _view(pixels, image)
    for what, found in (("mask", label.shape), ("field of view", view.shape)):
        if found != pixels.shape[:2]:
            raise LabelError(
                f"{image.name} has {pixels.shape[0]} x {pixels.shape[1]} pixels, its {what} "
                f"{found[0]} x {found[1]}",
                "the same size",
                "make the mask again",
            )
    return LabelledPicture(name, group, pixels, label, view)


def _view(pixels: NDArray[np.uint8], image: Path) -> NDArray[np.bool_]:
    """Return the field of view of a picture that comes without one."""
    if _CHASE.fullmatch(image.name):
        return field_of_view(pixels)
    return np.ones(pixels.shape[:2], bool)


def _require(found: Sequence[object], folder: Path, expected: str) -> None:
    if not found:
        raise LabelError(f"{folder} holds no pictures of this layout", expected, "check the folder")
