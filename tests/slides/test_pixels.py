"""Whatever a file holds becomes RGB with 8 bits."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histogan.errors import SlideUnreadable
from napari_histogan.slides.pixels import to_rgb

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def test_rgb_stays():
    np.testing.assert_array_equal(to_rgb(RGB, "slide"), RGB)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
def test_gray_is_repeated(shape):
    gray = RGB[..., 0].reshape(shape)
    np.testing.assert_array_equal(to_rgb(gray, "slide"), np.stack([RGB[..., 0]] * 3, axis=-1))


@pytest.mark.parametrize(("alpha", "expected"), [(255, 80), (0, 255), (128, 167)])
def test_alpha_mixes_with_white(alpha, expected):
    pixels = np.full((2, 2, 4), 80, np.uint8)
    pixels[..., 3] = alpha
    assert (to_rgb(pixels, "slide") == expected).all()
    assert (to_rgb(pixels[..., 2:], "slide") == expected).all()


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        (np.uint16, 65535, 255),
        (np.uint16, 256, 1),
        (np.uint32, 2**31, 128),
        (np.float32, 0.5, 128),
        (np.float64, 1, 255),
        (bool, True, 255),
        (bool, False, 0),
    ],
)
def test_types(dtype, value, expected):
    found = to_rgb(np.full((2, 2), value, dtype), "slide")
    assert found.dtype == np.uint8
    assert (found == expected).all()


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((5, 7, 5), np.uint8),
        np.zeros((2, 5, 7, 3), np.uint8),
        np.zeros((5, 7), np.int32),
        np.full((5, 7), 1.5),
        np.zeros((5, 7), complex),
    ],
)
def test_what_is_no_picture_is_refused_by_name(pixels):
    with pytest.raises(SlideUnreadable, match=r"kidney\.tif"):
        to_rgb(pixels, "kidney.tif")
