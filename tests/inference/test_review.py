"""Places and objects of a drawn heatmap come back where they were drawn."""

import numpy as np
import pytest

from napari_histogan.geometry import Region, Size
from napari_histogan.inference.review import least_sure_places, object_rows
from napari_histogan.slides.zarr_pyramid import PyramidWriter, open_pyramid


@pytest.fixture
def heatmap(tmp_path):
    """Two classes on 600 x 900 um: sure, but for one place, and two objects of the second."""
    percent = np.zeros((2, 600, 900), np.uint8)
    percent[0] = 95
    percent[1, 100:200, 100:180] = 90
    percent[1, 400:440, 500:580] = 60
    percent[0][percent[1] > 0] = 5
    percent[:, 480:540, 700:760] = 50
    writer = PyramidWriter(tmp_path / "map.zarr", Size(600, 900), ["a", "b"], mpp=1.0)
    writer.write(Region(0, 0, 600, 900), percent)
    writer.close()
    return open_pyramid(tmp_path / "map.zarr")


def test_the_least_sure_place_comes_first_and_they_lie_apart(heatmap):
    places = least_sure_places(heatmap, apart_um=60)
    y, x, unsure = places[0]
    assert abs(y - 510) < 15
    assert abs(x - 730) < 15
    assert unsure > 0.5
    assert (np.diff(places[:, 2]) <= 0).all()
    gaps = np.hypot(*(places[:, None, :2] - places[None, :, :2]).transpose(2, 0, 1))
    assert gaps[~np.eye(len(places), dtype=bool)].min() >= 60


def test_objects_are_measured(heatmap):
    rows = object_rows(heatmap, 2, 0.55)
    assert len(rows) == 2
    y, x, area, _perimeter, mean, side = rows[0]
    assert (abs(y - 150), abs(x - 140)) < (2, 2)
    assert abs(area - 8000) < 400
    assert abs(mean - 0.9) < 0.02
    assert abs(side - 100) < 4
    assert rows[1, 4] < rows[0, 4]
