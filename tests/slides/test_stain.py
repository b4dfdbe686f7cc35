"""Stains are separated, combined, and estimated."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histogan.errors import NoTissue
from napari_histogan.geometry import Region
from napari_histogan.slides import stain
from napari_histogan.slides.reader import open_slide


def angle(a, b):
    return np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1)))


def test_optical_density_of_known_light():
    density = stain.optical_density(np.array([255, 25.5, 2.55, 0]))
    np.testing.assert_allclose(density, [0, 1, 2, np.log10(255)], atol=1e-6)
    assert density.dtype == np.float32


@pytest.mark.parametrize("stains", [stain.H_AND_E, stain.H_DAB])
def test_stains_have_unit_length_and_the_residual_is_orthogonal(stains):
    np.testing.assert_allclose(np.linalg.norm(stains, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(stains[2] @ stains[:2].T, 0, atol=1e-6)


@pytest.mark.parametrize("stains", [stain.H_AND_E, stain.H_DAB])
def test_separating_undoes_combining(stains):
    rng = np.random.default_rng(0)
    amounts = rng.uniform(0, 0.8, (20, 30, 3)).astype(np.float32) * (1, 1, 0)
    found = stain.separate(stain.combine(amounts.astype(np.float32), stains), stains)
    np.testing.assert_allclose(found, amounts, atol=0.06)


def test_combining_undoes_separating_on_the_demo_slide(demo_path):
    with open_slide(demo_path) as slide:
        pixels = slide.read(Region(1800, 800, 200, 200))
    again = stain.combine(stain.separate(pixels))
    bright = pixels.min(-1) >= 1
    assert np.abs(again.astype(int) - pixels)[bright].max() <= 1


def test_epidermis_holds_more_hematoxylin_than_dermis(demo_path):
    with open_slide(demo_path) as slide:
        epidermis = stain.separate(slide.read(Region(2000, 1220, 150, 150)))
        dermis = stain.separate(slide.read(Region(2520, 870, 150, 150)))
    assert epidermis[..., 0].mean() > 1.5 * dermis[..., 0].mean()


def test_macenko_finds_the_stains_of_a_made_picture():
    rng = np.random.default_rng(0)
    amounts = np.zeros((100, 100, 3), np.float32)
    amounts[..., 0] = rng.exponential(0.4, (100, 100)) * (rng.random((100, 100)) < 0.6)
    amounts[..., 1] = rng.exponential(0.4, (100, 100))
    found = stain.estimate_stains(stain.combine(amounts), min_density=0.02)
    assert angle(found[0], stain.H_AND_E[0]) < 8
    assert angle(found[1], stain.H_AND_E[1]) < 8


def test_macenko_on_the_demo_slide_is_near_to_the_textbook(demo_path):
    with open_slide(demo_path) as slide:
        found = stain.estimate_stains(slide.read_at(Region(0, 0, 740, 550), 2.0))
    assert angle(found[0], stain.H_AND_E[0]) < 25
    assert angle(found[1], stain.H_AND_E[1]) < 30
    with open_slide(demo_path) as slide:
        amounts = stain.separate(slide.read(Region(2000, 1220, 150, 150)), found)
    assert abs(amounts[..., 2].mean()) < 0.03  # two stains explain the slide


def test_glass_has_no_stains():
    with pytest.raises(NoTissue, match="0 pixels are stained"):
        stain.estimate_stains(np.full((50, 50, 3), 240, np.uint8))


def test_the_colors_of_two_stains_are_told(demo_slide) -> None:
    with open_slide(demo_slide) as slide:
        colors = stain.stain_colors(slide.thumbnail(512))
    assert colors is not None
    (red, _, blue), (red2, green2, _) = (tuple(bytes.fromhex(color[1:])) for color in colors)
    assert blue > red  # hematoxylin
    assert red2 > green2  # eosin


def test_glass_and_a_picture_of_one_color_have_no_stains() -> None:
    assert stain.stain_colors(np.full((40, 40, 3), 250, np.uint8)) is None
    assert stain.stain_colors(np.full((40, 40, 3), 90, np.uint8)) is None
