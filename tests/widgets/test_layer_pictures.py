"""Layers as pictures and masks: other places, other sizes of pixels, other types of values."""

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_histogan.errors import LabelError
from napari_histogan.widgets.class_colors import heat_colormap
from napari_histogan.widgets.layer_pictures import is_paint, is_picture, paint_over, pixels_of, resolution_of


def test_flat_pictures_and_labels_are_told_from_stacks_and_maps():
    assert is_picture(Image(np.zeros((8, 9, 3), np.uint8), rgb=True))
    assert is_picture(Image([np.zeros((8, 8), np.uint8), np.zeros((4, 4), np.uint8)], multiscale=True))
    assert not is_picture(Image(np.zeros((5, 8, 9), np.uint8)))
    assert not is_picture(Image(np.zeros((8, 9), np.uint8), colormap=heat_colormap("#e69f00")))
    assert is_paint(Labels(np.zeros((8, 9), np.uint8)))
    assert not is_paint(Labels(np.zeros((2, 8, 9), np.uint8)))


def test_paint_is_read_wherever_its_layer_lies():
    picture = Image(np.zeros((40, 60), np.uint8), scale=(0.5, 0.5), translate=(10, 20))
    labels = np.zeros((6, 6), np.uint8)
    labels[1, 2] = 2
    layer = Labels(labels, scale=(1, 1), translate=(12.25, 24.25))  # its pixels span 2 x 2 of the picture
    mask = paint_over(layer, picture)
    assert mask.shape == (40, 60)
    found = np.argwhere(mask == 2)
    assert found.min(axis=0).tolist() == [6, 12]
    assert found.max(axis=0).tolist() == [7, 13]
    assert len(found) == np.count_nonzero(mask) == 4
    same = paint_over(Labels(np.eye(40, 60, dtype=np.int64), scale=(0.5, 0.5), translate=(10, 20)), picture)
    np.testing.assert_array_equal(same, np.eye(40, 60, dtype=np.uint8))


def test_what_cannot_be_laid_over_is_refused():
    picture = Image(np.zeros((4, 4), np.uint8))
    with pytest.raises(LabelError, match="turned"):
        paint_over(Labels(np.zeros((4, 4), np.uint8), rotate=30), picture)
    with pytest.raises(LabelError, match="300"):
        paint_over(Labels(np.full((4, 4), 300)), picture)
    with pytest.raises(LabelError, match="9,000 x 9,000"):
        pixels_of(Image(np.broadcast_to(np.uint8(0), (9_000, 9_000)), contrast_limits=(0, 1)))


def test_gray_of_more_bits_is_taken_as_it_is_shown():
    values = np.array([[100, 300], [200, 500]], np.uint16)
    shown = pixels_of(Image(values, contrast_limits=(100, 300)))
    assert shown.shape == (2, 2, 3)
    assert shown[..., 0].tolist() == [[0, 255], [128, 255]]
    colors = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_array_equal(pixels_of(Image(colors, rgb=True)), colors)


def test_only_lengths_are_resolutions():
    plain = Image(np.zeros((4, 4), np.uint8), scale=(2, 2))
    assert resolution_of(plain) is None
    for unit, expected in (("um", 2.0), ("mm", 2000.0), ("nm", 0.002)):
        layer = Image(np.zeros((4, 4), np.uint8), scale=(2, 2), units=(unit, unit))
        assert resolution_of(layer) == pytest.approx(expected)
