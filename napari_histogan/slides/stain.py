"""Stains as directions in optical density.

Light that passes a stain is damped exponentially, so densities add up where stains
overlap: ``OD = amounts @ stains`` (Beer and Lambert; Ruifrok and Johnston 2001).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_histogan.errors import NoTissue
from napari_histogan.slides.tile_cache import UInt8Array

FloatArray = npt.NDArray[np.float32]

HEMATOXYLIN = (0.650, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)
DAB = (0.268, 0.570, 0.776)


def _with_residual(first: tuple[float, ...], second: tuple[float, ...]) -> FloatArray:
    rows = np.array([first, second, np.cross(first, second)], np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


H_AND_E = _with_residual(HEMATOXYLIN, EOSIN)
"""Hematoxylin, eosin, and the residual: ``(3 stains, RGB) float32``, rows of length 1."""

H_DAB = _with_residual(HEMATOXYLIN, DAB)
"""Hematoxylin, diaminobenzidine, and the residual, as in :data:`H_AND_E`."""


def optical_density(pixels: npt.NDArray[Any], white: float = 255.0) -> FloatArray:
    """Return ``-log10(pixels / white)``, at least 0, float32, of the shape of ``pixels``.

    Parameters
    ----------
    pixels
        Intensities 0 to 255, any shape; 0 counts as 1, so that densities stay below 2.41.
    white
        Intensity of empty glass.
    """
    values = np.maximum(pixels.astype(np.float32), 1.0)
    return np.maximum(-np.log10(values / np.float32(white)), np.float32(0))


def separate(pixels: UInt8Array, stains: FloatArray = H_AND_E) -> FloatArray:
    """Return the amount of each stain, ``(..., 3) float32``, of pixels ``(..., 3) uint8``.

    The color deconvolution of Ruifrok and Johnston, "Quantification of histochemical
    staining by color deconvolution", 2001.  Amounts may be slightly negative.
    """
    return np.asarray(optical_density(pixels) @ np.linalg.inv(stains), np.float32)


def combine(amounts: FloatArray, stains: FloatArray = H_AND_E) -> UInt8Array:
    """Return the pixels ``(..., 3) uint8`` that amounts of stain ``(..., 3)`` look like."""
    pixels = 255.0 * np.power(10.0, -(amounts @ stains))
    return np.asarray(np.rint(np.clip(pixels, 0, 255)), np.uint8)


def estimate_stains(
    pixels: UInt8Array, min_density: float = 0.15, tail_percent: float = 1.0, min_pixels: int = 100
) -> FloatArray:
    """Estimate the two stains of a picture from its own colors.

    Macenko and others, "A method for normalizing histology slides for quantitative
    analysis", 2009: the extreme directions in the plane of the two main components.

    Parameters
    ----------
    pixels
        ``(..., 3) uint8``.
    min_density
        Pixels with less optical density in a channel are glass.
    tail_percent
        Share of pixels beyond an extreme direction, percent.
    min_pixels
        Fewest stained pixels to estimate from.

    Returns
    -------
    numpy.ndarray
        ``(3, 3) float32``: hematoxylin (the one that damps red more), eosin, residual.

    Raises
    ------
    NoTissue
        There are fewer than ``min_pixels`` stained pixels.
    """
    density = optical_density(pixels).reshape(-1, 3)
    density = density[(density > min_density).all(axis=1)].astype(np.float64)
    if len(density) < min_pixels:
        raise NoTissue(
            f"{len(density)} pixels are stained",
            f"at least {min_pixels} with an optical density above {min_density}",
            "choose a region with tissue",
        )
    _, vectors = np.linalg.eigh(np.cov(density.T))
    plane = vectors[:, :0:-1]  # the two largest components, largest first
    plane *= np.where(plane.sum(axis=0) < 0, -1, 1)
    angles = np.arctan2(*(density @ plane).T[::-1])
    extremes = np.percentile(angles, [tail_percent, 100 - tail_percent])
    found = np.stack([np.cos(extremes), np.sin(extremes)], axis=1) @ plane.T
    found = np.abs(found / np.linalg.norm(found, axis=1, keepdims=True))
    first, second = found if found[0, 0] > found[1, 0] else found[::-1]
    return _with_residual(tuple(first), tuple(second))


def stain_colors(pixels: UInt8Array) -> tuple[str, str] | None:
    """Return the colors of a slide's two stains as ``#rrggbb``, the one that damps red more first.

    They are what an optical density of 1 of each looks like.  No name is given: in common H&E slides eosin
    lies as near to DAB as to its published direction.

    Parameters
    ----------
    pixels
        ``(..., 3) uint8``, such as a thumbnail.

    Returns
    -------
    tuple of two str, or None
        None if there is too little tissue, or no two stains can be told apart.
    """
    try:
        with np.errstate(invalid="ignore", divide="ignore"):
            stains = estimate_stains(pixels)
    except NoTissue:
        return None
    if not np.isfinite(stains).all():
        return None
    first, second = (
        "#{:02x}{:02x}{:02x}".format(*combine(amount, stains).tolist()) for amount in np.eye(3)[:2]
    )
    return first, second
