"""Boundary F1, by hand on small masks."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histogan.evaluation.boundaries import boundary_counts, boundary_f1


def square(top: int, left: int, side: int, shape: tuple[int, int] = (16, 16)) -> np.ndarray:
    mask = np.ones(shape, np.uint8)
    mask[top : top + side, left : left + side] = 2
    return mask


def test_a_mask_fits_itself() -> None:
    mask = square(4, 4, 4)
    counts = boundary_counts(mask, mask, 2, 0)
    assert counts[1].tolist() == [12, 12, 12, 12]  # the rim of 4 x 4 pixels
    assert counts[0].tolist() == [16, 16, 16, 16]  # 4 pixels along each side
    assert boundary_f1(counts).tolist() == [1, 1]


def test_a_shift_counts_unless_it_is_tolerated() -> None:
    truth, predicted = square(4, 4, 4), square(4, 5, 4)
    # Of the 12 pixels, the rims share the 3 upper and 3 lower ones of columns 5 to 7.
    assert boundary_counts(truth, predicted, 2, 0)[1].tolist() == [6, 12, 6, 12]
    assert boundary_f1(boundary_counts(truth, predicted, 2, 0))[1] == pytest.approx(0.5)
    assert boundary_f1(boundary_counts(truth, predicted, 2, 1))[1] == 1


def test_precision_and_recall_are_weighed_alike() -> None:
    counts = np.array([[3, 6, 4, 4], [0, 5, 0, 5], [0, 0, 0, 7], [0, 0, 0, 0]])
    f1 = boundary_f1(counts)
    assert f1[:3].tolist() == pytest.approx([2 * 0.5 * 1 / 1.5, 0, 0])
    assert np.isnan(f1[3])


def test_unlabelled_pixels_have_no_boundary() -> None:
    truth, predicted = square(4, 4, 4), square(4, 4, 4)
    truth[:, :6] = 0
    counts = boundary_counts(truth, predicted, 2, 0)
    assert counts[1].tolist() == [6, 6, 6, 6]  # columns 6 and 7: two rows of 2, and 2 more at the right


def test_parts_with_a_halo_add_up_to_the_picture() -> None:
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, 4, (6, 6)), np.ones((8, 8))).astype(np.uint8)
    predicted = np.roll(truth, 2, axis=1)
    predicted[truth == 0] = 1
    whole = boundary_counts(truth, predicted, 3, 2.5)
    halo = 4
    padded = [np.pad(mask, halo) for mask in (truth, predicted)]
    parts = sum(
        boundary_counts(*(m[y : y + 16 + 2 * halo, x : x + 16 + 2 * halo] for m in padded), 3, 2.5, halo=halo)
        for y in range(0, 48, 16)
        for x in range(0, 48, 16)
    )
    np.testing.assert_array_equal(parts, whole)
