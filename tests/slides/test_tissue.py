"""Tissue is found on stained and glowing slides, and not on glass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_histogan.errors import NoTissue, SlideHasNoMpp
from napari_histogan.geometry import Region
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.tissue import TissueMask, find_tissue, otsu, tissue_mask

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "wsi"


@pytest.fixture(scope="module")
def demo_mask(demo_path):
    with open_slide(demo_path) as slide:
        return tissue_mask(slide)


def slide_of(tmp_path, picture, mpp=4.0):
    path = tmp_path / "slide.png"
    Image.fromarray(picture.astype(np.uint8)).save(path)
    return open_slide(path, mpp)


class TestDemoSlide:
    def test_its_tissue_takes_a_third(self, demo_mask):
        assert 0.33 < demo_mask.share < 0.42

    # centers of places looked up on the slide, in um from the top left corner
    @pytest.mark.parametrize(("y", "x"), [(900, 440), (1300, 420), (700, 560), (1420, 300)])
    def test_dermis_and_epidermis_are_tissue(self, demo_mask, y, x):
        assert demo_mask.mask[int(y / 8), int(x / 8)]

    @pytest.mark.parametrize(("y", "x"), [(100, 100), (1200, 100), (300, 900), (1000, 1050)])
    def test_glass_is_not(self, demo_mask, y, x):
        assert not demo_mask.mask[int(y / 8), int(x / 8)]

    def test_dust_is_not(self, demo_mask):
        dust = Region(70, 250, 20, 22)
        assert demo_mask.fraction(dust, 8.0) == 0

    def test_the_resolution_changes_little(self, demo_path, demo_mask):
        with open_slide(demo_path) as slide:
            other = tissue_mask(slide, mpp=5.0)
        assert other.mpp == 5.0
        assert other.share == pytest.approx(demo_mask.share, abs=0.04)


class TestOtherSlides:
    def test_clean_glass_has_none(self, tmp_path):
        rng = np.random.default_rng(0)
        glass = 243 + rng.integers(-3, 4, (300, 400, 3))
        with slide_of(tmp_path, glass) as slide, pytest.raises(NoTissue, match=r"0\.00%"):
            tissue_mask(slide)

    def test_a_dark_slide_without_a_signal_has_none(self, tmp_path):
        rng = np.random.default_rng(0)
        with slide_of(tmp_path, rng.integers(0, 4, (300, 400, 3))) as slide, pytest.raises(NoTissue):
            tissue_mask(slide)

    def test_a_slide_full_of_tissue_is_all_tissue(self, demo_path):
        with open_slide(demo_path) as slide:
            dermis = slide.read_at(Region(110, 45, 40, 20), 8.0)
        assert find_tissue(dermis, 8.0).mean() > 0.95

    def test_what_the_scanner_did_not_see_is_not_tissue(self, tmp_path):
        picture = np.full((300, 400, 3), 240)
        picture[:, :100] = 0
        picture[100:200, 200:300] = (200, 120, 170)
        with slide_of(tmp_path, picture) as slide:
            mask = tissue_mask(slide, mpp=4.0).mask
        assert not mask[:, :95].any()
        assert mask[105:195, 205:295].all()

    def test_a_glowing_slide(self, tmp_path):
        rng = np.random.default_rng(0)
        picture = rng.integers(0, 4, (300, 400, 3))
        picture[100:200, 100:300, 0] += rng.integers(12, 40, (100, 200))
        with slide_of(tmp_path, picture) as slide:
            mask = tissue_mask(slide, mpp=4.0).mask
        assert mask[105:195, 105:295].all()
        assert mask.mean() == pytest.approx(100 * 200 / (300 * 400), abs=0.02)

    def test_a_real_fluorescence_slide(self):
        path = SHARED / "test3-TRITC-2-560.ndpi"
        if not path.exists():
            pytest.skip("needs the shared NDPI slide")
        with open_slide(path) as slide:
            assert 0.75 < tissue_mask(slide).share < 0.92

    def test_mpp_is_needed(self, made):
        with open_slide(made["png"]) as slide, pytest.raises(SlideHasNoMpp):
            tissue_mask(slide)


class TestMask:
    @pytest.fixture
    def mask(self):
        cells = np.zeros((10, 20), bool)
        cells[2:6, 5:15] = True
        return TissueMask(cells, 8.0)

    def test_areas(self, mask):
        assert mask.area_um2 == 40 * 64
        assert mask.share == 0.2

    @pytest.mark.parametrize("mpp", [8.0, 1.0, 16.0])
    def test_fraction_in_any_resolution(self, mask, mpp):
        f = 8.0 / mpp
        region = Region(int(2 * f), int(4 * f), int(2 * f), int(4 * f))
        assert mask.fraction(region, mpp) == pytest.approx(0.75)

    def test_fraction_counts_parts_of_pixels(self, mask):
        assert mask.fraction(Region(3 * 8, 5 * 8 - 3, 4, 4), 1.0) == pytest.approx(0.25)

    def test_outside_there_is_none(self, mask):
        assert mask.fraction(Region(0, 0, 20, 40), 8.0) == pytest.approx(40 / 800)
        assert mask.fraction(Region(-30, -30, 10, 10), 8.0) == 0
        assert mask.fraction(Region(3, 3, 0, 4), 8.0) == 0

    def test_fraction_is_the_mean_everywhere(self, mask):
        rng = np.random.default_rng(1)
        for y, x, h, w in rng.integers(1, 6, (30, 4)):
            region = Region(int(y), int(x), int(h), int(w))
            assert mask.fraction(region, 8.0) == pytest.approx(mask.mask[region.slices].mean())

    def test_saved_and_loaded(self, mask, tmp_path):
        mask.save(tmp_path / "tissue.npz")
        again = TissueMask.load(tmp_path / "tissue.npz")
        np.testing.assert_array_equal(again.mask, mask.mask)
        assert again.mpp == 8.0
        assert [p.name for p in tmp_path.iterdir()] == ["tissue.npz"]


def test_otsu_cuts_between_two_groups_and_stays_in_bounds():
    values = np.concatenate([np.full(100, 10.0), np.full(900, 50.0)])
    assert 25 < otsu(values, 0, 100) < 35
    assert otsu(values, 0, 20) == 20
    assert otsu(values, 40, 100) == 40
