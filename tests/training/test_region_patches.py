"""Cutting labeled regions into patches: pixels and masks stay together, nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from napari_histogan.errors import LabelError
from napari_histogan.geometry import Region
from napari_histogan.slides.reader import open_slide
from napari_histogan.training.region_patches import cut_region


@pytest.fixture
def slide(tmp_path):
    """A slide whose red channel is the row and whose green channel is the column."""
    rows, columns = np.mgrid[0:200, 0:240]
    picture = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "ramp.png")
    with open_slide(tmp_path / "ramp.png", mpp=1.0) as reader:
        yield reader


def test_patches_hold_the_pixels_that_their_masks_label(slide):
    region = Region(30, 50, 100, 70)
    mask = np.ones((100, 70), np.uint8)
    mask[:40] = 2
    images, masks = cut_region(slide, region, mask, 1.0, patch_px=32, mpp=1.0)
    assert images.shape[1:] == (32, 32, 3)
    assert len(images) == len(masks) > 4
    for image, labels in zip(images, masks, strict=True):
        is_upper = image[..., 0] < 30 + 40
        np.testing.assert_array_equal(labels == 2, is_upper)


def test_every_labelled_pixel_is_in_a_patch(slide):
    region = Region(10, 20, 90, 110)
    images, masks = cut_region(slide, region, np.ones((90, 110), np.uint8), 1.0, 32, 1.0, overlap=0.0)
    seen = {(int(r), int(g)) for r, g in images[masks == 1][:, :2]}
    assert seen == {(y, x) for y in range(10, 100) for x in range(20, 130)}


def test_small_region_gets_one_patch_with_an_unlabelled_rim(slide):
    images, masks = cut_region(slide, Region(60, 60, 8, 8), np.full((8, 8), 3, np.uint8), 1.0, 32, 1.0)
    assert images.shape == (1, 32, 32, 3)
    assert (masks == 3).sum() == 64
    assert (masks == 0).sum() == 32 * 32 - 64
    np.testing.assert_array_equal(images[0][masks[0] == 3][:, 0].min(), 60)


def test_mask_at_another_resolution_is_scaled(slide):
    mask = np.kron(np.array([[1, 2]], np.uint8), np.ones((20, 20), np.uint8))
    _images, masks = cut_region(slide, Region(20, 20, 20, 40), mask, 2.0, 32, 1.0)
    assert set(np.unique(masks)) == {1, 2}
    assert (masks == 1).sum() == (masks == 2).sum()


def test_patches_without_labels_are_left_out(slide):
    mask = np.zeros((96, 96), np.uint8)
    mask[:4, :4] = 1
    _images, masks = cut_region(slide, Region(0, 0, 96, 96), mask, 1.0, 32, 1.0, overlap=0.0)
    assert len(masks) == 1


@pytest.mark.parametrize("shape", [(10, 20), (20, 10)])
def test_mask_of_another_size_is_refused(slide, shape):
    with pytest.raises(LabelError, match="20, 20"):
        cut_region(slide, Region(0, 0, 20, 20), np.ones(shape, np.uint8), 1.0, 32, 1.0)


def test_empty_mask_is_refused(slide):
    with pytest.raises(LabelError, match="nothing is labeled"):
        cut_region(slide, Region(0, 0, 20, 20), np.zeros((20, 20), np.uint8), 1.0, 32, 1.0)
