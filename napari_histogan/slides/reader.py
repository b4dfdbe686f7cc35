"""The contract of every slide reader, and :func:`open_slide`.

A slide is a pyramid of RGB pictures of the same tissue.  Level 0 is the finest.
Backends only say what their levels are and how the inside of one is read;
padding, resampling to a wished resolution, thumbnails, and lazy pyramids for
viewers are written once, here.
"""

from __future__ import annotations

import hashlib
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image

from napari_histogan.errors import SlideError, SlideHasNoMpp, SlideNotFound, SlideUnreadable
from napari_histogan.geometry import Region, Size
from napari_histogan.slides.lazy_level import LazyLevel
from napari_histogan.slides.tile_cache import TileCache, UInt8Array

logger = logging.getLogger("napari_histogan")

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".svs")
VENDOR_SUFFIXES = (".ndpi", ".mrxs", ".vms", ".vmu", ".scn", ".svslide", ".bif", ".dcm", ".czi")
ZARR_SUFFIXES = (".zarr",)
SLIDE_SUFFIXES = PICTURE_SUFFIXES + TIFF_SUFFIXES + VENDOR_SUFFIXES + ZARR_SUFFIXES
"""Names that :func:`open_slide` knows; files with another name are tried with OpenSlide."""

MAX_UPSAMPLING = 1.5
"""A slide is enlarged at most so much; beyond it, detail would be made up."""

SAME_SCALE = 0.005
"""Resolutions that differ by less than this share count as equal (0.499 and 0.5 um/px)."""

MAX_DRIFT_PX = 0.6
"""Pixels are taken as they are if that moves no edge of the region by more than this."""

MAX_SIDE_PX = 1 << 22
"""A longer side than this (2 m at 0.5 um/px) is a damaged header, not a slide."""

MAX_PIXEL_BYTES = 512 * 2**20
"""A pixel of an overview is the mean of at most so many bytes; else the slide lacks coarser levels."""

_PIECE_BYTES = 64 * 2**20
_VIEW_CACHE_BYTES = 128 * 2**20
_VIEW_COARSEST_PX = 1024
_MPP_RANGE = (0.01, 100.0)


@dataclass(frozen=True, slots=True)
class LevelInfo:
    """One picture of the pyramid.

    Parameters
    ----------
    size
        Height and width in pixels of this level.
    downsample
        Side of a pixel of this level in pixels of level 0; 1 for level 0.
    """

    size: Size
    downsample: float


def pyramid_levels(sizes: Sequence[Size]) -> list[LevelInfo]:
    """Return the levels of a pyramid of pictures of these sizes, finest first.

    Sizes are rounded to whole pixels.  Where a power of two explains a size to the
    pixel, the power is what was meant; the quotient of the sizes is not used then.
    """
    for size in sizes:
        if not 0 < min(size.shape) <= max(size.shape) <= MAX_SIDE_PX:
            raise SlideUnreadable(
                f"a level has {size.height} x {size.width} pixels", f"1 to {MAX_SIDE_PX:,} pixels a side"
            )
    levels = []
    for size in sizes:
        quotient = sizes[0].width / size.width
        power = 2.0 ** round(math.log2(quotient))
        off_px = max(abs(n / power - m) for n, m in zip(sizes[0].shape, size.shape, strict=True))
        levels.append(LevelInfo(size, power if off_px <= 1 else quotient))
    return levels


