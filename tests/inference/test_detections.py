from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely

from napari_histogan.errors import ConfigError
from napari_histogan.geometry import Region, Size
from napari_histogan.inference.detections import (
    DetectionSettings,
    detections_to_annotations,
    find_objects,
    write_table,
)
from napari_histogan.labels.classes import ClassTable
from napari_histogan.slides.zarr_pyramid import PyramidReader, PyramidWriter, open_pyramid

SHARP = DetectionSettings(smooth_um=0, min_area_um2=0, max_hole_um2=0)
CLASSES = ClassTable.from_names(["tissue", "gland"])


def heatmap(path: Path, gland: np.ndarray, mpp: float = 2.0) -> PyramidReader:
    """Write percentages of the second class."""
    writer = PyramidWriter(path / "map.zarr", Size(*gland.shape), CLASSES.names, np.uint8, mpp=mpp)
    for y in range(0, gland.shape[0], 512):
        for x in range(0, gland.shape[1], 512):
            region = Region(y, x, 512, 512).clipped(writer.size)
            part = gland[region.slices]
            writer.write(region, np.stack([100 - part, part]).astype(np.uint8))
    return open_pyramid(path / "map.zarr")


def disk(shape: tuple[int, int], y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2


@pytest.fixture
def random_map(tmp_path: Path) -> PyramidReader:
    """Ragged objects of all sizes, with holes."""
    from scipy import ndimage

    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(300, 260)), 6)
    return heatmap(tmp_path, np.clip(50 + 900 * noise, 0, 100).astype(np.uint8))


def test_a_disk_has_the_figures_of_a_disk(tmp_path: Path) -> None:
    gland = np.where(disk((200, 240), 80, 120, 40), 90, 5)
    (found,) = find_objects(heatmap(tmp_path, gland), 2)
    assert found.area_um2 == pytest.approx(np.pi * 80**2, rel=0.01)
    assert found.perimeter_um == pytest.approx(2 * np.pi * 80, rel=0.03)
    assert found.mean_probability == pytest.approx(0.9, abs=0.01)
    assert (found.centroid_um.y, found.centroid_um.x) == pytest.approx((160, 240), abs=1)
    circle = shapely.Point(120, 80).buffer(40)
    assert found.outline.symmetric_difference(circle).area < 0.03 * circle.area


@pytest.mark.parametrize("settings", [SHARP, DetectionSettings(smooth_um=4, min_area_um2=50)])
def test_the_parts_that_are_read_do_not_show(random_map: PyramidReader, settings: DetectionSettings) -> None:
    whole = find_objects(random_map, 2, settings, part_px=1000)
    assert len(whole) > 5
    for part_px in (64, 50, 97):
        parts = find_objects(random_map, 2, settings, part_px=part_px)
        assert [round(d.area_um2, 6) for d in parts] == [round(d.area_um2, 6) for d in whole]
        for a, b in zip(parts, whole, strict=True):
            assert (a.centroid_um.y, a.centroid_um.x) == pytest.approx((b.centroid_um.y, b.centroid_um.x))
            assert a.mean_probability == pytest.approx(b.mean_probability)
            assert a.perimeter_um == pytest.approx(b.perimeter_um)
            assert a.outline.symmetric_difference(b.outline).area < 1e-6


def test_objects_cover_exactly_the_pixels_above_the_threshold(random_map: PyramidReader) -> None:
    chosen = np.asarray(random_map.levels[0][1]) >= 50
    found = find_objects(random_map, 2, SHARP, part_px=64)
    assert sum(d.area_um2 for d in found) == pytest.approx(chosen.sum() * 4)


def test_a_spiral_through_many_parts_is_one_object(tmp_path: Path) -> None:
    gland = np.zeros((128, 128), np.uint8)
    for k in range(0, 60, 8):  # nested frames, each joined to the next by a bridge
        gland[k : 128 - k, [k, k + 1, 126 - k, 127 - k]] = 100
        gland[[k, k + 1, 126 - k, 127 - k], k : 128 - k] = 100
        gland[64, k : k + 10] = 100
    (found,) = find_objects(heatmap(tmp_path, gland), 2, SHARP, part_px=16)
    assert found.area_um2 == 4 * (gland > 0).sum()


