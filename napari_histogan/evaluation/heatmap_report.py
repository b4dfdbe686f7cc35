"""The report of an evaluation: its figures, and pictures of the worst and the best places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image

from napari_histogan import metrics
from napari_histogan.evaluation.heatmap_scores import HeatmapScores, SlideCounts, slide_figures
from napari_histogan.evaluation.report import (
    Cell,
    Figure,
    Section,
    Table,
    interval,
    slide_overlay,
    write_report,
)
from napari_histogan.evaluation.segmentation import SegmentationScores, block_regions
from napari_histogan.evaluation.significance import Interval
from napari_histogan.geometry import Region
from napari_histogan.labels.annotation import Annotation
from napari_histogan.labels.classes import ClassTable

_PLACES = 3
_LEAST_SHARE = 0.25
_PICTURE_PX = 480

ReadPixels = Callable[[int, Region, float], NDArray[np.uint8]]
"""Gives pixels ``(H, W, 3)`` of a slide by its number, and of a region in pixels of a resolution (um/px)."""


def write_heatmap_report(
    path: Path,
    title: str,
    found: HeatmapScores,
    pictures: Sequence[Figure] = (),
    slides: Sequence[SlideCounts] = (),
) -> Path:
    """Write the figures of an evaluation, and pictures of :func:`worst_and_best`, as one HTML file."""
    scores, shapes = found.pixels, found.shapes
    overall = [(name.replace("_", " "), _words(value)) for name, value in scores.overall.items()]
    overall.append(("calibration error", _words(shapes.calibration_error)))
    figures = scores.per_class | {_spelled(name): each for name, each in shapes.per_class().items()}
    if found.masked:
        figures |= {"masked IoU": found.masked.iou, "masked Dice": found.masked.dice}
    rows: list[list[Cell]] = []
    for k, (name, objects) in enumerate(zip(scores.class_names, shapes.objects, strict=True)):
        rows.append([name, *(_words(values[k]) for values in figures.values())])
        rows[-1].append(f"{objects.true} / {objects.predicted}")
    header = ["class", *figures, "objects: true / predicted"]
    sections = [
        Section("All classes together", [Table(["figure", "value"], overall)]),
        Section("Each class", [Table(header, rows)]),
    ]
    if len(slides) > 1:
        sections.append(Section("Each slide", [_table_of_slides(slides, scores)]))
    if pictures:
        sections.append(Section("The worst and the best places", list(pictures)))
    lead = f"95 % intervals in parentheses, by resampling {scores.blocks} {scores.unit}."
    return write_report(path, title, sections, lead)


def _table_of_slides(slides: Sequence[SlideCounts], scores: SegmentationScores) -> Table:
    """Return one row a slide: the figures of all classes together, and each class's Dice; worst first."""
    wanted = [*scores.overall, *(f"dice_{name}" for name in scores.class_names)]
    found = {slide.name: slide_figures(slide, scores.class_names) for slide in slides}
    order = sorted(found, key=lambda name: (not np.isnan(found[name]["mcc"]), found[name]["mcc"]))
    rows: list[list[Cell]] = [[name, *(found[name][figure] for figure in wanted)] for name in order]
    return Table(["slide", *(name.replace("_", " ") for name in wanted)], rows)


def worst_and_best(slides: Sequence[SlideCounts], read: ReadPixels, classes: ClassTable) -> list[Figure]:
    """Return pictures of the blocks with the smallest and the largest share of right pixels.

    Blocks of which less than a quarter is labeled do not count.

    Parameters
    ----------
    slides
        What was counted.
    read
        Gives a slide's pixels.
    classes
        Names and colors.
    """
    places: list[tuple[float, int, Region]] = []
    for number, slide in enumerate(slides):
        matrices, block_px = slide.blocks.matrices(), slide.blocks.block_px
        labeled, right = matrices.sum(axis=(1, 2)), metrics.pixel_accuracy(matrices)
        regions = [region.clipped(slide.compared.size) for region in block_regions(slide.blocks)]
        enough = np.flatnonzero(labeled >= _LEAST_SHARE * block_px**2).tolist()
        places += [(float(right[k]), number, regions[k]) for k in enough]
    order = sorted(places, key=lambda place: place[0])
    worst = order[: min(_PLACES, len(order) // 2)]
    best = order[::-1][: min(_PLACES, len(order) - len(worst))]
    chosen = [("worst", place) for place in worst] + [("best", place) for place in best]
    return [
        _picture(f"{kind}-{rank}", right, region, slides[number], partial(read, number), classes)
        for rank, (kind, (right, number, region)) in enumerate(chosen, 1)
    ]


def _picture(
    name: str,
    right: float,
    region: Region,
    slide: SlideCounts,
    read: Callable[[Region, float], NDArray[np.uint8]],
    classes: ClassTable,
) -> Figure:
    """Draw a block with its prediction as tint and the reference as lines."""
    compared = slide.compared
    factor = max(1, _PICTURE_PX // max(region.size.shape))
    pixels = read(region, compared.mpp)
    large = Image.fromarray(pixels).resize(
        (region.width * factor, region.height * factor), Image.Resampling.BICUBIC
    )
    corner = np.array([region.x, region.y]) * compared.downsample
    there = [
        Annotation(a.class_name, shapely.transform(a.geometry, lambda xy: xy - corner), a.color)
        for a in compared.reference
        if a.geometry.intersects(
            shapely.box(*corner, *(corner + np.array([region.width, region.height]) * compared.downsample))
        )
    ]
    mpp, downsample = compared.mpp / factor, compared.downsample / factor
    percent = compared.percent(region)
    image = slide_overlay(np.asarray(large), classes, mpp, percent, there, downsample)
    place = f"{slide.name}, y = {region.y * compared.mpp:.0f} um, x = {region.x * compared.mpp:.0f} um"
    return Figure(
        name, image, f"{right:.0%} of the pixels right; {place}. Tint: prediction; lines: reference."
    )


def _spelled(name: str) -> str:
    return name.replace("_f1", " F1").replace("_iou", " IoU").replace("_dice", " Dice")


def _words(value: Interval) -> str:
    return interval(value.value, value.low, value.high)
