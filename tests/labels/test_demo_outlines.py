from pathlib import Path

import numpy as np
import pytest
import shapely

import napari_histogan
from napari_histogan.geometry import Region
from napari_histogan.labels.classes import ClassTable
from napari_histogan.labels.geojson import read_properties
from napari_histogan.labels.interchange import rasterize, read_annotations
from napari_histogan.slides.reader import open_slide

DATA = Path(napari_histogan.__file__).parent / "demo_data"
CLASSES = ClassTable.from_names(["epidermis", "dermis", "keratin", "glass"])


@pytest.fixture(scope="module")
def patches():
    return read_annotations(DATA / "real_patches.geojson")


@pytest.mark.parametrize("name", ["reference", "real_patches"])
def test_outlines_are_sound_and_say_who_drew_them(name):
    with open_slide(DATA / "CMU-1-Small-Region.svs") as slide:
        frame = shapely.box(0, 0, slide.size.width, slide.size.height)
    for outline in read_annotations(DATA / f"{name}.geojson"):
        assert outline.geometry.is_valid
        assert outline.geometry.area > 0
        assert frame.covers(outline.geometry)
    facts = read_properties(DATA / f"{name}.geojson")
    assert {"slide", "how", "by", "drawn_on", "order"} <= set(facts)


def test_the_reference_covers_the_slide_with_every_class():
    reference = read_annotations(DATA / "reference.geojson")
    mask = rasterize(reference, Region(0, 0, 742, 555), 4.0, CLASSES)
    share = np.bincount(mask.ravel(), minlength=5) / mask.size
    assert share[0] < 0.05
    assert all(share[1:] > 0.01)
    assert reference[0].class_name == "glass"


def test_each_patch_is_one_frame_of_64_um_apart_from_the_others(patches):
    frames = [a for a in patches if a.class_name == "patch"]
    assert [a.properties["patch"] for a in frames] == list(range(24))
    for frame in frames:
        x0, y0, x1, y1 = frame.geometry.bounds
        assert (x1 - x0, y1 - y0, x0 % 2, y0 % 2) == (128, 128, 0, 0)
    assert shapely.union_all([a.geometry for a in frames]).area == 24 * 128**2


def test_outlines_stay_in_their_patch_and_label_most_of_it(patches):
    frames = {a.properties["patch"]: a.geometry for a in patches if a.class_name == "patch"}
    present = set()
    for number, frame in frames.items():
        own = [a for a in patches if a.properties["patch"] == number and a.class_name != "patch"]
        assert all(frame.covers(a.geometry) for a in own)
        x0, y0, _, _ = (int(v) for v in frame.bounds)
        mask = rasterize(own, Region(y0 // 2, x0 // 2, 64, 64), 2.0, CLASSES)
        assert np.count_nonzero(mask) > 0.4 * mask.size
        present |= set(np.unique(mask).tolist())
    assert present == {0, 1, 2, 3, 4}
