"""Channels and stains are what their names say, and a prepared slide is read anywhere."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from napari_histogan.errors import ConfigError, SlideError
from napari_histogan.geometry import Region
from napari_histogan.slides import channels
from napari_histogan.slides.channels import Preparation, PreparedReader, field_of_view
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.stain import combine


def test_colors_are_taken_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    for number, name in enumerate(("red", "green", "blue")):
        assert np.array_equal(Preparation(name, clahe=False)(pixels), pixels[..., number : number + 1])
    assert np.array_equal(Preparation("rgb", clahe=False)(pixels), pixels)
    gray = Preparation("gray", clahe=False)(np.full((2, 2, 3), 77, np.uint8))
    assert gray.shape == (2, 2, 1)
    assert (gray == 77).all()


def test_a_stain_shows_itself_and_not_the_other():
    amounts = np.zeros((2, 2, 3), np.float32)
    amounts[0, :, 0], amounts[:, 0, 1] = 0.5, 0.8
    pixels = combine(amounts)
    hematoxylin = Preparation("hematoxylin", clahe=False)(pixels)[..., 0].astype(int)
    eosin = Preparation("eosin", clahe=False)(pixels)[..., 0].astype(int)
    # 255 * 10 ** -0.5 = 81 where there is hematoxylin, whatever eosin there is; 255 * 10 ** -0.8 = 40.
    assert np.abs(hematoxylin - [[81, 81], [255, 255]]).max() <= 4
    assert np.abs(eosin - [[40, 255], [40, 255]]).max() <= 4


def test_contrast_is_equalized_where_light_is_uneven():
    y, x = np.mgrid[:128, :128]
    light = 40 + x  # from dark to bright
    pixels = np.repeat((light - 12 * ((y // 8) % 2))[..., None], 3, axis=2).astype(np.uint8)
    flat = Preparation("green", clahe=True)(pixels)[..., 0].astype(float)

    def local_contrast(values):
        return np.array([values[:, k : k + 16].std(axis=0).mean() for k in range(0, 128, 16)])

    assert local_contrast(flat).min() > 1.5 * local_contrast(pixels[..., 1].astype(float)).max()
    assert Preparation()(pixels).dtype == np.uint8


def test_unknown_channels_and_huge_pictures_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="green"):
        Preparation("purple")
    monkeypatch.setattr(channels, "MAX_EQUALIZED_PX", 100)
    with pytest.raises(SlideError, match="20 x 10"):
        Preparation("green", clahe=True)(np.zeros((20, 10, 3), np.uint8))
    assert Preparation("green", clahe=False)(np.zeros((20, 10, 3), np.uint8)).shape == (20, 10, 1)


@pytest.mark.parametrize("clahe", [False, True])
def test_a_prepared_slide_is_read_anywhere(tmp_path, clahe):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    preparation = Preparation("green", clahe)
    whole = preparation(pixels)[..., 0]
    with open_slide(tmp_path / "a.png", 0.5) as slide:
        reader = PreparedReader(slide, preparation, 0.5)
        part = reader.read_at(Region(10, 20, 5, 6), 0.5)
        assert part.shape == (5, 6, 3)
        assert (part == whole[10:15, 20:26, None]).all()
        over = reader.read_at(Region(-8, 44, 16, 16), 0.5)
        assert (over[..., 0] == np.pad(whole, ((8, 0), (0, 10)), mode="edge")[:16, 44:60]).all()


def test_the_field_of_view_is_the_largest_bright_piece_without_holes():
    y, x = np.mgrid[:100, :120]
    disk = (y - 50) ** 2 + (x - 60) ** 2 < 40**2
    pixels = np.where(disk[..., None], 120, 6).astype(np.uint8).repeat(3, axis=2)[..., :3].copy()
    pixels[45:48, 50:70] = 0  # a dark vessel inside
    pixels[2:9, 2:9] = 200  # a label in the corner
    found = field_of_view(pixels)
    assert (found == disk).mean() > 0.999
    assert found[46, 60]
    assert not found[5, 5]
    assert not field_of_view(np.zeros((30, 30, 3), np.uint8)).any()
