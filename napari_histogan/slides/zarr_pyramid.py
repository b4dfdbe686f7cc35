"""OME-Zarr: slides read from it, and maps written to it while they grow.

A map (class probabilities, for instance) is a group of arrays ``(C, Y, X)``, level 0
first, each half of the one before, with 512 px chunks of one channel and OME-NGFF 0.5
metadata.  A block that is written reaches all levels at once, so a viewer sees it
on whatever level it looks at.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.errors import BaseZarrError

from napari_histogan.errors import DAMAGE, HistoganError, SlideNotFound, SlideUnreadable, StorageError
from napari_histogan.geometry import Region, Size
from napari_histogan.slides.ngff import channel_names, multiscale_attributes, open_multiscale, scale_um
from napari_histogan.slides.pixels import to_rgb
from napari_histogan.slides.reader import SlideReader, pyramid_levels
from napari_histogan.slides.tile_cache import UInt8Array

_COARSEST_PX = 1024
_MAKER = "napari-histogan"
_BLOCK_LIST = "blocks.jsonl"


class ZarrReader(SlideReader):
    """An OME-Zarr picture (NGFF 0.4 or 0.5) with 1, 3, or 4 channels, read as a slide.

    Raises
    ------
    SlideUnreadable
        The folder is no OME-Zarr, or holds something else than one picture.
    """

    def __init__(self, path: Path, mpp: float | None = None) -> None:
        path = Path(path)
        group, multiscale = open_multiscale(path)
        self._arrays: list[Any] = [group[dataset["path"]] for dataset in multiscale["datasets"]]
        self._axes = [axis["name"] for axis in multiscale["axes"]]
        shape = self._arrays[0].shape
        channels = shape[self._axes.index("c")] if "c" in self._axes else 1
        deep = [a for a, n in zip(self._axes, shape, strict=True) if a not in "cyx" and n > 1]
        if deep or channels not in (1, 3, 4):
            raise SlideUnreadable(
                f"{path.name} has axes {self._axes} of {shape}",
                "one picture with 1 (gray), 3 (RGB), or 4 (RGB and alpha) channels",
                "export one plane of it as RGB",
            )
        y, x = self._axes.index("y"), self._axes.index("x")
        sizes = [Size(array.shape[y], array.shape[x]) for array in self._arrays]
        super().__init__(path, pyramid_levels(sizes), scale_um(multiscale), mpp)

    def _read_inside(self, region: Region, level: int) -> UInt8Array:
        picks: dict[str, slice] = {"y": region.slices[0], "x": region.slices[1], "c": slice(None)}
        try:
            block = np.asarray(self._arrays[level][tuple(picks.get(axis, 0) for axis in self._axes)])
        except (BaseZarrError, *DAMAGE) as error:
            raise SlideUnreadable(
                f"{self.path.name} cannot be decoded at y={region.y}, x={region.x}, level {level} ({error})",
                "an undamaged OME-Zarr folder",
                "copy the folder again",
            ) from error
        kept = [axis for axis in self._axes if axis in "cyx"]
        return to_rgb(block.transpose([kept.index(axis) for axis in "yxc" if axis in kept]), self.path.name)

    def fingerprint(self) -> str:
        """Return a hash of the shape and of pixels sampled over the whole slide."""
        digest = hashlib.sha256(str([array.shape for array in self._arrays]).encode())
        height, width = self.size.shape
        for k in range(17):
            y, x = height * k // 17, width * ((k * 7) % 17) // 17
            digest.update(self.read(Region(y, x, 32, 32)).tobytes())
        digest.update(self.thumbnail(256).tobytes())
        return digest.hexdigest()[:32]


class PyramidWriter:
    """Writes a map block by block; what is on disk can be read all the time.

    An existing map of the same size, channels, and type is continued.

    Parameters
    ----------
    path
        Folder of the map, usually ending in ``.zarr``.
    size
        Height and width of level 0 in pixels of ``mpp``.
    channels
        Names of the channels, such as the classes.
    dtype
        Type of a value.
    mpp
        Micrometers per pixel of level 0.
    chunk
        Side of a chunk in pixels; blocks must begin at multiples of it.
    categorical
        Coarser levels take one of the values (for class numbers) instead of their mean.

    Raises
    ------
    StorageError
        The folder holds another map, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        size: Size,
        channels: Sequence[str],
        dtype: npt.DTypeLike = np.uint8,
        *,
        mpp: float,
        chunk: int = 512,
        categorical: bool = False,
    ) -> None:
        self.path, self.size, self.mpp, self.chunk = Path(path), size, mpp, chunk
        self.channels, self.dtype = tuple(channels), np.dtype(dtype)
        self._categorical = categorical
        self._coarser_lock = threading.Lock()
        try:
            self.levels = self._existing() if self._complete() else self._create()
        except HistoganError:
            raise
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be written ({error})", "a writable folder on a disk with free space"
            ) from error
        self._done = set(done_blocks(self.path))

    def _complete(self) -> bool:
        """Whether a map is there; a folder of something else is left alone."""
        # A process that was killed when it began leaves a half-written zarr.json under another name.
        if not self.path.exists() or all(p.name.endswith(".partial") for p in self.path.iterdir()):
            return False
        known = (self.path / "zarr.json").exists()
        attributes = zarr.open_group(self.path, mode="r").attrs if known else {}
        if _MAKER not in attributes.values():
            raise StorageError(
                f"{self.path} exists and holds something else", "a new or empty folder", "choose another name"
            )
        return "ome" in attributes

    def _create(self) -> list[Any]:
        sizes = _level_sizes(self.size)
        group = zarr.open_group(self.path, mode="a", attributes={"made_by": _MAKER})
        levels = [
            group.create_array(
                str(k),
                shape=(len(self.channels), *size.shape),
                chunks=(1, self.chunk, self.chunk),
                dtype=self.dtype,
                fill_value=0,
                dimension_names=("c", "y", "x"),
                overwrite=True,
            )
            for k, size in enumerate(sizes)
        ]
        # The attributes come last: with them the map is complete, without them it is made anew.
        group.attrs.update(
            multiscale_attributes(self.path.stem, self.channels, self.mpp, len(sizes), self.dtype)
        )
        return levels

    def _existing(self) -> list[Any]:
        there = open_pyramid(self.path)
        first = there.levels[0]
        wanted = (len(self.channels), *self.size.shape), self.dtype, self.channels
        found = first.shape, first.dtype, there.channels
        if found != wanted or abs(there.mpp / self.mpp - 1) > 1e-6:
            raise StorageError(
                f"{self.path} holds another map: {found} at {there.mpp:g} um/px",
                f"{wanted} at {self.mpp:g} um/px",
                "write to a new folder",
            )
        return [zarr.open_array(self.path / str(k), mode="r+") for k in range(len(there.levels))]

    def write(self, region: Region, block: npt.NDArray[Any], coarser: bool = True) -> None:
        """Write a block to all levels and remember that it is done.

        Threads may call this at once with different regions.  Several processes may
        too with ``coarser=False``; one of them then calls :meth:`fill_coarser`.

        Parameters
        ----------
        region
            In pixels of level 0: begins at multiples of ``chunk``, and ends there too
            or at the edge of the map.
        block
            ``(C, h, w)``, or ``(h, w)`` for one channel.
        """
        self._check(region, block)
        block = block.reshape(len(self.channels), *region.size.shape)
        try:
            self.levels[0][:, region.slices[0], region.slices[1]] = block
            if coarser:
                self._write_coarser(region, block)
            self._remember(region)
        except OSError as error:
            raise StorageError(
                f"block y={region.y}, x={region.x} of {self.path.name} could not be written ({error})",
                "a disk with free space",
                "free some space and start the stage again; blocks that were written are kept",
            ) from error

    def fill_coarser(self, region: Region) -> None:
        """Compute the coarser levels of a region from level 0."""
        self._write_coarser(region, np.asarray(self.levels[0][:, region.slices[0], region.slices[1]]))

    def done(self, region: Region) -> bool:
        """Whether :meth:`write` has finished this block, now or in an earlier run."""
        return region in self._done

    def close(self) -> None:
        """Nothing is held open; here for symmetry with readers."""

    def _check(self, region: Region, block: npt.NDArray[Any]) -> None:
        ends = (region.y_end, self.size.height), (region.x_end, self.size.width)
        aligned = region.y % self.chunk == 0 and region.x % self.chunk == 0
        aligned &= all(end == side or (end % self.chunk == 0 and end < side) for end, side in ends)
        if not aligned or region.y < 0 or region.x < 0:
            raise ValueError(f"{region} does not lie on the {self.chunk} px chunks of a map of {self.size}")
        if block.shape not in {(len(self.channels), *region.size.shape), region.size.shape}:
            raise ValueError(f"a block of shape {block.shape} does not fit {region}")
        if block.dtype != self.dtype:
            raise ValueError(f"a block of {block.dtype} does not fit a map of {self.dtype}")

    def _write_coarser(self, region: Region, block: npt.NDArray[Any]) -> None:
        # Four blocks share a chunk of the next level, so one thread at a time writes it.
        with self._coarser_lock:
            y, x = region.y, region.x
            for level in self.levels[1:]:
                block = _halved(block, self._categorical)
                y, x = y // 2, x // 2
                h, w = min(block.shape[1], level.shape[1] - y), min(block.shape[2], level.shape[2] - x)
                level[:, y : y + h, x : x + w] = block[:, :h, :w]

    def _remember(self, region: Region) -> None:
        # The newline in front ends a line that a machine which died left unfinished.
        line = "\n" + json.dumps([region.y, region.x, region.height, region.width], separators=(",", ":"))
        fd = os.open(self.path / _BLOCK_LIST, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)
        self._done.add(region)