def test_small_objects_are_dropped_and_small_holes_filled(tmp_path: Path) -> None:
    gland = np.where(disk((200, 200), 60, 60, 30), 100, 0)
    gland[disk((200, 200), 60, 60, 4)] = 0
    gland[disk((200, 200), 150, 150, 3)] = 100
    heat = heatmap(tmp_path, gland)
    everything = find_objects(heat, 2, SHARP)
    assert len(everything) == 2
    assert len(everything[0].outline.interiors) == 1
    settings = DetectionSettings(smooth_um=0, min_area_um2=200, max_hole_um2=300)
    (filled,) = find_objects(heat, 2, settings)
    assert not filled.outline.interiors
    assert filled.area_um2 == pytest.approx(4 * disk((200, 200), 60, 60, 30).sum())


def test_outlines_go_to_level_0_and_into_a_table(tmp_path: Path) -> None:
    found = find_objects(heatmap(tmp_path, np.where(disk((200, 240), 80, 120, 40), 90, 5)), 2)
    (annotation,) = detections_to_annotations(found, CLASSES, downsample=4.0)
    assert annotation.class_name == "gland"
    assert annotation.geometry.centroid.coords[0] == pytest.approx((480, 320), abs=2)
    assert annotation.properties["measurements"]["area_um2"] == pytest.approx(found[0].area_um2, abs=0.01)
    write_table(tmp_path / "objects.csv", found, CLASSES)
    with (tmp_path / "objects.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["class"] == "gland"
    assert float(row["perimeter_um"]) == pytest.approx(found[0].perimeter_um, abs=0.01)


def test_an_empty_heatmap_has_no_objects(tmp_path: Path) -> None:
    assert find_objects(heatmap(tmp_path, np.zeros((50, 50))), 2) == []


def test_unknown_classes_and_settings_are_refused(tmp_path: Path) -> None:
    heat = heatmap(tmp_path, np.zeros((20, 20)))
    with pytest.raises(ConfigError, match=r"1 to 2 \(tissue, gland\)"):
        find_objects(heat, 3)
    with pytest.raises(ConfigError, match="threshold"):
        DetectionSettings(threshold=0)


def test_objects_are_finished_as_soon_as_no_part_below_can_touch_them(tmp_path: Path) -> None:
    gland = np.zeros((400, 200), np.uint8)
    gland[disk((400, 200), 40, 60, 20)] = 100
    gland[60:, 150:160] = 100
    seen: list[float] = []
    found = find_objects(heatmap(tmp_path, gland), 2, SHARP, part_px=50, seen=seen.append)
    assert [round(d.area_um2) for d in found] == [4 * disk((400, 200), 40, 60, 20).sum(), 4 * 340 * 10]
    assert seen == pytest.approx(np.arange(1, 33) / 32)


LARGE = """
import json, resource, sys
from pathlib import Path
import numpy as np, zarr
from napari_histogan.geometry import Size
from napari_histogan.inference.detections import find_objects
from napari_histogan.slides.zarr_pyramid import PyramidWriter, open_pyramid

path = Path(sys.argv[1])
PyramidWriter(path, Size(8192, 60_000), ("tissue", "gland"), np.uint8, mpp=0.5).close()
level = zarr.open_array(path / "0", mode="r+")
for x in range(0, 60_000, 6000):
    level[1, 4200:4300, x : x + 6000] = 90  # one object through all columns of parts
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = find_objects(open_pyramid(path), 2, part_px=1024)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"areas": [d.area_um2 for d in found], "mb": (after - before) / 1024}))
"""


def test_memory_does_not_grow_with_the_slide(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LARGE, str(tmp_path / "map.zarr")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    said = json.loads(done.stdout)
    assert said["areas"] == [60_000 * 100 * 0.25]
    assert said["mb"] < 150  # one class of the map alone has 470 MB
