"""The report of an evaluation: its figures, and pictures of the worst and the best places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image

from napari_histogan import metrics
from napari_histogan.evaluation.heatmap_scores import HeatmapAndOutlines
from napari_histogan.evaluation.report import (
    Cell,
    Figure,
    Section,
    Table,
    interval,
    slide_overlay,
    write_report,
)
from napari_histogan.evaluation.segmentation import BlockCounts, SegmentationScores, block_regions
from napari_histogan.evaluation.shape_scores import ShapeScores
from napari_histogan.evaluation.significance import Interval
from napari_histogan.geometry import Region
from napari_histogan.labels.annotation import Annotation
from napari_histogan.labels.classes import ClassTable

_PLACES = 3
_LEAST_SHARE = 0.25
_PICTURE_PX = 480

ReadPixels = Callable[[Region, float], NDArray[np.uint8]]
"""Gives the slide's pixels ``(H, W, 3)`` of a region in pixels of a resolution (um/px)."""


def write_heatmap_report(
    path: Path,
    title: str,
    scores: SegmentationScores,
    shapes: ShapeScores,
    pictures: Sequence[Figure] = (),
) -> Path:
    """Write the figures of an evaluation, and pictures of :func:`worst_and_best`, as one HTML file."""
    overall = [(name.replace("_", " "), _words(value)) for name, value in scores.overall.items()]
    overall.append(("calibration error", _words(shapes.calibration_error)))
    figures = {**scores.per_class, "boundary F1": shapes.boundary_f1}
    rows: list[list[Cell]] = []
    for k, (name, found) in enumerate(zip(scores.class_names, shapes.objects, strict=True)):
        cells = [_words(values[k]) for values in figures.values()]
        rows.append([name, *cells, found.f1, f"{found.true} / {found.predicted}"])
    header = ["class", *figures, "object F1", "objects: true / predicted"]
    sections = [
        Section("All classes together", [Table(["figure", "value"], overall)]),
        Section("Each class", [Table(header, rows)]),
    ]
    if pictures:
        sections.append(Section("The worst and the best places", list(pictures)))
    lead = f"95 % intervals in parentheses, by resampling {scores.blocks} blocks of the slide."
    return write_report(path, title, sections, lead)


def worst_and_best(
    compared: HeatmapAndOutlines,
    counts: BlockCounts,
    read: ReadPixels,
    reference: Sequence[Annotation],
    classes: ClassTable,
) -> list[Figure]:
    """Return pictures of the blocks with the smallest and the largest share of right pixels.

    Blocks of which less than a quarter is labelled do not count.
    """
    matrices = counts.matrices()
    labelled, right = matrices.sum(axis=(1, 2)), metrics.pixel_accuracy(matrices)
    enough = np.flatnonzero(labelled >= _LEAST_SHARE * counts.block_px**2)
    order = enough[np.argsort(right[enough], kind="stable")]
    worst = order[: min(_PLACES, len(order) // 2)]
    best = order[::-1][: min(_PLACES, len(order) - len(worst))]
    regions = [region.clipped(compared.size) for region in block_regions(counts)]
    chosen = [("worst", number) for number in worst] + [("best", number) for number in best]
    return [
        _picture(f"{kind}-{place}", float(right[number]), regions[number], compared, read, reference, classes)
        for place, (kind, number) in enumerate(chosen, 1)
    ]


def _picture(
    name: str,
    right: float,
    region: Region,
    compared: HeatmapAndOutlines,
    read: ReadPixels,
    reference: Sequence[Annotation],
    classes: ClassTable,
) -> Figure:
    """Draw a block with its prediction as tint and the reference as lines."""
    factor = max(1, _PICTURE_PX // max(region.size.shape))
    pixels = read(region, compared.mpp)
    large = Image.fromarray(pixels).resize(
        (region.width * factor, region.height * factor), Image.Resampling.BICUBIC
    )
    corner = np.array([region.x, region.y]) * compared.downsample
    there = [
        Annotation(a.class_name, shapely.transform(a.geometry, lambda xy: xy - corner), a.color)
        for a in reference
        if a.geometry.intersects(
            shapely.box(*corner, *(corner + np.array([region.width, region.height]) * compared.downsample))
        )
    ]
    mpp, downsample = compared.mpp / factor, compared.downsample / factor
    percent = compared.percent(region)
    image = slide_overlay(np.asarray(large), classes, mpp, percent, there, downsample)
    place = f"y = {region.y * compared.mpp:.0f} um, x = {region.x * compared.mpp:.0f} um"
    return Figure(
        name, image, f"{right:.0%} of the pixels right; {place}. Tint: prediction; lines: reference."
    )


def _words(value: Interval) -> str:
    return interval(value.value, value.low, value.high)
