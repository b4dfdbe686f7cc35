"""Figures of a heatmap beyond counts of pixels: outlines, objects, and what its probabilities mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_histogan.evaluation.boundaries import boundary_counts, boundary_f1
from napari_histogan.evaluation.calibration import calibration_counts, calibration_error
from napari_histogan.evaluation.object_scores import ObjectMatcher, ObjectScores, object_f1
from napari_histogan.evaluation.segmentation import classes_from_percent
from napari_histogan.evaluation.significance import Interval, bootstrap
from napari_histogan.geometry import Region, Size, grid

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class ShapeCounts:
    """What is counted of one heatmap, block by block.

    Attributes
    ----------
    borders
        ``(B, K, 4)``; see :mod:`.boundaries`.
    sure
        ``(B, 10, 3)``; see :mod:`.calibration`.
    objects
        ``(B, K, 3)``: hits, predicted, and true objects of blocks that hold any; see :mod:`.object_scores`.
    """

    borders: NDArray[np.int64]
    sure: NDArray[np.float64]
    objects: NDArray[np.int64]

    def together(self) -> ShapeCounts:
        """Return the counts of all blocks as those of one."""
        parts = self.borders, self.sure, self.objects
        return ShapeCounts(*(part.sum(axis=0, keepdims=True) for part in parts))


@dataclass(frozen=True)
class ShapeScores:
    """Figures with confidence intervals over blocks, or over slides.

    Attributes
    ----------
    class_names
        Of the K classes.
    boundary_f1
        Of each class; see :mod:`.boundaries`.
    objects, object_f1
        Of each class; see :mod:`.object_scores`.
    calibration_error
        See :mod:`.calibration`.
    """

    class_names: tuple[str, ...]
    boundary_f1: list[Interval]
    objects: list[ObjectScores]
    object_f1: list[Interval]
    calibration_error: Interval

    def per_class(self) -> dict[str, list[Interval]]:
        """Return the figures of each class by name."""
        return {"boundary_f1": self.boundary_f1, "object_f1": self.object_f1}

    def summary(self) -> dict[str, float]:
        """Return the values without intervals, for display."""
        values = {"calibration_error": self.calibration_error.value}
        for figure, intervals in self.per_class().items():
            for name, interval in zip(self.class_names, intervals, strict=True):
                values[f"{figure}_{name}"] = interval.value
        return values


def count_shapes(
    size: Size,
    read_truth: Callable[[Region], Mask],
    read_percent: Callable[[Region], Mask],
    num_classes: int,
    *,
    block_px: int,
    tolerance_px: float,
    least_px: int = 0,
    part_px: int = 2048,
) -> ShapeCounts:
    """Compare a heatmap with a reference part by part, so that neither is in memory whole.

    Parameters
    ----------
    size
        Of the heatmap in pixels.
    read_truth, read_percent
        Give classes ``(H, W)``, 0 where nothing is to be counted, and percent ``(K, H, W)`` of a
        region inside of the heatmap.
    num_classes
        K.
    block_px
        Side of a block.
    tolerance_px
        Largest distance of boundaries that count as the same.
    least_px
        Smaller objects are left out.
    part_px
        About the side of a part.
    """
    K, halo = num_classes, int(np.ceil(tolerance_px)) + 1
    matchers = [ObjectMatcher(k, least_px) for k in range(1, K + 1)]
    borders, sure = [np.zeros((K, 4), np.int64)], [np.zeros((10, 3))]
    side = max(1, part_px // block_px) * block_px
    for part in grid(size, Size(side, side)):
        frame = part.grown(halo).clipped(size)
        truth = read_truth(frame)
        if not truth.any():
            continue
        percent = read_percent(frame)
        predicted = classes_from_percent(percent)
        rows, columns = _within(part, frame)
        for matcher in matchers:
            matcher.add(truth[rows, columns], predicted[rows, columns], (part.y, part.x))
        for block in _blocks(part, block_px):
            around = block.grown(halo)
            first, second = _padded(truth, around, frame), _padded(predicted, around, frame)
            borders.append(boundary_counts(first, second, K, tolerance_px, halo))
            inner = _within(block, frame)
            sure.append(calibration_counts(truth[inner], percent[:, inner[0], inner[1]]))
    labeled = [n for n, counts in enumerate(sure) if counts.any()] or [0]
    objects = _objects([matcher.by_block(block_px) for matcher in matchers])
    return ShapeCounts(np.stack(borders)[labeled], np.stack(sure)[labeled], objects)


def score_shapes(
    counts: ShapeCounts, class_names: tuple[str, ...], resamples: int = 1000, seed: int = 0
) -> ShapeScores:
    """Return the figures of counts, each with an interval over their blocks.

    Parameters
    ----------
    counts
        Of the blocks of one heatmap, or of several heatmaps of which each is one block.
    class_names
        Of the K classes.
    resamples, seed
        Of the bootstrap.
    """
    total = counts.objects.sum(axis=0).tolist()
    return ShapeScores(
        class_names,
        boundary_f1=bootstrap(counts.borders, boundary_f1, resamples, seed),
        objects=[ObjectScores(*row) for row in total],
        object_f1=bootstrap(counts.objects, object_f1, resamples, seed),
        calibration_error=bootstrap(counts.sure, calibration_error, resamples, seed)[0],
    )


def of_slides(slides: Sequence[ShapeCounts]) -> ShapeCounts:
    """Return the counts of several heatmaps, one block for each."""
    each = [slide.together() for slide in slides]
    return ShapeCounts(
        np.concatenate([one.borders for one in each]),
        np.concatenate([one.sure for one in each]),
        np.concatenate([one.objects for one in each]),
    )


def _objects(classes: Sequence[dict[tuple[int, int], NDArray[np.int64]]]) -> NDArray[np.int64]:
    """Return the objects of all classes ``(B, K, 3)``, at least one block."""
    places = sorted({place for blocks in classes for place in blocks}) or [(0, 0)]
    none = np.zeros(3, np.int64)
    return np.array([[blocks.get(place, none) for blocks in classes] for place in places])


def _blocks(part: Region, side: int) -> Iterator[Region]:
    """Yield the blocks of a part."""
    return (Region(part.y + b.y, part.x + b.x, b.height, b.width) for b in grid(part.size, Size(side, side)))


def _within(inner: Region, outer: Region) -> tuple[slice, slice]:
    """Return where a region lies in an array of a region around it."""
    top, left = inner.y - outer.y, inner.x - outer.x
    return slice(top, top + inner.height), slice(left, left + inner.width)


def _padded(mask: Mask, wanted: Region, there: Region) -> Mask:
    """Return a region of a mask, 0 where it reaches beyond it."""
    out = np.zeros(wanted.size.shape, np.uint8)
    y0, x0 = max(wanted.y, there.y), max(wanted.x, there.x)
    y1, x1 = min(wanted.y_end, there.y_end), min(wanted.x_end, there.x_end)
    common = Region(y0, x0, y1 - y0, x1 - x0)
    out[_within(common, wanted)] = mask[_within(common, there)]
    return out
