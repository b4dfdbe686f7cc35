from __future__ import annotations

import numpy as np
import pytest

from napari_histogan.evaluation.boundaries import boundary_counts, boundary_f1
from napari_histogan.evaluation.calibration import calibration_counts, calibration_error
from napari_histogan.evaluation.object_scores import ObjectMatcher
from napari_histogan.evaluation.segmentation import classes_from_percent
from napari_histogan.evaluation.shape_scores import count_shapes, score_shapes
from napari_histogan.geometry import Region, Size

SIZE = Size(50, 70)


@pytest.fixture
def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    truth = np.kron(1 + (rng.random((10, 14)) < 0.3), np.ones((5, 5))).astype(np.uint8)
    truth[:12, :9] = 0
    wrong = rng.random(truth.shape) < 0.1
    second = np.where(
        (truth == 2) ^ wrong, rng.integers(51, 100, truth.shape), rng.integers(1, 50, truth.shape)
    )
    return truth, np.stack([100 - second, second]).astype(np.uint8)


@pytest.mark.parametrize(("block", "part"), [(16, 32), (10, 10), (100, 2048)])
def test_parts_and_blocks_give_the_figures_of_the_whole(
    pictures: tuple[np.ndarray, np.ndarray], block: int, part: int
) -> None:
    truth, percent = pictures
    counts = count_shapes(
        SIZE,
        lambda region: truth[region.slices],
        lambda region: percent[(slice(None), *region.slices)],
        2,
        block_px=block,
        tolerance_px=1.5,
        least_px=3,
        part_px=part,
    )
    found = score_shapes(counts, ("ground", "spots"), 50)
    predicted = classes_from_percent(percent)
    borders = boundary_f1(boundary_counts(truth, predicted, 2, 1.5))
    assert [interval.value for interval in found.boundary_f1] == pytest.approx(borders.tolist())
    assert found.calibration_error.value == pytest.approx(
        float(calibration_error(calibration_counts(truth, percent)))
    )
    matcher = ObjectMatcher(2, least_px=3)
    matcher.add(truth, predicted)
    assert found.objects[1] == matcher.scores()
    if block < 50:
        assert found.boundary_f1[1].low <= borders[1] <= found.boundary_f1[1].high
        assert found.boundary_f1[1].low < found.boundary_f1[1].high
        assert found.object_f1[1].low < found.object_f1[1].value < found.object_f1[1].high
    summary = found.summary()
    assert summary["object_f1_spots"] == matcher.scores().f1
    assert set(summary) == {
        "calibration_error",
        *(f"{figure}_f1_{name}" for figure in ("boundary", "object") for name in ("ground", "spots")),
    }


def test_nothing_labelled_has_no_figures() -> None:
    def nothing(region: Region) -> np.ndarray:
        return np.zeros(region.size.shape, np.uint8)

    counts = count_shapes(SIZE, nothing, nothing, 2, block_px=16, tolerance_px=1)
    found = score_shapes(counts, ("a", "b"), 5)
    assert np.isnan(found.calibration_error.value)
    assert np.isnan([interval.value for interval in found.boundary_f1]).all()
    assert [scores.true for scores in found.objects] == [0, 0]
