"""Slides in vendors' formats, read by the OpenSlide library."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import openslide

from napari_histogan.errors import SlideUnreadable
from napari_histogan.geometry import Region, Size
from napari_histogan.slides.pixels import to_rgb
from napari_histogan.slides.reader import LevelInfo, SlideReader
from napari_histogan.slides.tile_cache import UInt8Array

_CACHE_BYTES = 128 * 2**20
"""Memory for tiles of all slides that are open together: a project may have thousands."""


@lru_cache(maxsize=1)
def _cache() -> openslide.OpenSlideCache:
    return openslide.OpenSlideCache(_CACHE_BYTES)


class OpenSlideReader(SlideReader):
    """Any format that OpenSlide knows: NDPI, MRXS, SCN, BIF, SVS, DICOM, and others.

    Raises
    ------
    SlideUnreadable
        OpenSlide does not know the format, or the file is damaged.
    """

    def __init__(self, path: Path, mpp: float | None = None) -> None:
        path = Path(path)
        try:
            self._slide = openslide.OpenSlide(path)
            self._slide.set_cache(_cache())
        except (openslide.OpenSlideError, OSError) as error:
            raise SlideUnreadable(
                f"{path.name} cannot be opened as a slide ({error})",
                "a whole slide file (SVS, NDPI, MRXS, SCN, TIFF, OME-TIFF), a picture, or an OME-Zarr folder",
                "copy the file again; formats of several files, such as MRXS, need the folder beside it",
            ) from error
        levels = [
            LevelInfo(Size(h, w), float(d))
            for (w, h), d in zip(self._slide.level_dimensions, self._slide.level_downsamples, strict=True)
        ]
        super().__init__(path, levels, self._file_mpp(), mpp)

    def _file_mpp(self) -> float | None:
        names = openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y
        try:
            return sum(float(self._slide.properties[name]) for name in names) / 2
        except (KeyError, ValueError):
            return None

    def _read_inside(self, region: Region, level: int) -> UInt8Array:
        # OpenSlide wants the corner in pixels of level 0, even for coarse levels.
        down = self.levels[level].downsample
        corner = round(region.x * down), round(region.y * down)
        try:
            pixels = self._slide.read_region(corner, level, (region.width, region.height))
        except openslide.OpenSlideError as error:
            raise SlideUnreadable(
                f"{self.path.name} cannot be read at y={region.y}, x={region.x}, level {level} ({error})",
                "a whole slide file",
                "copy the file again from the scanner's storage",
            ) from error
        return to_rgb(np.asarray(pixels), self.path.name)

    def close(self) -> None:
        """Close the file."""
        super().close()
        self._slide.close()
