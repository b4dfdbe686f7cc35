"""Regions: clipping, scaling, and grids cover exactly what they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_histogan.geometry import Region, Size, grid, pixels_to_um, um_to_pixels

sizes = st.builds(Size, st.integers(0, 60), st.integers(0, 60))
regions = st.builds(
    Region, st.integers(-30, 60), st.integers(-30, 60), st.integers(0, 60), st.integers(0, 60)
)


@given(regions, sizes)
def test_clipped_region_is_the_intersection_with_the_picture(region, size):
    canvas = np.zeros((200, 200), bool)
    canvas[region.y + 50 : region.y_end + 50, region.x + 50 : region.x_end + 50] = True
    clipped = region.clipped(size)
    inside = canvas[50 : 50 + size.height, 50 : 50 + size.width]
    assert clipped.height * clipped.width == inside.sum()
    assert inside[clipped.slices].all()


@given(sizes, st.integers(1, 17), st.integers(1, 17))
def test_grid_covers_every_pixel_once(size, height, width):
    counts = np.zeros(size.shape, int)
    for cell in grid(size, Size(height, width)):
        counts[cell.slices] += 1
    assert (counts == 1).all()


@given(regions, st.floats(0.1, 4))
def test_scaled_region_covers_the_exact_one(region, factor):
    scaled = region.scaled(factor)
    assert scaled.y <= region.y * factor
    assert scaled.x_end >= region.x_end * factor - 1e-9
    assert scaled.height < region.height * factor + 2


@given(regions, regions)
def test_intersection_is_symmetric_and_containment_implies_it(a, b):
    assert a.intersects(b) == b.intersects(a)
    if a.contains(b) and b.height and b.width:
        assert a.intersects(b)


def test_grown_region_has_the_same_center():
    region = Region(10, 20, 30, 40)
    assert region.grown(5).center == region.center
    assert region.grown(5).size == Size(40, 50)


def test_negative_extents_and_empty_cells_are_refused():
    with pytest.raises(ValueError, match="negative"):
        Size(-1, 3)
    with pytest.raises(ValueError, match="negative"):
        Region(0, 0, 3, -1)
    with pytest.raises(ValueError, match="at least one pixel"):
        next(grid(Size(3, 3), Size(0, 1)))


@given(st.floats(0, 1e6), st.floats(0.05, 50))
def test_microns_and_pixels_convert_back(length, mpp):
    assert um_to_pixels(pixels_to_um(length, mpp), mpp) == pytest.approx(length)
