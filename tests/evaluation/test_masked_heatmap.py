"""Masked figures of a heatmap are those of its pixels, however it is cut into parts and blocks."""

import numpy as np
import pytest

from napari_histogan.evaluation.masked import masked_counts, score_masked
from napari_histogan.evaluation.masked_heatmap import count_masked, score_masked_counts
from napari_histogan.geometry import Size

MPP = 2.0


@pytest.fixture
def case():
    """Truth with a disc of class 1 in class 2, and a prediction that is a little off and has specks."""
    y, x = np.mgrid[:120, :150]
    truth = np.where((y - 60) ** 2 + (x - 70) ** 2 < 40**2, 1, 2).astype(np.uint8)
    predicted = np.where((y - 57) ** 2 + (x - 74) ** 2 < 38**2, 1, 2)
    for row, column in ((3, 3), (5, 140), (110, 20)):
        predicted[row : row + 2, column : column + 2] = 1
    percent = np.stack([np.where(predicted == k, 80, 20) for k in (1, 2)]).astype(np.uint8)
    return truth, predicted, percent


def score(truth, percent, **how):
    counts = count_masked(
        Size(*truth.shape),
        lambda region: truth[region.slices],
        lambda region: percent[(slice(None), *region.slices)],
        2,
        mpp=MPP,
        **{"within_um": 12.0, "block_px": 16, **how},
    )
    return score_masked_counts(counts, ("disc", "ground"), 100)


@pytest.mark.parametrize("part_px", [2048, 48])
def test_it_agrees_with_the_figures_of_a_whole_picture(case, part_px):
    truth, predicted, percent = case
    whole = score_masked([masked_counts(truth == 1, predicted == 1, MPP, 12.0)], resamples=0)
    found = score(truth, percent, part_px=part_px)
    assert found.iou[0].value == pytest.approx(whole.iou.value)
    assert found.dice[0].value == pytest.approx(whole.dice.value)
    assert found.iou[0].low < found.iou[0].value < found.iou[0].high
    assert found.pieces_per_mm2[0].value == pytest.approx(whole.components_per_mm2.value)
    assert found.summary()["masked_iou_disc"] == found.iou[0].value


@pytest.mark.parametrize("part_px", [16, 32, 48])
def test_pieces_that_cross_the_borders_of_parts_count_once(part_px):
    rng = np.random.default_rng(0)
    truth = np.where(np.arange(150) < 70, 1, 2)[None].repeat(120, 0).astype(np.uint8)
    predicted = np.where(rng.random((120, 150)) < 0.35, 1, 2)
    predicted[10:100, 10:140] = 2
    predicted[12:14, 12:130] = predicted[12:90, 128:130] = predicted[88:90, 40:130] = 1  # a hook over parts
    percent = np.stack([np.where(predicted == k, 80, 20) for k in (1, 2)]).astype(np.uint8)
    found = score(truth, percent, part_px=part_px)
    for k in (1, 2):
        whole = masked_counts(truth == k, predicted == k, MPP, 12.0)
        assert found.pieces_per_mm2[k - 1].value == pytest.approx(whole[3] / whole[4]), k


def test_pixels_without_a_reference_count_nowhere(case):
    truth, _, percent = case
    before = score(truth, percent)
    percent[:, :20] = 50
    truth[:20] = 0
    after = score(truth, percent)
    assert after.pieces_per_mm2[0].value < before.pieces_per_mm2[0].value, "two specks lay there"
    truth[:] = np.where(truth == 2, 0, truth)
    alone = score(truth, percent)
    assert np.isnan(alone.iou[0].value), "a class without another beside it has no boundary"
    truth[:] = 0
    assert np.isnan(score(truth, percent).iou[0].value)
