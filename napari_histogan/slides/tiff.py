"""TIFF slides, decoded tile by tile without a slide library in between.

Aperio SVS, OME-TIFF, and generic pyramids hold their tiles as separate JPEG,
deflate, LZW, or raw streams.  Reading the bytes of one tile and decoding them is
about twice as fast as asking a slide library for a rectangle.
"""

from __future__ import annotations

import itertools
import os
import re
import struct
import threading
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from napari_histogan.errors import DAMAGE, SlideUnreadable
from napari_histogan.geometry import Region, Size
from napari_histogan.slides.pixels import to_rgb
from napari_histogan.slides.reader import SlideReader, pyramid_levels
from napari_histogan.slides.tile_cache import TileCache, UInt8Array

_TILES = TileCache(128 * 2**20)
"""Tiles of all slides that are open together, by the reader's number: a project may have thousands."""

_NUMBERS = itertools.count()
_LARGEST_TILE_BYTES = 1 << 30
_MOST_PAGES = 16_384
_TRUSTED_TAG_MPP = 20.0
_UM_PER_UNIT = {"nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
_DIRECT = {1, 5, 7, 8, 32773, 32946, 34925, 50000}
"""TIFF codes of compressions whose tiles decode on their own to the right colors:
none, LZW, JPEG, deflate, PackBits, deflate (old), LZMA, Zstandard."""


class TiffNotSupported(Exception):
    """The TIFF is in order but of a kind that another backend reads better."""


class TiffReader(SlideReader):
    """An SVS, OME-TIFF, or generic TIFF, tiled or in strips.

    Axes other than ``YX`` and ``YXS`` (channel planes, for instance) are read
    through tifffile's zarr view: correct, but slower.

    Raises
    ------
    SlideUnreadable
        The file is no TIFF, or tiles lie beyond its end.
    TiffNotSupported
        Its compression is not decoded here; ``open_slide`` then turns to OpenSlide.
    """

    def __init__(self, path: Path, mpp: float | None = None) -> None:
        path = Path(path)
        try:
            self._tiff = tifffile.TiffFile(path)
        except DAMAGE as error:
            raise _not_a_tiff(path, error) from error
        try:
            sizes = self._open_levels(path)
            levels, stated_mpp = pyramid_levels(sizes), file_mpp(self._tiff)
        except (SlideUnreadable, TiffNotSupported):
            self._tiff.close()
            raise
        except DAMAGE as error:
            self._tiff.close()
            raise _not_a_tiff(path, error) from error
        self._number = next(_NUMBERS)
        self._file = path.open("rb")
        self._seek_lock = threading.Lock()
        super().__init__(path, levels, stated_mpp, mpp)

    def _open_levels(self, path: Path) -> list[Size]:
        """Find pages or planes of each level and return their sizes."""
        _refuse_stitched(self._tiff)
        _refuse_many_pages(path, self._tiff)
        series = self._tiff.series[0]
        self._pages = _pyramid_pages(self._tiff)
        self._planes: list[_ChannelsFirst] = []
        _refuse_cut_off(path, self._tiff, self._pages)
        if series.axes in ("YX", "YXS") and all(page.planarconfig == 1 for page in self._pages):
            _refuse_unknown_compression(self._pages)
            _refuse_huge_tiles(path, self._pages)
            return [Size(page.imagelength, page.imagewidth) for page in self._pages]
        self._planes = _planes(series, path.name)
        return [Size(*plane.shape[-2:]) for plane in self._planes]

    def close(self) -> None:
        """Close the file."""
        super().close()
        _TILES.drop(self._number)
        self._file.close()
        self._tiff.close()

    def _read_inside(self, region: Region, level: int) -> UInt8Array:
        try:
            if self._planes:
                pixels = np.asarray(self._planes[level][:, region.y : region.y_end, region.x : region.x_end])
                return to_rgb(np.moveaxis(pixels, 0, -1), self.path.name)
            return self._from_tiles(region, level)
        except SlideUnreadable:
            raise
        except DAMAGE as error:
            raise SlideUnreadable(
                f"{self.path.name} cannot be decoded at y={region.y}, x={region.x}, level {level} ({error})",
                "a whole, undamaged slide file",
                "copy the file again from the scanner's storage",
            ) from error

    def _from_tiles(self, region: Region, level: int) -> UInt8Array:
        page = self._pages[level]
        th, tw = page.chunks[:2]
        per_row = ceil(page.imagewidth / tw)
        out = np.empty((region.height, region.width, 3), np.uint8)
        for ty in range(region.y // th, ceil(region.y_end / th)):
            for tx in range(region.x // tw, ceil(region.x_end / tw)):
                tile = self._tile(level, ty * per_row + tx)
                top, left = ty * th, tx * tw
                y0, y1 = max(region.y, top), min(region.y_end, top + th)
                x0, x1 = max(region.x, left), min(region.x_end, left + tw)
                out[y0 - region.y : y1 - region.y, x0 - region.x : x1 - region.x] = tile[
                    y0 - top : y1 - top, x0 - left : x1 - left
                ]
        return out

    def _tile(self, level: int, index: int) -> UInt8Array:
        tile = _TILES.get((self._number, level, index))
        if tile is None:
            page = self._pages[level]
            count = page.databytecounts[index]
            if count == 0:  # a scanner leaves tiles out where it saw only glass
                return np.full((*page.chunks[:2], 3), 255, np.uint8)
            data = self._bytes(page.dataoffsets[index], count)
            decoded = page.decode(data, index, jpegtables=page.jpegtables)[0]
            if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
                decoded = np.invert(decoded)
            tile = to_rgb(decoded[0], self.path.name)
            _TILES.put((self._number, level, index), tile)
        return tile

    def _bytes(self, offset: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), count, offset)
        with self._seek_lock:
            self._file.seek(offset)
            return self._file.read(count)


def _not_a_tiff(path: Path, error: Exception) -> SlideUnreadable:
    return SlideUnreadable(
        f"{path.name} cannot be opened as a TIFF ({error or type(error).__name__})",
        "a whole TIFF or SVS file",
        "copy the file again; its directory lies at the end and is missing when a copy was cut off",
    )


def _pyramid_pages(tiff: tifffile.TiffFile) -> list[Any]:
    """Return the first page of each level, finest first."""
    series = tiff.series[0]
    pages = [level.keyframe for level in series.levels]
    if len(pages) > 1:
        return pages
    # Generic pyramids keep their levels as a list of pages of the same shape.
    first = pages[0]
    for page in tiff.pages[1:]:
        page = page.aspage() if hasattr(page, "aspage") else page
        ratio = first.imagewidth / max(1, page.imagewidth)
        same = abs(first.imagelength / max(1, page.imagelength) / ratio - 1) < 0.02
        smaller = page.imagewidth < pages[-1].imagewidth
        if page.is_tiled and first.is_tiled and same and smaller and page.dtype == first.dtype:
            pages.append(page)
    return pages


def _refuse_stitched(tiff: tifffile.TiffFile) -> None:
    """Leave formats to OpenSlide whose tiles overlap or whose levels are laid out by their own rules."""
    for name in ("is_philips", "is_bif", "is_scn", "is_ndpi"):
        if getattr(tiff, name):
            raise TiffNotSupported(f"a vendor's format ({name.removeprefix('is_')})")


def _refuse_many_pages(path: Path, tiff: tifffile.TiffFile) -> None:
    """Refuse a chain of pictures that would take minutes to walk through, as damage makes them."""
    if (count := len(tiff.pages)) > _MOST_PAGES:
        raise SlideUnreadable(
            f"{path.name} lists {count:,} pictures",
            f"a slide; none has more than {_MOST_PAGES:,}",
            "copy it again",
        )


def _refuse_unknown_compression(pages: list[Any]) -> None:
    for page in pages:
        if int(page.compression) not in _DIRECT or page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            raise TiffNotSupported(f"compression {page.compression!r}, colors {page.photometric!r}")


def _refuse_huge_tiles(path: Path, pages: list[Any]) -> None:
    """Refuse a page whose tiles or strips would not fit into memory, whatever its header says."""
    for page in pages:
        needed = int(np.prod(page.chunks, dtype=object)) * page.dtype.itemsize
        if not 0 < needed <= _LARGEST_TILE_BYTES or max(page.databytecounts) > _LARGEST_TILE_BYTES:
            raise SlideUnreadable(
                f"{path.name} has tiles of {' x '.join(map(str, page.chunks))} values",
                f"tiles of at most {_LARGEST_TILE_BYTES:,} bytes",
                "convert the slide to a tiled pyramid",
            )


def _refuse_cut_off(path: Path, tiff: tifffile.TiffFile, pages: list[Any]) -> None:
    length = tiff.filehandle.size
    ends = [o + n for page in pages for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)]
    needed = max([*ends, _next_directory(tiff)], default=0)
    if needed > length or not any(ends):
        raise SlideUnreadable(
            f"{path.name} is cut off: it has {length:,} bytes",
            f"{needed:,} bytes or more, by its own directory",
            "copy the file again",
        )


def _next_directory(tiff: tifffile.TiffFile) -> int:
    """Return where the directory after the last readable one should be; 0 in a whole file."""
    last, form, file = tiff.pages[len(tiff.pages) - 1], tiff.tiff, tiff.filehandle
    file.seek(last.offset)
    (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    file.seek(last.offset + form.tagnosize + tags * form.tagsize)
    return int(struct.unpack(form.offsetformat, file.read(form.offsetsize))[0])


def _planes(series: Any, name: str) -> list[_ChannelsFirst]:
    """Return each level as a zarr array (C, Y, X), or say that this is no picture."""
    axes = series.axes
    others = [a for a, n in zip(axes, series.shape, strict=True) if a not in "CSYX" and n > 1]
    channels = [n for a, n in zip(axes, series.shape, strict=True) if a in "CS"]
    if others or not {"Y", "X"} <= set(axes) or np.prod(channels, initial=1) not in (1, 3, 4):
        raise SlideUnreadable(
            f"{name} has axes {axes} of {series.shape}",
            "one picture with 1 (gray), 3 (RGB), or 4 (RGB and alpha) channels",
            "export one plane of it as RGB",
        )
    return [_ChannelsFirst(zarr.open_array(level.aszarr(), mode="r"), level.axes) for level in series.levels]


class _ChannelsFirst:
    """A zarr array of any axes seen as (C, Y, X)."""

    def __init__(self, array: Any, axes: str) -> None:
        self._array, self._axes = array, axes
        sides = dict(zip(axes, array.shape, strict=True))
        self.shape = (sides.get("C", 1) * sides.get("S", 1), sides["Y"], sides["X"])

    def __getitem__(self, key: tuple[slice, slice, slice]) -> np.ndarray[Any, Any]:
        picks = {"Y": key[1], "X": key[2], "C": slice(None), "S": slice(None)}
        block = np.asarray(self._array[tuple(picks.get(axis, 0) for axis in self._axes)])
        kept = [axis for axis in self._axes if axis in "CSYX"]
        order = [kept.index(axis) for axis in "CSYX" if axis in kept]
        block = block.transpose(order)
        return block.reshape(-1, *block.shape[-2:])


def file_mpp(tiff: tifffile.TiffFile) -> float | None:
    """Return the resolution in um/px that the file states: Aperio, OME, or the resolution tags.

    Tags coarser than 20 um/px (72 or 300 dots per inch) are defaults of a printing
    world, not measurements, and do not count.
    """
    page = tiff.pages.first
    if tiff.is_svs:
        found = re.search(r"\bMPP\s*=\s*([0-9.]+)", page.description)
        if found:
            return float(found.group(1))
    if tiff.is_ome and tiff.ome_metadata:
        sides = [_ome_side_um(tiff.ome_metadata, axis) for axis in "XY"]
        known = [side for side in sides if side]
        if known:
            return sum(known) / len(known)
    tags, unit = page.tags, page.tags.valueof("ResolutionUnit", 1)
    um = {2: 25_400.0, 3: 10_000.0}.get(int(unit))
    pair = tags.valueof("XResolution")
    if um is None or not pair or not pair[0] or not pair[1]:
        return None
    mpp = um * pair[1] / pair[0]
    return mpp if mpp <= _TRUSTED_TAG_MPP else None


def _ome_side_um(xml: str, axis: str) -> float | None:
    # Two attributes of one element are wanted; no need to parse XML of unknown origin for them.
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    if not pixels:
        return None
    value = re.search(rf'\bPhysicalSize{axis}="([0-9.eE+-]+)"', pixels.group())
    unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]+)"', pixels.group())
    factor = _UM_PER_UNIT.get(unit.group(1) if unit else "um")
    return float(value.group(1)) * factor if value and factor else None
