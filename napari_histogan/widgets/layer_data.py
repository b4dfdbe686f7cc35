"""Slides and maps as the lists of arrays that napari draws."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_histogan.slides.reader import SlideReader
from napari_histogan.slides.zarr_pyramid import PyramidReader

HEATMAP_STORE = "heatmap.zarr"
"""Name of the map in a heatmap's folder."""


def slide_levels(reader: SlideReader) -> list[Any]:
    """Return a slide's levels, finest first, ``(y, x, 3)`` uint8; the coarsest is read now."""
    levels: list[Any] = list(reader.pyramid())
    return [*levels[:-1], np.asarray(levels[-1][:])]


def heatmap_levels(pyramid: PyramidReader, class_index: int) -> list[Any]:
    """Return the map of one class (1 to K), finest first, ``(y, x)``.

    The coarsest level is a numpy array: napari reads it once and keeps it, so whoever
    follows a growing map changes this array and refreshes the layer.
    """
    levels: list[Any] = pyramid.channel(class_index - 1)
    return [*levels[:-1], np.array(levels[-1][:])]