class SlideReader(ABC):
    """Reads one slide; all methods may be called from several threads at once.

    Readers can be pickled: the copy opens the file anew.

    Parameters
    ----------
    path
        The slide's file or folder.
    levels
        The pyramid, finest first.
    file_mpp
        What the file says about its resolution in um/px, or None.
    mpp
        What the user says, in um/px; wins over the file.
    """

    def __init__(
        self, path: Path, levels: Sequence[LevelInfo], file_mpp: float | None, mpp: float | None
    ) -> None:
        self.path = Path(path)
        self.levels = tuple(levels)
        self.given_mpp = mpp
        plausible = file_mpp is not None and _MPP_RANGE[0] <= file_mpp <= _MPP_RANGE[1]
        self._mpp = mpp if mpp is not None else (file_mpp if plausible else None)
        self._view_cache = TileCache(_VIEW_CACHE_BYTES)

    @abstractmethod
    def _read_inside(self, region: Region, level: int) -> UInt8Array:
        """Read a region that lies wholly inside the level, as a new array (H, W, 3) uint8."""

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        self._view_cache.clear()

    @property
    def size(self) -> Size:
        """Height and width of level 0 in pixels."""
        return self.levels[0].size

    @property
    def has_mpp(self) -> bool:
        """Whether the resolution is known."""
        return self._mpp is not None

    @property
    def mpp(self) -> float:
        """Micrometers per pixel of level 0.

        Raises
        ------
        SlideHasNoMpp
            Neither the file nor the user says it.
        """
        if self._mpp is None:
            raise SlideHasNoMpp(
                f"{self.path.name} does not say its resolution",
                "microns per pixel in the file's metadata",
                "open it with mpp= (0.25 um/px is usual for a 40x scan, 0.5 for 20x)",
            )
        return self._mpp

    def size_at(self, mpp: float) -> Size:
        """Return the slide's height and width in pixels of ``mpp`` um."""
        return self.size.scaled(self.mpp / mpp)

    def read(self, region: Region, level: int = 0) -> UInt8Array:
        """Read a region of one level.

        Parameters
        ----------
        region
            In pixels of the level; what lies outside the picture comes out white.
        level
            Index into :attr:`levels`.

        Returns
        -------
        numpy.ndarray
            ``(H, W, 3) uint8``, RGB, owned by the caller.
        """
        if not 0 <= level < len(self.levels):
            raise ValueError(f"{self.path.name} has levels 0 to {len(self.levels) - 1}, not {level}")
        inside = region.clipped(self.levels[level].size)
        if inside == region and region.height and region.width:
            return self._read_inside(region, level)
        out = np.full((region.height, region.width, 3), 255, np.uint8)
        if inside.height and inside.width:
            y, x = inside.y - region.y, inside.x - region.x
            out[y : y + inside.height, x : x + inside.width] = self._read_inside(inside, level)
        return out

    def read_at(self, region: Region, mpp: float) -> UInt8Array:
        """Read a region at a wished resolution.

        Parameters
        ----------
        region
            In pixels of ``mpp`` micrometers, from the slide's top left corner.
        mpp
            Wished resolution in um/px; may be up to 1.5 times finer than the slide.

        Returns
        -------
        numpy.ndarray
            ``(H, W, 3) uint8``; averages of the next finer level.  Where the scale
            is so near to a level's, or to a whole fraction of it, that no edge of the
            region would move by more than 0.6 pixels, the level's own pixels are kept.

        Raises
        ------
        SlideHasNoMpp
            The slide's resolution is not known.
        SlideError
            ``mpp`` is much finer than the slide.
        """
        self.check_resolution(mpp)
        return self.read_downsampled(region, mpp / self.mpp)

    def check_resolution(self, mpp: float) -> None:
        """Raise :class:`SlideError` if ``mpp`` um/px is finer than the slide can give."""
        if mpp <= 0 or self.mpp / mpp > MAX_UPSAMPLING * (1 + SAME_SCALE):
            raise SlideError(
                f"{self.path.name} has {self.mpp:g} um/px; {mpp:g} um/px was asked for",
                f"a resolution of {self.mpp / MAX_UPSAMPLING:.3g} um/px or coarser",
                "choose a coarser resolution, or slides from a stronger objective",
            )

    def read_downsampled(self, region: Region, downsample: float) -> UInt8Array:
        """Read a region in pixels of ``downsample`` level 0 pixels, as (H, W, 3) uint8."""
        if not region.height or not region.width:
            return np.empty((region.height, region.width, 3), np.uint8)
        level = self._level_for(downsample)
        factor = downsample / self.levels[level].downsample
        whole = max(1, round(factor))
        if abs(factor / whole - 1) * max(region.size.shape) > MAX_DRIFT_PX:
            whole = 0
        return self._resampled(region, level, factor, whole)

    def _resampled(self, region: Region, level: int, factor: float, whole: int) -> UInt8Array:
        """Average ``whole`` x ``whole`` pixels of the level, or resample by ``factor`` if whole is 0."""
        y, x, h, w = region.y, region.x, region.height, region.width
        if h * w * factor**2 * 3 > _PIECE_BYTES and max(h, w) > 1:  # bound the memory
            tall = h >= w
            first = Region(y, x, h // 2, w) if tall else Region(y, x, h, w // 2)
            rest = Region(y + h // 2, x, h - h // 2, w) if tall else Region(y, x + w // 2, h, w - w // 2)
            halves = [self._resampled(part, level, factor, whole) for part in (first, rest)]
            return np.concatenate(halves, axis=0 if tall else 1)
        if factor**2 * 3 > MAX_PIXEL_BYTES:
            raise SlideUnreadable(
                f"{self.path.name} has no level coarse enough for one pixel of {factor:,.0f} pixels a side",
                "a pyramid",
                "convert the slide to a tiled pyramid",
            )
        if whole:
            pixels = self.read(Region(round(y * factor), round(x * factor), h * whole, w * whole), level)
            return pixels if whole == 1 else np.array(Image.fromarray(pixels).reduce(whole))
        # A box filter would weigh whole pixels only, which aliases at factors such as 1.5.
        how = Image.Resampling.HAMMING if factor > 1 else Image.Resampling.BICUBIC
        margin = math.ceil(max(1.0, factor)) + 1
        cover = region.scaled(factor).grown(margin)
        pixels = self.read(cover, level)
        box = (
            x * factor - cover.x,
            y * factor - cover.y,
            region.x_end * factor - cover.x,
            region.y_end * factor - cover.y,
        )
        return np.array(Image.fromarray(pixels).resize((w, h), how, box=box))

    def _level_for(self, downsample: float) -> int:
        fitting = [
            i for i, info in enumerate(self.levels) if info.downsample <= downsample * (1 + SAME_SCALE)
        ]
        return max(fitting, key=lambda i: self.levels[i].downsample, default=0)

    def thumbnail(self, max_px: int = 512) -> UInt8Array:
        """Return the whole slide with its longer side ``max_px`` pixels at most, (H, W, 3) uint8."""
        downsample = max(1.0, max(self.size.shape) / max_px)
        size = self.size.scaled(1 / downsample)
        return self.read_downsampled(Region(0, 0, size.height, size.width), downsample)

    def pyramid(self) -> list[LazyLevel]:
        """Return lazy levels for viewers, finest first, each half of the one before.

        Levels that the file lacks are made from the next finer one when they are
        looked at.  The coarsest is about 1,000 px a side.  Each is ``(y, x, 3) uint8``
        with chunks of 512 px; together they keep at most 128 MB.
        """
        count = 1 + max(0, math.ceil(math.log2(max(self.size.shape) / _VIEW_COARSEST_PX)))
        return [LazyLevel(self.size, 2**k, self.read_downsampled, self._view_cache) for k in range(count)]

    def fingerprint(self) -> str:
        """Return a hash of the file's length and of samples of its bytes; takes milliseconds."""
        length = self.path.stat().st_size
        digest = hashlib.sha256(str(length).encode())
        with self.path.open("rb") as file:
            for k in range(17):
                file.seek(max(0, length - 2**16) * k // 16)
                digest.update(file.read(2**16))
        return digest.hexdigest()[:32]

    def __enter__(self) -> Self:
        """Return the reader."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickle as path and resolution; the copy opens the file anew."""
        return type(self), (self.path, self.given_mpp)

    def __repr__(self) -> str:
        """Return path, size, and resolution."""
        mpp = f"{self._mpp:g} um/px" if self._mpp else "resolution unknown"
        size = f"{self.size.height} x {self.size.width} px"
        return f"<{type(self).__name__} {self.path.name}: {size}, {mpp}, {len(self.levels)} levels>"


def open_slide(path: Path | str, mpp: float | None = None) -> SlideReader:
    """Open a slide with the backend for its format.

    Parameters
    ----------
    path
        A slide file, a picture, or an OME-Zarr folder.
    mpp
        Resolution in um/px if the file does not say it, or says it wrongly.

    Raises
    ------
    SlideError
        ``mpp`` is not between 0.01 and 100.
    SlideNotFound
        There is no such file.
    SlideUnreadable
        The file is not a slide, is damaged, or is cut off.
    """
    from napari_histogan.slides.openslide import OpenSlideReader
    from napari_histogan.slides.picture import PictureReader
    from napari_histogan.slides.tiff import TiffNotSupported, TiffReader
    from napari_histogan.slides.zarr_pyramid import ZarrReader

    path = Path(path)
    _check_given(mpp, path.name)
    if not path.exists():
        raise SlideNotFound(f"there is no slide at {path}", "", "check the path, or add the slide again")
    suffix = path.suffix.lower()
    if path.is_dir():
        return ZarrReader(path, mpp)
    if path.stat().st_size == 0:
        raise SlideUnreadable(f"{path.name} is empty (0 bytes)", "", "copy the slide again")
    if suffix in PICTURE_SUFFIXES:
        return PictureReader(path, mpp)
    if suffix in TIFF_SUFFIXES:
        try:
            return TiffReader(path, mpp)
        except TiffNotSupported as reason:
            logger.info("%s is read by OpenSlide: %s", path.name, reason)
    return OpenSlideReader(path, mpp)


def _check_given(mpp: float | None, name: str) -> None:
    if mpp is not None and not _MPP_RANGE[0] <= mpp <= _MPP_RANGE[1]:
        raise SlideError(
            f"the resolution given for {name} is {mpp} um/px",
            f"a value between {_MPP_RANGE[0]} and {_MPP_RANGE[1]} um/px",
            "give microns per pixel: 0.25 for a 40x scan, 0.5 for 20x",
        )


def find_slides(paths: Sequence[Path]) -> list[Path]:
    """Return the slides among files and folders, each file once.

    Raises
    ------
    SlideError
        There is none.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir() and path.suffix != ".zarr":
            files += sorted(p for p in path.iterdir() if p.suffix.lower() in SLIDE_SUFFIXES)
        else:
            files.append(path)
    if not files:
        raise SlideError(
            "no slides were given" if not paths else f"no slides in {', '.join(map(str, paths))}",
            f"files ending in {', '.join(SLIDE_SUFFIXES)}",
            "name slide files or a folder of slides",
        )
    return list({path.resolve(): path for path in files}.values())
