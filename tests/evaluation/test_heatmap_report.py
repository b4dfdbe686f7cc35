"""The report names every figure and shows the worst and the best places."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely

from napari_histogan.config import EvaluateConfig
from napari_histogan.errors import ConfigError, LabelError
from napari_histogan.evaluation.heatmap_report import worst_and_best, write_heatmap_report
from napari_histogan.evaluation.heatmap_scores import (
    HeatmapAndOutlines,
    count_slide,
    score_slides,
    scores_as_json,
)
from napari_histogan.geometry import Region, Size
from napari_histogan.labels.annotation import Annotation
from napari_histogan.labels.classes import ClassTable
from napari_histogan.slides.zarr_pyramid import PyramidWriter

CLASSES = ClassTable.from_names(["left", "right"])
REFERENCE = [
    Annotation("left", shapely.box(0, 0, 180, 200)),
    Annotation("right", shapely.box(180, 0, 400, 200)),
]


@pytest.fixture
def compared(tmp_path):
    """A map of 1 um/px whose border lies at column 100; the reference says 90 (the slide has 0.5 um/px)."""
    percent = np.zeros((2, 100, 200), np.uint8)
    percent[0, :, :100] = 90
    percent[1, :, 100:] = 80
    writer = PyramidWriter(tmp_path / "map.zarr", Size(100, 200), CLASSES.names, np.uint8, mpp=1.0)
    writer.write(Region(0, 0, 100, 200), percent)
    writer.close()
    return HeatmapAndOutlines(tmp_path / "map.zarr", REFERENCE, [], CLASSES, 0.5)


def settings(**more):
    return EvaluateConfig(**{"block_um": 20, "bootstrap": 20, **more})


def test_shapes_are_scored_in_microns(compared):
    def shapes(tolerance_um):
        config = settings(tolerance_um=tolerance_um)
        return score_slides([count_slide("a", compared, CLASSES, config)], CLASSES, config).shapes

    near, far = shapes(10), shapes(9)
    assert [interval.value for interval in near.boundary_f1] == [1, 1]
    assert [interval.value for interval in far.boundary_f1] == [0, 0]
    assert [found.f1 for found in near.objects] == [1, 1]
    # Left of 90 all is right at 90 %; 10 of 200 columns are wrong at 90 %; the rest is right at 80 %.
    bins = (abs(90 - 100 * 0.9), abs(100 - 100 * 0.8))
    assert near.calibration_error.value == pytest.approx(sum(bins) / 200)


def test_the_worst_and_the_best_places_are_shown(compared, tmp_path):
    slide = count_slide("a", compared, CLASSES, settings(masked_um=5))
    seen = []

    def read(number, region, mpp):
        seen.append((region, mpp))
        return np.full((*region.size.shape, 3), 128, np.uint8)

    pictures = worst_and_best([slide], read, CLASSES)
    assert [picture.name for picture in pictures] == [
        "worst-1", "worst-2", "worst-3", "best-4", "best-5", "best-6",
    ]  # fmt: skip
    assert all(region.x == 80 for region, _ in seen[:3])
    assert all(region.x != 80 for region, _ in seen[3:])
    assert "50% of the pixels right" in pictures[0].caption
    assert "100% of the pixels right" in pictures[-1].caption
    scores = score_slides([slide], CLASSES, settings())
    page = write_heatmap_report(tmp_path / "report.html", "A map", scores, pictures, [slide]).read_text()
    figures = ("mcc", "calibration error", "boundary F1", "object F1", "masked IoU")
    for words in (*figures, "right", "1 / 1", "50 blocks of the slide"):
        assert words in page
    assert "Each slide" not in page
    assert (tmp_path / "worst-1.png").exists()


def test_several_slides_are_resampled_as_slides(compared, tmp_path):
    config = settings(masked_um=5, bootstrap=200)
    turned = [Annotation("right", shapely.box(0, 0, 400, 200)), Annotation("left", shapely.box(0, 0, 20, 20))]
    other = HeatmapAndOutlines(tmp_path / "map.zarr", turned, [], CLASSES, 0.5)
    slides = [count_slide(name, c, CLASSES, config) for name, c in (("good", compared), ("bad", other))]
    scores = score_slides(slides, CLASSES, config)
    sums = sum(slide.blocks.matrices().sum(axis=0) for slide in slides)
    assert (scores.pixels.matrix == sums).all()
    assert (scores.pixels.blocks, scores.pixels.unit) == (2, "slides")
    accuracy = scores.pixels.overall["accuracy"]
    each = json.loads(scores_as_json(scores, slides))["slides"]
    assert each["good"]["accuracy"] == pytest.approx(0.95)
    # Both slides are of one size: resamples hold the one, the other, or both.
    assert (accuracy.low, accuracy.high) == pytest.approx((each["bad"]["accuracy"], each["good"]["accuracy"]))
    assert accuracy.value == pytest.approx((accuracy.low + accuracy.high) / 2)
    assert scores.shapes.objects[0].true == 2
    assert scores.masked is not None
    seen = []

    def read(number, region, mpp):
        seen.append(number)
        return np.full((*region.size.shape, 3), 128, np.uint8)

    pictures = worst_and_best(slides, read, CLASSES)
    assert seen[:3] == [1, 1, 1]
    assert "bad, y =" in pictures[0].caption
    page = write_heatmap_report(tmp_path / "r.html", "Maps", scores, pictures, slides).read_text()
    assert "2 slides" in page
    assert page.index(">bad<") < page.index(">good<")
    with pytest.raises(LabelError, match="the reference of empty has no labeled pixel"):
        count_slide("empty", HeatmapAndOutlines(tmp_path / "map.zarr", [], [], CLASSES, 0.5), CLASSES, config)
    with pytest.raises(ConfigError, match="lower masked_um"):
        count_slide("good", compared, CLASSES, settings(masked_um=5000))
