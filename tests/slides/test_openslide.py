"""Slides with several levels through OpenSlide."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histogan.errors import SlideUnreadable
from napari_histogan.geometry import Region, Size
from napari_histogan.slides.openslide import OpenSlideReader
from napari_histogan.slides.tiff import TiffReader


@pytest.fixture
def both(made):
    with OpenSlideReader(made["pages"], 0.499) as one, TiffReader(made["pages"]) as two:
        yield one, two


def test_levels_are_those_of_the_file(both):
    one, two = both
    assert [info.size for info in one.levels] == [Size(701, 1100), Size(351, 550), Size(176, 275)]
    assert [info.size for info in one.levels] == [info.size for info in two.levels]


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("corner", [(0, 0), (31, 57), (100, 3)])
def test_both_backends_read_the_same_pixels(both, level, corner):
    region = Region(*corner, 64, 96)
    found = [slide.read(region, level) for slide in both]
    if level == 0 or corner == (0, 0):
        np.testing.assert_array_equal(*found)
    # OpenSlide counts corners in pixels of level 0, so odd sizes shift by parts of a pixel
    assert np.abs(found[0].mean((0, 1)) - found[1].mean((0, 1))).max() < 2


def test_the_resolution_of_tags(made):
    with OpenSlideReader(made["pages"]) as slide:
        assert slide.mpp == pytest.approx(0.499, rel=1e-3)


def test_what_it_does_not_know(tmp_path):
    path = tmp_path / "poem.mrxs"
    path.write_text("not a slide")
    with pytest.raises(SlideUnreadable, match=r"poem\.mrxs.*folder beside it"):
        OpenSlideReader(path)
