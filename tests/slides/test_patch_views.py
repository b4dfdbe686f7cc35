"""Patches are views: the middle is where it should be, pictures are kept once, and misfits are refused."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histogan.errors import SlideTooSmall, SlideUnreadable
from napari_histogan.slides.patch_views import PatchViews


@pytest.mark.parametrize("side", [32, 64])
def test_a_patch_is_what_lies_around_its_middle(side):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (90, 70 + 9 * k, 2), np.uint8) for k in range(3)]
    views = PatchViews(pictures, side)
    places = np.array([[0, 45, 40], [2, 0, 0], [1, 89, 78], [2, 33, 87]])
    patches = views.gather(places)
    assert patches.shape == (4, 2, side, side)
    half = side // 2
    for patch, (number, y, x) in zip(patches, places, strict=True):
        padded = np.pad(pictures[number], ((side, side), (side, side), (0, 0)), mode="edge")
        assert (patch[:, half, half] == pictures[number][y, x]).all()
        expected = padded[y + side - half : y + side + half, x + side - half : x + side + half]
        assert np.array_equal(patch, expected.transpose(2, 0, 1))


def test_memory_does_not_grow_with_the_number_of_patches():
    pictures = [np.zeros((565, 584, 1), np.uint8)] * 2
    views = PatchViews(pictures, 64)
    copies = 150_000 * 64 * 64
    assert views.nbytes == 2 * (565 + 64) * (584 + 64)
    assert views.nbytes < copies / 500


def test_small_pictures_and_mixed_channels_are_refused_with_the_numbers():
    with pytest.raises(SlideTooSmall, match=r"picture 1 .* 40 x 90 pixels") as error:
        PatchViews([np.zeros((90, 90, 1), np.uint8), np.zeros((40, 90, 1), np.uint8)], 64)
    assert "64 a side" in str(error.value)
    with pytest.raises(SlideUnreadable, match="1 and 3 channels"):
        PatchViews([np.zeros((90, 90, 1), np.uint8), np.zeros((90, 90, 3), np.uint8)], 64)
    with pytest.raises(SlideUnreadable, match="no channels"):
        PatchViews([], 64)
