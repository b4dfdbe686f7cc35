"""Cut a labeled region of a slide into training patches."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import LabelError
from napari_histogan.geometry import Region
from napari_histogan.slides.reader import SlideReader


def cut_region(
    slide: SlideReader,
    region: Region,
    mask: NDArray[np.uint8],
    mask_mpp: float,
    patch_px: int,
    mpp: float,
    overlap: float = 0.5,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the region's pixels and cut it, with its mask, into overlapping patches.

    Patches without a labeled pixel are left out.  A region smaller than a patch gives one
    patch around it, whose rim is unlabeled.

    Parameters
    ----------
    slide
        An open slide.
    region
        In pixels of ``mask_mpp``.
    mask
        ``(region.height, region.width)`` uint8, 0 unlabeled.
    mask_mpp
        Resolution of region and mask in um/px.
    patch_px, mpp
        Side in pixels and resolution in um/px of the patches.
    overlap
        Share of a patch that the next one repeats, 0 to below 1.

    Returns
    -------
    tuple of numpy.ndarray
        Images ``(N, S, S, 3)`` uint8 and masks ``(N, S, S)`` uint8.

    Raises
    ------
    LabelError
        If mask and region differ in size, or nothing is labeled.
    """
    if mask.shape != region.size.shape:
        raise LabelError(
            f"the mask has {mask.shape} pixels", f"{region.size.shape}, the region's", "save it again"
        )
    if not mask.any():
        raise LabelError("nothing is labeled in the region", "one labeled pixel or more", "paint it first")
    factor = mask_mpp / mpp
    core = Region(
        round(region.y * factor),
        round(region.x * factor),
        max(1, round(region.height * factor)),
        max(1, round(region.width * factor)),
    )
    frame = _at_least(core, patch_px)
    pixels = slide.read_at(frame, mpp)
    labels = np.zeros(frame.size.shape, np.uint8)
    y, x = core.y - frame.y, core.x - frame.x
    labels[y : y + core.height, x : x + core.width] = _nearest(mask, core.height, core.width)
    corners = [
        (top, left)
        for top in _starts(frame.height, patch_px, overlap)
        for left in _starts(frame.width, patch_px, overlap)
        if labels[top : top + patch_px, left : left + patch_px].any()
    ]
    images = [pixels[top : top + patch_px, left : left + patch_px] for top, left in corners]
    masks = [labels[top : top + patch_px, left : left + patch_px] for top, left in corners]
    return np.stack(images), np.stack(masks)


def _at_least(region: Region, side: int) -> Region:
    """Grow a region around its center until no side is shorter than ``side``."""
    more_y, more_x = max(0, side - region.height), max(0, side - region.width)
    return Region(
        region.y - more_y // 2, region.x - more_x // 2, region.height + more_y, region.width + more_x
    )


def _nearest(mask: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize a mask by its nearest pixels."""
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    resized: NDArray[np.uint8] = mask[rows[:, None], columns[None, :]]
    return resized


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """Return evenly spaced starts that cover ``length`` with pieces of ``side``."""
    count = 1 + math.ceil((length - side) / (side * (1 - overlap)))
    return [int(v) for v in np.linspace(0, length - side, count).round()]
