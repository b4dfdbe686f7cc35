"""From probabilities to objects: outlines with area, perimeter, and mean probability.

The heatmap is read part by part.  Pieces of an object in neighboring parts share pixel
edges along the border; they are joined there, so that an object is one object wherever
the borders fall, and no array of the slide's size is ever held.  An object is finished, or
dropped for its size, as soon as no part below can touch it.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

from napari_histogan.errors import ConfigError, StorageError
from napari_histogan.geometry import Point, Region, Size, grid
from napari_histogan.labels.annotation import Annotation
from napari_histogan.labels.classes import ClassTable
from napari_histogan.labels.outlines import polygonize
from napari_histogan.slides.zarr_pyramid import PyramidReader

_ONE_CLASS = ClassTable.from_names(["object"])
_COLUMNS = ("class", "y_um", "x_um", "area_um2", "perimeter_um", "mean_probability")
_STAIR_PX = 1.0
"""Corners that stray less than this from the outline are steps of the pixel grid, not shape."""


@dataclass(frozen=True, slots=True)
class DetectionSettings:
    """What counts as an object.

    Attributes
    ----------
    threshold
        Least probability of a pixel, 0..1.
    min_area_um2
        Smaller objects are dropped; holes count as filled if they are.
    max_hole_um2
        Holes up to this area are filled.
    smooth_um
        Standard deviation of the Gaussian that smooths probabilities first; 0 does not.
    """

    threshold: float = 0.5
    min_area_um2: float = 100.0
    max_hole_um2: float = 100.0
    smooth_um: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if not 0 < self.threshold <= 1 or min(self.min_area_um2, self.max_hole_um2, self.smooth_um) < 0:
            raise ConfigError(
                f"objects were asked for with {self}",
                "a threshold in 0..1, areas and smoothing of at least 0",
            )


@dataclass(frozen=True)
class Detection:
    """One object.

    Attributes
    ----------
    class_index
        1..K.
    outline
        Smoothed polygon, holes included, in pixels of the heatmap, x before y.
    area_um2
        Of its pixels, filled holes included.
    perimeter_um
        Of the smoothed outline, holes included.
    mean_probability
        Of its pixels, 0..1.
    centroid_um
        Center of its pixels from the slide's top left corner.
    """

    class_index: int
    outline: shapely.Polygon
    area_um2: float
    perimeter_um: float
    mean_probability: float
    centroid_um: Point


def find_objects(
    heatmap: PyramidReader,
    class_index: int,
    settings: DetectionSettings | None = None,
    part_px: int = 2048,
    seen: Callable[[float], None] | None = None,
) -> list[Detection]:
    """Find the objects of one class in a heatmap, from top to bottom.

    Memory holds the outlines of what is found, and one part; never the whole heatmap.

    Parameters
    ----------
    heatmap
        uint8 percent, one channel a class.
    class_index
        1..K.
    settings
        The defaults if not given.
    part_px
        Side of the parts that are read; the result does not depend on it.
    seen
        Told the share of the parts that are read, 0..1, after each; may raise to stop.

    Raises
    ------
    ConfigError
        If the heatmap has no such class.
    """
    if not 1 <= class_index <= len(heatmap.channels):
        raise ConfigError(
            f"objects of class {class_index} were asked for",
            f"1 to {len(heatmap.channels)} ({', '.join(heatmap.channels)})",
        )
    settings = settings or DetectionSettings()
    pieces, found = _Pieces(heatmap.size, part_px), list[Detection]()
    count = ceil(heatmap.size.height / part_px) * ceil(heatmap.size.width / part_px)
    for number, (region, probability, chosen) in enumerate(
        _parts(heatmap, class_index, settings, part_px), start=1
    ):
        pieces.add(region, probability, chosen)
        if region.x_end == heatmap.size.width:
            last = region.y_end == heatmap.size.height
            for shape, mean in pieces.finished(last):
                found += _measured(shape, mean, class_index, settings, heatmap.mpp)
        if seen is not None:
            seen(number / count)
    return sorted(found, key=lambda detection: (detection.centroid_um.y, detection.centroid_um.x))


def _measured(
    shape: shapely.Polygon, mean: float, class_index: int, settings: DetectionSettings, mpp: float
) -> list[Detection]:
    """Return an object with its figures, or nothing if it is too small."""
    filled = _without_small_holes(shape, settings.max_hole_um2 / mpp**2)
    if filled.area * mpp**2 < settings.min_area_um2:
        return []
    outline, center = smoothed(filled), filled.centroid
    return [
        Detection(
            class_index=class_index,
            outline=outline,
            area_um2=filled.area * mpp**2,
            perimeter_um=outline.length * mpp,
            mean_probability=mean,
            centroid_um=Point(center.y * mpp, center.x * mpp),
        )
    ]


def detections_to_annotations(
    detections: Sequence[Detection], classes: ClassTable, downsample: float
) -> list[Annotation]:
    """Return the outlines in level 0 pixels, with the measurements as properties.

    Parameters
    ----------
    detections
        See :func:`find_objects`.
    classes
        Names and colors.
    downsample
        Side of a heatmap pixel in level 0 pixels: the heatmap's mpp over the slide's.
    """
    return [
        Annotation(
            classes[detection.class_index].name,
            shapely.transform(detection.outline, lambda points: points * downsample),
            classes[detection.class_index].color,
            properties={"measurements": _measurements(detection)},
        )
        for detection in detections
    ]


def write_table(path: Path, detections: Sequence[Detection], classes: ClassTable) -> None:
    """Write one row per object as CSV: class, centroid, area, perimeter, mean probability.

    Raises
    ------
    StorageError
        If the file cannot be written.
    """
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            for detection in detections:
                name = classes[detection.class_index].name
                writer.writerow({"class": name, **_measurements(detection)})
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error})", "", "choose another folder") from error


def stored_rows(path: Path, names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Read a table of :func:`write_table`.

    Parameters
    ----------
    path
        The CSV file.
    names
        Names of the classes 1 to K.

    Returns
    -------
    rows, classes
        ``(n, 6)`` as of :func:`napari_histogan.inference.review.object_rows`, the side being that of a square
        around a disk of the same area; and each row's class, 0 for an unknown name.

    Raises
    ------
    StorageError
        If the file cannot be read, or is no such table.
    """
    numbers = {name: number for number, name in enumerate(names, 1)}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            found = [
                (numbers.get(row["class"], 0), *(float(row[key]) for key in _COLUMNS[1:]))
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"{path} cannot be read ({error})", "a table of detect-objects", "make it again"
        ) from error
    table = np.array(found, np.float64).reshape(-1, len(_COLUMNS))
    side = 2 * np.sqrt(table[:, 3:4] / np.pi)
    return np.hstack([table[:, 1:], side]), table[:, 0].astype(np.int64)


