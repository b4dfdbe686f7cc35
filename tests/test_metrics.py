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


def _pictures(seed: int, low: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, 200, (32, 32, 32, 3)).astype(np.uint8)


def test_sliced_wasserstein_is_zero_for_the_same_set_in_any_order() -> None:
    pictures = _pictures(0)
    assert metrics.sliced_wasserstein(pictures, pictures) == 0
    assert metrics.sliced_wasserstein(pictures, pictures[::-1]) == pytest.approx(0, abs=1e-4)


def test_sliced_wasserstein_grows_with_the_difference() -> None:
    pictures = _pictures(0)
    like = metrics.sliced_wasserstein(pictures, _pictures(1))
    brighter = [metrics.sliced_wasserstein(pictures, _pictures(1) + np.uint8(k)) for k in (20, 50)]
    assert like < brighter[0] < brighter[1]
    blurred = np.repeat(np.repeat(pictures[:, ::2, ::2], 2, axis=1), 2, axis=2)
    assert metrics.sliced_wasserstein(pictures, blurred) > 2 * like


def test_sliced_wasserstein_refuses_sets_of_different_shape() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        metrics.sliced_wasserstein(_pictures(0), _pictures(0)[:5])
