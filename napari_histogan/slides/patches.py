"""Choose and stream random patches.

The k-th patch of a source is a pure function of the source, the seed, and k.  So a
source's state is one number, a resumed training sees the patches that it would have
seen, and threads that read ahead cannot change the order.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import zarr
from zarr.errors import BaseZarrError

from napari_histogan.errors import NoTissue, SlideError, SlideNotFound, SlideTooSmall, SlideUnreadable
from napari_histogan.geometry import Region, Size
from napari_histogan.slides.patch_plan import PatchPlan, PlannedSlide, check_fits, plan_patches
from napari_histogan.slides.picture import read_picture
from napari_histogan.slides.pixels import turned
from napari_histogan.slides.reader import PICTURE_SUFFIXES, open_slide
from napari_histogan.slides.shelf import SlideShelf
from napari_histogan.slides.tile_cache import TileCache, UInt8Array
from napari_histogan.slides.tissue import TissueMask

__all__ = [
    "FolderPatches",
    "OrderedPatches",
    "PatchPlan",
    "PatchSource",
    "PatchStream",
    "PlannedSlide",
    "ZarrPatches",
    "plan_patches",
    "turned",
]

MEMORY_BYTES = 256 * 2**20
"""Slides that fit into this at the wished resolution are read once and kept."""

_GROUP = 16
_TRIES = 64


@runtime_checkable
class PatchSource(Protocol):
    """What training reads its patches from."""

    @property
    def patch_px(self) -> int:
        """Side of a patch in pixels."""

    @property
    def mpp(self) -> float | None:
        """Micrometers per pixel, or None if nobody said."""

    def next_batch(self, n: int) -> UInt8Array:
        """Return the next ``n`` patches, ``(n, S, S, 3) uint8``."""

    def state_dict(self) -> dict[str, Any]:
        """Return the position, as plain numbers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a position."""


class OrderedPatches(ABC):
    """Position, orientation, and reading ahead; subclasses say what the k-th patch is.

    Parameters
    ----------
    patch_px
        Side of a patch in pixels.
    mpp
        Micrometers per pixel, or None if not known.
    seed
        Two sources that differ in nothing else differ in their patches.
    dihedral
        Show each patch in one of the eight orientations of the square, exact pixels.
    threads
        Threads that read ahead; 0 reads when asked.
    """

    def __init__(self, patch_px: int, mpp: float | None, seed: int, dihedral: bool, threads: int) -> None:
        self.patch_px, self.mpp, self.seed, self.dihedral = patch_px, mpp, seed, dihedral
        self._position = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="patches") if threads else None
        self._threads = threads
        self._share = (0, 1)
        self._groups: dict[int, Future[UInt8Array]] = {}

    @property
    @abstractmethod
    def distinct(self) -> int:
        """How many patches there are that do not overlap, about."""

    @abstractmethod
    def _draw(self, k: int, rng: np.random.Generator) -> UInt8Array:
        """Return the k-th patch, ``(S, S, 3) uint8``; all chance comes from ``rng``."""

    def patch(self, k: int) -> UInt8Array:
        """Return the k-th patch, ``(S, S, 3) uint8``, without moving the position."""
        rng = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, k]))
        symmetry = int(rng.integers(8))
        return turned(self._draw(k, rng), symmetry if self.dihedral else 0)

    def take_share(self, index: int, count: int) -> None:
        """Deliver only every ``count``-th patch from number ``index`` on; others take the rest."""
        position = self._position * self._share[1]
        if not 0 <= index < count or position % count:
            raise ValueError(f"share {index} of {count} cannot begin at patch {position}")
        self._forget()
        self._share, self._position = (index, count), position // count

    def next_batch(self, n: int) -> UInt8Array:
        """Return the next ``n`` patches, ``(n, S, S, 3) uint8``."""
        out = np.empty((n, self.patch_px, self.patch_px, 3), np.uint8)
        first, end = self._position, self._position + n
        self._request(first // _GROUP, (end - 1) // _GROUP + 2 * self._threads)
        for i in range(n):
            group, offset = divmod(first + i, _GROUP)
            out[i] = self._groups[group].result()[offset] if self._pool else self._mine(first + i)
        self._position = end
        for group in [g for g in self._groups if g < end // _GROUP]:
            del self._groups[group]
        return out

    def state_dict(self) -> dict[str, Any]:
        """Return seed and position; the next patch is number ``position``."""
        return {"seed": self.seed, "position": self._position * self._share[1]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; also takes over its seed."""
        self._forget()
        self.seed, self._position = int(state["seed"]), int(state["position"]) // self._share[1]

    def close(self) -> None:
        """Stop reading ahead."""
        self._forget()
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _request(self, first: int, last: int) -> None:
        if self._pool:
            for group in range(first, last + 1):
                if group not in self._groups:
                    self._groups[group] = self._pool.submit(self._read_group, group)

    def _read_group(self, group: int) -> UInt8Array:
        return np.stack([self._mine(group * _GROUP + i) for i in range(_GROUP)])

    def _mine(self, k: int) -> UInt8Array:
        index, count = self._share
        return self.patch(k * count + index)

    def _forget(self) -> None:
        for future in self._groups.values():
            future.cancel()
        self._groups.clear()


