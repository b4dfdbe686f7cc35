from __future__ import annotations

import numpy as np
import pytest

from napari_histogan import metrics

TRUTH = np.array([1, 1, 1, 1, 2, 2, 3, 0])
PREDICTED = np.array([1, 1, 1, 2, 2, 1, 0, 3])
"""Class 1: TP 3, FP 1, FN 1; class 2: TP 1, FP 1, FN 1; class 3: TP 0, FP 0, FN 1 (not predicted)."""


@pytest.fixture
def matrix() -> metrics.Counts:
    return metrics.confusion_matrix(TRUTH, PREDICTED, 3)


def test_counts_leave_out_the_unlabelled(matrix: metrics.Counts) -> None:
    expected = np.zeros((4, 4), int)
    expected[1, 1], expected[1, 2], expected[2, 2], expected[2, 1], expected[3, 0] = 3, 1, 1, 1, 1
    assert np.array_equal(matrix, expected)


def test_ignored_pixels_are_not_counted() -> None:
    ignore = TRUTH == 1
    assert metrics.confusion_matrix(TRUTH, PREDICTED, 3, ignore).sum() == 3


def test_figures_of_each_class_by_hand(matrix: metrics.Counts) -> None:
    np.testing.assert_allclose(metrics.dice(matrix), [6 / 8, 2 / 4, 0])
    np.testing.assert_allclose(metrics.iou(matrix), [3 / 5, 1 / 3, 0])
    np.testing.assert_allclose(metrics.precision(matrix), [3 / 4, 1 / 2, np.nan])
    np.testing.assert_allclose(metrics.recall(matrix), [3 / 4, 1 / 2, 0])
    # Class 1 against the rest: TN = 2, so (3*2 - 1*1) / sqrt(4 * 4 * 3 * 3).
    np.testing.assert_allclose(metrics.class_mcc(matrix), [5 / 12, (1 * 4 - 1) / 10, 0])
    np.testing.assert_allclose(metrics.pixel_accuracy(matrix), 4 / 7)


def test_dice_of_a_rare_class_is_not_the_accuracy() -> None:
    truth, predicted = np.ones(1000, int), np.ones(1000, int)
    truth[:10] = 2
    predicted[:1] = 2
    matrix = metrics.confusion_matrix(truth, predicted, 2)
    np.testing.assert_allclose(metrics.pixel_accuracy(matrix), 0.991)
    np.testing.assert_allclose(metrics.dice(matrix)[1], 2 / 11)


def test_multiclass_mcc_by_hand(matrix: metrics.Counts) -> None:
    # s = 7, c = 4; truth sums (1..3) 4, 2, 1; predicted sums (0..3) 1, 4, 2, 0.
    shared = 4 * 7 - (4 * 4 + 2 * 2)
    expected = shared / np.sqrt((49 - 21) * (49 - 21))
    np.testing.assert_allclose(metrics.multiclass_mcc(matrix), expected)


def test_multiclass_mcc_of_two_classes_is_the_binary_one() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 3, 500)
    predicted = np.where(rng.random(500) < 0.7, truth, 3 - truth)
    matrix = metrics.confusion_matrix(truth, predicted, 2)
    expected = np.corrcoef(truth, predicted)[0, 1]
    np.testing.assert_allclose(metrics.multiclass_mcc(matrix), expected)
    np.testing.assert_allclose(metrics.class_mcc(matrix), [expected, expected])


def test_multiclass_mcc_is_the_correlation_of_one_hot_codes() -> None:
    rng = np.random.default_rng(1)
    truth, predicted = rng.integers(1, 5, 300), rng.integers(1, 5, 300)
    one_hot_truth, one_hot_predicted = np.eye(5)[truth], np.eye(5)[predicted]

    def covariance(a: np.ndarray, b: np.ndarray) -> float:
        return float(((a - a.mean(0)) * (b - b.mean(0))).sum())

    expected = covariance(one_hot_truth, one_hot_predicted) / np.sqrt(
        covariance(one_hot_truth, one_hot_truth) * covariance(one_hot_predicted, one_hot_predicted)
    )
    matrix = metrics.confusion_matrix(truth, predicted, 4)
    np.testing.assert_allclose(metrics.multiclass_mcc(matrix), expected)


def test_a_perfect_and_a_constant_prediction() -> None:
    truth = np.array([1, 2, 3, 1])
    perfect = metrics.confusion_matrix(truth, truth, 3)
    assert metrics.multiclass_mcc(perfect) == pytest.approx(1)
    constant = metrics.confusion_matrix(truth, np.ones_like(truth), 3)
    assert metrics.multiclass_mcc(constant) == 0
    assert np.array_equal(metrics.class_mcc(constant), np.zeros(3))


def test_counts_of_a_large_slide_do_not_overflow() -> None:
    matrix = np.zeros((3, 3), np.int64)
    matrix[1, 1] = matrix[2, 2] = 5 * 10**9
    assert metrics.multiclass_mcc(matrix) == pytest.approx(1)
    np.testing.assert_allclose(metrics.class_mcc(matrix), 1)


def test_leading_axes_are_kept(matrix: metrics.Counts) -> None:
    stack = np.stack([matrix, 2 * matrix])
    assert metrics.dice(stack).shape == (2, 3)
    np.testing.assert_allclose(metrics.multiclass_mcc(stack)[0], metrics.multiclass_mcc(stack)[1])


@pytest.mark.parametrize(
    ("truth", "predicted"), [([1, 2], [1]), ([1, 4], [1, 1]), ([1, 1], [1, 4]), ([1], [-1])]
)
def test_bad_indices_and_shapes_are_refused(truth: list[int], predicted: list[int]) -> None:
    with pytest.raises(ValueError, match=r"shape|does not lie"):
        metrics.confusion_matrix(np.array(truth), np.array(predicted), 3)