def smoothed(shape: shapely.Polygon) -> shapely.Polygon:
    """Return an outline without the steps of the pixel grid.

    Steps are straightened, then corners are cut twice (G. Chaikin: "An algorithm for
    high-speed curve generation", 1974), which gives a smooth curve.  An outline that would
    cross itself stays as it is.
    """
    # One starting corner and no points on straight sides, wherever the parts' borders fell.
    corners = shapely.simplify(shapely.normalize(shape), 0)
    straight = shapely.simplify(corners, _STAIR_PX)
    if straight.geom_type != "Polygon" or straight.is_empty:
        return shape
    rings = [_cut_corners(ring) for ring in (straight.exterior, *straight.interiors)]
    curved = shapely.Polygon(rings[0], rings[1:])
    return curved if curved.is_valid else shape


def _measurements(detection: Detection) -> dict[str, float]:
    """Return an object's figures by column."""
    return {
        "y_um": round(detection.centroid_um.y, 3),
        "x_um": round(detection.centroid_um.x, 3),
        "area_um2": round(detection.area_um2, 3),
        "perimeter_um": round(detection.perimeter_um, 3),
        "mean_probability": round(detection.mean_probability, 4),
    }


def _parts(
    heatmap: PyramidReader, class_index: int, settings: DetectionSettings, part_px: int
) -> Iterator[tuple[Region, NDArray[np.floating], NDArray[np.bool_]]]:
    """Yield parts of the heatmap with their probabilities and their chosen pixels."""
    level, sigma = heatmap.levels[0], settings.smooth_um / heatmap.mpp
    margin = ceil(4 * sigma)
    for region in grid(heatmap.size, Size(part_px, part_px)):
        around = region.grown(margin).clipped(heatmap.size)
        stored = np.asarray(level[(class_index - 1, *around.slices)])
        if stored.max() < 100 * settings.threshold:  # a weighted mean is no larger than the largest
            yield region, np.zeros((0, 0)), np.zeros(region.size.shape, np.bool_)
            continue
        percent = stored.astype(np.float32)
        inside = Region(region.y - around.y, region.x - around.x, region.height, region.width).slices
        smooth = ndimage.gaussian_filter(percent, sigma, truncate=4.0) if sigma else percent
        yield region, percent[inside] / 100, smooth[inside] >= 100 * settings.threshold


