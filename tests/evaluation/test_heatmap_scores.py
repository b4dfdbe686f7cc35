"""A heatmap against outlines: a perfect one scores 1, a shifted one what arithmetic says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely

from napari_histogan.config import EvaluateConfig
from napari_histogan.errors import LabelError
from napari_histogan.evaluation.heatmap_scores import (
    HeatmapAndOutlines,
    compare_with_outlines,
    count_slide,
    score_slides,
    scores_as_json,
)
from napari_histogan.evaluation.segmentation import score
from napari_histogan.geometry import Region, Size
from napari_histogan.labels.annotation import Annotation
from napari_histogan.labels.classes import ClassTable
from napari_histogan.slides.zarr_pyramid import PyramidWriter

CLASSES = ClassTable.from_names(["left", "right", "never"])


def evaluate(heatmap, reference, ignored, resamples):
    counts = compare_with_outlines(heatmap, reference, ignored, CLASSES, 0.5, 20)
    return score(counts.matrices(), CLASSES.names, resamples)


@pytest.fixture
def heatmap(tmp_path):
    """A 100 x 200 px map at 1 um/px: class 1 left of column 100, class 2 right of it."""
    percent = np.zeros((3, 100, 200), np.uint8)
    percent[0, :, :100] = 90
    percent[1, :, 100:] = 80
    writer = PyramidWriter(tmp_path / "map.zarr", Size(100, 200), CLASSES.names, np.uint8, mpp=1.0)
    writer.write(Region(0, 0, 100, 200), percent)
    writer.close()
    return tmp_path / "map.zarr"


def outlines(border):
    """The slide has 0.5 um/px: outlines are twice as large as the map; the border is in map pixels."""
    left = Annotation("left", shapely.box(0, 0, 2 * border, 200))
    return [left, Annotation("right", shapely.box(2 * border, 0, 400, 200))]


def test_agreement_scores_one(heatmap):
    scores = evaluate(heatmap, outlines(100), [], 100)
    assert scores.overall["mcc"].value == pytest.approx(1)
    assert scores.per_class["dice"][0].value == pytest.approx(1)
    assert np.isnan(scores.per_class["dice"][2].value)


def test_shifted_border_scores_what_arithmetic_says(heatmap):
    scores = evaluate(heatmap, outlines(90), [], 200)
    assert scores.per_class["dice"][0].value == pytest.approx(2 * 90 / (90 + 100))
    assert scores.per_class["dice"][1].value == pytest.approx(2 * 100 / (110 + 100))
    interval = scores.overall["accuracy"]
    assert interval.value == pytest.approx(0.95)
    assert interval.low < 0.95 < interval.high


def test_ignored_regions_do_not_count(heatmap):
    wrong = [Annotation("patch", shapely.box(180, 0, 200, 200))]
    scores = evaluate(heatmap, outlines(90), wrong, 0)
    assert scores.overall["accuracy"].value == pytest.approx(1)


def test_unknown_class_is_refused(heatmap):
    with pytest.raises(LabelError, match="middle"):
        evaluate(heatmap, [Annotation("middle", shapely.box(0, 0, 9, 9))], [], 0)


def test_undefined_figures_are_null_in_json(heatmap):
    compared = HeatmapAndOutlines(heatmap, outlines(100), [], CLASSES, 0.5)
    config = EvaluateConfig(block_um=20, bootstrap=0)
    scores = score_slides([count_slide("a", compared, CLASSES, config)], CLASSES, config)
    document = json.loads(scores_as_json(scores))
    assert document["per_class"]["dice"][2]["value"] is None
    assert np.array(document["matrix"]).sum() == 100 * 200
