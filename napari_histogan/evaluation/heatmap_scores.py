"""Compare a heatmap on disk with outlines of the same slide."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histogan.evaluation.segmentation import BlockCounts, SegmentationScores, count_blocks, score
from napari_histogan.geometry import Region
from napari_histogan.labels.annotation import Annotation
from napari_histogan.labels.classes import ClassTable
from napari_histogan.labels.outlines import paint, rasterize
from napari_histogan.slides.zarr_pyramid import open_pyramid


def compare_with_outlines(
    heatmap: Path,
    reference: Sequence[Annotation],
    ignored: Sequence[Annotation],
    classes: ClassTable,
    slide_mpp: float,
    block_um: float,
) -> BlockCounts:
    """Count a heatmap's likeliest classes against outlines, one confusion matrix a block.

    Parameters
    ----------
    heatmap
        An OME-Zarr pyramid of percent, one channel a class.
    reference
        Outlines in level 0 pixels of the slide; later ones lie over earlier ones.
    ignored
        Outlines whose inside is left out, such as regions used in training.
    classes
        The project's classes; the reference uses their names.
    slide_mpp
        Resolution of the slide's level 0 in um/px.
    block_um
        Side of a block of the bootstrap in um; a block should be wider than the structures
        that make neighboring pixels alike.

    Raises
    ------
    LabelError
        If an outline's class is not in ``classes``.
    """
    pyramid = open_pyramid(heatmap)
    downsample = pyramid.mpp / slide_mpp

    def truth(region: Region) -> NDArray[np.uint8]:
        return rasterize(reference, region, downsample, classes)

    def percent(region: Region) -> NDArray[np.uint8]:
        return np.asarray(pyramid.levels[0][(slice(None), *region.slices)])

    def left_out(region: Region) -> NDArray[np.bool_]:
        mask = np.zeros(region.size.shape, np.uint8)
        for annotation in ignored:
            paint(mask, annotation.geometry, 1, region, downsample)
        return mask.astype(bool)

    block_px = max(1, round(block_um / pyramid.mpp))
    return count_blocks(
        pyramid.size, truth, percent, classes.num_classes, block_px, left_out if ignored else None
    )


def evaluate_heatmap(
    heatmap: Path,
    reference: Sequence[Annotation],
    ignored: Sequence[Annotation],
    classes: ClassTable,
    slide_mpp: float,
    block_um: float,
    resamples: int,
    seed: int,
) -> SegmentationScores:
    """Return MCC, per-class Dice, and the other figures, with intervals over blocks.

    Parameters are those of :func:`compare_with_outlines`, and the bootstrap's number of
    resamples and seed.
    """
    counts = compare_with_outlines(heatmap, reference, ignored, classes, slide_mpp, block_um)
    return score(counts.matrices(), classes.names, resamples, seed)


def scores_as_json(scores: SegmentationScores) -> str:
    """Return scores as JSON; figures that are not defined are null."""
    document = asdict(scores)
    document["matrix"] = scores.matrix.tolist()
    return json.dumps(_without_nan(document), indent=1) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
