"""PNG, JPEG, and other plain pictures, read as slides with one level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from napari_histogan.errors import DAMAGE, SlideUnreadable
from napari_histogan.geometry import Region, Size
from napari_histogan.slides.pixels import to_rgb
from napari_histogan.slides.reader import LevelInfo, SlideReader
from napari_histogan.slides.tile_cache import UInt8Array


class PictureReader(SlideReader):
    """A picture file; it is decoded whole and held in memory.

    Pictures do not say their resolution in a way that can be trusted, so ``mpp``
    must be given before anything is read in microns.
    """

    def __init__(self, path: Path, mpp: float | None = None) -> None:
        self._pixels = read_picture(Path(path))
        size = Size(*self._pixels.shape[:2])
        super().__init__(Path(path), [LevelInfo(size, 1.0)], None, mpp)

    def _read_inside(self, region: Region, level: int) -> UInt8Array:
        return self._pixels[region.slices].copy()


def read_picture(path: Path) -> UInt8Array:
    """Decode a picture file to RGB, ``(H, W, 3) uint8``.

    Raises
    ------
    SlideUnreadable
        The file is no picture, is damaged or cut off, or is too large.
    """
    try:
        with Image.open(path) as picture:
            return to_rgb(np.array(_plain(picture)), path.name)
    except Image.DecompressionBombError as error:
        raise SlideUnreadable(
            f"{path.name} is too large for a plain picture ({error})",
            f"at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, because it is held in memory whole",
            "save it as a tiled TIFF or an OME-Zarr, which are read piece by piece",
        ) from error
    except SlideUnreadable:
        raise
    except (UnidentifiedImageError, *DAMAGE) as error:
        raise SlideUnreadable(
            f"{path.name} cannot be decoded ({str(error) or type(error).__name__})",
            "a whole picture file",
            "export the picture again",
        ) from error


def _plain(picture: Image.Image) -> Image.Image:
    """Replace palettes and printing colors by gray or RGB."""
    if picture.mode == "P":
        return picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    if picture.mode in ("1", "CMYK", "YCbCr", "LAB", "HSV"):
        return picture.convert("RGB")
    return picture
