"""Large slides from the texture of the slide that ships: mirrored, tiled, JPEG; made once, not committed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

import napari_histogan
from napari_histogan.geometry import Region
from napari_histogan.slides.reader import open_slide

DEMO = Path(napari_histogan.__file__).parent / "demo_data" / "CMU-1-Small-Region.svs"
FOLDER = Path(__file__).parents[1] / "runs-local" / "large-slides"
MPP = 0.5
TILE = 256


def large_slide(side: int, shift: int = 0) -> Path:
    """Return a TIFF of ``side`` x ``side`` px at 0.5 um/px with tiles of 256 px, JPEG of quality 85.

    Parameters
    ----------
    side
        In pixels; a multiple of 256.
    shift
        Where in the texture it begins, so that two slides differ.
    """
    path = FOLDER / f"{side}-{shift}.tif"
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open_slide(DEMO) as slide:
        texture = slide.read(Region(0, 0, *slide.size.shape))
    rows, columns = (_mirrored(length, side, shift) for length in texture.shape[:2])

    def tiles() -> Iterator[NDArray[np.uint8]]:
        for y in range(0, side, TILE):
            stripe = texture[rows[y : y + TILE]]
            for x in range(0, side, TILE):
                yield stripe[:, columns[x : x + TILE]]

    per_cm = 10_000 / MPP
    partial = path.with_suffix(".part")
    tifffile.imwrite(
        partial,
        tiles(),
        shape=(side, side, 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": 85},
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
    )
    partial.rename(path)
    return path


def _mirrored(length: int, side: int, shift: int) -> NDArray[np.intp]:
    """Return the places in a texture that a side goes through: to the end, back, and again."""
    place = (np.arange(side) + shift) % (2 * length)
    return np.minimum(place, 2 * length - 1 - place)
