"""Expected calibration error, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histogan.evaluation.calibration import calibration_counts, calibration_error


def test_pixels_are_binned_by_their_highest_probability() -> None:
    truth = np.array([[1, 2, 1, 0, 1, 2]], np.uint8)
    percent = np.array([[[80, 80, 55, 90, 0, 0]], [[20, 20, 45, 10, 0, 100]]], np.uint8)
    counts = calibration_counts(truth, percent)
    assert counts.shape == (10, 3)
    assert counts[8].tolist() == pytest.approx([2, 1.6, 1])
    assert counts[5].tolist() == pytest.approx([1, 0.55, 1])
    assert counts[9].tolist() == pytest.approx([1, 1.0, 1])  # 1 belongs to the last bin
    assert counts[:, 0].sum() == 4  # not the unlabeled one, not the one without prediction
    assert calibration_error(counts) == pytest.approx((0.6 + 0.45 + 0) / 4)


def test_probabilities_that_come_true_have_no_error() -> None:
    truth = np.array([[1] * 7 + [2] * 3], np.uint8)
    percent = np.stack([np.full((1, 10), 70), np.full((1, 10), 30)]).astype(np.uint8)
    assert calibration_error(calibration_counts(truth, percent)) == pytest.approx(0, abs=1e-9)


def test_parts_add_up_and_nothing_has_no_error() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (8, 8)).astype(np.uint8)
    first = rng.integers(0, 101, (8, 8))
    percent = np.stack([first, 100 - first]).astype(np.uint8)
    parts = [calibration_counts(truth[y : y + 4], percent[:, y : y + 4]) for y in (0, 4)]
    np.testing.assert_allclose(parts[0] + parts[1], calibration_counts(truth, percent))
    errors = calibration_error(np.stack([*parts, np.zeros((10, 3))]))
    assert errors.shape == (3,)
    assert np.isnan(errors[2])
