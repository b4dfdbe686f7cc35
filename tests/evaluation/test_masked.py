"""Figures near the boundary against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histogan.errors import LabelError
from napari_histogan.evaluation.masked import count_components, masked_counts, near_boundary, score_masked


def test_pixels_near_the_boundary_are_those_found_by_measuring_every_pair():
    rng = np.random.default_rng(0)
    truth = np.zeros((24, 30), bool)
    truth[5:14, 8:20] = True
    truth[rng.integers(0, 24, 3), rng.integers(0, 30, 3)] ^= True
    y, x = np.mgrid[:24, :30]
    for within_um in (1.0, 2.3, 4.0):
        expected = np.zeros_like(truth)
        for place in np.ndindex(truth.shape):
            other = truth != truth[place]
            nearest = np.hypot(y[other] - place[0], x[other] - place[1]).min()
            expected[place] = (nearest - 0.5) * 0.5 <= within_um
        assert np.array_equal(near_boundary(truth, within_um, 0.5), expected)


def test_distance_is_in_um_and_without_a_boundary_nothing_counts():
    truth = np.zeros((10, 40), bool)
    truth[:, :20] = True
    assert near_boundary(truth, 6.0, 2.0)[0].sum() == 6
    assert near_boundary(truth, 6.0, 1.0)[0].sum() == 12
    assert not near_boundary(np.ones((4, 4), bool), 100.0, 1.0).any()


def test_errors_far_from_the_boundary_do_not_count():
    truth = np.zeros((20, 40), bool)
    truth[:, :20] = True
    predicted = np.roll(truth, 1, axis=1)
    predicted[5, 35] = True
    counts = masked_counts(truth, predicted, 1.0, 5.0)
    assert counts[:3].tolist() == [100, 20, 0]  # five columns on each side of column 20
    everything = masked_counts(truth, predicted, 1.0, np.inf)
    assert everything[:3].tolist() == [380, 21, 20]
    assert counts[3:].tolist() == [2, pytest.approx(800e-6)]


def test_pieces_that_touch_at_a_corner_are_one():
    assert count_components(np.eye(5, dtype=bool)) == 1
    checkers = np.zeros((6, 6), bool)
    checkers[::2, ::2] = True
    assert count_components(checkers) == 9
    assert count_components(np.zeros((3, 3), bool)) == 0


def test_pooled_and_per_image_figures():
    counts = [np.array([80, 20, 0, 2, 0.5]), np.array([10, 0, 10, 4, 0.5]), np.array([0, 0, 0, 0, 1.0])]
    scores = score_masked(counts, resamples=200)
    assert scores.iou.value == pytest.approx(90 / 120)
    assert scores.dice.value == pytest.approx(180 / 210)
    assert scores.components_per_mm2.value == pytest.approx(3)
    assert np.allclose(scores.iou_per_image, [0.8, 0.5, np.nan], equal_nan=True)
    assert scores.mean_iou.value == pytest.approx(0.65)
    assert scores.iou.low <= 0.75 <= scores.iou.high
    assert scores.components_per_image.tolist() == [4, 8, 0]


def test_wrong_input_is_told():
    with pytest.raises(LabelError, match="masks"):
        masked_counts(np.ones((3, 3), bool), np.ones((3, 4), bool), 1.0, 5.0)
    with pytest.raises(LabelError, match="near a boundary"):
        score_masked([np.array([0, 0, 0, 1, 1.0])])