@dataclass
class _Piece:
    """What an object has in one part."""

    shape: BaseGeometry
    pixels: int
    probability: float


class _Pieces:
    """Pieces of objects by number, and which numbers are one object.

    Parameters
    ----------
    size
        Of the heatmap.
    part_px
        Side of a part; parts come row by row.
    """

    def __init__(self, size: Size, part_px: int) -> None:
        self._above = np.zeros(size.width, np.int64)
        self._left = np.zeros(min(part_px, size.height), np.int64)
        self._pieces: dict[int, _Piece] = {}
        self._parent: dict[int, int] = {}
        self._count = 0

    def add(self, region: Region, probability: NDArray[np.floating], chosen: NDArray[np.bool_]) -> None:
        """Add the pieces of a part and join them with those above and to the left."""
        columns = slice(region.x, region.x_end)
        if not chosen.any():
            self._above[columns] = 0
            self._left[: region.height] = 0
            return
        count, local = cv2.connectedComponents(chosen.astype(np.uint8), connectivity=4)
        numbers = np.arange(count, dtype=np.int64) + self._count
        numbers[0] = 0
        self._count += count - 1
        self._parent.update((number, number) for number in numbers[1:].tolist())
        pixels = np.bincount(local.ravel(), minlength=count)
        sums = np.bincount(local.ravel(), weights=probability.ravel(), minlength=count)
        for index, box in enumerate(ndimage.find_objects(local), start=1):
            mask = (local[box] == index).astype(np.uint8)
            origin = Point(region.y + box[0].start, region.x + box[1].start)
            shapes = [annotation.geometry for annotation in polygonize(mask, _ONE_CLASS, origin)]
            piece = _Piece(shapely.union_all(shapes), int(pixels[index]), float(sums[index]))
            self._pieces[int(numbers[index])] = piece
        labels = numbers[local]
        self._join(labels[0], self._above[columns])
        if region.x:
            self._join(labels[:, 0], self._left[: region.height])
        self._above[columns] = labels[-1]
        self._left[: region.height] = labels[:, -1]

    def finished(self, last: bool) -> Iterator[tuple[shapely.Polygon, float]]:
        """Forget the objects that end above the next row of parts; all of them after the last row.

        Yields the polygon of each, in pixels, and its mean probability.
        """
        rim = set() if last else {self._root(number) for number in np.unique(self._above).tolist() if number}
        members: dict[int, list[int]] = {}
        for number in self._pieces:
            if (root := self._root(number)) not in rim:
                members.setdefault(root, []).append(number)
        for numbers in members.values():
            pieces = [self._pieces.pop(number) for number in numbers]
            for number in numbers:
                del self._parent[number]
            pixels = sum(piece.pixels for piece in pieces)
            mean = sum(piece.probability for piece in pieces) / pixels
            for polygon in shapely.get_parts(shapely.union_all([piece.shape for piece in pieces])):
                yield polygon, mean

    def _join(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        """Make touching pieces one object."""
        touching = (first > 0) & (second > 0)
        for a, b in np.unique(np.stack([first[touching], second[touching]], axis=1), axis=0).tolist():
            self._parent[self._root(a)] = self._root(b)

    def _root(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number


def _without_small_holes(shape: shapely.Polygon, max_area: float) -> shapely.Polygon:
    """Fill the holes of up to ``max_area`` square pixels."""
    kept = [ring for ring in shape.interiors if shapely.Polygon(ring).area > max_area]
    return shapely.Polygon(shape.exterior, kept)


def _cut_corners(ring: Any, rounds: int = 2) -> NDArray[np.float64]:
    """Return a ring's points after cutting each corner at a quarter of its sides."""
    points = np.asarray(ring.coords, np.float64)[:-1]
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        cut = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1)
        points = cut.reshape(-1, 2)
    return points
