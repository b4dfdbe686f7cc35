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

from napari_histogan.config import EvaluateConfig
from napari_histogan.evaluation.masked_heatmap import MaskedFigures, score_masked_heatmap
from napari_histogan.evaluation.segmentation import BlockCounts, SegmentationScores, count_blocks, score
from napari_histogan.evaluation.shape_scores import ShapeScores, score_shapes
from napari_histogan.geometry import Region
from napari_histogan.labels.annotation import Annotation
from napari_histogan.labels.classes import UNLABELLED, ClassTable
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
    compared = HeatmapAndOutlines(heatmap, reference, ignored, classes, slide_mpp)
    return count_blocks(
        compared.size, compared.truth, compared.percent, classes.num_classes, compared.pixels(block_um)
    )


class HeatmapAndOutlines:
    """A heatmap and outlines of its slide, read region by region; parameters as above.

    Attributes
    ----------
    mpp, size
        Resolution of the heatmap in um/px, and its size in pixels.
    downsample
        Level 0 pixels of the slide to a pixel of the heatmap.
    """

    def __init__(
        self,
        heatmap: Path,
        reference: Sequence[Annotation],
        ignored: Sequence[Annotation],
        classes: ClassTable,
        slide_mpp: float,
    ) -> None:
        self._pyramid = open_pyramid(heatmap)
        self.mpp, self.size = self._pyramid.mpp, self._pyramid.size
        self.downsample = self.mpp / slide_mpp
        self._reference, self._ignored, self._classes = reference, ignored, classes

    def truth(self, region: Region) -> NDArray[np.uint8]:
        """Return the classes of a region, ``(H, W)``; 0 where nothing is to be counted."""
        mask = rasterize(self._reference, region, self.downsample, self._classes)
        for annotation in self._ignored:
            paint(mask, annotation.geometry, UNLABELLED, region, self.downsample)
        return mask

    def percent(self, region: Region) -> NDArray[np.uint8]:
        """Return the probabilities of a region, ``(K, H, W)`` in percent."""
        return np.asarray(self._pyramid.levels[0][(slice(None), *region.slices)])

    def pixels(self, um: float) -> int:
        """Return a length in whole pixels of the heatmap, at least 1."""
        return max(1, round(um / self.mpp))


def evaluate_shapes(compared: HeatmapAndOutlines, classes: ClassTable, config: EvaluateConfig) -> ShapeScores:
    """Return boundary F1, object F1, and the calibration error, with intervals over blocks."""
    return score_shapes(
        compared.size,
        compared.truth,
        compared.percent,
        classes.names,
        block_px=compared.pixels(config.block_um),
        tolerance_px=config.tolerance_um / compared.mpp,
        least_px=round(config.least_um2 / compared.mpp**2),
        resamples=config.bootstrap,
        seed=config.seed,
    )


def evaluate_masked(
    compared: HeatmapAndOutlines, classes: ClassTable, config: EvaluateConfig
) -> MaskedFigures | None:
    """Return masked figures with intervals over blocks; None where the config asks for none."""
    if not config.masked_um:
        return None
    return score_masked_heatmap(
        compared.size,
        compared.truth,
        compared.percent,
        classes.names,
        mpp=compared.mpp,
        within_um=config.masked_um,
        block_px=compared.pixels(config.block_um),
        resamples=config.bootstrap,
        seed=config.seed,
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


def scores_as_json(
    scores: SegmentationScores, shapes: ShapeScores | None = None, masked: MaskedFigures | None = None
) -> str:
    """Return scores as JSON; figures that are not defined are null."""
    document = asdict(scores) | ({"shapes": asdict(shapes)} if shapes else {})
    document |= {"masked": asdict(masked)} if masked else {}
    document["matrix"] = scores.matrix.tolist()
    return json.dumps(_without_nan(document), indent=1) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
