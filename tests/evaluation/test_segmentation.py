from __future__ import annotations

import numpy as np
import pytest

from napari_histogan import metrics
from napari_histogan.errors import LabelError
from napari_histogan.evaluation.segmentation import (
    BlockCounts,
    block_regions,
    classes_from_percent,
    compare,
    count_blocks,
    score,
)
from napari_histogan.geometry import Region, Size

NAMES = ("a", "b", "c")


@pytest.fixture
def truth() -> np.ndarray:
    """Three classes in coarse squares, a part of it unlabeled."""
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(1, 4, (10, 12)), np.ones((10, 10))).astype(np.uint8)
    truth[:25, :25] = 0
    return truth


def blurred(truth: np.ndarray, share: float, seed: int = 1) -> np.ndarray:
    """Replace a share of the pixels by any class."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(truth.shape) < share
    return np.where(wrong, rng.integers(1, 4, truth.shape), np.maximum(truth, 1)).astype(np.uint8)


def counted(truth: np.ndarray, predicted: np.ndarray) -> BlockCounts:
    counts = BlockCounts(3, block_px=16)
    counts.add(truth, predicted)
    return counts


def test_blocks_add_up_to_the_whole(truth: np.ndarray) -> None:
    predicted = blurred(truth, 0.3)
    matrices = counted(truth, predicted).matrices()
    assert np.array_equal(matrices.sum(axis=0), metrics.confusion_matrix(truth, predicted, 3))


def test_parts_of_any_size_give_the_same_blocks(truth: np.ndarray) -> None:
    predicted = blurred(truth, 0.3)
    whole, parts = counted(truth, predicted), BlockCounts(3, block_px=16)
    for y in range(0, 100, 37):
        for x in range(0, 120, 23):
            there = slice(y, y + 37), slice(x, x + 23)
            parts.add(truth[there], predicted[there], (y, x))
    assert parts.places() == whole.places()
    assert np.array_equal(parts.matrices(), whole.matrices())


def test_a_block_counts_its_own_pixels(truth: np.ndarray) -> None:
    predicted = blurred(truth, 0.3)
    counts = counted(truth, predicted)
    for region, matrix in zip(block_regions(counts), counts.matrices(), strict=True):
        inside = region.clipped(Size(*truth.shape)).slices
        assert np.array_equal(matrix, metrics.confusion_matrix(truth[inside], predicted[inside], 3))


def test_unlabelled_and_ignored_pixels_leave_no_block(truth: np.ndarray) -> None:
    counts = BlockCounts(3, block_px=25)
    ignore = np.zeros(truth.shape, bool)
    ignore[:, 25:] = True
    counts.add(truth, truth, ignore=ignore)
    assert (0, 0) not in counts.places()
    assert {column for _, column in counts.places()} == {0}


def test_a_heatmap_read_in_parts_is_scored_as_in_one_piece(truth: np.ndarray) -> None:
    predicted = blurred(truth, 0.3)
    percent = np.stack([np.where(predicted == k, 60, 20) for k in (1, 2, 3)]).astype(np.uint8)
    percent[:, 50:60, 50:60] = 0
    predicted[50:60, 50:60] = 0
    ignore = np.random.default_rng(3).random(truth.shape) < 0.2
    counts = count_blocks(
        Size(*truth.shape),
        lambda region: truth[region.slices],
        lambda region: percent[(slice(None), *region.slices)],
        3,
        16,
        lambda region: ignore[region.slices],
        part_px=30,
    )
    expected = metrics.confusion_matrix(truth, predicted, 3, ignore)
    assert np.array_equal(counts.matrices().sum(axis=0), expected)
    assert expected[1:, 0].sum() > 0


def test_classes_from_percent_marks_what_was_not_predicted() -> None:
    percent = np.array([[[0, 10, 80]], [[0, 90, 20]]], np.uint8)
    assert classes_from_percent(percent).tolist() == [[0, 2, 1]]


def test_scores_hold_the_figures_of_the_whole_inside_their_intervals(truth: np.ndarray) -> None:
    predicted = blurred(truth, 0.4)
    scores = score(counted(truth, predicted).matrices(), NAMES, resamples=200)
    matrix = metrics.confusion_matrix(truth, predicted, 3)
    assert scores.overall["mcc"].value == pytest.approx(float(metrics.multiclass_mcc(matrix)))
    dice = [interval.value for interval in scores.per_class["dice"]]
    np.testing.assert_allclose(dice, metrics.dice(matrix))
    assert scores.overall["mean_dice"].value == pytest.approx(np.mean(dice))
    for interval in [*scores.overall.values(), *scores.per_class["dice"]]:
        assert interval.low < interval.value < interval.high
    assert scores.summary()["dice_b"] == pytest.approx(dice[1])


def test_without_labelled_pixels_there_is_nothing_to_score(truth: np.ndarray) -> None:
    with pytest.raises(LabelError, match="no labeled pixel"):
        score(counted(np.zeros_like(truth), truth).matrices(), NAMES)


def test_the_better_prediction_wins_and_equals_tie(truth: np.ndarray) -> None:
    good, bad = counted(truth, blurred(truth, 0.2)), counted(truth, blurred(truth, 0.5))
    difference = compare(good, bad, resamples=300)["mcc"]
    assert difference.low > 0
    same = compare(good, good, resamples=50)["mcc"]
    assert (same.low, same.value, same.high) == (0, 0, 0)


def test_predictions_with_other_references_are_not_compared(truth: np.ndarray) -> None:
    other = truth.copy()
    other[60:70, 60:70] = 0
    with pytest.raises(LabelError, match="different references"):
        compare(counted(truth, truth), counted(other, truth))


def test_a_class_beyond_the_table_is_refused(truth: np.ndarray) -> None:
    with pytest.raises(LabelError, match=r"class index 4"):
        counted(np.full((5, 5), 4, np.uint8), np.ones((5, 5), np.uint8))


def test_regions_of_blocks_are_in_pixels(truth: np.ndarray) -> None:
    counts = BlockCounts(3, block_px=16)
    counts.add(truth[32:40, 48:50], truth[32:40, 48:50], (32, 48))
    assert list(block_regions(counts)) == [Region(32, 48, 16, 16)]