class PyramidReader:
    """A map on disk, finished or growing.

    Attributes
    ----------
    levels
        zarr arrays ``(C, Y, X)``, finest first.
    mpp
        Micrometers per pixel of level 0.
    channels
        Names of the channels.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise SlideNotFound(f"there is no map at {path}", "", "run the stage that makes it")
        group, multiscale = open_multiscale(self.path)
        self.levels: list[Any] = [group[dataset["path"]] for dataset in multiscale["datasets"]]
        self.mpp = scale_um(multiscale) or 1.0
        self.channels = channel_names(group, self.levels[0].shape[0])
        if any(level.ndim != 3 for level in self.levels):
            raise SlideUnreadable(f"{self.path.name} has levels of other than 3 axes", "axes c, y, x")

    @property
    def size(self) -> Size:
        """Height and width of level 0 in pixels."""
        return Size(*self.levels[0].shape[-2:])

    @property
    def scale_um(self) -> list[float]:
        """Micrometers per pixel of each level."""
        return [self.mpp * 2**k for k in range(len(self.levels))]

    def channel(self, index: int) -> list[ChannelLevel]:
        """Return one channel as lazy arrays ``(Y, X)``, finest first, for a viewer.

        A viewer that is given all channels reads all of them to draw one.
        """
        return [ChannelLevel(level, index) for level in self.levels]

    def done_blocks(self) -> list[Region]:
        """Return the regions of level 0 that were written, in the order of writing."""
        return done_blocks(self.path)


class ChannelLevel:
    """One channel of a zarr array ``(C, Y, X)``, read when it is indexed."""

    ndim = 2

    def __init__(self, array: Any, index: int) -> None:
        self._array, self._index = array, index
        self.shape: tuple[int, int] = tuple(array.shape[1:])
        self.dtype: np.dtype[Any] = array.dtype
        self.chunks: tuple[int, int] = tuple(array.chunks[1:])
        self.size: int = self.shape[0] * self.shape[1]

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Read what slices and integers select."""
        keys = key if isinstance(key, tuple) else (key,)
        try:
            return np.asarray(self._array[(self._index, *keys)])
        except IndexError:
            raise  # the caller's fault
        except (BaseZarrError, *DAMAGE) as error:
            raise SlideUnreadable(
                f"{self._array.path} cannot be decoded ({error})", "a whole map", "make the map again"
            ) from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Read everything."""
        return np.asarray(self[:], dtype=dtype)


def open_pyramid(path: Path | str) -> PyramidReader:
    """Open a map that :class:`PyramidWriter` made or is making."""
    return PyramidReader(Path(path))


def done_blocks(path: Path) -> list[Region]:
    """Return the regions of level 0 that were written to the map at ``path``."""
    try:
        text = (Path(path) / _BLOCK_LIST).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    regions = []
    for line in text.split():
        try:
            regions.append(Region(*json.loads(line)))
        except DAMAGE:
            continue  # cut off when a machine died: not done
    return regions


def _level_sizes(size: Size) -> list[Size]:
    sizes = [size]
    while max(sizes[-1].shape) > _COARSEST_PX:
        sizes.append(Size(ceil(sizes[-1].height / 2), ceil(sizes[-1].width / 2)))
    return sizes


def _halved(block: npt.NDArray[Any], categorical: bool) -> npt.NDArray[Any]:
    if categorical:
        return block[:, ::2, ::2]
    odd = block.shape[1] % 2, block.shape[2] % 2
    if any(odd):
        block = np.pad(block, ((0, 0), (0, odd[0]), (0, odd[1])), mode="edge")
    wide = np.promote_types(block.dtype, np.uint16 if block.dtype == np.uint8 else np.float32)
    corners = [block[:, y::2, x::2].astype(wide) for y in (0, 1) for x in (0, 1)]
    total = corners[0] + corners[1] + corners[2] + corners[3]
    if wide == np.uint16:  # the common case, probabilities in percent, in fast integers
        return np.asarray((total + 2) // 4, block.dtype)
    mean = total / 4
    return np.asarray(np.rint(mean) if block.dtype.kind in "iu" else mean, block.dtype)
