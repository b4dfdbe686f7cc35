"""Figures of a heatmap beyond counts of pixels: outlines, objects, and what its probabilities mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_histogan.evaluation.boundaries import boundary_counts, boundary_f1
from napari_histogan.evaluation.calibration import calibration_counts, calibration_error
from napari_histogan.evaluation.object_scores import ObjectMatcher, ObjectScores
from napari_histogan.evaluation.segmentation import classes_from_percent
from napari_histogan.evaluation.significance import Interval, bootstrap
from napari_histogan.geometry import Region, Size, grid

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class ShapeScores:
    """Figures with confidence intervals over blocks.

    Attributes
    ----------
    class_names
        Of the K classes.
    boundary_f1
        Of each class; see :mod:`.boundaries`.
    objects
        Of each class; see :mod:`.object_scores`.
    calibration_error
        See :mod:`.calibration`.
    """

    class_names: tuple[str, ...]
    boundary_f1: list[Interval]
    objects: list[ObjectScores]
    calibration_error: Interval

    def summary(self) -> dict[str, float]:
        """Return the values without intervals, for display."""
        values = {"calibration_error": self.calibration_error.value}
        for name, border, found in zip(self.class_names, self.boundary_f1, self.objects, strict=True):
            values[f"boundary_f1_{name}"] = border.value
            values[f"object_f1_{name}"] = found.f1
        return values


def score_shapes(
    size: Size,
    read_truth: Callable[[Region], Mask],
    read_percent: Callable[[Region], Mask],
    class_names: tuple[str, ...],
    *,
    block_px: int,
    tolerance_px: float,
    least_px: int = 0,
    resamples: int = 1000,
    seed: int = 0,
    part_px: int = 2048,
) -> ShapeScores:
    """Compare a heatmap with a reference part by part, so that neither is in memory whole.

    Parameters
    ----------
    size
        Of the heatmap in pixels.
    read_truth, read_percent
        Give classes ``(H, W)``, 0 where nothing is to be counted, and percent ``(K, H, W)`` of a
        region inside of the heatmap.
    class_names
        Of the K classes.
    block_px
        Side of the blocks that the bootstrap resamples; objects are counted over all of them.
    tolerance_px
        Largest distance of boundaries that count as the same.
    least_px
        Smaller objects are left out.
    resamples, seed
        Of the bootstrap.
    part_px
        About the side of a part.
    """
    K, halo = len(class_names), int(np.ceil(tolerance_px)) + 1
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
            rows, columns = _within(block, frame)
            sure.append(calibration_counts(truth[rows, columns], percent[:, rows, columns]))
    keep = [0] if len(sure) == 1 else [n for n, counts in enumerate(sure) if counts.any()] or [0]
    kept_borders, kept_sure = np.stack(borders)[keep], np.stack(sure)[keep]
    return ShapeScores(
        class_names,
        bootstrap(kept_borders, boundary_f1, resamples, seed),
        [matcher.scores() for matcher in matchers],
        bootstrap(kept_sure, calibration_error, resamples, seed)[0],
    )


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
