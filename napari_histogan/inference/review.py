"""Where a heatmap deserves a look: its least sure places, and objects that may not be any."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_histogan.geometry import Region
from napari_histogan.inference.detections import DetectionSettings, find_objects
from napari_histogan.slides.zarr_pyramid import PyramidReader

_MOST_PX = 1024
"""Longer side of the level that is searched; finer detail does not move a place."""


def least_sure_places(heatmap: PyramidReader, count: int = 50, apart_um: float = 60.0) -> NDArray[np.float64]:
    """Find places at which the two most probable classes are nearly as probable.

    Parameters
    ----------
    heatmap
        uint8 percent, one channel a class.
    count
        At most so many.
    apart_um
        Least distance between two of them; unsureness is averaged over a quarter of it.

    Returns
    -------
    NDArray[np.float64]
        (n, 3): y and x in um from the slide's corner, and how unsure, 0..1; the least sure first.
    """
    number = next(i for i, level in enumerate(heatmap.levels) if max(level.shape[1:]) <= _MOST_PX)
    percent = np.asarray(heatmap.levels[number][:], np.float32)
    mpp = heatmap.mpp * heatmap.levels[0].shape[1] / percent.shape[1]
    unsure = _unsure(percent)
    smooth = ndimage.gaussian_filter(unsure, apart_um / 4 / mpp)
    radius = max(1, round(apart_um / mpp))
    peaks = (ndimage.maximum_filter(smooth, 2 * radius + 1) == smooth) & (smooth > 0.02)
    y, x = np.nonzero(peaks)
    order = np.argsort(-smooth[y, x], kind="stable")
    places = np.stack([(y + 0.5) * mpp, (x + 0.5) * mpp, smooth[y, x]], axis=1)[order]
    kept: list[NDArray[np.float64]] = []
    for place in places:  # a plateau has many peaks
        if all(np.hypot(*(place[:2] - other[:2])) >= apart_um for other in kept):
            kept.append(place)
        if len(kept) == count:
            break
    return np.array(kept, np.float64).reshape(-1, 3)


def object_rows(heatmap: PyramidReader, class_index: int, threshold: float) -> NDArray[np.float64]:
    """Measure the objects of a class.

    Parameters
    ----------
    heatmap
        See :func:`~napari_histogan.inference.detections.find_objects`.
    class_index
        1..K.
    threshold
        Least probability, 0..1.

    Returns
    -------
    NDArray[np.float64]
        (n, 6): center y and x in um, area in um2, perimeter in um, mean probability 0..1, and the longer side
        of the bounding box in um; from top to bottom.
    """
    found = find_objects(heatmap, class_index, DetectionSettings(threshold=threshold))
    rows = []
    for each in found:
        left, top, right, bottom = each.outline.bounds
        side = max(right - left, bottom - top) * heatmap.mpp
        center = each.centroid_um
        rows.append((center.y, center.x, each.area_um2, each.perimeter_um, each.mean_probability, side))
    return np.array(rows, np.float64).reshape(-1, 6)


def predicted_labels(heatmap: PyramidReader, region: Region) -> NDArray[np.uint8]:
    """Return the most probable class (1..K) of each pixel of a region, 0 where nothing was predicted."""
    percent = np.asarray(heatmap.levels[0][(slice(None), *region.slices)])
    labels = (percent.argmax(axis=0) + 1).astype(np.uint8)
    labels[percent.max(axis=0) == 0] = 0
    return np.asarray(labels)


def _unsure(percent: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 - (p1 - p2) of the two largest of (K, Y, X) percent; 0 where nothing was predicted."""
    if len(percent) == 1:
        p = percent[0] / 100
        unsure = 1 - np.abs(2 * p - 1)
    else:
        top = np.sort(percent, axis=0)[-2:] / 100
        unsure = 1 - (top[1] - top[0])
    unsure[percent.max(axis=0) == 0] = 0
    return np.asarray(unsure, np.float32)
