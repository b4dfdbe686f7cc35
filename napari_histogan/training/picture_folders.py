"""Folders of pictures and masks of the same names, as training pairs.

::

    photos/            a folder with pictures (train/, images/, or the folder itself)
        train/a.png
        masks/a.png    one gray value a pixel: 0 unlabeled, 1..K
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_histogan.errors import DAMAGE, LabelError
from napari_histogan.labels.classes import ClassTable
from napari_histogan.training.annotated_slides import check_near

MASKS = "masks"
_IMAGES = ("train", "images", ".")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_PICTURES_KEPT = 64

Picture = NDArray[np.uint8]


class PictureFolder:
    """Patches of the pictures in a folder, as a source of training pairs.

    Parameters
    ----------
    folder
        Holds ``masks/``, and ``train/`` or ``images/`` (or the pictures themselves).
    found_mpp
        Microns per pixel of the pictures.
    classes
        The project's classes.
    patch_px, mpp
        Side and resolution (um/px) of the patches; pictures are resized to it.
    weight
        How often a patch is drawn, relative to other sources.
    accept_far_mpp
        Take pictures whose resolution differs by more than a factor of 4.

    Raises
    ------
    LabelError
        If a picture lacks its mask, the two differ in size, a mask holds other values than
        0..K, or there is no picture.
    ConfigError
        If the resolutions are too far apart.
    """

    odds: NDArray[np.float64] | None = None

    def __init__(
        self,
        folder: Path,
        found_mpp: float,
        classes: ClassTable,
        patch_px: int,
        mpp: float,
        weight: float = 1.0,
        accept_far_mpp: bool = False,
    ) -> None:
        check_near(str(folder), found_mpp, mpp, accept_far_mpp)
        self.patch_px, self.mpp, self.weight = patch_px, mpp, weight
        self._factor, self._classes = found_mpp / mpp, classes
        self._files = pairs_of_files(folder)
        self._load = lru_cache(_PICTURES_KEPT)(self._load_one)
        self._counts = np.zeros(256, np.int64)
        self._places: list[tuple[int, int, int]] = []
        for number in range(len(self._files)):
            _, mask = self._load(number)
            for y in _starts(mask.shape[0], patch_px):
                for x in _starts(mask.shape[1], patch_px):
                    part = mask[y : y + patch_px, x : x + patch_px]
                    if part.any():
                        self._places.append((number, y, x))
                        self._counts += np.bincount(part.ravel(), minlength=256)
        if not self._places:
            raise LabelError(f"no mask in {folder / MASKS} labels a pixel", "classes 1 to K", "paint first")
        self.groups = np.array([number for number, _, _ in self._places], np.int64)

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self._places)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> tuple[Picture, Picture]:
        """Return images ``(n, S, S, 3)`` and masks ``(n, S, S)``, both uint8."""
        images, masks = [], []
        for index in indices:
            number, y, x = self._places[int(index)]
            image, mask = self._load(number)
            images.append(image[y : y + self.patch_px, x : x + self.patch_px])
            masks.append(mask[y : y + self.patch_px, x : x + self.patch_px])
        return np.stack(images), np.stack(masks)

    @property
    def pictures(self) -> int:
        """Number of whole pictures."""
        return len(self._files)

    def picture(self, number: int) -> tuple[Picture, Picture]:
        """Return a whole picture ``(H, W, 3)`` and its mask ``(H, W)`` at the patches' resolution."""
        return self._load(number)

    def class_counts(self) -> NDArray[np.int64]:
        """Return the pixels of each mask value in all patches, ``(256,)``."""
        return self._counts

    def _load_one(self, number: int) -> tuple[Picture, Picture]:
        """Return a picture and its mask at the patches' resolution, at least as large as a patch."""
        image_path, mask_path = self._files[number]
        image, mask = _open(image_path, "RGB"), open_mask(mask_path)
        if image.shape[:2] != mask.shape:
            raise LabelError(
                f"{image_path} has {image.shape[1]} x {image.shape[0]} px, its mask "
                f"{mask.shape[1]} x {mask.shape[0]}",
                "the same size",
                "make the mask again",
            )
        self._classes.check_mask(mask)
        if self._factor != 1:
            size = (
                max(1, round(mask.shape[1] * self._factor)),
                max(1, round(mask.shape[0] * self._factor)),
            )
            way = cv2.INTER_AREA if self._factor < 1 else cv2.INTER_LINEAR
            image = cv2.resize(image, size, interpolation=way).astype(np.uint8)
            mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
        down, right = max(0, self.patch_px - mask.shape[0]), max(0, self.patch_px - mask.shape[1])
        image = np.pad(image, ((0, down), (0, right), (0, 0)), mode="edge")
        return image, np.pad(mask, ((0, down), (0, right)))


def pairs_of_files(folder: Path) -> list[tuple[Path, Path]]:
    """Return pictures and their masks, by name; raise ``LabelError`` if one lacks the other."""
    masks = folder / MASKS
    images = next((folder / name for name in _IMAGES if _pictures(folder / name)), None)
    if images is None or not masks.is_dir():
        raise LabelError(
            f"{folder} holds no pictures and masks",
            "pictures in train/ or images/, and masks of the same names in masks/",
            "check the folder",
        )
    by_name = {path.stem: path for path in _pictures(masks)}
    pictures = _pictures(images)
    missing = sorted({path.stem for path in pictures} ^ by_name.keys())
    if missing:
        raise LabelError(
            f"{folder} holds {missing[0]} as a picture or as a mask only",
            "a mask for each picture",
            f"add what is missing, or remove the other ({len(missing)} in all)",
        )
    return [(path, by_name[path.stem]) for path in pictures]


def open_mask(path: Path) -> Picture:
    """Return a mask's values ``(H, W) uint8`` as stored; raise ``LabelError`` if it cannot be read."""
    return _open(path, "L")


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*") if p.suffix.lower() in _SUFFIXES) if folder.is_dir() else []


def _open(path: Path, mode: str) -> Picture:
    """Return a picture's pixels; a mask's values are taken as they are, palette or not."""
    try:
        with Image.open(path) as image:
            return np.asarray(image if mode == "L" and image.mode in ("L", "P") else image.convert(mode))
    except DAMAGE as error:
        raise LabelError(f"{path} cannot be read: {error}", "a picture", "save it again") from error


def _starts(length: int, side: int) -> list[int]:
    """Return evenly spaced starts of the pieces of ``side`` that cover ``length``."""
    count = math.ceil(length / side)
    return [int(v) for v in np.linspace(0, length - side, count).round()]