class PatchStream(OrderedPatches):
    """Endless random patches of tissue from the slides of a plan.

    A slide is drawn in proportion to its tissue (times its weight), a place uniformly
    among its tissue, and one of the eight orientations.

    Parameters
    ----------
    plan
        What to draw from.
    seed
        Seed of all chance.
    min_tissue
        Smallest share of tissue in a patch, 0 to 1; places with less are drawn again,
        up to 64 times, then the best of them is taken.
    dihedral, threads
        See :class:`OrderedPatches`.
    memory_bytes
        Slides are held in memory at the plan's resolution while they fit into this.

    Raises
    ------
    SlideNotFound, SlideUnreadable, SlideTooSmall, SlideError, NoTissue
        A slide of the plan cannot be used; raised here, before the first patch.
    """

    def __init__(
        self,
        plan: PatchPlan,
        seed: int,
        *,
        min_tissue: float = 0.5,
        dihedral: bool = True,
        threads: int = 1,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        super().__init__(plan.patch_px, plan.mpp, seed, dihedral, threads)
        self.plan, self.min_tissue = plan, min_tissue
        self._slides: list[_Source] = []
        self._shelf = SlideShelf()
        try:
            for slide in plan.slides:
                source = _Source(slide, plan, memory_bytes, self._shelf)
                memory_bytes -= source.held_bytes
                self._slides.append(source)
        except BaseException:
            self.close()
            raise
        areas = np.array(
            [s.tissue.area_um2 * p.weight for s, p in zip(self._slides, plan.slides, strict=True)]
        )
        if not areas.sum() > 0:
            raise NoTissue("the slides of the plan have no tissue with a weight above 0", "", "plan again")
        self._cumulative = np.cumsum(areas) / areas.sum()

    @property
    def distinct(self) -> int:
        """How many patches the tissue of the slides has room for."""
        used = (s.tissue.area_um2 for s, p in zip(self._slides, self.plan.slides, strict=True) if p.weight)
        return math.ceil(sum(used) / (self.patch_px * self.plan.mpp) ** 2)

    def _draw(self, k: int, rng: np.random.Generator) -> UInt8Array:
        slide, region = self.place(rng)
        return self._slides[slide].read(region)

    def place(self, rng: np.random.Generator) -> tuple[int, Region]:
        """Draw a slide's index and a region in pixels of the plan's mpp."""
        slide = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
        slide = min(slide, len(self._slides) - 1)
        source, best = self._slides[slide], (-1.0, Region(0, 0, 0, 0))
        for _ in range(_TRIES):
            region = source.random_region(self.patch_px, rng)
            tissue = source.tissue.fraction(region, self.plan.mpp)
            best = max(best, (tissue, region), key=lambda pair: pair[0])
            if tissue >= self.min_tissue:
                break
        return slide, best[1]

    def close(self) -> None:
        """Stop reading ahead and close the slides."""
        super().close()
        self._shelf.close()


class _Source:
    """A slide at one resolution, in memory if it is small enough."""

    def __init__(self, slide: PlannedSlide, plan: PatchPlan, memory_bytes: int, shelf: SlideShelf) -> None:
        self.mpp = plan.mpp
        self.reader = shelf.keep(open_slide(slide.path, slide.mpp))
        self._refuse_changes(slide)
        check_fits(self.reader, plan.patch_px, plan.mpp)
        self.tissue = TissueMask.load(Path(slide.tissue))
        self.size = self.reader.size_at(plan.mpp)
        nbytes = self.size.height * self.size.width * 3
        self.held_bytes = nbytes if nbytes <= memory_bytes else 0
        self._cells = np.flatnonzero(self.tissue.mask)
        self._pixels: UInt8Array | None = None
        self._lock = threading.Lock()

    def _refuse_changes(self, slide: PlannedSlide) -> None:
        if self.reader.fingerprint() != slide.fingerprint:
            raise SlideError(
                f"{self.reader.path.name} has changed since the patches were planned",
                "the same file",
                "plan the patches again",
            )

    def random_region(self, patch_px: int, rng: np.random.Generator) -> Region:
        """Draw a patch whose center lies in tissue, moved inside the slide where it would stick out."""
        cell = int(self._cells[rng.integers(len(self._cells))])
        row, column = divmod(cell, self.tissue.mask.shape[1])
        scale = self.tissue.mpp / self.mpp
        y = int((row + rng.random()) * scale - patch_px / 2)
        x = int((column + rng.random()) * scale - patch_px / 2)
        y = min(max(y, 0), self.size.height - patch_px)
        x = min(max(x, 0), self.size.width - patch_px)
        return Region(y, x, patch_px, patch_px)

    def read(self, region: Region) -> UInt8Array:
        if not self.held_bytes:
            return self.reader.read_at(region, self.mpp)
        with self._lock:
            if self._pixels is None:
                whole = Region(0, 0, self.size.height, self.size.width)
                self._pixels = self.reader.read_at(whole, self.mpp)
        return self._pixels[region.slices]


class FolderPatches(OrderedPatches):
    """Random crops from a folder of pictures, in proportion to their area.

    Raises
    ------
    SlideNotFound
        There are no pictures in the folder.
    SlideTooSmall
        A picture is smaller than a patch.
    """

    def __init__(
        self,
        folder: Path,
        patch_px: int,
        seed: int,
        *,
        mpp: float | None = None,
        dihedral: bool = True,
        threads: int = 1,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        super().__init__(patch_px, mpp, seed, dihedral, threads)
        names = (*PICTURE_SUFFIXES, ".tif", ".tiff")
        folder = Path(folder)
        self._paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in names)
        if not self._paths:
            raise SlideNotFound(
                f"there are no pictures in {folder}", "PNG, JPEG, or TIFF files", "choose another folder"
            )
        self._cache = TileCache(memory_bytes)
        sizes = [Size(*self._pixels(i).shape[:2]) for i in range(len(self._paths))]
        for path, size in zip(self._paths, sizes, strict=True):
            if min(size.shape) < patch_px:
                raise SlideTooSmall(
                    f"{path.name} has {size.height} x {size.width} pixels",
                    f"at least {patch_px} a side",
                    "choose a smaller patch_px, or take the picture out of the folder",
                )
        areas = np.array([size.height * size.width for size in sizes], float)
        self._room = int(sum(areas // patch_px**2))
        self._cumulative = areas.cumsum() / areas.sum()

    @property
    def distinct(self) -> int:
        """How many patches the pictures have room for."""
        return self._room

    def _draw(self, k: int, rng: np.random.Generator) -> UInt8Array:
        index = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
        pixels = self._pixels(min(index, len(self._paths) - 1))
        y = int(rng.integers(pixels.shape[0] - self.patch_px + 1))
        x = int(rng.integers(pixels.shape[1] - self.patch_px + 1))
        return pixels[y : y + self.patch_px, x : x + self.patch_px]

    def _pixels(self, index: int) -> UInt8Array:
        pixels = self._cache.get(index)
        if pixels is None:
            pixels = read_picture(self._paths[index])
            self._cache.put(index, pixels)
        return pixels


class ZarrPatches(OrderedPatches):
    """Ready patches in a zarr array ``(N, S, S, 3) uint8``; each once per round, shuffled.

    Raises
    ------
    SlideUnreadable
        There is no such array at the path.
    """

    def __init__(
        self, path: Path, seed: int, *, mpp: float | None = None, dihedral: bool = True, threads: int = 1
    ) -> None:
        try:
            array: Any = zarr.open_array(path, mode="r")
        except (BaseZarrError, OSError, ValueError, KeyError) as error:
            raise SlideUnreadable(f"{path} is no zarr array ({error})", "an array of patches") from error
        shape = array.shape
        square = len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3
        if not square or not shape[0] or array.dtype != np.uint8:
            raise SlideUnreadable(
                f"{path} has {array.dtype} {shape}", "uint8 (N, S, S, 3) with N of 1 or more"
            )
        super().__init__(shape[1], mpp, seed, dihedral, threads)
        self._array = array
        self._order: tuple[int, int, npt.NDArray[np.intp]] = (-1, -1, np.empty(0, np.intp))

    @property
    def distinct(self) -> int:
        """How many patches the array holds."""
        return int(self._array.shape[0])

    def _draw(self, k: int, rng: np.random.Generator) -> UInt8Array:
        turn, place = divmod(k, self._array.shape[0])
        seed, held, order = self._order
        if (seed, held) != (self.seed, turn):
            order = np.random.default_rng((self.seed, turn)).permutation(self._array.shape[0])
            self._order = (self.seed, turn, order)
        return np.asarray(self._array[int(order[place])], np.uint8)
