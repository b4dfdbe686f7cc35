"""Outlines on a slide as training patches, read when they are drawn, at several scales.

Patches lie in blocks of the slide, so that those of one block are held out together, at
whatever scale.  A patch taken s times down spans s patches of the net's resolution and is
shown to the net as it is, so that one net knows its structures near and far (Lutnick et
al., "Histo-Cloud", 2022).  Classes are balanced: a draw first chooses a class, then a
patch by how much of the class it holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import shapely
from numpy.typing import NDArray

from napari_histogan.errors import ConfigError, LabelError
from napari_histogan.geometry import Region
from napari_histogan.labels.annotation import Annotation
from napari_histogan.labels.classes import ClassTable
from napari_histogan.labels.outlines import rasterize
from napari_histogan.slides.reader import SlideReader

Pixels = NDArray[np.uint8]

MOST_FACTOR = 4.0
"""Resolutions that differ by more are taken only if asked for."""

_COUNT_PX = 64
_PATCHES_KEPT = 256
_BLOCK_PATCHES = 4


class AnnotatedSlide:
    """The patches of an annotated slide, as a source of training pairs.

    Parameters
    ----------
    slide
        Open; must stay so.
    annotations
        In pixels of the slide's level 0; later ones lie over earlier ones.
    classes
        The project's classes.
    patch_px, mpp
        Side and resolution (um/px) of the patches at scale 1.
    downsamples
        Scales, each 1 or more.
    weight
        How often a patch is drawn, relative to other sources.
    accept_far_mpp
        Take a slide whose resolution differs from ``mpp`` by more than :data:`MOST_FACTOR`.

    Attributes
    ----------
    regions
        Where the patches lie, in pixels of their own scale.
    scales
        ``(N,)``, how many times down each patch is taken.

    Raises
    ------
    LabelError
        If an outline lies outside of the slide, its class is not known, or nothing is labeled.
    ConfigError
        If the slide's resolution is too far from ``mpp``.
    SlideError
        If the slide is too coarse for ``mpp``.
    """

    def __init__(
        self,
        slide: SlideReader,
        annotations: Sequence[Annotation],
        classes: ClassTable,
        patch_px: int,
        mpp: float,
        downsamples: Sequence[float] = (1.0, 2.0, 3.0, 4.0),
        weight: float = 1.0,
        accept_far_mpp: bool = False,
    ) -> None:
        check_near(slide.path.name, slide.mpp, mpp, accept_far_mpp)
        slide.check_resolution(mpp)
        _check_inside(slide, annotations)
        self._slide, self._annotations, self._classes = slide, list(annotations), classes
        self.patch_px, self.mpp, self.weight = patch_px, mpp, weight
        rasterize(self._annotations, Region(0, 0, 1, 1), 1.0, classes)  # says unknown classes at once
        self.regions: list[Region] = []
        scales, groups, counts = [], [], []
        for group, block in enumerate(self._blocks(max(downsamples))):
            for scale in downsamples:
                for region in _inside(block, patch_px, scale):
                    found = self._count(region, scale)
                    if found.any():
                        self.regions.append(region)
                        scales.append(scale)
                        groups.append(group)
                        counts.append(found)
        if not counts:
            raise LabelError(
                f"no pixel of {slide.path.name} is labeled by its outlines",
                "outlines of the project's classes that cover an area",
                "check that the outlines belong to this slide",
            )
        self.scales, self.groups = np.array(scales), np.array(groups, np.int64)
        self._counts = np.stack(counts)
        self.odds: NDArray[np.float64] | None = _balanced(self._counts)
        self._read = lru_cache(_PATCHES_KEPT)(self._read_one)

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.regions)

    def batch(
        self, indices: Sequence[int] | NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return images ``(n, S, S, 3)`` and masks ``(n, S, S)``, read from the slide now."""
        pairs = [self._read(int(index)) for index in indices]
        return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])

    def class_counts(self) -> NDArray[np.int64]:
        """Return about how many pixels each mask value has in all patches, ``(256,)``."""
        total: NDArray[np.int64] = self._counts.sum(axis=0)
        return total

    def _blocks(self, largest: float) -> list[Region]:
        """Return the blocks over the outlines, in pixels of scale 1."""
        side = math.ceil(self.patch_px * max(_BLOCK_PATCHES, largest))
        factor = self._slide.mpp / self.mpp
        boxes = [np.asarray(a.geometry.bounds) * factor for a in self._annotations if not a.geometry.is_empty]
        if not boxes:
            return []
        size = self._slide.size_at(self.mpp)
        places = set()
        for left, top, right, bottom in boxes:
            rows = range(max(0, int(top // side)), int(min(bottom, size.height - 1) // side) + 1)
            columns = range(max(0, int(left // side)), int(min(right, size.width - 1) // side) + 1)
            places |= {(row, column) for row in rows for column in columns}
        return [Region(row * side, column * side, side, side) for row, column in sorted(places)]

    def _count(self, region: Region, scale: float) -> NDArray[np.int64]:
        """Return about how many pixels of each mask value a patch has, ``(256,)``."""
        coarse = max(1.0, self.patch_px / _COUNT_PX)
        part = region.scaled(1 / coarse)
        downsample = scale * self.mpp / self._slide.mpp * coarse
        mask = rasterize(self._annotations, part, downsample, self._classes)
        found = np.bincount(mask.ravel(), minlength=256)
        found[0] = 0
        return np.round(found * coarse**2).astype(np.int64)

    def _read_one(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        mpp, region = self.mpp * float(self.scales[index]), self.regions[index]
        mask = rasterize(self._annotations, region, mpp / self._slide.mpp, self._classes)
        return self._slide.read_at(region, mpp), mask


def check_near(name: str, found_mpp: float, mpp: float, accepted: bool = False) -> None:
    """Raise ``ConfigError`` if two resolutions differ by more than :data:`MOST_FACTOR`, unless accepted."""
    if not accepted and max(found_mpp / mpp, mpp / found_mpp) > MOST_FACTOR * 1.05:
        raise ConfigError(
            f"{name} has {found_mpp:g} um/px, the net works at {mpp:g} um/px",
            f"resolutions within a factor of {MOST_FACTOR:g}",
            "check both; if they are right and meant, set accept_far_mpp",
        )


def _check_inside(slide: SlideReader, annotations: Sequence[Annotation]) -> None:
    """Refuse outlines that lie wholly outside of the slide; what sticks out of it is cut off."""
    frame = shapely.box(0, 0, slide.size.width, slide.size.height)
    for number, annotation in enumerate(annotations):
        if not annotation.geometry.is_empty and not annotation.geometry.intersects(frame):
            left, top, *_ = annotation.geometry.bounds
            raise LabelError(
                f"outline {number} (counted from 0) begins at x = {left:g}, y = {top:g}, outside of "
                f"{slide.path.name}",
                f"places within {slide.size.width} x {slide.size.height} px",
                "check that the outlines belong to this slide, and are in its full-size pixels",
            )


def _inside(block: Region, patch_px: int, scale: float) -> list[Region]:
    """Return evenly spaced patches that cover a block, in pixels of their scale."""
    side = int(block.height / scale)
    count = max(1, math.ceil(side / patch_px))
    starts = np.linspace(0, max(0, side - patch_px), count).round().astype(int)
    top, left = math.ceil(block.y / scale), math.ceil(block.x / scale)
    return [Region(top + int(y), left + int(x), patch_px, patch_px) for y in starts for x in starts]


def _balanced(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the odds of patches ``(N,)`` by which every class is as likely as any other."""
    totals = counts.sum(axis=0)
    present = totals > 0
    odds: NDArray[np.float64] = (counts[:, present] / totals[present]).mean(axis=1)
    return odds
