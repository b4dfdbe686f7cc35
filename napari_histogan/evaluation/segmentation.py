"""Compare predicted classes with reference outlines, block by block.

Blocks are small squares of tissue; each leaves one confusion matrix, all figures are
functions of their sum, and the bootstrap resamples them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histogan import metrics
from napari_histogan.errors import LabelError
from napari_histogan.evaluation.significance import Interval, bootstrap, bootstrap_difference
from napari_histogan.geometry import Region, Size, grid

Mask = NDArray[np.uint8]
Flags = NDArray[np.bool_]

PER_CLASS: dict[str, Callable[[NDArray[Any]], NDArray[np.float64]]] = {
    "dice": metrics.dice,
    "iou": metrics.iou,
    "precision": metrics.precision,
    "recall": metrics.recall,
    "mcc": metrics.class_mcc,
}
"""Figures of each class against the rest."""

OVERALL: dict[str, Callable[[NDArray[Any]], NDArray[np.float64]]] = {
    "mcc": metrics.multiclass_mcc,
    "accuracy": metrics.pixel_accuracy,
    "mean_dice": lambda matrix: _mean_present(metrics.dice(matrix)),
    "mean_iou": lambda matrix: _mean_present(metrics.iou(matrix)),
}
"""Figures of all classes together; means are over the classes that truth or prediction hold."""


@dataclass(frozen=True)
class SegmentationScores:
    """Figures with confidence intervals.

    Attributes
    ----------
    class_names
        Of the K classes.
    overall
        By name of :data:`OVERALL`.
    per_class
        By name of :data:`PER_CLASS`, then K intervals.
    matrix
        ``(K + 1, K + 1)``, rows truth, columns prediction, 0 = none.
    blocks
        Number of blocks with labeled pixels.
    unit
        What was resampled, in words.
    """

    class_names: tuple[str, ...]
    overall: dict[str, Interval]
    per_class: dict[str, list[Interval]]
    matrix: metrics.Counts
    blocks: int
    unit: str = "blocks of the slide"

    def summary(self) -> dict[str, float]:
        """Return the values without intervals, for display: ``mcc``, ``dice_epidermis`` and so on."""
        values = {name: interval.value for name, interval in self.overall.items()}
        for name, intervals in self.per_class.items():
            for label, interval in zip(self.class_names, intervals, strict=True):
                values[f"{name}_{label}"] = interval.value
        return values


class BlockCounts:
    """Collects one confusion matrix for each block of a picture.

    Parameters
    ----------
    num_classes
        K.
    block_px
        Side of a block in pixels of the masks.
    """

    def __init__(self, num_classes: int, block_px: int) -> None:
        self.num_classes, self.block_px = num_classes, block_px
        self._by_place: dict[tuple[int, int], metrics.Counts] = {}

    def add(
        self, truth: Mask, predicted: Mask, origin: tuple[int, int] = (0, 0), ignore: Flags | None = None
    ) -> None:
        """Count a part of the picture; parts may be of any size and need not fit the blocks.

        Parameters
        ----------
        truth, predicted
            ``(H, W)`` classes 0..K; true 0 is left out, predicted 0 is an error.
        origin
            Row and column of the part's first pixel.
        ignore
            ``(H, W)`` pixels to leave out.

        Raises
        ------
        LabelError
            If shapes differ or a class exceeds K.
        """
        shift_y, shift_x = origin[0] % self.block_px, origin[1] % self.block_px
        size = Size(truth.shape[0] + shift_y, truth.shape[1] + shift_x)
        for cell in grid(size, Size(self.block_px, self.block_px)):
            rows = slice(max(0, cell.y - shift_y), cell.y_end - shift_y)
            columns = slice(max(0, cell.x - shift_x), cell.x_end - shift_x)
            place = (origin[0] + rows.start) // self.block_px, (origin[1] + columns.start) // self.block_px
            skipped = None if ignore is None else ignore[rows, columns]
            try:
                counts = metrics.confusion_matrix(
                    truth[rows, columns], predicted[rows, columns], self.num_classes, skipped
                )
            except ValueError as error:
                raise LabelError(
                    str(error),
                    f"masks of one shape, classes 0..{self.num_classes}",
                    "use the project's classes in the reference",
                ) from error
            if counts.any():
                self._by_place[place] = self._by_place.get(place, 0) + counts

    def matrices(self) -> metrics.Counts:
        """Return the counts of blocks with labeled pixels, ``(B, K + 1, K + 1)``, by place."""
        side = self.num_classes + 1
        places = sorted(self._by_place)
        return np.array([self._by_place[place] for place in places], np.int64).reshape(-1, side, side)

    def places(self) -> list[tuple[int, int]]:
        """Return row and column of the blocks of :meth:`matrices`."""
        return sorted(self._by_place)


def classes_from_percent(percent: NDArray[np.uint8]) -> Mask:
    """Return the likeliest class 1..K of each pixel of ``(K, H, W)``; 0 where all are 0."""
    best = percent.argmax(axis=0).astype(np.uint8) + np.uint8(1)
    return np.where(percent.any(axis=0), best, np.uint8(0))


def count_blocks(
    size: Size,
    read_truth: Callable[[Region], Mask],
    read_percent: Callable[[Region], NDArray[np.uint8]],
    num_classes: int,
    block_px: int,
    read_ignore: Callable[[Region], Flags] | None = None,
    part_px: int = 2048,
) -> BlockCounts:
    """Compare a heatmap with a reference part by part, so that neither is in memory whole.

    Parameters
    ----------
    size
        Of the heatmap in pixels.
    read_truth
        Gives classes ``(H, W)`` of a region.
    read_percent
        Gives probabilities ``(K, H, W)`` of a region.
    num_classes, block_px
        See :class:`BlockCounts`.
    read_ignore
        Gives the pixels ``(H, W)`` of a region to leave out.
    part_px
        Side of a part.
    """
    counts = BlockCounts(num_classes, block_px)
    for region in grid(size, Size(part_px, part_px)):
        truth = read_truth(region)
        if not truth.any():
            continue
        predicted = classes_from_percent(read_percent(region))
        ignore = None if read_ignore is None else read_ignore(region)
        counts.add(truth, predicted, (region.y, region.x), ignore)
    return counts


def score(
    counts: metrics.Counts, class_names: Iterable[str], resamples: int = 1000, seed: int = 0
) -> SegmentationScores:
    """Return all figures of blocks ``(B, K + 1, K + 1)``, with intervals over blocks.

    Raises
    ------
    LabelError
        If no block has a labeled pixel.
    """
    if not len(counts) or not counts.any():
        raise LabelError(
            "the reference has no labeled pixel in the heatmap",
            "outlines of the project's classes on the slide",
            "check that the reference belongs to this slide",
        )
    overall = {name: bootstrap(counts, figure, resamples, seed)[0] for name, figure in OVERALL.items()}
    per_class = {name: bootstrap(counts, figure, resamples, seed) for name, figure in PER_CLASS.items()}
    return SegmentationScores(tuple(class_names), overall, per_class, counts.sum(axis=0), len(counts))


def compare(
    first: BlockCounts, second: BlockCounts, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Return how much better the first prediction is, for each figure of :data:`OVERALL`.

    Both must have been compared with the same reference on the same blocks.

    Raises
    ------
    LabelError
        If the blocks or their labeled pixels differ.
    """
    a, b = first.matrices(), second.matrices()
    same = first.places() == second.places() and np.array_equal(a.sum(axis=2), b.sum(axis=2))
    if first.block_px != second.block_px or not same:
        raise LabelError(
            "the two predictions were compared with different references or on different blocks",
            "the same reference and the same blocks",
            "evaluate both again with the same settings",
        )
    return {name: bootstrap_difference(a, b, figure, resamples, seed)[0] for name, figure in OVERALL.items()}


def block_regions(counts: BlockCounts) -> Iterator[Region]:
    """Yield the places of the blocks in pixels, in the order of :meth:`BlockCounts.matrices`."""
    side = counts.block_px
    return (Region(row * side, column * side, side, side) for row, column in counts.places())


def _mean_present(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis of what is a number; NaN if nothing is."""
    present = np.isfinite(values)
    total = np.where(present, values, 0).sum(axis=-1)
    return np.where(present.any(axis=-1), total / np.maximum(present.sum(axis=-1), 1), np.nan)
