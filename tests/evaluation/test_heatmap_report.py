"""The report names every figure and shows the worst and the best places."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from napari_histogan.config import EvaluateConfig
from napari_histogan.evaluation.heatmap_report import worst_and_best, write_heatmap_report
from napari_histogan.evaluation.heatmap_scores import HeatmapAndOutlines, evaluate_shapes
from napari_histogan.evaluation.segmentation import count_blocks, score
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


def test_shapes_are_scored_in_microns(compared):
    near = evaluate_shapes(compared, CLASSES, EvaluateConfig(block_um=20, bootstrap=20, tolerance_um=10))
    far = evaluate_shapes(compared, CLASSES, EvaluateConfig(block_um=20, bootstrap=20, tolerance_um=9))
    assert [interval.value for interval in near.boundary_f1] == [1, 1]
    assert [interval.value for interval in far.boundary_f1] == [0, 0]
    assert [found.f1 for found in near.objects] == [1, 1]
    # Left of 90 all is right at 90 %; 10 of 200 columns are wrong at 90 %; the rest is right at 80 %.
    bins = (abs(90 - 100 * 0.9), abs(100 - 100 * 0.8))
    assert near.calibration_error.value == pytest.approx(sum(bins) / 200)


def test_the_worst_and_the_best_places_are_shown(compared, tmp_path):
    counts = count_blocks(compared.size, compared.truth, compared.percent, 2, 20)
    seen = []

    def read(region, mpp):
        seen.append((region, mpp))
        return np.full((*region.size.shape, 3), 128, np.uint8)

    pictures = worst_and_best(compared, counts, read, REFERENCE, CLASSES)
    assert [picture.name for picture in pictures] == [
        "worst-1", "worst-2", "worst-3", "best-4", "best-5", "best-6",
    ]  # fmt: skip
    assert all(region.x == 80 for region, _ in seen[:3])
    assert all(region.x != 80 for region, _ in seen[3:])
    assert "50% of the pixels right" in pictures[0].caption
    assert "100% of the pixels right" in pictures[-1].caption
    scores = score(counts.matrices(), CLASSES.names, 20)
    shapes = evaluate_shapes(compared, CLASSES, EvaluateConfig(block_um=20, bootstrap=20))
    page = write_heatmap_report(tmp_path / "report.html", "A map", scores, shapes, pictures).read_text()
    for words in ("mcc", "calibration error", "boundary F1", "object F1", "right", "1 / 1", "50 blocks"):
        assert words in page
    assert (tmp_path / "worst-1.png").exists()
