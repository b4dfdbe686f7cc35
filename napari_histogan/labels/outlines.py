"""From outlines to masks and back.

A pixel belongs to an outline if its center lies inside (even-odd rule).  Outlines that
share a border therefore neither overlap nor leave a gap, and a mask that was turned into
outlines comes back pixel for pixel.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from napari_histogan.errors import LabelError
from napari_histogan.geometry import Point, Region
from napari_histogan.labels.annotation import Annotation, repaired
from napari_histogan.labels.classes import UNLABELLED, ClassTable

logger = logging.getLogger("napari_histogan")

IGNORED = "ignore"
"""Class of outlines that take their area out of the labels."""


def rasterize(
    annotations: Iterable[Annotation],
    region: Region,
    downsample: float,
    classes: ClassTable,
    order: Sequence[str] = (),
    skip: Iterable[str] = (),
) -> NDArray[np.uint8]:
    """Paint outlines into a mask; later ones over earlier ones.

    Parameters
    ----------
    annotations
        Outlines in pixels of level 0.  Those of the class ``ignore`` paint 0.
    region
        Part of the slide, in pixels of the mask's resolution.
    downsample
        Side of a mask pixel in level 0 pixels: the mask's mpp over the slide's.
    classes
        Values by class name; capitals do not count.
    order
        Names of classes from bottom to top; wins over the order of ``annotations``.
        Classes that it leaves out come below.
    skip
        Names of classes to leave out, such as frames of patches.

    Returns
    -------
    numpy.ndarray
        ``(H, W)`` uint8 of the region's size; 0 where no outline is.

    Raises
    ------
    LabelError
        If an outline's class is neither in ``classes``, nor ``ignore``, nor skipped.
    """
    if not downsample > 0:
        raise LabelError(f"the downsample is {downsample}", "more than 0")
    values = {info.name.casefold(): info.index for info in classes} | {IGNORED: UNLABELLED}
    skipped = {name.casefold() for name in skip}
    chosen = []
    for number, annotation in enumerate(annotations):
        key = annotation.class_name.strip().casefold()
        if key in skipped:
            continue
        if key not in values:
            raise LabelError(
                f"outline {number} (counted from 0) has the class {annotation.class_name!r}",
                f"one of {', '.join((*classes.names, IGNORED))}",
                "rename the class in the file or add it to the project",
            )
        chosen.append((key, annotation))
    rank = {name.casefold(): place for place, name in enumerate(order, 1)}
    chosen.sort(key=lambda pair: rank.get(pair[0], 0))
    mask = np.zeros(region.size.shape, np.uint8)
    for key, annotation in chosen:
        if shapely.get_dimensions(annotation.geometry) < 2 and not annotation.geometry.is_empty:
            logger.warning("an outline of %r is a line or a point and covers no pixel", key)
        paint(mask, annotation.geometry, values[key], region, downsample)
    return mask


def paint(
    mask: NDArray[np.uint8], geometry: BaseGeometry, value: int, region: Region, downsample: float
) -> None:
    """Set the mask's pixels whose centers lie inside a geometry, in place.

    Parameters
    ----------
    mask
        ``(H, W)`` uint8 of the region's size.
    geometry
        In pixels of level 0.
    value
        What to set, 0 to 255.
    region, downsample
        Where the mask lies; as in :func:`rasterize`.
    """
    left, upper, right, lower = np.asarray(geometry.bounds) / downsample
    if not (left < region.x_end and right > region.x and upper < region.y_end and lower > region.y):
        return  # also where it is empty: its bounds are not numbers
    starts, ends = _edges(geometry)
    if not len(starts):
        return
    offset = np.array([region.x, region.y])
    # From here on, whole numbers are centers of mask pixels.
    starts, ends = (points / downsample - offset - 0.5 for points in (starts, ends))
    low, high = np.minimum(starts, ends).min(0), np.maximum(starts, ends).max(0)
    x0, y0 = np.clip(np.ceil(low), 0, [region.width, region.height]).astype(np.int64)
    x1, y1 = np.clip(np.ceil(high), 0, [region.width, region.height]).astype(np.int64)
    if x0 >= x1 or y0 >= y1:
        return
    inside = _scan(starts - (x0, y0), ends - (x0, y0), int(y1 - y0), int(x1 - x0))
    mask[y0:y1, x0:x1][inside] = value


def _edges(geometry: BaseGeometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the start and end ``(n, 2)`` of every edge of a geometry's polygons."""
    parts = shapely.get_parts(shapely.get_parts(geometry))
    rings = shapely.get_rings(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])
    points, ring = shapely.get_coordinates(rings, return_index=True)
    same = ring[1:] == ring[:-1]
    return points[:-1][same], points[1:][same]


