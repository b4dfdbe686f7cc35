"""A level of a slide that looks like an array and is read when it is indexed."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np

from napari_histogan.geometry import Region, Size
from napari_histogan.slides.tile_cache import TileCache, UInt8Array

CHUNK_PX = 512


class LazyLevel:
    """An array-like ``(y, x, 3) uint8`` for viewers and dask.

    It has the attributes that viewers and ``dask.array.from_array`` ask for
    (``shape``, ``dtype``, ``ndim``, ``chunks``) and takes slices with any step.

    Parameters
    ----------
    size
        Size of level 0 of the slide.
    downsample
        Side of a pixel in pixels of level 0.
    read
        Reads a region in pixels of ``downsample``; see ``SlideReader.read_downsampled``.
    cache
        Where read chunks are kept; shared between the levels of a slide.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3
    chunks = (CHUNK_PX, CHUNK_PX, 3)

    def __init__(
        self,
        size: Size,
        downsample: int,
        read: Callable[[Region, float], UInt8Array],
        cache: TileCache,
    ) -> None:
        self.downsample = downsample
        self.shape = (ceil(size.height / downsample), ceil(size.width / downsample), 3)
        self._read = read
        self._cache = cache

    @property
    def size(self) -> int:
        """Number of values."""
        return self.shape[0] * self.shape[1] * 3

    @property
    def nbytes(self) -> int:
        """Number of bytes if it were in memory."""
        return self.size

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, key: Any) -> UInt8Array:
        """Read what slices and integers select, as numpy does."""
        keys = list(key) if isinstance(key, tuple) else [key]
        if any(k is Ellipsis for k in keys):
            at = next(i for i, k in enumerate(keys) if k is Ellipsis)
            keys[at : at + 1] = [slice(None)] * (3 - len(keys) + 1)
        keys += [slice(None)] * (3 - len(keys))
        (y0, y1, rows), (x0, x1, columns) = (
            _bounds(k, n) for k, n in zip(keys, self.shape[:2], strict=False)
        )
        return np.asarray(self._box(y0, x0, y1, x1)[rows, columns, keys[2]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Read everything."""
        whole = self[:, :, :]
        return whole if dtype is None else whole.astype(dtype)

    def _box(self, y0: int, x0: int, y1: int, x1: int) -> UInt8Array:
        out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        for cy in range(y0 // CHUNK_PX, ceil(y1 / CHUNK_PX)):
            for cx in range(x0 // CHUNK_PX, ceil(x1 / CHUNK_PX)):
                top, left = cy * CHUNK_PX, cx * CHUNK_PX
                chunk = self._chunk(cy, cx)
                a, b = max(y0, top), min(y1, top + chunk.shape[0])
                c, d = max(x0, left), min(x1, left + chunk.shape[1])
                out[a - y0 : b - y0, c - x0 : d - x0] = chunk[a - top : b - top, c - left : d - left]
        return out

    def _chunk(self, cy: int, cx: int) -> UInt8Array:
        key = (self.downsample, cy, cx)
        chunk = self._cache.get(key)
        if chunk is None:
            whole = Size(self.shape[0], self.shape[1])
            region = Region(cy * CHUNK_PX, cx * CHUNK_PX, CHUNK_PX, CHUNK_PX).clipped(whole)
            chunk = self._read(region, self.downsample)
            self._cache.put(key, chunk)
        return chunk


def _bounds(key: Any, length: int) -> tuple[int, int, Any]:
    """Return the first and last+1 index that a key touches, and the key within that range."""
    if isinstance(key, slice):
        start, stop, step = key.indices(length)
        count = len(range(start, stop, step))
        if count == 0:
            return 0, 0, slice(0, 0)
        last = start + (count - 1) * step
        low, high = min(start, last), max(start, last)
        return low, high + 1, slice(None, None, step)
    index = operator.index(key)
    index += length if index < 0 else 0
    if not 0 <= index < length:
        raise IndexError(f"index {index} is out of range for a side of {length} pixels")
    return index, index + 1, 0
