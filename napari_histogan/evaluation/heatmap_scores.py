"""Compare a heatmap on disk with outlines of the same slide."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histogan.config import EvaluateConfig
from napari_histogan.errors import ConfigError, LabelError
from napari_histogan.evaluation.masked_heatmap import MaskedFigures, count_masked, score_masked_counts
from napari_histogan.evaluation.segmentation import BlockCounts, SegmentationScores, count_blocks, score
from napari_histogan.evaluation.shape_scores import (
    ShapeCounts,
    ShapeScores,
    count_shapes,
    of_slides,
    score_shapes,
)
from napari_histogan.geometry import Region
from napari_histogan.labels.annotation import Annotation
from napari_histogan.labels.classes import UNLABELLED, ClassTable
from napari_histogan.labels.outlines import paint, rasterize
from napari_histogan.slides.zarr_pyramid import open_pyramid

_FARTHEST_PX = 2048


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
    reference
        The outlines.
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
        self.reference, self._ignored, self._classes = reference, ignored, classes

    def truth(self, region: Region) -> NDArray[np.uint8]:
        """Return the classes of a region, ``(H, W)``; 0 where nothing is to be counted."""
        mask = rasterize(self.reference, region, self.downsample, self._classes)
        for annotation in self._ignored:
            paint(mask, annotation.geometry, UNLABELLED, region, self.downsample)
        return mask

    def percent(self, region: Region) -> NDArray[np.uint8]:
        """Return the probabilities of a region, ``(K, H, W)`` in percent."""
        return np.asarray(self._pyramid.levels[0][(slice(None), *region.slices)])

    def pixels(self, um: float) -> int:
        """Return a length in whole pixels of the heatmap, at least 1."""
        return max(1, round(um / self.mpp))


@dataclass(frozen=True)
class SlideCounts:
    """What is counted of one slide.

    Attributes
    ----------
    name
        Of the slide.
    compared
        Its heatmap and outlines.
    blocks, shapes, masked
        Counts of its blocks; ``masked`` is None where the config asks for none.
    """

    name: str
    compared: HeatmapAndOutlines
    blocks: BlockCounts
    shapes: ShapeCounts
    masked: NDArray[np.float64] | None


@dataclass(frozen=True)
class HeatmapScores:
    """All figures of an evaluation.

    Attributes
    ----------
    pixels, shapes, masked
        Of pixels, of outlines and objects, and near the true boundaries (None if not asked for).
    """

    pixels: SegmentationScores
    shapes: ShapeScores
    masked: MaskedFigures | None

    def summary(self) -> dict[str, float]:
        """Return the values without intervals, for display."""
        masked = self.masked.summary() if self.masked else {}
        return self.pixels.summary() | self.shapes.summary() | masked


def count_slide(
    name: str, compared: HeatmapAndOutlines, classes: ClassTable, config: EvaluateConfig
) -> SlideCounts:
    """Compare a heatmap with outlines of its slide, part by part.

    Raises
    ------
    ConfigError
        If masked figures are asked for too far from the boundaries for the heatmap's resolution.
    LabelError
        If no labeled pixel lies in the heatmap.
    """
    if config.masked_um > _FARTHEST_PX * compared.mpp:
        raise ConfigError(
            f"masked_um {config.masked_um:g} is {config.masked_um / compared.mpp:.0f} px of {name}'s heatmap",
            f"at most {_FARTHEST_PX} px, or {_FARTHEST_PX * compared.mpp:.0f} um",
            "lower masked_um",
        )
    block_px, k = compared.pixels(config.block_um), classes.num_classes
    blocks = count_blocks(compared.size, compared.truth, compared.percent, k, block_px)
    if not blocks.places():
        raise LabelError(
            f"the reference of {name} has no labeled pixel in the heatmap",
            "outlines of the project's classes on the slide",
            "check that the reference belongs to this slide",
        )
    shapes = count_shapes(
        compared.size,
        compared.truth,
        compared.percent,
        k,
        block_px=block_px,
        tolerance_px=config.tolerance_um / compared.mpp,
        least_px=round(config.least_um2 / compared.mpp**2),
    )
    masked = None
    if config.masked_um:
        reads = compared.size, compared.truth, compared.percent, k
        masked = count_masked(*reads, mpp=compared.mpp, within_um=config.masked_um, block_px=block_px)
    return SlideCounts(name, compared, blocks, shapes, masked)


def score_slides(slides: Sequence[SlideCounts], classes: ClassTable, config: EvaluateConfig) -> HeatmapScores:
    """Return all figures; intervals are over the blocks of one slide, or over several slides."""
    masked = [slide.masked for slide in slides if slide.masked is not None]
    if len(slides) == 1:
        matrices, shapes, unit = slides[0].blocks.matrices(), slides[0].shapes, "blocks of the slide"
    else:
        matrices = np.stack([slide.blocks.matrices().sum(axis=0) for slide in slides])
        shapes, unit = of_slides([slide.shapes for slide in slides]), "slides"
        masked = [np.stack([counts.sum(axis=0) for counts in masked])] if masked else []
    how = classes.names, config.bootstrap, config.seed
    pixels = replace(score(matrices, *how), unit=unit)
    return HeatmapScores(
        pixels, score_shapes(shapes, *how), score_masked_counts(masked[0], *how) if masked else None
    )


def scores_as_json(found: HeatmapScores, slides: Sequence[SlideCounts] = ()) -> str:
    """Return scores, and those of each slide, as JSON; figures that are not defined are null."""
    document = asdict(found.pixels) | {"shapes": asdict(found.shapes)}
    document["matrix"] = found.pixels.matrix.tolist()
    document |= {"masked": asdict(found.masked)} if found.masked else {}
    document |= {"slides": {slide.name: slide_figures(slide, found.pixels.class_names) for slide in slides}}
    return json.dumps(_without_nan(document), indent=1) + "\n"


def slide_figures(slide: SlideCounts, class_names: tuple[str, ...]) -> dict[str, float]:
    """Return the figures of one slide without intervals."""
    scores = score(slide.blocks.matrices(), class_names, 0)
    return scores.summary() | score_shapes(slide.shapes.together(), class_names, 0).summary()


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