def _scan(
    starts: NDArray[np.float64], ends: NDArray[np.float64], height: int, width: int
) -> NDArray[np.bool_]:
    """Return which whole positions ``(height, width)`` lie inside the edges.

    Each row is crossed by some edges; going right, every crossing toggles inside and
    outside.  An edge crosses the rows from its upper end to before its lower one.
    """
    upper = starts[:, 1] <= ends[:, 1]
    top, bottom = np.where(upper[:, None], starts, ends), np.where(upper[:, None], ends, starts)
    first = np.clip(np.ceil(top[:, 1]), 0, height).astype(np.int64)
    after = np.clip(np.ceil(bottom[:, 1]), 0, height).astype(np.int64)
    counts = after - first
    edge = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (bottom[edge, 0] - top[edge, 0]) / (bottom[edge, 1] - top[edge, 1])
    column = np.ceil(top[edge, 0] + (row - top[edge, 1]) * slope)
    toggles = np.zeros((height, width + 1), np.uint8)
    np.add.at(toggles, (row, np.clip(column, 0, width).astype(np.int64)), 1)
    return (np.bitwise_xor.accumulate(toggles[:, :width] & 1, axis=1)).astype(np.bool_)


def polygonize(
    mask: NDArray[np.uint8],
    classes: ClassTable,
    origin: Point | None = None,
    downsample: float = 1.0,
    simplify_px: float = 0.0,
) -> list[Annotation]:
    """Turn a mask into outlines along the pixels' edges.

    Parameters
    ----------
    mask
        ``(H, W)`` uint8, 0 = unlabeled.
    classes
        Names and colors by value.
    origin
        Top left corner of the mask in mask pixels from the slide's corner; none is (0, 0).
    downsample
        Side of a mask pixel in level 0 pixels.
    simplify_px
        Corners that stray from the outline by less than this many mask pixels are left
        out; 0 keeps all, and :func:`rasterize` then gives the mask back.

    Returns
    -------
    list of Annotation
        One polygon, holes included, for each piece of a class; pieces that touch at a
        corner only are apart.

    Raises
    ------
    LabelError
        If the mask is not one of these classes.
    """
    classes.check_mask(mask)
    corner = np.array([origin.x, origin.y]) if origin else np.zeros(2)
    found = []
    for value in np.unique(mask[mask != UNLABELLED]).tolist():
        info = classes[value]
        for piece in repaired(_pieces(mask == value)):
            if simplify_px > 0:
                piece = shapely.simplify(piece, simplify_px)
            moved = shapely.transform(piece, lambda xy: (xy + corner) * downsample)
            found += [Annotation(info.name, part, info.color) for part in shapely.get_parts(moved)]
    return found


def _pieces(chosen: NDArray[np.bool_]) -> list[BaseGeometry]:
    """Return the polygons around the true pixels, corners on the pixels' edges.

    The contour finder walks over pixels, not along their edges.  At double size each pixel
    has a left and a right half, so the parity of a position tells which edge it is at.
    """
    doubled = np.repeat(np.repeat(chosen.astype(np.uint8), 2, 0), 2, 1)
    contours, tree = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [((contour[:, 0].astype(np.int64) + 1) // 2).astype(np.float64) for contour in contours]
    holes: dict[int, list[NDArray[np.float64]]] = {}
    for ring, (_, _, _, parent) in zip(rings, tree[0] if rings else (), strict=True):
        if parent >= 0:
            holes.setdefault(int(parent), []).append(ring)
    return [shapely.Polygon(ring, holes.get(i)) for i, ring in enumerate(rings) if tree[0][i][3] < 0]
